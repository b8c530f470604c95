"""What a sweep should cost on accelerators, on paper: counted work over an assumed rate.

    python -m launch.cost --sweep configs/sweeps/backdoor_paper.py
    python -m launch.cost --sweep FILE --accelerator v5e --slices 1 --slices 4 --chip_hour_price 1.2

A step takes `slowdown` times the larger of its operations over the chip's peak and its bytes over the
chip's bandwidth, and `step_seconds` more. Nothing of this was measured on an accelerator: the first
column of hours is a lower bound, the second what we expect.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from launch import jobs, work
from launch.work import Size
from mcjax.cli import command
from mcjax.core.errors import UserError
from mcjax.repair.methods.method import Work


class Chip(NamedTuple):
    """A chip's limits, as its maker states them.

    Attributes:
        operations: bfloat16 operations a second.
        bandwidth: Bytes a second to and from its memory.
        per_slice: Chips of the smallest slice or node.
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
    """What is not counted but assumed; a record.

    Args:
        slowdown: Times the bound that a step takes. 0: 2 for networks without BatchNorm, whose 64
            channels fill half of a matrix unit, and 4 with, which has few channels and many passes
            over memory (docs/performance.md).
        step_seconds: Of every step besides: a program of a hundred or two kernels.
        setup_seconds: Of every job besides: data, compilation, report.
        bytes_per_number: Of activations; 2 with bfloat16.
        chips_a_job: 1, or more with --config.run.data_parallel=True.
    """

    slowdown: float = 0.0
    step_seconds: float = 5e-4
    setup_seconds: float = 600.0
    bytes_per_number: int = 2
    chips_a_job: int = 1


def bound(stage: Work, size: Size, chip: Chip, assumed: Assumptions) -> float:
    """The least seconds of a stage.

        max(images passes operations / peak, bytes / bandwidth) num_steps

    where every activation is written and read once, twice with BatchNorm, and weights are float32.

    Args:
        stage: The stage.
        size: The network's.
        chip: The chip.
        assumed: How many chips share a batch or the points, and the bytes of a number.

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
    """The seconds that we expect: slowdown times the bound, and step_seconds a step."""
    slowdown = assumed.slowdown or (4.0 if size.has_batch_stats else 2.0)
    _, num_steps = _share(stage, assumed.chips_a_job)
    return slowdown * bound(stage, size, chip, assumed) + num_steps * assumed.step_seconds


def _share(stage: Work, chips: int) -> tuple[float, float]:
    """Images a step, and steps, of the busiest chip."""
    if stage.spread == "batch":
        return stage.images / chips, stage.num_steps
    return stage.images, stage.num_steps / (chips if stage.spread == "points" else 1)


def makespan(seconds: Sequence[float], places: int) -> float:
    """When the last job ends: each goes, the longest first, to the place that is free first.

    Args:
        seconds: Of each job.
        places: Jobs that run at once.

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
    """The command's flags; defined when it runs, so that the module can be imported freely."""
    defaults = Assumptions()
    flags.DEFINE_string("sweep", None, "The sweep: a file of configs/sweeps/.")
    flags.DEFINE_enum("accelerator", "v4", list(CHIPS), "The chip.")
    flags.DEFINE_integer("chips", 0, "Chips a slice; the smallest slice's unless given.")
    flags.DEFINE_integer("chips_a_job", defaults.chips_a_job, "Chips that share a job.")
    flags.DEFINE_multi_integer("slices", [1, 2, 3, 6], "Numbers of slices to compare.")
    flags.DEFINE_float("slowdown", defaults.slowdown, "Times the bound; 0: 2, 4 with BatchNorm.")
    flags.DEFINE_float("step_seconds", defaults.step_seconds, "Of every step besides.")
    flags.DEFINE_float("setup_seconds", defaults.setup_seconds, "Of every job besides.")
    flags.DEFINE_boolean("bfloat16", True, "Activations in bfloat16, as with model.bfloat16.")
    flags.DEFINE_float("chip_hour_price", None, "For the bill, in your currency.")


def main() -> None:
    """Reads the flags and prints the tables."""
    f = flags.FLAGS
    if not f.sweep:
        raise UserError("no sweep was given; add --sweep configs/sweeps/NAME.py")
    chip = CHIPS[f.accelerator]
    chips = f.chips or chip.per_slice
    if not 1 <= f.chips_a_job <= chips:
        raise UserError(f"--chips_a_job is {f.chips_a_job}; give 1 to {chips}, a slice's chips")
    if min(f.slices) < 1:
        raise UserError(f"--slices is {min(f.slices)}; give numbers from 1 on")
    assumed = Assumptions(
        slowdown=f.slowdown,
        step_seconds=f.step_seconds,
        setup_seconds=f.setup_seconds,
        bytes_per_number=2 if f.bfloat16 else 4,
        chips_a_job=f.chips_a_job,
    )
    declared = [ConfigDict(nested(job.config)) for job in jobs.load(f.sweep)]
    tables: dict[str, str] = {}
    seconds = []
    for config in declared:
        size = work.size(config)
        table = job_table(config, size, chip, assumed)
        tables.setdefault(table, f"{config.model.name} on {config.data.name}")
        seconds.append(job_seconds(config, size, chip, assumed))
    for table, name in tables.items():
        print(f"A job: {name}, {f.chips_a_job} chip(s) of {f.accelerator}\n\n{table}\n")
    print(f"All {len(declared)} jobs on slices of {chips} chips\n")
    print(slices_table(seconds, f.slices, chips, assumed, f.chip_hour_price))


def nested(config: Mapping[str, Any]) -> dict[str, Any]:
    """A job's config from its flat fields, which can't tell of an empty part.

    Example:
        >>> nested({"model.name": "vgg", "seed": 1})
        {'model': {'options': {}, 'name': 'vgg'}, 'seed': 1}
    """
    tree: dict = {"model": {"options": {}}}
    for name, value in config.items():
        *parts, last = name.split(".")
        node = tree
        for part in parts:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def job_seconds(
    config: ConfigDict, size: Size, chip: Chip, assumed: Assumptions
) -> tuple[float, float]:
    """A job's seconds: the bound, and what we expect with its setup."""
    stages = work.stages(config, has_batch_stats=size.has_batch_stats)
    least = sum(bound(s, size, chip, assumed) for s in stages)
    return least, assumed.setup_seconds + sum(expected(s, size, chip, assumed) for s in stages)


def job_table(config: ConfigDict, size: Size, chip: Chip, assumed: Assumptions) -> str:
    """A line a stage of one job, in Markdown."""
    lines = [
        "| stage | steps | images a step | 1e15 operations | hours, bound | hours, expected |",
        "|---|---|---|---|---|---|",
    ]
    stages = work.stages(config, has_batch_stats=size.has_batch_stats)
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
    """A line a number of slices: hours to the last result, and chip-hours that are paid, in Markdown.

    Slices are paid until the last job ends.
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


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
