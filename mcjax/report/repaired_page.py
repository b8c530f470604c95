"""What `python -m mcjax.repair` leaves beside the checkpoint: path.csv, a figure, a page, result.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.repair.model import Repaired
from mcjax.report import page
from mcjax.report.chart import chart
from mcjax.report.figures import chart_figure
from mcjax.report.panels import BLUE, GREY, ORANGE, Chart, Line, Panel
from mcjax.workdir import write, write_csv

QUESTION = "Does a point of the path lie far from the suspect, and is it as accurate?"

CAPTION = (
    "Accuracy along the path, and the distance of each point to its nearest suspect. Dotted and grey: "
    "the lowest accuracy that was accepted. Dashed: the chosen point."
)

NO_PROMISE = (
    "The choice of t looks at accuracy and distance only; nobody has "
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
    path = Chart("path", path_panels(repaired), CAPTION)
    chart_figure(folder, path)
    numbers = {k: v for k, v in report.items() if not hasattr(v, "__len__") or isinstance(v, str)}
    numbers = {"t": repaired.t, **numbers}
    page.write_document(
        folder / "report.html",
        "repaired.html",
        title="Repair of a suspect network",
        question=QUESTION,
        answer=what_happened(repaired),
        path=chart(path),
        no_promise=NO_PROMISE,
        numbers=page.numbers(numbers),
        settings=page.table(
            ("setting", "value"), settings.items(), caption="Settings of the command"
        ),
    )
    status = "complete" if repaired.t is not None else "no acceptable point"
    result = {"status": status, "settings": dict(settings), "metrics": numbers}
    write(folder / "result.json", json.dumps(result, indent=2) + "\n")


def what_happened(repaired: Repaired) -> list[str]:
    """What came out, in sentences."""
    r = repaired.report
    asked = [
        f"The suspect is right on {r['suspect_accuracy']:.4f} of the {r['num_selection']} images "
        f"that were held out to choose t by; a point had to reach {r['floor']:.4f}.",
        f"The second network was {r['second']}; the path was trained on {r['num_bonafide']} images.",
    ]
    if repaired.t is None:
        return [
            *asked,
            "No point of the path reaches that, but the suspects themselves: nothing was repaired, "
            "and the suspect stays as it is.",
        ]
    return [
        *asked,
        f"{r['num_acceptable']} points do; of these t = {repaired.t:.4f} is the farthest from its "
        f"nearest suspect, with accuracy {r['repaired_accuracy']:.4f}. Its weights are "
        f"{r['moved']:.3g} away from the suspect's, {100 * r['moved_relative']:.0f} % of their norm.",
    ]


def path_panels(repaired: Repaired) -> list[Panel]:
    """Accuracy and distance along the path, with the floor and the chosen t."""
    r, ts = repaired.report, repaired.report["ts"]
    accuracy = (
        Line(f"{r['num_selection']} images held out", 100 * r["selection_accuracy"], BLUE),
        Line(f"{r['num_bonafide']} trained on", 100 * r["bonafide_accuracy"], BLUE, dotted=True),
        Line("lowest accepted", np.full(len(ts), 100 * r["floor"]), GREY, dotted=True, level=True),
    )
    distance = Line("distance to the nearest suspect", r["distance"], ORANGE)
    return [
        Panel(ts, accuracy, "t", "accuracy (%)", chosen=repaired.t),
        Panel(ts, [distance], "t", "distance in weight space", ylim=(0, None), chosen=repaired.t),
    ]
