"""Groups jobs that differ only in their seed, and takes their means."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mcjax.repair.paths import shown_path
from mcjax.report.means import SEED, Row, grouped, mean
from mcjax.runs.config import deciding
from mcjax.sweeps.gathered.jobs import GatheredJob, differing

# Fields in which the jobs of a group may differ: seeds, over which means are taken, and fields that
# only decide which rows table.csv has.
SEEDS = ("seed", "seeds")
ROWS = ("repair.sizes", "repair.methods", "pairs", "robust_path.pairs")

ABOUT = ("method", "bonafide", "path")  # columns that say what a row of table.csv is about
SUCCESS = ("attack_success_rate", "injection_success")


@dataclasses.dataclass(frozen=True)
class Group:
    """Jobs that differ only in their seed.

    Args:
        experiment: Their experiment.
        fields: The fields that distinguish this group from others of the experiment.
        jobs: All of them, whatever their status.
        rows: The rows to average: those of the tables of jobs that are done, each seed once. The row
            of a run without rows per method or path ("connect") is its metrics.
        num_repeats: How many rows were left out because their seed was counted already.
        repeats: The jobs of these rows, and the jobs that were counted instead, in words.
        conflicts: The left-out rows that have other numbers, in words.
        labels: The fields' values as the title shows them.
    """

    experiment: str
    fields: dict[str, Any]
    jobs: list[GatheredJob]
    rows: list[Row]
    num_repeats: int
    repeats: list[str]
    conflicts: list[str]
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """The fields in words; paths by their last part, if that tells the groups apart."""
        return ", ".join(
            f"{name} = {self.labels.get(name, text(value))}" for name, value in self.fields.items()
        )

    @property
    def measure(self) -> str | None:
        """The column of the success rate; None without one."""
        return next((name for name in SUCCESS if any(name in row for row in self.rows)), None)

    @property
    def path_rows(self) -> list[Row]:
        """The rows of the path that the figures are about, at its chosen t; [] without a path."""
        name = shown_path(str(row.get("method", "")) for row in self.rows)
        return [row for row in self.rows if row.get("method") == name]

    @property
    def quantities(self) -> list[str]:
        """The columns to average: all numbers except ABOUT, SEED and the ends of intervals."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        ends = {f"{name}_{end}" for name in names for end in ("low", "high")}
        numeric = {
            name
            for name in names
            if all(isinstance(row.get(name), int | float | None) for row in self.rows)
        }
        return [n for n in names if n in numeric and n not in {*ABOUT, *SEED, *ends}]


def text(value: Any) -> str:
    """A config's value as text.

    Example:
        >>> text("square"), text([2500, 50]), text(0.1)
        ('square', '[2500, 50]', '0.1')
    """
    return value if isinstance(value, str) else json.dumps(value)


def brief(values: Sequence[Any]) -> list[str]:
    """Values as text, paths by their last part, unless two would then look alike.

    Example:
        >>> brief(["npz:/long/way/to/mine.npz", "digits"]), brief(["/a/x", "/b/x"])
        (['npz:mine.npz', 'digits'], ['/a/x', '/b/x'])
    """
    whole = [text(value) for value in values]
    short = [re.sub(r"^(\w*:)?.*/(?=[^/]+$)", r"\1", one) for one in whole]
    return short if len(set(short)) == len(set(whole)) else whole


def of(jobs: Sequence[GatheredJob]) -> list[Group]:
    """Groups jobs, in the order of their first appearance, one experiment after another.

    Args:
        jobs: Any jobs; jobs whose config cannot be read are in no group.

    Returns:
        The groups, also those without a job that is done.
    """
    groups = []
    for experiment in dict.fromkeys(job.experiment for job in jobs if job.config):
        same = [job for job in jobs if job.config and job.experiment == experiment]
        names = [n for n in deciding(dict.fromkeys(differing(same))) if n not in (*SEEDS, *ROWS)]
        found: dict[str, list[GatheredJob]] = {}
        for job in same:
            found.setdefault(json.dumps([field(job, n) for n in names]), []).append(job)
        shown = {n: brief([field(members[0], n) for members in found.values()]) for n in names}
        for i, members in enumerate(found.values()):
            own = {n: field(members[0], n) for n in names if n in members[0].config}
            labels = {n: shown[n][i] for n in own}
            groups.append(dataclasses.replace(_group(own, members), labels=labels))
    return groups


def field(job: GatheredJob, name: str) -> Any:
    """A field of a job's config; None where its experiment has no such field."""
    return job.config.get(name)


def _group(fields: dict[str, Any], jobs: list[GatheredJob]) -> Group:
    counted: dict[tuple[Any, ...], tuple[GatheredJob, Row]] = {}
    num_repeats, conflicts, repeats = 0, [], dict[str, None]()
    for job in jobs:
        for row in averaged(job):
            key = tuple(row.get(name) for name in (*ABOUT, *SEED))
            first, same = counted.setdefault(key, (job, row))
            if same is row:
                continue
            num_repeats += 1
            repeats[f"{job.id} (of {first.id})"] = None
            if repr(same) != repr(row):  # as text: NaN does not conflict with NaN
                names = (n for n in (*ABOUT, *SEED) if row.get(n) is not None)
                what = ", ".join(f"{name} {row[name]}" for name in names)
                conflicts.append(f"{what}: the numbers of {first.id} count, not those of {job.id}")
    rows = [row for _, row in counted.values()]
    return Group(jobs[0].experiment, fields, jobs, rows, num_repeats, list(repeats), conflicts)


def averaged(job: GatheredJob) -> list[Row]:
    """The rows of a job to average, each with its seed."""
    seed = {"seed": job.config.get("seed")}
    if any(name in row for row in job.rows for name in (*SUCCESS, "path")):
        return [{**seed, **row} for row in job.rows]
    numbers = {name: value for name, value in job.metrics.items() if name not in (*ABOUT, *SEED)}
    return [{**seed, **numbers}] if job.result else []


def means(groups: Sequence[Group]) -> list[Row]:
    """One row per mean of every group, with its interval and the number of seeds.

    Args:
        groups: The groups.

    Returns:
        Rows with "experiment", the group's fields as "config.NAME", the columns ABOUT, "quantity",
        "mean", "interval" (None for a single number), "num", "num_seeds".
    """
    rows = []
    for group in groups:
        fields = {f"config.{name}": value for name, value in group.fields.items()}
        quantities = group.quantities
        for key, same in grouped(group.rows, ABOUT).items():
            about = dict(zip(ABOUT, key, strict=True))
            for quantity in quantities:
                found = mean(same, quantity)
                if found is None:
                    continue
                rows.append(
                    {
                        "experiment": group.experiment,
                        **fields,
                        **about,
                        "quantity": quantity,
                        "mean": found.value,
                        "interval": None if found.num == 1 else found.half,
                        "num": found.num,
                        "num_seeds": found.num_seeds,
                    }
                )
    return rows
