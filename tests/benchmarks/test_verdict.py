"""The page of the verdict's calibration, from made-up anomalies."""

import json
from pathlib import Path

import pytest

from benchmarks import verdict
from mcjax.repair.evidence import judge


def row(trigger, seed, anomaly, target=1, architecture="cnn"):
    rates = {"attack_success_rate": 0.9} if trigger else {}
    return {
        "architecture": architecture,
        "trigger": trigger,
        "seed": seed,
        "clean_accuracy": 0.95,
        **rates,
        "anomaly": {"patch": anomaly, "warp": 0.5},
        "target": {"patch": target, "warp": 7},
    }


def test_rates_come_from_clean_networks_that_set_no_threshold(monkeypatch):
    monkeypatch.setattr(verdict, "threshold", lambda form: {"patch": 2.0, "warp": 1.0}[form])
    clean = [row("", seed, anomaly) for seed, anomaly in enumerate((1.0, 1.8, 2.0, 0.6))]
    tampered = [row("square", 0, 5.0), row("square", 1, 0.6), row("square", 2, 4.0, target=6)]
    other = [row("", 0, 0.0, architecture="bn"), row("square", 0, 2.5, architecture="bn")]
    lines = verdict.page([*clean, *tampered, *other]).splitlines()
    table = {
        tuple(cell.strip() for cell in line.split("|")[1:3]): [
            cell.strip() for cell in line.split("|")[3:-1]
        ]
        for line in lines
        if line.startswith("|")
    }
    assert table["patch", "1.0"] == ["1.9", "1.8", "2.0", "2"]  # and its 90 % quantile
    # The scores of seeds 0 and 2: 1.0 / 2 and 0.5 / 1 are equal; 2.0 / 2.
    assert table["cnn", "none (control)"] == ["2", "", "1", "", "0.75", ""]
    # 2.5 and 2 are alarms, one of them of the wrong class; 0.5 ties with one control of two.
    assert table["cnn", "square"] == ["3", "0.900", "2", "0.33", "2.00", f"{4.5 / 6:.3f}"]
    assert table["bn", "square"][2:] == ["1", "1.00", "1.25", "1.000"]


def test_the_report_states_what_was_measured():
    rows = json.loads((Path(verdict.__file__).parent / "verdict.json").read_text())
    alarms = [verdict.score(row)[0] >= 1 for row in rows]
    clean = [alarm for alarm, row in zip(alarms, rows, strict=True) if not row["trigger"]]
    assert (sum(clean), len(clean)) == judge.CLEAN_ALARMS
    assert (sum(alarms) - sum(clean), len(rows) - len(clean)) == judge.TAMPERED_ALARMS
    rows = json.loads((Path(verdict.__file__).parent / "verdict_fashion.json").read_text())
    assert not any(row["trigger"] for row in rows)
    assert (sum(verdict.score(row)[0] >= 1 for row in rows), len(rows)) == judge.FASHION_ALARMS


def test_the_area_counts_ties_half():
    assert verdict.roc_area([2.0, 1.0], [1.0]) == pytest.approx(0.75)
    assert verdict.roc_area([0.0], [1.0, 2.0]) == 0
