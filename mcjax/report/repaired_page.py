"""What `python -m mcjax.repair` leaves beside the checkpoint: path.csv, a figure, a page, result.json."""

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcjax.repair.model import Repaired
from mcjax.report.figures import BLUE, ORANGE, figure
from mcjax.report.page import document, picture, table
from mcjax.workdir import write, write_csv

NO_PROMISE = (
    "What this does not promise. The choice of t looks at accuracy and distance only; nobody has "
    "looked for a trigger, and none is proved to be gone. The path was learned from the images "
    "that you gave: if some of them are tampered with, or they leave out what the network is used "
    "for, so does the repair. Measured on known attacks, points in the middle of a path lose most "
    "of a backdoor that fine-tuning leaves, and some keep part of it: see the project's results. "
    "Accuracy here is that of the images held out, with the sampling error of so many images."
)


def write_repaired(folder: Path, repaired: Repaired, settings: Mapping[str, Any]) -> None:
    """Writes path.csv, path.png, report.html and, last, result.json.

    Args:
        folder: The results' folder.
        repaired: What `repair_model` returned.
        settings: The command's settings, by name.
    """
    report = repaired.report
    columns = {"t": report["ts"]}
    columns |= {k: report[k] for k in ("bonafide_accuracy", "selection_accuracy", "distance")}
    rows = [{k: float(v[i]) for k, v in columns.items()} for i in range(len(report["ts"]))]
    write_csv(folder / "path.csv", columns, rows)
    path_figure(folder / "path.png", repaired)
    numbers = {k: v for k, v in report.items() if not hasattr(v, "__len__") or isinstance(v, str)}
    numbers = {"t": repaired.t, **numbers}
    title = "Repair of a suspect network"
    sections = [
        f"<h1>{title}</h1>",
        f"<p>{html.escape(_what_happened(repaired))}</p>",
        picture(
            folder / "path.png",
            "Accuracy along the path and the distance of each point to its nearest suspect. Dotted: "
            "the lowest accuracy that was accepted. Dashed: the chosen point.",
        ),
        f"<p><strong>{html.escape(NO_PROMISE)}</strong></p>",
        "<h2>Numbers</h2>",
        table(("quantity", "value"), numbers.items()),
        "<h2>Settings</h2>",
        table(("setting", "value"), settings.items()),
    ]
    write(folder / "report.html", document(title, sections))
    status = "complete" if repaired.t is not None else "no acceptable point"
    result = {"status": status, "settings": dict(settings), "metrics": numbers}
    write(folder / "result.json", json.dumps(result, indent=2) + "\n")


def _what_happened(repaired: Repaired) -> str:
    r = repaired.report
    asked = (
        f"The suspect is right on {r['suspect_accuracy']:.4f} of the {r['num_selection']} images "
        f"that were held out to choose t by; a point had to reach {r['floor']:.4f}. The second "
        f"network was {r['second']}; the path was trained on {r['num_bonafide']} images. "
    )
    if repaired.t is None:
        return asked + (
            "No point of the path reaches that, but the suspects themselves: nothing was repaired, "
            "and the suspect stays as it is."
        )
    return asked + (
        f"{r['num_acceptable']} points do; of these t = {repaired.t:.4f} is the farthest from its "
        f"nearest suspect, with accuracy {r['repaired_accuracy']:.4f}. Its weights are "
        f"{r['moved']:.3g} away from the suspect's, {100 * r['moved_relative']:.0f} % of their norm."
    )


def path_figure(path: Path, repaired: Repaired) -> None:
    """Accuracy and distance along the path, with the floor and the chosen t."""
    r = repaired.report
    with figure(path, (6, 3.4)) as fig:
        left = fig.subplots()
        left.plot(r["ts"], 100 * r["selection_accuracy"], color=BLUE, label="accuracy, held out")
        left.plot(r["ts"], 100 * r["bonafide_accuracy"], ":", color=BLUE, label="trained on")
        left.axhline(100 * r["floor"], color="grey", ls=":", lw=1)
        right = left.twinx()
        right.plot(r["ts"], r["distance"], color=ORANGE, label="distance to nearest suspect")
        right.grid(False)
        if repaired.t is not None:
            left.axvline(repaired.t, color="black", ls="--", lw=1)
        left.set(xlabel="t", ylabel="accuracy (%)")
        right.set(ylabel="distance", ylim=(0, None))
        fig.legend(loc="outside lower center", ncols=3, fontsize=8)
