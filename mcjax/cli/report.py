"""Gathers the runs of a sweep, or any runs, in tidy tables, means with intervals, and one page.

    python -m mcjax.report SWEEP_DIR
    python -m mcjax.report runs/a runs/b --out compared
    python -m mcjax.report runs

Each DIR is the folder of a sweep, the working directory of a run, or a folder of them. The output is
written to DIR/gathered (for several DIRs to ./gathered), or to --out. Of a single run, which has its own
report.html, the tables are printed, and nothing is written without --out:

    index.html               tables, figures, and a link to every job's report
    jobs.csv, .parquet       one row per declared job, also missing ones
    rows.csv, .parquet       every row of every table.csv
    means.csv, .parquet      every mean, its 95 % interval and number of seeds
    tables.md, figures/      what index.html shows
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from mcjax.core.errors import UserError
from mcjax.core.progress import say
from mcjax.runs.records import printable
from mcjax.sweeps.gathered import groups as grouping
from mcjax.sweeps.gathered import page, tables, tidy_tables
from mcjax.sweeps.gathered.jobs import find


def define_flags() -> None:
    """Defines the command's flags; not at import, so that the module can be imported freely."""
    flags.DEFINE_string(
        "out", None, "The output folder; DIR/gathered (of several DIRs ./gathered) unless given."
    )


def main(*names: str) -> None:
    """Reads the flags and gathers."""
    if not names:
        raise UserError(
            "no folder was given; add the folder of a sweep, of a run, or of several runs"
        )
    folders = [Path(name) for name in names]
    if not flags.FLAGS.out and len(folders) == 1 and (folders[0] / "config.json").exists():
        show(folders[0])
        return
    out = Path(flags.FLAGS.out) if flags.FLAGS.out else default_out(folders)
    gather(folders, out)


def default_out(folders: Sequence[Path]) -> Path:
    """DIR/gathered; ./gathered for several folders."""
    return folders[0] / "gathered" if len(folders) == 1 else Path("gathered")


def show(folder: Path) -> None:
    """Prints the tables of a single run.

    Args:
        folder: Its working directory.

    Raises:
        UserError: It is not a run.
    """
    jobs, notes = find([folder])
    for group in grouping.of(jobs):
        for table in tables.of_group(group):
            print(table.markdown)
    for note in notes:
        say(note)
    (job,) = jobs
    if job.status == "done":
        say(
            f"its page is {folder / 'report.html'}; add --out FOLDER to write these tables, or more runs to "
            "compare them"
        )
    else:
        say(f"{job.id} is {job.status}: {job.note}")


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
