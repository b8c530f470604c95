"""The tables of the page: method by bonafide size as in the paper, paths, and settings."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from mcjax.report import page
from mcjax.report.means import SEED, Mean, Row, grouped, mean
from mcjax.sweeps.gathered.groups import Group
from mcjax.sweeps.gathered.markdown import plain

BOTH = "clean accuracy / success of the attack"
CONNECT = (
    "start_test_accuracy",
    "end_test_accuracy",
    "curve_worst_test_accuracy",
    "line_worst_test_accuracy",
    "curve_train_loss_barrier",
    "line_train_loss_barrier",
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of means.

    Args:
        title: What it shows, and over how many seeds.
        head: Names of the columns.
        rows: Cells as text.
    """

    title: str
    head: list[str]
    rows: list[list[str]]

    @property
    def html(self) -> Markup:
        """The table as a part of a page."""
        whole = [[cell.replace(" ± ", "\u00a0±\u00a0") for cell in row] for row in self.rows]
        return page.table(self.head, whole, caption=self.title)

    @property
    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        bars = ["| " + " | ".join(map(plain, line)) + " |" for line in lines]
        return f"{plain(self.title)}\n\n" + "\n".join(bars) + "\n"


def of_group(group: Group) -> list[Table]:
    """The tables of a group, in the layout of its experiment.

    Args:
        group: A group; a group without a job that is done has no tables.

    Returns:
        For repairs: networks, method by bonafide size, and the chosen t. For robustness along paths:
        one column per path. Otherwise: a list of numbers.
    """
    if not group.rows:
        return []
    if group.measure is not None:
        return _repair(group, ("clean_accuracy", group.measure))
    columns = grouped(group.rows, ("path",))
    names = [str(path) if path else "mean" for (path,) in columns]
    cells = [[[mean(rows, quantity)] for rows in columns.values()] for quantity in group.quantities]
    labels = [quantity.replace("_", " ") for quantity in group.quantities]
    return [_table("Means", "quantity", names, labels, cells)]


def compared(groups: Sequence[Group]) -> list[Table]:
    """Compares the groups of one experiment, one row per group.

    Args:
        groups: Groups of one experiment.

    Returns:
        The chosen point of the path by bonafide size (repairs), or the main numbers (connect); no
        table for a single group.
    """
    groups = [group for group in groups if group.rows]
    if len(groups) < 2:
        return []
    labels = [group.title for group in groups]
    if groups[0].measure is not None:
        paths = [_by_size(g.path_rows) for g in groups]
        sizes = _sizes(size for path in paths for size in path)
        cells = [
            [
                [mean(path.get(size, []), c) for c in ("clean_accuracy", group.measure or "")]
                for size in sizes
            ]
            for path, group in zip(paths, groups, strict=True)
        ]
        heads = [str(size) for size in sizes]
        return [_table(f"The path: {BOTH}, by bonafide images", "setting", heads, labels, cells)]
    if any("path" in row for row in groups[0].rows):
        return []
    heads = [name.replace("_", " ") for name in CONNECT]
    cells = [[[mean(group.rows, name)] for name in CONNECT] for group in groups]
    return [_table("Settings", "setting", heads, labels, cells)]


def _repair(group: Group, columns: tuple[str, str]) -> list[Table]:
    """The networks (without bonafide images), method by bonafide size, and the chosen t."""
    methods = grouped(group.rows, ("method",))
    networks = {name: [r for r in own if not r["bonafide"]] for (name,), own in methods.items()}
    networks = {name: own for name, own in networks.items() if own}
    sized = {name: _by_size(own) for (name,), own in methods.items()}
    sized = {name: own for name, own in sized.items() if own}
    sizes = _sizes(size for own in sized.values() for size in own)

    def both(own: list[Row]) -> list[Mean | None]:
        return [mean(own, column) for column in columns]

    tables = [
        _table(
            "Networks",
            "network",
            [BOTH],
            [name.replace("_", "-") for name in networks],
            [[both(own)] for own in networks.values()],
        ),
        _table(
            f"{BOTH.capitalize()}, by bonafide images",
            "method",
            [str(size) for size in sizes],
            [name.replace("_", "-") for name in sized],
            [[both(own.get(size, [])) for size in sizes] for own in sized.values()],
        ),
        _chosen(_by_size(group.path_rows), sizes),
    ]
    return [table for table in tables if table.rows]


def _chosen(path: dict[int, list[Row]], sizes: list[int]) -> Table:
    """The chosen t, one row per seed (and fold)."""
    by_seed = grouped([row for own in path.values() for row in own], SEED)
    rows = []
    for (seed, fold), own in by_seed.items():
        ts = {row["bonafide"]: row["t"] for row in own}
        label = str(seed) if fold is None else f"{seed}, fold {fold}"
        rows.append([label, *("" if ts.get(n) is None else f"{ts[n]:.2f}" for n in sizes)])
    heads = ["seed", *(str(size) for size in sizes)]
    return Table("Chosen t", heads, rows)


def _by_size(rows: Sequence[Row]) -> dict[int, list[Row]]:
    return {size: own for (size,), own in grouped(rows, ("bonafide",)).items() if size}


def _sizes(found: Iterable[int]) -> list[int]:
    return sorted(set(found), reverse=True)


def _table(
    title: str,
    corner: str,
    heads: list[str],
    labels: list[str],
    cells: list[list[list[Mean | None]]],
) -> Table:
    """A table whose title states the number of seeds; cells with another number state their own."""
    nums = Counter(_num(cell) for line in cells for cell in line if any(cell))
    usual = max(nums, key=lambda num: (nums[num], num), default=(0, 0))
    odd = " unless said otherwise" if len(nums) > 1 else ""
    rows = [
        [label, *(_cell(cell, usual) for cell in line)]
        for label, line in zip(labels, cells, strict=True)
    ]
    return Table(f"{title}; {_words(usual)}{odd}", [corner, *heads], rows)


def _num(cell: Sequence[Mean | None]) -> tuple[int, int]:
    return min((one.num, one.num_seeds) for one in cell if one is not None)


def _words(num: tuple[int, int]) -> str:
    """How many numbers a mean is taken over.

    Example:
        >>> _words((1, 1)), _words((3, 3)), _words((15, 3))
        ('n = 1 seed', 'n = 3 seeds', 'n = 15 (folds of 3 seeds)')
    """
    seeds = f"{num[1]} seed" + ("s" if num[1] > 1 else "")
    return f"n = {seeds}" if num[0] == num[1] else f"n = {num[0]} (folds of {seeds})"


def _cell(cell: Sequence[Mean | None], usual: tuple[int, int]) -> str:
    if not any(cell):
        return ""
    text = " / ".join("-" if one is None else str(one) for one in cell)
    return text if _num(cell) == usual else f"{text} ({_words(_num(cell))})"
