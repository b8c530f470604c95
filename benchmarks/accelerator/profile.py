"""Where the time of a training step goes: the five kinds of kernels that take most of it."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path

import jax

from benchmarks.accelerator import numbers, ours
from benchmarks.accelerator.record import Row

NETWORKS = ("vgg16", "preresnet26")
MOST = 5


def rows(name: str, done: Set[str], tiny: bool) -> Iterator[Row]:
    """The largest shares of device time in the training steps of a call, in bfloat16.

    Args:
        name: The tiny network's, if tiny.
        done: Names of rows to leave out.
        tiny: One network.

    Yields:
        "kernels" [[name, share]], "busy_seconds" a step, and "steps".
    """
    for which in (name,) if tiny else NETWORKS:
        if f"{which} step" in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            works = ours.prepare(which, Path(folder) / "shapes.json")
            works["step"]("bfloat16")  # compiled before
            with jax.profiler.trace(folder):
                works["step"]("bfloat16")
            (file,) = Path(folder).rglob("*.xplane.pb")
            spent = durations(file)
        total = sum(spent.values())
        yield {
            "name": f"{which} step",
            "network": which,
            "kernels": [[kind, ns / total] for kind, ns in spent.most_common(MOST)],
            "steps": numbers.sizes(which).steps,
            "busy_seconds": total / 1e9 / numbers.sizes(which).steps,
        }


def durations(file: Path) -> Counter[str]:
    """Nanoseconds by kind of kernel, from a profile; those of the device, or of XLA's CPU threads."""
    planes = list(jax.profiler.ProfileData.from_file(str(file)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    spent: Counter[str] = Counter()
    for plane in devices or planes:
        for line in plane.lines:
            if devices and not line.name.startswith("Stream"):
                continue  # other lines sum up the same kernels by module, operation, scope
            if not devices and "XLA" not in line.name and "Eigen" not in line.name:
                continue
            for event in line.events:
                spent[kind(event.name)] += event.duration_ns
    if not spent:
        raise ValueError(f"the profile names no kernel; its planes: {[p.name for p in planes]}")
    return spent


def kind(name: str) -> str:
    """The name of a kernel without numbers and template arguments, so that equal work adds up.

    Example:
        >>> kind("loop_add_fusion.12"), kind("void cudnn::bn_fw<float, 512>(float*)")
        ('loop_add_fusion', 'cudnn::bn_fw')
    """
    name = re.sub(r"^void ", "", name)
    name = re.split(r"[<(]", name)[0]
    return re.sub(r"([._]\d+)+$", "", name)[:60]
