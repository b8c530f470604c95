"""The page of everything that was measured, by card, and the short table at the end of a run."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.accelerator.plan import pieces
from benchmarks.accelerator.record import Record, Row
from benchmarks.pieces import rows_of

Cells = list[list[Any]]
TITLE = """\
# On accelerators

Written by `python -m benchmarks.accelerator` ([how](README.md)). Seconds are medians of alternating calls in one run on one card;
ratios are PyTorch's time over mcjax's, against the fastest of PyTorch's variants, named beside it."""


def page(record: Record, *, tiny: bool = False) -> str:
    """Markdown: a section a card, with a table for every kind of piece."""
    cards = list(dict.fromkeys(row["card"] for row in record.rows.values()))
    lines = [TITLE]
    if not cards:
        lines += ["", "Not measured: no accelerator was at hand."]
    for card in cards:
        rows = [row for row in record.rows.values() if row["card"] == card]
        about = sorted({_about(row) for row in rows})
        lines += ["", f"## {card}", "", *about]
        for title, table in (
            ("Is it right there?", _right),
            ("Ceilings", _ceilings),
            ("Beside PyTorch", _beside),
            ("Networks side by side", _sweep),
            ("Points vmapped together", _chunks),
            ("AutoAttack, linf", _autoattack),
            ("Compilation", _compile),
            ("A backdoor study", _study),
        ):
            cells = table(rows)
            if len(cells) > 1:
                lines += ["", f"### {title}", "", *rows_of(cells)]
        lines += _profiles(rows)
        lines += _failures(rows)
        lines += _missing(record, card, tiny)
    return "\n".join(lines) + "\n"


def summary(record: Record, card: str, *, tiny: bool = False) -> str:
    """The goals of a card, in a few lines, for the end of a run's output."""
    rows = [row for row in record.rows.values() if row["card"] == card]
    tables = [table(rows) for table in (_right, _beside, _sweep)]
    shown = [line for cells in tables if len(cells) > 1 for line in ["", *rows_of(cells)]]
    return "\n".join([f"{card}: {len(rows)} rows", *shown, *_missing(record, card, tiny)])


def short(row: Row) -> str:
    """A row in a few words, for the progress line."""
    if "worst" in row and "tolerance" in row and not isinstance(row["worst"], dict):
        return f"differs by {row['worst']:.2g}, tolerance {row['tolerance']:g}"
    if "seconds" in row and isinstance(row["seconds"], dict):
        return ", ".join(f"{name} {value:.4g} s" for name, value in row["seconds"].items())
    named = (
        "operations_per_second",
        "bytes_per_second",
        "speedup",
        "passed",
        "busy_seconds",
        "seconds",
    )
    return ", ".join(f"{name} {row[name]:.4g}" for name in named if name in row)


def _about(row: Row) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in row.get("versions", {}).items())
    return f"{row.get('cpu', '')}; {versions}; {row.get('date', '')}."


def _of(rows: Iterable[Row], piece: str) -> list[Row]:
    return [row for row in rows if row["piece"] == piece]


def _right(rows: list[Row]) -> Cells:
    cells: Cells = [["compared with the CPU", "largest difference", "tolerance", "holds"]]
    for row in _of(rows, "right"):
        holds = "yes" if row["worst"] <= row["tolerance"] else "**no**"
        cells.append([row["name"], f"{row['worst']:.2g}", f"{row['tolerance']:g}", holds])
    for row in _of(rows, "tests"):
        text = f"{row['passed']} passed, {row['failed']} failed"
        failures = ", ".join(row["failures"])
        cells.append([row["name"], text, "", "**no**: " + failures if row["failed"] else "yes"])
    return cells


def _ceilings(rows: list[Row]) -> Cells:
    cells: Cells = [["what", "reached"]]
    for row in _of(rows, "ceilings"):
        rate = (
            f"{row['operations_per_second'] / 1e12:.1f} TF/s"
            if "operations_per_second" in row
            else f"{row['bytes_per_second'] / 1e12:.2f} TB/s, bytes read and written"
        )
        cells.append([row["name"], rate])
    return cells


def fastest(row: Row, prefix: str) -> tuple[str, float] | None:
    """The fastest variant whose name begins so, and its seconds.

    Example:
        >>> fastest({"seconds": {"mcjax": 1.0, "torch eager": 3.0, "torch graphs": 2.0}}, "torch")
        ('torch graphs', 2.0)
    """
    found = {v: s for v, s in row["seconds"].items() if v.startswith(prefix)}
    return min(found.items(), key=lambda item: item[1]) if found else None


def _beside(rows: list[Row]) -> Cells:
    head = "network, work, precision, mcjax, per unit, TF/s, of the product, PyTorch, ratio, eager ratio, differs by, peak GiB so far (mcjax / PyTorch)"
    cells: Cells = [head.split(", ")]
    limits = {
        row["name"].removeprefix("product "): row["operations_per_second"]
        for row in _of(rows, "ceilings")
        if "operations_per_second" in row
    }
    for row in (row for row in rows if "all_seconds" in row):
        _, ours = fastest(row, "mcjax") or ("", float("nan"))
        theirs = fastest(row, "torch")
        eager = row["seconds"].get("torch eager")
        rate = row["operations"] / ours
        limit = limits.get(row["precision"])
        worst = float(np.max([0.0, *row["worst"].values()]))  # NaN if one is
        beyond = "" if worst <= row["tolerance"] else " **beyond tolerance**"
        peaks = [f"{bytes_ / 2**30:.2f}" for bytes_ in row.get("peak_bytes", {}).values()]
        cells.append([
            row["network"], row["work"], row["precision"], f"{ours:.4g} s", f"{1e3 * ours / row['units']:.4g} ms",
            f"{rate / 1e12:.2f}" if rate else "", f"{rate / limit:.2f}" if rate and limit else "",
            f"{theirs[1]:.4g} s ({theirs[0].removeprefix('torch ')})" if theirs else "not measured",
            f"**{theirs[1] / ours:.2f}**" if theirs else "", f"{eager / ours:.2f}" if eager else "",
            f"{worst:.1g}{beyond}", " / ".join(peaks),
        ])  # fmt: skip
    return cells


def _sweep(rows: list[Row]) -> Cells:
    cells: Cells = [["networks", "side by side", "one by one", "gain", "losses differ by"]]
    for row in _of(rows, "sweep"):
        cells.append([
            row["name"], f"{row['together']:.3g} s", f"{row['one_by_one']:.3g} s ({row['timed_alone']} timed)",
            f"**{row['speedup']:.1f}**", f"{row['worst']:.1g}",
        ])  # fmt: skip
    return cells


def _chunks(rows: list[Row]) -> Cells:
    cells: Cells = [
        ["network", "chunk", "seconds per point", "images/s", "temporary MiB", "losses differ by"]
    ]
    for row in _of(rows, "chunk"):
        cells.append([
            row["network"], row["chunk"], f"{row['seconds']:.4g}", f"{row['images_per_second']:.0f}",
            f"{row['temporary_bytes'] / 2**20:.0f}", f"{row['worst']:.1g}",
        ])  # fmt: skip
    return cells


def _autoattack(rows: list[Row]) -> Cells:
    cells: Cells = [["network", "images", "correct", "robust", "seconds", "first call"]]
    for row in _of(rows, "autoattack"):
        cells.append([
            row["name"], row["images"], row["correct"], row["robust"], f"{row['seconds']:.3g}",
            f"{row['first_call']:.3g} s",
        ])  # fmt: skip
    return cells


def _compile(rows: list[Row]) -> Cells:
    cells: Cells = [["cache", "network", "import and data", "training step", "path point"]]
    for row in _of(rows, "compile"):
        times = [f"{row[name]:.1f} s" if name in row else "" for name in ("start", "step", "point")]
        cells.append([row["name"], row["network"], *times])
    return cells


def _study(rows: list[Row]) -> Cells:
    cells: Cells = [["seeds", "seconds", "per seed"]]
    for row in _of(rows, "study"):
        cells.append(
            [row["seeds"], f"{row['seconds']:.0f}", f"{row['seconds'] / row['seeds']:.1f}"]
        )
    return cells


def _profiles(rows: list[Row]) -> list[str]:
    lines = []
    for row in _of(rows, "profile"):
        busy = f"{1e3 * row['busy_seconds']:.3g} ms of kernels a step"
        lines += ["", f"### Where the time goes: {row['name']}, bfloat16, {busy}", ""]
        lines += rows_of([["kernels", "share"], *([k, f"{s:.0%}"] for k, s in row["kernels"])])
    return lines


def _failures(rows: list[Row]) -> list[str]:
    found = [[row["piece"], row["name"], row["error"]] for row in rows if "error" in row]
    for row in rows:
        variants = row["failed"].items() if "all_seconds" in row else ()
        found += [[row["piece"], f"{row['name']}, {variant}", why] for variant, why in variants]
    if not found:
        return []
    cells = [[text.replace("|", "/").replace("\n", " ") for text in cell] for cell in found]
    return ["", "### What failed", "", *rows_of([["piece", "row", "why"], *cells])]


def _missing(record: Record, card: str, tiny: bool) -> list[str]:
    left = {piece.name: record.status(card, piece.name) for piece in pieces(tiny)}
    said = [
        f"{name} ({status or 'not measured'})"
        for name, status in left.items()
        if status != "complete"
    ]
    return ["", "Still to be measured on this card: " + ", ".join(said) + "."] if said else []
