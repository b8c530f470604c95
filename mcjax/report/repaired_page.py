"""The output of `python -m mcjax.repair` next to the checkpoint: path.csv, a figure, a page, result.json."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.repair.bonafide import doubts
from mcjax.repair.repaired import Repaired
from mcjax.repair.second import TAUGHT
from mcjax.report import page
from mcjax.report.chart import chart
from mcjax.report.evidence_page import (
    NO_CLEARANCE,
    how_sure,
    numbers_of,
    trigger_rows,
    triggers_caption,
    verdict,
)
from mcjax.report.figures import chart_figure
from mcjax.report.image_grid import write_image_grid
from mcjax.report.panels import (
    BAND,
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    Chart,
    Line,
    Panel,
    percent_band,
)
from mcjax.runs.checkpoint import save
from mcjax.runs.output_folder import finish, new_folder
from mcjax.runs.workdir import write_csv

QUESTION = (
    "Does the suspect have a backdoor, and which point of the path is rid of it and as accurate?"
)

CAPTION = (
    "Accuracy along the path, the success of the triggers that were inverted on the suspect, and the "
    "distance of each point to its nearest suspect. Only triggers that are evidence, and lead to the most "
    "suspicious class, count in the estimated attack success. Dotted and grey: the lowest accepted accuracy. "
    f"Dashed: the chosen point. {BAND}"
)

NO_PROMISE = (
    f"{NO_CLEARANCE} The repair was learned "
    "from the images that you gave: if some of them are tampered with, or do not cover what the "
    "network is used for, the repair has the same flaws. For known attacks the chosen points lose most "
    "of a backdoor that survives fine-tuning, and some keep part of it: see the project's results. Accuracy is measured on the held-out images, and has their sampling "
    "error."
)


def save_repaired(repaired: Repaired, folder: str | os.PathLike) -> Path:
    """Writes the repaired network and what was measured, as `python -m mcjax.repair` does.

    Args:
        repaired: The result of `repair_model`.
        folder: A new folder: `repaired` (a checkpoint; none where no point was accurate enough),
            path.csv, path.png, triggers.png, report.html and result.json.

    Returns:
        The folder.

    Raises:
        UserError: The folder exists and is not empty, or can't be written.
    """
    folder = new_folder(folder, "folder")
    if repaired.ok:
        save(folder / "repaired", repaired.variables, t=repaired.t)
    write_repaired(folder, repaired, {})
    return folder


def write_repaired(
    folder: Path,
    repaired: Repaired,
    settings: Mapping[str, Any],
    question: Mapping[str, Any] | None = None,
) -> list[str]:
    """Writes path.csv, path.png, triggers.png, report.html and, last, result.json.

    Args:
        folder: The output folder.
        repaired: The result of `repair_model`.
        settings: The command's settings by name.
        question: See `mcjax.runs.output_folder.finish`.

    Returns:
        What happened, in sentences.
    """
    report = repaired.report
    columns = {"t": report["ts"]}
    columns |= {k: report[k] for k in ("bonafide_accuracy", "selection_accuracy", "distance")}
    columns["estimated_attack_success"] = report["estimated_attack_success"]
    columns |= {f"{form}_success": v for form, v in report["success_by_form"].items()}
    rows = [{k: float(v[i]) for k, v in columns.items()} for i in range(len(report["ts"]))]
    write_csv(folder / "path.csv", columns, rows)
    path = Chart("path", path_panels(repaired), CAPTION)
    chart_figure(folder, path)
    triggers = folder / "triggers.png"
    write_image_grid(triggers, trigger_rows(report))
    numbers = {"t": repaired.t, **numbers_of(report)}
    answer = what_happened(repaired)
    page.write_document(
        folder / "report.html",
        "repaired.html",
        title="Repair of a suspect network",
        question=QUESTION,
        answer=answer,
        path=chart(path),
        triggers=page.picture(triggers, triggers_caption(report)),
        no_promise=NO_PROMISE,
        numbers=page.numbers(numbers),
        settings=page.table(
            ("setting", "value"), settings.items(), caption="Settings of the command"
        ),
    )
    status = "complete" if repaired.t is not None else "no acceptable point"
    result = {"status": status, "answer": answer, "settings": dict(settings), "metrics": numbers}
    finish(folder, result, question)
    return answer


def what_happened(repaired: Repaired) -> list[str]:
    """What was found, in sentences."""
    r = repaired.report
    asked = [
        *doubts(r["suspect_accuracy"]),
        verdict(r),
        how_sure(r),
        far_end(r["second"], r["num_bonafide"]),
        f"The suspect's accuracy is {r['suspect_accuracy']:.4f} on the {r['num_selection']} images "
        f"held out to choose t; a point had to reach {r['floor']:.4f}.",
    ]
    if repaired.t is None:
        return [
            *asked,
            "No point of the path reaches that, except the suspects: nothing was repaired, and the "
            "suspect is unchanged.",
        ]
    estimate = (
        f", estimated attack success {r['repaired_success']:.4f} (suspect: {r['suspect_success']:.4f})"
        if r["backdoor_found"]
        else ""
    )
    return [
        *asked,
        f"{r['num_acceptable']} of {len(r['ts'])} points do. Of these, t = {repaired.t:.4f} was chosen: "
        f"accuracy {r['repaired_accuracy']:.4f}{estimate}. Its weights are "
        f"{r['moved']:.3g} away from the suspect's, {100 * r['moved_relative']:.0f} % of their norm.",
    ]


def far_end(second: str, number: int) -> str:
    """Where the path leads, which of its ends are suspect, and what was trained, in two sentences or three.

    Args:
        second: What is at the far end (`mcjax.repair.second.Second.name`).
        number: Images that were trained on.
    """
    begins = "The path begins at the suspect (t = 0)"
    trained = f"The path was trained on {number} images."
    if second == TAUGHT:
        return (
            f"{begins} and is the straight line to the same network after it was trained on {number} images to "
            "do without triggers (t = 1), so that t is the strength of the repair. Only the beginning counts as suspect."
        )
    if second.startswith("free"):
        return (
            f"{begins}; its far end (t = 1) was trained with it, so that only the beginning is suspect. "
            f"{trained}"
        )
    if "un-aligned" in second:
        return (
            f"{begins} and leads to the un-aligned copy of the suspect (t = 1), the same function with its "
            f"channels permuted, which is suspect too. {trained}"
        )
    if "fine-tuned" in second:
        return (
            f"{begins} and leads to {second} (t = 1), which is suspect too. Such a path often keeps a "
            f"backdoor. {trained}"
        )
    return f"{begins} and leads to the second network that was given (t = 1). {trained}"


def path_panels(repaired: Repaired) -> list[Panel]:
    """Accuracy and distance along the path, with the lowest accepted accuracy and the chosen t."""
    r, ts = repaired.report, repaired.report["ts"]
    accuracy = (
        Line(
            f"{r['num_selection']} images held out",
            100 * r["selection_accuracy"],
            BLUE,
            band=percent_band(r["selection_accuracy"], r["num_selection"]),
        ),
        Line(f"{r['num_bonafide']} trained on", 100 * r["bonafide_accuracy"], BLUE, dotted=True),
        Line("lowest accepted", np.full(len(ts), 100 * r["floor"]), GREY, dotted=True, level=True),
    )
    forms = [
        Line(form, 100 * v, colour, dotted=True)
        for (form, v), colour in zip(r["success_by_form"].items(), COLOURS[2:], strict=False)
    ]
    # Without evidence the estimate is 0 everywhere.
    estimate = [Line("estimated attack success", 100 * r["estimated_attack_success"], ORANGE)]
    estimate = estimate if r["backdoor_found"] else []
    distance = Line("distance to the nearest suspect", r["distance"], ORANGE)
    return [
        Panel(ts, accuracy, "t", "accuracy (%)", chosen=repaired.t),
        Panel(ts, [*estimate, *forms], "t", "trigger success (%)", chosen=repaired.t),
        Panel(ts, [distance], "t", "distance of weights", ylim=(0, None), chosen=repaired.t),
    ]
