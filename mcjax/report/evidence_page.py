"""What inverted triggers say, in sentences and figures; the output of `mcjax.repair --evidence_only`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.repair.bonafide import doubts
from mcjax.repair.evidence.pictures import CLEAN
from mcjax.repair.evidence.verdict import MEASURED
from mcjax.repair.options import DEFAULTS
from mcjax.report import page
from mcjax.report.image_grid import difference, write_image_grid
from mcjax.runs.output_folder import finish

QUESTION = "Does the network have a backdoor?"

TRIGGERS = (
    "Images held out, and the same images with the triggers that were inverted on the suspect: {}. "
    "Below each, the difference, multiplied so that the largest change is black or white; grey is no change."
)

NO_CLEARANCE = (
    "mcjax looks for triggers of a few forms: a patch, a faint pattern, a smooth pattern, a warp, "
    "and a pattern that a small network makes for each image. A backdoor of another form can stay "
    "unseen, and no measurement on clean images proves that one is gone."
)

TRIED = {
    "path": "As there, triggers were tried on a control as well: the middle of a path from the network to its un-aligned copy (the same function, its channels permuted).",
    "away": "As there, triggers were tried on a control as well: the network trained away from its own last layer.",
}
"""How the control was made, by its kind."""

LEAST_STEPS = 100
"""Of the searches whose rates are known."""

NAMES = {
    "pattern": "faint pattern",
    "smooth": "smooth pattern",
    "generated": "pattern generated for each image",
}
"""Forms as they are called in a sentence, where the name alone does not do."""


def write_evidence(
    folder: Path,
    report: Mapping[str, Any],
    settings: Mapping[str, Any],
    question: Mapping[str, Any] | None = None,
) -> list[str]:
    """Writes triggers.png, report.html and, last, result.json.

    Args:
        folder: The output folder.
        report: The result of `find_evidence`.
        settings: The command's settings by name.
        question: See `mcjax.runs.output_folder.finish`.

    Returns:
        What was found, in sentences.
    """
    triggers = folder / "triggers.png"
    write_image_grid(triggers, trigger_rows(report))
    numbers = numbers_of(report)
    answer = [
        *doubts(report["accuracy"]),
        verdict(report),
        how_sure(report),
        f"The network's accuracy is {report['accuracy']:.4f} on the {report['num_images']} images "
        "given. It was not changed, and no path was trained.",
    ]
    page.write_document(
        folder / "report.html",
        "repaired.html",
        title="Evidence of a backdoor",
        question=QUESTION,
        answer=answer,
        triggers=page.picture(triggers, triggers_caption(report)),
        no_promise=NO_CLEARANCE,
        numbers=page.numbers(numbers),
        settings=page.table(
            ("setting", "value"), settings.items(), caption="Settings of the command"
        ),
    )
    result = {
        "status": "complete",
        "answer": answer,
        "settings": dict(settings),
        "metrics": numbers,
    }
    finish(folder, result, question)
    return answer


def numbers_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """The single numbers of a report, and each form's class, anomaly and threshold."""
    numbers = {k: v for k, v in report.items() if not hasattr(v, "__len__") or isinstance(v, str)}
    for one in report["findings"]:
        numbers |= {f"{one.form}_class": one.target, f"{one.form}_anomaly": one.anomaly}
        numbers[f"{one.form}_threshold"] = one.threshold
    return numbers


def verdict(report: Mapping[str, Any]) -> str:
    """Whether there is evidence of a backdoor, in one sentence."""
    best, *others = report["findings"]
    seen = (
        f"class {best.target} stands out most, by a {NAMES.get(best.form, best.form)}: anomaly "
        f"{best.anomaly:.1f}, threshold {best.threshold:g}"
    )
    if not report["backdoor_found"]:
        return f"No evidence of a backdoor was found, which does not clear the network: {seen}."
    also = "".join(
        f" Also above the threshold: class {one.target} by a {NAMES.get(one.form, one.form)}, anomaly "
        f"{one.anomaly:.1f}; this may be a natural resemblance."
        for one in others
        if one.evident and one.target != best.target
    )
    return f"There is evidence of a backdoor: {seen}.{also}"


def how_sure(report: Mapping[str, Any]) -> str:
    """How often the verdict was right where the truth is known, in a sentence or two."""
    kind = report["control"] or "path"
    found = " and in ".join(
        f"{one.clean[0]} of {one.clean[1]} clean and {one.tampered[0]} of {one.tampered[1]} tampered ones of "
        f"{name} ({one.right} with the attacker's class)"
        for name, one in MEASURED[kind].items()
    )
    known = (
        f"Of small networks whose truth is known, searches of {LEAST_STEPS} to 200 steps for all five forms found "
        f"evidence in {found}."
    )
    if is_short(report):
        known += (
            f" This search was shorter (forms: {report['num_forms']}; steps: {report['inversion_steps']}; of the "
            f"control: {report['control_steps']}) and misses more."
        )
    if report["control"]:
        return f"{known} {TRIED[kind]}"
    return (
        f"{known} They had a control network, on which triggers were tried as well. This network has none "
        f"({report['no_control']}), so a class that is cheap to reach by nature gives an alarm, too: compare with "
        "a network that you trust."
    )


def is_short(report: Mapping[str, Any]) -> bool:
    """Whether the search was shorter than those whose rates are known."""
    control_steps = report["control_steps"] or DEFAULTS.control_steps  # without any, more is said
    return (
        report["num_forms"] < len(DEFAULTS.forms)
        or report["inversion_steps"] < LEAST_STEPS
        or control_steps < DEFAULTS.control_steps
    )


def trigger_rows(report: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Rows of images: clean, and per form that is evidence with its trigger and the difference.

    Args:
        report: The report of `repair_model` or of `find_evidence`.

    Returns:
        {label: images [n, H, W, C] in [0, 1]}.
    """
    shown, targets = report["pictures"], _targets(report)
    rows = {CLEAN: shown[CLEAN]}
    for form, images in shown.items():
        if form == CLEAN:
            continue
        change, factor = difference(images, shown[CLEAN])
        rows[f"{form}, class {targets[form]}"] = images
        rows[f"{form}: difference x {factor:.2g}"] = change
    return rows


def triggers_caption(report: Mapping[str, Any]) -> str:
    """What the figure of `trigger_rows` shows."""
    targets = _targets(report)
    named = [
        f"a {NAMES.get(form, form)} that sends them to class {targets[form]}"
        for form in report["pictures"]
        if form != CLEAN
    ]
    found = "; ".join(named)
    if not report["backdoor_found"]:
        found += " (the most suspicious one, which is not evidence)"
    return TRIGGERS.format(found)


def _targets(report: Mapping[str, Any]) -> dict[str, int]:
    return {one.form: one.target for one in report["findings"]}
