"""Gathers the runs of a sweep, or any runs, in tidy tables, means with intervals, and one page.

    python -m mcjax.report SWEEP_DIR
    python -m mcjax.report runs/a runs/b --out compared
    python -m mcjax.report runs

Each DIR is the folder of a sweep, the working directory of a run, or a folder of them. The output is
written to DIR/gathered (for several DIRs, or for a run, to ./gathered), or to --out:

    index.html               tables, figures, and a link to every job's report
    jobs.csv, .parquet       one row per declared job, also missing ones
    rows.csv, .parquet       every row of every table.csv
    means.csv, .parquet      every mean, its 95 % interval and number of seeds
    tables.md, figures/      what index.html shows
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from mcjax import command
from mcjax.errors import UserError
from mcjax.logs import say
from mcjax.report.gathered import groups as grouping
from mcjax.report.gathered import page, tidy_tables
from mcjax.report.gathered.jobs import find
from mcjax.runs.records import printable


def define_flags() -> None:
    """Defines the command's flags; not at import, so that the module can be imported freely."""
    flags.DEFINE_string("out", None, "The output folder; DIR/gathered unless given.")


def main(*names: str) -> None:
    """Reads the flags and gathers."""
    if not names:
        raise UserError(
            "no folder was given; add the folder of a sweep, of a run, or of several runs"
        )
    folders = [Path(name) for name in names]
    out = Path(flags.FLAGS.out) if flags.FLAGS.out else default_out(folders)
    gather(folders, out)


def default_out(folders: Sequence[Path]) -> Path:
    """DIR/gathered; ./gathered for several folders, and for a run, whose folder is left alone."""
    if len(folders) == 1 and not (folders[0] / "config.json").exists():
        return folders[0] / "gathered"
    return Path("gathered")


def gather(folders: Sequence[Path], out: Path) -> None:
    """Reads every job of the folders and writes the tables and the page.

    Args:
        folders: Sweep directories, runs, or folders of them.
        out: The output folder; created with its parents. Existing files are overwritten.

    Raises:
        UserError: A folder does not exist or contains no run, or `out` cannot be written to.
    """
    jobs, notes = find(folders)
    groups = grouping.of(jobs)
    notes += page.remarks(jobs, groups)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't write {out}: {error.strerror}; give another --out") from None
    tidy_tables.write_both(out / "jobs", tidy_tables.job_rows(jobs))
    tidy_tables.write_both(out / "rows", tidy_tables.table_rows(jobs), ("id",))
    tidy_tables.write_both(out / "means", grouping.means(groups), ("experiment",))
    title = printable(", ".join(folder.absolute().name for folder in folders))
    page.write_index(out, title, jobs, groups, notes)
    for note in notes:
        say(note)
    for job in jobs:
        if job.status == "damaged":
            say(f"{job.id} is damaged: {job.note}")
    say(f"{page.counts(jobs)}; see {out / 'index.html'}")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__, takes_words=True)
