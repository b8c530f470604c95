"""The time of a sweep on accelerators: counted work, divided by an assumed rate."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from mcjax.repair.methods.method import Work
from mcjax.sweeps import counted_work
from mcjax.sweeps.counted_work import Size


class Chip(NamedTuple):
    """A chip's limits, from its data sheet.

    Attributes:
        operations: bfloat16 operations per second.
        bandwidth: Memory bandwidth in bytes per second.
        per_slice: Chips in the smallest slice or node.
    """

    operations: float
    bandwidth: float
    per_slice: int


CHIPS = {  # docs.cloud.google.com/tpu/docs/v4, /v5e; H100 SXM: NVIDIA's data sheet, without sparsity
    "v4": Chip(275e12, 1.2e12, 4),
    "v5e": Chip(197e12, 0.82e12, 8),
    "h100": Chip(989e12, 3.35e12, 1),
}


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What is assumed, not counted.

    Args:
        slowdown: Time of a step as a multiple of its bound. 0 means 2 for networks without BatchNorm,
            whose 64 channels fill half of a matrix unit, and 4 for networks with BatchNorm, which
            have few channels and many passes over memory (docs/performance.md).
        step_seconds: Added to every step: the launch of one or two hundred kernels.
        setup_seconds: Added to every job: data, compilation, report.
        bytes_per_number: Bytes of an activation; 2 with bfloat16.
        chips_a_job: 1, or more with --config.run.data_parallel=True.
    """

    slowdown: float = 0.0
    step_seconds: float = 5e-4
    setup_seconds: float = 600.0
    bytes_per_number: int = 2
    chips_a_job: int = 1


def bound(stage: Work, size: Size, chip: Chip, assumed: Assumptions) -> float:
    """A lower bound on the seconds of a stage.

        max(images passes operations / peak, bytes / bandwidth) num_steps

    where every activation is written and read once (twice with BatchNorm), and weights are float32.

    Args:
        stage: The stage.
        size: The network's size.
        chip: The chip.
        assumed: How many chips share a batch or the points, and the bytes per activation.

    Returns:
        Seconds.

    Example:
        >>> stage = Work("train", 10, 100, 3, 8, "batch")
        >>> size = Size(operations=1e9, activations=1e6, parameters=1e6, has_batch_stats=False)
        >>> bound(stage, size, Chip(1e12, 1e12, 4), Assumptions())  # 10 * 100 * 3 * 1e9 / 1e12
        3.0
    """
    images, num_steps = _share(stage, assumed.chips_a_job)
    moved = 2 * assumed.bytes_per_number * size.activations * (2 if size.has_batch_stats else 1)
    num_bytes = images * stage.passes * moved + stage.weight_passes * 4 * size.parameters
    operations = images * stage.passes * size.operations
    return num_steps * max(operations / chip.operations, num_bytes / chip.bandwidth)


def expected(stage: Work, size: Size, chip: Chip, assumed: Assumptions) -> float:
    """The expected seconds of a stage: slowdown times the bound, plus step_seconds per step."""
    slowdown = assumed.slowdown or (4.0 if size.has_batch_stats else 2.0)
    _, num_steps = _share(stage, assumed.chips_a_job)
    return slowdown * bound(stage, size, chip, assumed) + num_steps * assumed.step_seconds


def _share(stage: Work, chips: int) -> tuple[float, float]:
    """Images per step and number of steps, of the busiest chip."""
    if stage.spread == "batch":
        return stage.images / chips, stage.num_steps
    return stage.images, stage.num_steps / (chips if stage.spread == "points" else 1)


def makespan(seconds: Sequence[float], places: int) -> float:
    """When the last job ends, if jobs start in order of length, the longest first.

    Args:
        seconds: Seconds of each job.
        places: How many jobs run at once.

    Returns:
        Seconds.

    Example:
        >>> makespan([3.0, 2.0, 2.0, 1.0], 2)
        4.0
    """
    busy = [0.0] * places
    for job in sorted(seconds, reverse=True):
        i = busy.index(min(busy))
        busy[i] += job
    return max(busy)


def job_seconds(
    config: ConfigDict, size: Size, chip: Chip, assumed: Assumptions
) -> tuple[float, float]:
    """A job's seconds: the bound, and the expected time with its setup."""
    stages = counted_work.stages(config, has_batch_stats=size.has_batch_stats)
    least = sum(bound(s, size, chip, assumed) for s in stages)
    return least, assumed.setup_seconds + sum(expected(s, size, chip, assumed) for s in stages)


def job_table(config: ConfigDict, size: Size, chip: Chip, assumed: Assumptions) -> str:
    """One line per stage of a job, in Markdown."""
    lines = [
        "| stage | steps | images per step | 1e15 operations | hours, bound | hours, expected |",
        "|---|---|---|---|---|---|",
    ]
    stages = counted_work.stages(config, has_batch_stats=size.has_batch_stats)
    for s in stages:
        operations = s.num_steps * s.images * s.passes * size.operations
        least, likely = bound(s, size, chip, assumed), expected(s, size, chip, assumed)
        lines.append(
            f"| {s.name} | {math.ceil(s.num_steps):,} | {round(s.images):,} "
            f"| {operations / 1e15:.3g} | {least / 3600:.3f} | {likely / 3600:.3f} |"
        )
    total = sum(s.num_steps * s.images * s.passes for s in stages) * size.operations
    least, likely = job_seconds(config, size, chip, assumed)
    lines.append(
        f"| a job, with {assumed.setup_seconds:.0f} s of setup | | | {total / 1e15:.3g} "
        f"| {least / 3600:.2f} | {likely / 3600:.2f} |"
    )
    return "\n".join(lines)


def slices_table(
    seconds: Sequence[tuple[float, float]],
    slices: Sequence[int],
    chips: int,
    assumed: Assumptions,
    price: float | None,
) -> str:
    """One line per number of slices: hours until the last result, and chip-hours paid, in Markdown.

    All slices are paid until the last job ends.
    """
    lines = [
        "| slices | jobs at once | hours, bound | hours, expected | chip-hours, expected |"
        + (" price |" if price is not None else ""),
        "|---|---|---|---|---|" + ("---|" if price is not None else ""),
    ]
    for number in slices:
        places = number * (chips // assumed.chips_a_job)
        least = makespan([s[0] for s in seconds], places) / 3600
        likely = makespan([s[1] for s in seconds], places) / 3600
        paid = likely * number * chips
        bill = f" {paid * price:.2f} |" if price is not None else ""
        lines.append(f"| {number} | {places} | {least:.2f} | {likely:.2f} | {paid:.1f} |{bill}")
    return "\n".join(lines)
