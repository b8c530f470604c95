"""ConvFC of dnn-mode-connectivity: layers numbered in one Sequential."""

from collections.abc import Callable
from typing import Any

from mcjax.interop.layouts.layout import Layout
from mcjax.interop.layouts.shared import GARIPOV, named


def _numbered(names: dict[str, str]) -> Callable[[Any, str], str]:
    return lambda module, layer: names[layer]


def _pooled(height: int, width: int) -> tuple[int, int]:
    for _ in range(3):
        if min(height, width) >= 3:
            height, width = (height - 3) // 2 + 1, (width - 3) // 2 + 1
    return height, width


LAYOUTS = (
    Layout(
        GARIPOV,
        "convfc",
        _numbered(
            {f"conv{i}": f"conv_part.{3 * (i - 1)}" for i in (1, 2, 3)}
            | {f"fc{i}": f"fc_part.{2 * (i - 1)}" for i in (1, 2, 3)}
        ),
        lambda tensors: {},
        logits_fn=named("fc3"),
        flat="fc1",
        features_fn=_pooled,
    ),
    Layout(
        GARIPOV,
        "convfc",
        _numbered(
            {f"conv{i}": f"conv{i}" for i in (1, 2, 3)}
            | {f"fc{i}": f"fc{i + 3}" for i in (1, 2, 3)}
        ),
        lambda tensors: {},
        logits_fn=named("fc3"),
        flat="fc1",
        features_fn=_pooled,
        curve=True,
    ),
)
