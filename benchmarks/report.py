"""benchmarks/results.md and results.png from results.json."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.report.figures import BLUE, ORANGE, figure

WORKS = {
    "step": "curve training step, batch 128, in a scan",
    "point": "path point, 1,000 images (BatchNorm recomputed where the network has it)",
    "pgd": "PGD-10 at a point, 128 images",
    "path": "full path, 61 points of 1,000 images (a point of it)",
}
TUNED = ("no_grad", "channels_last", "compiled")


def write(results: Path) -> None:
    """Writes the table and the figure beside the results.

    Args:
        results: results.json of `benchmarks.side_by_side`.
    """
    data = json.loads(results.read_text())
    rows = [data["rows"][key] for key in sorted(data["rows"], key=_order)]
    last = rows[-1]
    lines = [
        "# mcjax beside PyTorch and stock JAX",
        "",
        "Written by `python -m benchmarks.side_by_side`; see that file for how it measures.",
        f"{last['cpu']}; "
        + ", ".join(f"{name} {version}" for name, version in last["versions"].items())
        + f"; {last['date']}.",
        "",
        "Median seconds of one step or point. *eager*: w(t) anew for every batch, gradients recorded. "
        "*tuned*: the fastest of no_grad, channels_last and torch.compile, of those that were timed, named beside it. "
        "*stock*: the same JAX program with XLA's own convolutions (-: not timed). Ratios are times over mcjax's. GF/s counts the operations of "
        "the direct method (3 passes a training step, 2 a PGD step, 1 an evaluation, BatchNorm's "
        "recomputation not counted); the limit is the fastest of the 2048 x 2048 float32 matrix products that "
        "were timed beside the rows, on the same machine and day.",
    ]
    for work, title in WORKS.items():
        chosen = [row for row in rows if row["work"] == work]
        if not chosen:
            continue
        lines += ["", f"## {title[0].upper()}{title[1:]}", ""]
        lines.append(
            "| network | mcjax | eager | tuned | stock | eager / mcjax | tuned / mcjax | stock / mcjax | GF/s | of the limit | first call |"
        )
        lines.append("|---|---|---|---|---|---|---|---|---|---|---|")
        lines += [_row(row, _limit(row, rows)) for row in chosen]
    growth = data.get("growth")
    if growth:
        lines += _growth(growth)
    results.with_suffix(".md").write_text("\n".join(lines) + "\n")
    _figure(results.with_suffix(".png"), rows)


def _order(key: str) -> tuple[int, str]:
    network, work = key.split()
    return list(WORKS).index(work), network


def tuned(row: dict[str, Any]) -> str | None:
    """The fastest tuned variant of a row."""
    measured = [v for v in TUNED if v in row["seconds"]]
    return min(measured, key=lambda v: row["seconds"][v]) if measured else None


def _limit(row: dict[str, Any], rows: list[dict[str, Any]]) -> float:
    """GF/s of the machine: other programs may have slowed the product beside a single row."""
    where = ("cpu", "date", "versions")
    return max(one["limit_gflops"] for one in rows if all(one.get(k) == row.get(k) for k in where))


def _row(row: dict[str, Any], limit: float) -> str:
    s = row["seconds"]
    best = tuned(row)

    def seconds(variant: str | None) -> str:
        return f"{s[variant]:.3g}" if variant in s else "-"

    def ratio(variant: str | None) -> str:
        return f"**{s[variant] / s['mcjax']:.2f}**" if variant in s else "-"

    rate = row["effective_gflops"]["mcjax"]
    cells = [
        row["network"],
        seconds("mcjax"),
        seconds("eager"),
        f"{seconds(best)} ({best})" if best else "-",
        seconds("stock"),
        ratio("eager"),
        ratio(best),
        ratio("stock"),
        f"{rate:.0f}",
        f"{rate / limit:.2f} of {limit:.0f}",
        f"{row['first_call_seconds']['mcjax']:.1f} s",
    ]
    return "| " + " | ".join(cells) + " |"


def _growth(growth: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "## How cost grows",
        "",
        growth["command"],
        "",
        "| points | seconds | seconds a point | traces |",
    ]
    lines.append("|---|---|---|---|")
    for row in growth["points"]:
        n, s = row["points"], row["seconds"]
        lines.append(f"| {n} | {s:.3f} | {s / n:.5f} | {row['traces']} |")
    lines += [
        "",
        "| devices | GF of one device, 64 points | times devices, over one device's |",
        "|---|---|---|",
    ]
    one = growth["devices"][0]["flops"]
    for row in growth["devices"]:
        n, flops = row["devices"], row["flops"]
        lines.append(f"| {n} | {flops / 1e9:.3f} | {flops * n / one:.3f} |")
    return lines


def _figure(path: Path, rows: list[dict[str, Any]]) -> None:
    rows = [row for row in rows if "eager" in row["seconds"]]
    with figure(path, (7, 0.45 * len(rows) + 1), pdf=False) as fig:
        axes = fig.subplots()
        y = np.arange(len(rows))
        eager = [row["seconds"]["eager"] / row["seconds"]["mcjax"] for row in rows]
        best = [row["seconds"][tuned(row) or "eager"] / row["seconds"]["mcjax"] for row in rows]
        axes.barh(y - 0.2, eager, 0.38, color=BLUE, label="eager PyTorch")
        axes.barh(y + 0.2, best, 0.38, color=ORANGE, label="tuned PyTorch")
        axes.axvline(1, color="black", linewidth=1)
        axes.set_yticks(y, [f"{row['network']}, {row['work']}" for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("time over mcjax's (2 CPU cores)")
        axes.legend()
