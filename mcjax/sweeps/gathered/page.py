"""index.html and tables.md: the results of a sweep, with a link to every job's report."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from mcjax.core.files import write
from mcjax.report import page
from mcjax.report.html import render
from mcjax.sweeps.gathered import tables
from mcjax.sweeps.gathered.figures import MOST_GROUPS, draw
from mcjax.sweeps.gathered.groups import SEEDS, Group, brief
from mcjax.sweeps.gathered.jobs import GatheredJob, differing
from mcjax.sweeps.gathered.markdown import plain
from mcjax.sweeps.store import count_statuses

WORDS = {
    "a ± b": "mean over three or more seeds (or folds), and the half-width of its 95 % interval by Student's t; "
    "one seed has no interval",
    "a and b": "the numbers of two seeds (or folds), in the order of the runs",
    "n": "how many numbers a mean is taken over; every seed counts once, whether it had its own job "
    "or shared one",
    "bonafide images": "clean labelled images given to a repair",
    "success of the attack": "fraction of the attacked images (images of the target class are left out) that the network "
    "classifies as the attacker wants",
}


def counts(jobs: Sequence[GatheredJob]) -> str:
    """The number of jobs, and how many have each status.

    Example:
        >>> done = GatheredJob("a", "done", Path("a"), {})
        >>> counts([done, done, GatheredJob("b", "missing", Path("b"), {})])
        '3 jobs: 2 done, 1 missing'
    """
    statuses = count_statuses(job.status for job in jobs)
    return f"{len(jobs)} job{'s' if len(jobs) != 1 else ''}: {statuses}"


def remarks(jobs: Sequence[GatheredJob], groups: Sequence[Group]) -> list[str]:
    """Remarks on the jobs that the means are taken over."""
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
    """The first ten items."""
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
        out: The output folder.
        title: The page's title.
        jobs: All jobs.
        groups: The jobs by what they have in common.
        notes: Remarks at the top of the page.
    """
    experiments = []
    for name in dict.fromkeys(group.experiment for group in groups):
        same = [group for group in groups if group.experiment == name]
        experiments.append(
            {
                "name": name,
                "figures": _figures(out / "figures", same),
                "compared": tables.compared(same),
                "groups": [
                    {
                        "name": group.title or "One setting",
                        "jobs": _done_jobs(group),
                        "tables": tables.of_group(group),
                    }
                    for group in same
                ],
            }
        )
    page.write_document(
        out / "index.html",
        "gathered.html",
        title=title,
        counts=counts(jobs),
        notes=notes,
        experiments=experiments,
        jobs=_jobs_table(out, jobs),
        definitions=page.definitions(WORDS.items()),
    )
    write(out / "tables.md", _markdown(title, f"{counts(jobs)}.", notes, experiments))


def _markdown(
    title: str, counts: str, notes: Sequence[str], experiments: Sequence[Mapping[str, Any]]
) -> str:
    lines = [f"# {plain(title)}", counts, *map(plain, notes)]
    for experiment in experiments:
        lines.append(f"## {experiment['name']}")
        lines += [table.markdown for table in experiment["compared"]]
        for group in experiment["groups"]:
            lines += [f"### {plain(group['name'])}", plain(group["jobs"])]
            lines += [table.markdown for table in group["tables"]]
    return "\n\n".join(line.strip() for line in lines) + "\n"


def _figures(folder: Path, groups: Sequence[Group]) -> list[Markup] | None:
    """The figures of an experiment; None for too many groups."""
    if len(groups) > MOST_GROUPS:
        return None
    with np.errstate(invalid="ignore", over="ignore"):  # infinite losses leave gaps
        return draw(folder, groups)


def _done_jobs(group: Group) -> str:
    """Which jobs of a group the means are taken over."""
    done = [job.id for job in group.jobs if job.status == "done"]
    lacking = [f"{job.id} ({job.status})" for job in group.jobs if job.status != "done"]
    words = f"{len(done)} of {len(group.jobs)} jobs done"
    if not lacking:
        return words + "."
    return f"{words}; not in the means: {_some(lacking)}."


def _jobs_table(out: Path, jobs: Sequence[GatheredJob]) -> Markup:
    """Every declared job, with a link to its report if there is one."""
    names = differing(jobs)
    names.sort(key=lambda name: name in SEEDS)
    notes = any(job.note for job in jobs)
    head = ["job", "state", *names, "seconds", *(["last line, or what is wrong"] if notes else [])]
    lines = []
    shown = {name: brief([job.config.get(name, "") for job in jobs]) for name in names}
    for i, job in enumerate(jobs):
        fields = [shown[name][i] for name in names]
        seconds = "" if job.seconds is None else f"{job.seconds:.0f}"
        note = [job.note] if notes else []
        lines.append([_linked(out, job), job.status, *fields, seconds, *note])
    return page.table(head, lines, caption="Every declared job")


def _linked(out: Path, job: GatheredJob) -> str:
    """A job's id, with a link to its report if there is one."""
    report = job.folder / "report.html"
    if not report.exists():
        return job.id
    where = Path(os.path.relpath(report.absolute(), out.absolute())).as_posix()
    return render("link.html", url=quote(os.fsencode(where)), text=job.id)
