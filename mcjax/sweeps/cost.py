"""Estimates the cost of a sweep on accelerators: counted work, divided by an assumed rate.

    python -m launch.cost --sweep configs/sweeps/backdoor_paper.py
    python -m launch.cost --sweep FILE --accelerator v5e --slices 1 --slices 4 --chip_hour_price 1.2

The bound of a step is its operations divided by the chip's peak, or its bytes divided by the chip's
bandwidth, whichever is larger. A step is expected to take `slowdown` times its bound, plus
`step_seconds`. None of this was measured on an accelerator.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict

from mcjax.errors import UserError
from mcjax.sweeps import counted_work, declare
from mcjax.sweeps.counted_work import Size, Stage
from mcjax.sweeps.job_config import from_flat


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


def bound(stage: Stage, size: Size, chip: Chip, assumed: Assumptions) -> float:
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
        >>> stage = Stage("train", 10, 100, 3, 8, "batch")
        >>> size = Size(operations=1e9, activations=1e6, parameters=1e6, has_batch_stats=False)
        >>> bound(stage, size, Chip(1e12, 1e12, 4), Assumptions())  # 10 * 100 * 3 * 1e9 / 1e12
        3.0
    """
    images, num_steps = _share(stage, assumed.chips_a_job)
    moved = 2 * assumed.bytes_per_number * size.activations * (2 if size.has_batch_stats else 1)
    num_bytes = images * stage.passes * moved + stage.weight_passes * 4 * size.parameters
    operations = images * stage.passes * size.operations
    return num_steps * max(operations / chip.operations, num_bytes / chip.bandwidth)


def expected(stage: Stage, size: Size, chip: Chip, assumed: Assumptions) -> float:
    """The expected seconds of a stage: slowdown times the bound, plus step_seconds per step."""
    slowdown = assumed.slowdown or (4.0 if size.has_batch_stats else 2.0)
    _, num_steps = _share(stage, assumed.chips_a_job)
    return slowdown * bound(stage, size, chip, assumed) + num_steps * assumed.step_seconds


def _share(stage: Stage, chips: int) -> tuple[float, float]:
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


def define_flags() -> None:
    """Defines the command's flags; not at import, so that the module can be imported freely."""
    defaults = Assumptions()
    flags.DEFINE_string("sweep", None, "The sweep: a file, or a name in configs/sweeps/.")
    flags.DEFINE_enum("accelerator", "v4", list(CHIPS), "The chip.")
    flags.DEFINE_integer("chips", 0, "Chips per slice; those of the smallest slice unless given.")
    flags.DEFINE_integer("chips_a_job", defaults.chips_a_job, "Chips that share a job.")
    flags.DEFINE_multi_integer("slices", [1, 2, 3, 6], "Numbers of slices to compare.")
    flags.DEFINE_float(
        "slowdown", defaults.slowdown, "Multiple of the bound; 0: 2, or 4 with BatchNorm."
    )
    flags.DEFINE_float("step_seconds", defaults.step_seconds, "Seconds added to every step.")
    flags.DEFINE_float("setup_seconds", defaults.setup_seconds, "Seconds added to every job.")
    flags.DEFINE_boolean("bfloat16", True, "Activations in bfloat16, as with model.bfloat16.")
    flags.DEFINE_float("chip_hour_price", None, "Price of a chip-hour, in any currency.")


def main() -> None:
    """Reads the flags and prints the tables."""
    f = flags.FLAGS
    if not f.sweep:
        raise UserError("no sweep was given; add --sweep configs/sweeps/NAME.py")
    chip = CHIPS[f.accelerator]
    chips = f.chips or chip.per_slice
    if not 1 <= f.chips_a_job <= chips:
        raise UserError(
            f"--chips_a_job is {f.chips_a_job}; it must be 1 to {chips}, the chips of a slice"
        )
    if min(f.slices) < 1:
        raise UserError(f"--slices is {min(f.slices)}; it must be at least 1")
    assumed = Assumptions(
        slowdown=f.slowdown,
        step_seconds=f.step_seconds,
        setup_seconds=f.setup_seconds,
        bytes_per_number=2 if f.bfloat16 else 4,
        chips_a_job=f.chips_a_job,
    )
    declared = [from_flat(job.config) for job in declare.load(f.sweep)]
    tables: dict[str, str] = {}
    seconds = []
    for config in declared:
        size = counted_work.size(config)
        table = job_table(config, size, chip, assumed)
        tables.setdefault(table, f"{config.model.name} on {config.data.name}")
        seconds.append(job_seconds(config, size, chip, assumed))
    for table, name in tables.items():
        print(f"A job: {name}, {f.chips_a_job} chip(s) of {f.accelerator}\n\n{table}\n")
    print(f"All {len(declared)} jobs on slices of {chips} chips\n")
    print(slices_table(seconds, f.slices, chips, assumed, f.chip_hour_price))


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
