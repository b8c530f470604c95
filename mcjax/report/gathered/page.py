"""index.html: what a sweep has found, and a link to every job's own report."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from mcjax.report import page
from mcjax.report.gathered import tables
from mcjax.report.gathered.figures import MOST_GROUPS, draw
from mcjax.report.gathered.groups import SEEDS, Group, text
from mcjax.report.gathered.jobs import GatheredJob, differing
from mcjax.report.markup import Markup, plain
from mcjax.sweeps.store import count_statuses
from mcjax.workdir import write

WORDS = {
    "a ± b": "mean over seeds (and folds), and the half-width of its 95 % interval by Student's t; "
    "one seed has no interval",
    "n": "numbers a mean is of; every seed counts once, whether it stood in a job of its own or "
    "was one of several",
    "bonafide images": "clean labelled images that a repair was given",
    "success of the attack": "fraction of the attacked images (no image whose true class is the target) "
    "on which the network does as the attacker wants",
}


def counts(jobs: Sequence[GatheredJob]) -> str:
    """How many jobs there are, and how many of each state.

    Example:
        >>> done = GatheredJob("a", "done", Path("a"), {})
        >>> counts([done, done, GatheredJob("b", "missing", Path("b"), {})])
        '3 jobs: 2 done, 1 missing'
    """
    statuses = count_statuses(job.status for job in jobs)
    return f"{len(jobs)} job{'s' if len(jobs) != 1 else ''}: {statuses}"


def remarks(jobs: Sequence[GatheredJob], groups: Sequence[Group]) -> list[str]:
    """What a reader of the means should know of what they are made of."""
    lines = []
    for key, words in (("git_revision", "revisions of the code"), ("device_kind", "devices")):
        found = Counter(str(job.where[key]) for job in jobs if key in job.where)
        if len(found) > 1:
            each = ", ".join(f"{name} ({number})" for name, number in sorted(found.items()))
            lines.append(f"The jobs were computed by different {words}: {each}.")
    repeats = sum(group.num_repeats for group in groups)
    if repeats:
        twice = [line for group in groups for line in group.repeats]
        lines.append(
            f"{repeats} rows repeat a seed that is counted already; each seed counts once. "
            f"Left out are rows of {_some(twice)}."
        )
    conflicts = [line for group in groups for line in group.conflicts]
    if conflicts:
        lines.append(f"Of these, other numbers: {_some(conflicts, '; ')}.")
    return lines


def _some(items: Sequence[str], between: str = ", ") -> str:
    """The first ten."""
    more = f" (and {len(items) - 10} more)" if len(items) > 10 else ""
    return between.join(items[:10]) + more


def write_index(
    out: Path,
    title: str,
    jobs: Sequence[GatheredJob],
    groups: Sequence[Group],
    notes: Sequence[str],
) -> None:
    """Writes index.html, tables.md and figures/.

    Args:
        out: Where to.
        title: Of the page.
        jobs: All of them.
        groups: The jobs by what they have in common.
        notes: Remarks that come first.
    """
    head = [Markup("<h1>{}</h1>").format(title), Markup("<p>{}.</p>").format(counts(jobs))]
    head += [Markup("<p>{}</p>").format(note) for note in notes]
    lines = [f"# {plain(title)}", f"{counts(jobs)}.", *map(plain, notes)]
    sections: dict[str, list[Markup]] = {}
    for experiment in dict.fromkeys(group.experiment for group in groups):
        same = [group for group in groups if group.experiment == experiment]
        body = sections[experiment.capitalize()] = _figures(out / "figures", same)
        lines.append(f"## {experiment}")
        side_by_side = tables.compared(same)
        body += [table.html() for table in side_by_side]
        lines += [table.markdown() for table in side_by_side]
        for group in same:
            name, of = group.title or "All jobs", _of(group)
            body.append(Markup("<h3>{}</h3><p>{}</p>").format(name, of))
            lines += [f"### {plain(name)}", plain(of)]
            own = tables.of_group(group)
            body += [table.html() for table in own]
            lines += [table.markdown() for table in own]
    sections["All jobs"] = [_jobs_table(out, jobs)]
    sections["What the words mean"] = [page.definitions(WORDS.items())]
    write(out / "index.html", page.document(title, [*head, *page.parts(sections)]))
    write(out / "tables.md", "\n\n".join(line.strip() for line in lines) + "\n")


def _figures(folder: Path, groups: Sequence[Group]) -> list[Markup]:
    if len(groups) <= MOST_GROUPS:
        with np.errstate(invalid="ignore", over="ignore"):  # infinite losses leave gaps
            return draw(folder, groups)
    return [
        Markup(
            "<p>{} settings are too many for figures; all means are in <code>means.csv</code>.</p>"
        ).format(len(groups))
    ]


def _of(group: Group) -> str:
    """Which of a group's jobs the means are of."""
    done = [job.id for job in group.jobs if job.status == "done"]
    lacking = [f"{job.id} ({job.status})" for job in group.jobs if job.status != "done"]
    words = f"{len(done)} of {len(group.jobs)} jobs done"
    if not lacking:
        return words + "."
    return f"{words}; not in the means: {_some(lacking)}."


def _jobs_table(out: Path, jobs: Sequence[GatheredJob]) -> Markup:
    """Every declared job, with a link to its report where it has one."""
    names = differing(jobs)
    names.sort(key=lambda name: name in SEEDS)
    head = ["job", "state", *names, "seconds", "last line, or what is wrong"]
    lines = []
    for job in jobs:
        fields = [text(job.config.get(name, "")) for name in names]
        seconds = "" if job.seconds is None else f"{job.seconds:.0f}"
        lines.append([_linked(out, job), job.status, *fields, seconds, job.note])
    return page.table(head, lines, caption="Every declared job")


def _linked(out: Path, job: GatheredJob) -> Markup:
    report = job.folder / "report.html"
    if not report.exists():
        return Markup("{}").format(job.id)
    where = Path(os.path.relpath(report.absolute(), out.absolute())).as_posix()
    return Markup('<a href="{}">{}</a>').format(quote(os.fsencode(where)), job.id)
