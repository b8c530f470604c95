"""The page of the verdict's calibration, from made-up anomalies."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import verdict
from mcjax.repair.evidence.control import THRESHOLDS
from mcjax.repair.evidence.verdict import LEAST_SPREADS, MEASURED

THRESHOLD = THRESHOLDS["path"]


def row(trigger, seed, anomaly, target=1, architecture="cnn"):
    """A network whose class `target` is so anomalous by a patch; warps tell nothing."""
    ordinary = [1.0] * 10
    cost = [np.exp(-2 * anomaly * LEAST_SPREADS["cost"]) if k == target else 1.0 for k in range(10)]
    rates = {"clean_accuracy": 0.95, **({"attack_success_rate": 0.9} if trigger else {})}
    forms = {"patch": cost, "warp": ordinary}
    return {
        "architecture": architecture,
        "trigger": trigger,
        "seed": seed,
        **rates,
        "kind": "path",
        "control": rates,
        "triggers": {form: {"cost": v, "control_share": ordinary} for form, v in forms.items()},
    }


def test_rates_come_from_clean_networks_that_set_no_threshold():
    clean = [row("", seed, THRESHOLD * v) for seed, v in enumerate((0.5, 0.88, 1.04, 0.3))]
    tampered = [
        row("square", seed, THRESHOLD * v, target)
        for seed, (v, target) in enumerate(((2.5, 1), (0.5, 1), (2.0, 6)))
    ]
    other = [row("", 0, 0.0, architecture="bn"), row("square", 0, 1.25 * THRESHOLD, 1, "bn")]
    lines = verdict.page([*clean, *tampered, *other]).splitlines()
    table = {
        tuple(cell.strip() for cell in line.split("|")[1:3]): [
            cell.strip() for cell in line.split("|")[3:-1]
        ]
        for line in lines
        if line.startswith("|")
    }
    largest = [
        f"{v * THRESHOLD:.2f}" for v in (0.976, 0.88, 1.04)
    ]  # the first is the 90 % quantile
    assert table["patch", f"{0.5 * THRESHOLD:.2f}"] == [*largest, f"{THRESHOLD:g}"]
    # The scores of seeds 0 and 2.
    assert table["cnn", "none, even seeds"] == ["2", "", "", "1", "", "0.77", ""]
    # Two are alarms, one of them of the wrong class; 0.5 ties with one clean network of two.
    expected = ["3", "0.900", "0.900", "2", "0.33", "2.00", f"{4.5 / 6:.3f}"]
    assert table["cnn", "square"] == expected
    assert table["bn", "square"][3:] == ["1", "1.00", "1.25", "1.000"]


def test_the_report_states_what_was_measured():
    stated = {
        "verdict_fresh": MEASURED["path"]["digits"],
        "verdict_fashion": MEASURED["path"]["Fashion-MNIST"],
        "verdict_away": MEASURED["away"]["digits"],
        "verdict_fashion_away": MEASURED["away"]["Fashion-MNIST"],
    }
    for name, expected in stated.items():
        rows = json.loads((Path(verdict.__file__).parent / f"{name}.json").read_text())
        scores = [verdict.score(row) for row in rows]
        clean, tampered = (
            [one for one, row in zip(scores, rows, strict=True) if bool(row["trigger"]) == wanted]
            for wanted in (False, True)
        )
        alarms = [sum(score >= 1 for score, _ in group) for group in (clean, tampered)]
        right = sum(score >= 1 and target == 1 for score, target in tampered)
        measured = (alarms[0], len(clean)), (alarms[1], len(tampered)), right
        assert measured == expected


def test_the_area_counts_ties_half():
    assert verdict.roc_area([2.0, 1.0], [1.0]) == pytest.approx(0.75)
    assert verdict.roc_area([0.0], [1.0, 2.0]) == 0
