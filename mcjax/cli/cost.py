"""Estimates the cost of a sweep on accelerators: counted work, divided by an assumed rate.

    python -m launch.cost --sweep configs/sweeps/backdoor_paper.py
    python -m launch.cost --sweep FILE --accelerator v5e --slices 1 --slices 4 --chip_hour_price 1.2

The bound of a step is its operations divided by the chip's peak, or its bytes divided by the chip's
bandwidth, whichever is larger. A step is expected to take `slowdown` times its bound, plus
`step_seconds`. None of this was measured on an accelerator.
"""

from absl import flags

from mcjax.core.errors import UserError
from mcjax.sweeps import counted_work, declare
from mcjax.sweeps.cost import CHIPS, Assumptions, job_seconds, job_table, slices_table
from mcjax.sweeps.job_config import from_flat


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
