"""The page of the verdict's calibration, from made-up anomalies."""

import pytest

from benchmarks import verdict


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


def test_thresholds_come_from_one_half_and_rates_from_the_other():
    clean = [row("", seed, anomaly) for seed, anomaly in enumerate((1.0, 2.0, 1.5, 3.0))]
    tampered = [row("square", 0, 5.0), row("square", 1, 1.0), row("square", 2, 4.0, target=6)]
    other = [row("", 0, 0.0, architecture="bn"), row("square", 0, 2.5, architecture="bn")]
    lines = verdict.page([*clean, *tampered, *other]).splitlines()
    assert "Threshold: 1.95" in lines[2]  # the 95 % quantile of 1 and 2
    table = {tuple(cell.strip() for cell in line.split("|")[1:3]): line for line in lines[4:]}
    control = table["cnn", "none (control)"].split("|")
    assert [cell.strip() for cell in control[3:6]] == ["2", "", "0.50"]  # 1.5 and 3.0
    square = [cell.strip() for cell in table["cnn", "square"].split("|")[3:10]]
    # 5 and 4 are alarms, one of them of the wrong class; of six pairs with 1.5 and 3.0 four win.
    assert square == ["3", "0.900", "0.67", "0.33", "4.0", "0.667", "0.67"]
    assert "1.00" in table["bn", "square"]


def test_the_area_counts_ties_half():
    assert verdict.roc_area([2.0, 1.0], [1.0]) == pytest.approx(0.75)
    assert verdict.roc_area([0.0], [1.0, 2.0]) == 0
