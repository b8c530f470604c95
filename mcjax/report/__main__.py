"""Gathers the runs of a sweep, or any runs, into tidy tables, means with intervals, and one page.

    python -m mcjax.report SWEEP_DIR
    python -m mcjax.report runs/a runs/b --out compared
    python -m mcjax.report runs

Each DIR is a sweep's directory, a run's working directory, or a folder of such. Leaves in DIR/gathered, or in
./gathered where several are given or a run itself, or in --out:

    index.html               tables, figures, and a link to every job's report
    jobs.csv, .parquet       a row each declared job, missing ones too
    rows.csv, .parquet       every row of every table.csv
    means.csv, .parquet      every mean, its 95 % interval and number of seeds
    tables.md, figures/      what index.html shows
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from mcjax.cli import command
from mcjax.core.errors import UserError
from mcjax.core.progress import say
from mcjax.report import groups as grouping
from mcjax.report import index_page, tidy
from mcjax.report.jobs import find
from mcjax.report.records import printable


def define_flags() -> None:
    """The command's flags; defined when it runs, so that the module can be imported freely."""
    flags.DEFINE_string("out", None, "Where everything is left; DIR/gathered unless given.")


def main(*names: str) -> None:
    """Reads the flags and gathers."""
    if not names:
        raise UserError("no directory was given; add a sweep's, a run's, or a folder of runs")
    folders = [Path(name) for name in names]
    out = Path(flags.FLAGS.out) if flags.FLAGS.out else default_out(folders)
    gather(folders, out)


def default_out(folders: Sequence[Path]) -> Path:
    """DIR/gathered; ./gathered for several, and for a run, whose directory is its own."""
    if len(folders) == 1 and not (folders[0] / "config.json").exists():
        return folders[0] / "gathered"
    return Path("gathered")


def gather(folders: Sequence[Path], out: Path) -> None:
    """Reads every job of the folders and writes the tables and the page.

    Args:
        folders: Sweep directories, runs, or folders of them.
        out: Where to; made with its parents. Files of an earlier gathering are overwritten.

    Raises:
        UserError: A folder isn't there or holds no run, or `out` can't be written to.
    """
    jobs, notes = find(folders)
    groups = grouping.of(jobs)
    notes += index_page.remarks(jobs, groups)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"can't write {out}: {error.strerror}; give another --out") from None
    tidy.write_both(out / "jobs", tidy.job_rows(jobs))
    tidy.write_both(out / "rows", tidy.table_rows(jobs), ("id",))
    tidy.write_both(out / "means", grouping.means(groups), ("experiment",))
    title = printable(", ".join(folder.absolute().name for folder in folders))
    index_page.write_index(out, title, jobs, groups, notes)
    for note in notes:
        say(note)
    for job in jobs:
        if job.state == "damaged":
            say(f"{job.id} is damaged: {job.note}")
    say(f"{index_page.counts(jobs)}; left in {out / 'index.html'}")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__, takes_words=True)
