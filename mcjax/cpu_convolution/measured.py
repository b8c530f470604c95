"""Ways of single layers that `python -m benchmarks.ways --write` has measured on this machine.

They take precedence over the thresholds of `choice`, in programs with compiled convolutions.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path

from mcjax.cpu_convolution import build


def key(kind: str, size: tuple[int, ...], weights: tuple[int, ...], stride: tuple[int, ...]) -> str:
    """A layer's entry, such as "forward 32x32 3x3x16x16 /1x1".

    Args:
        kind: "forward" or "dw"; d/dx is a forward convolution of its own.
        size: Output pixels (h, w).
        weights: Shape [kh, kw, i, o].
        stride: Of the convolution.
    """
    pixels, shape, step = ("x".join(map(str, z)) for z in (size, weights, stride))
    return f"{kind} {pixels} {shape} /{step}"


@functools.cache
def ways() -> Mapping[str, str]:
    """{key: way}; empty if nothing was measured here with this version of the compiled code."""
    try:
        kept = json.loads(_file().read_text())
        return kept["ways"] if kept["machine"] == build.key() else {}
    except (OSError, ValueError, KeyError, TypeError, build.NotBuilt):
        return {}


def write(measured: Mapping[str, str]) -> Path:
    """Keeps measured ways, beside those of other layers; returns the file.

    Args:
        measured: {key: way}.
    """
    kept = {**ways(), **measured}
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"machine": build.key(), "ways": kept}, indent=1) + "\n")
    ways.cache_clear()
    return file


def _file() -> Path:
    return build.cache_folder() / "ways.json"
