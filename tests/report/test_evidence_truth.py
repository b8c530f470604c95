"""Counts of alarms and correlations of estimates, worked by hand."""

import numpy as np

from mcjax.report import evidence_truth


def test_a_constant_rate_has_a_bias_but_no_rank_correlation():
    found = evidence_truth.along([0.5, 0.5, 0.5], [1.0, 0.5, 0.0])
    assert np.isnan(found["spearman"])
    assert found["bias"] == 0
    row = {"method": "path", "bonafide": 0}
    text = evidence_truth.estimates([row | found, row | {"spearman": 0.5, "bias": -0.5}])
    assert text.splitlines()[2] == "| path | 2 | 0.50 (0.50 to 0.50) | -0.25 (-0.50 to +0.00) |"
    assert evidence_truth.estimates([row | found]).splitlines()[2].startswith("| path | 1 |  |")


def test_ties_get_their_mean_rank():
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: Pearson of the ranks is 4.5 / sqrt(4.5 * 5).
    found = evidence_truth.along([0.0, 0.5, 0.5, 1.0], [0.0, 0.1, 0.3, 0.9])
    np.testing.assert_allclose(found["spearman"], 4.5 / np.sqrt(4.5 * 5))


def test_sizes_are_counted_apart_the_largest_first():
    row = {"network": "suspect", "same": 1, "evident": True, "right": False, "margin": 1.5}
    text = evidence_truth.verdicts([{**row, "bonafide": 50}, {**row, "bonafide": 250}])
    assert [line[:15] for line in text.splitlines()[2:]] == ["| 250 | 1 of 1 ", "| 50 | 1 of 1 |"]
    assert text.splitlines()[2] == "| 250 | 1 of 1 | 0 | 1.50 |  |  |"


def test_two_networks_of_one_run_are_two():
    row = {"bonafide": 50, "same": 1, "evident": True, "right": None, "margin": 1.5}
    text = evidence_truth.verdicts([{**row, "network": n} for n in ("suspect", "twin", "other")])
    assert text.splitlines()[2] == "| 50 | 1 of 1 |  | 1.50 | 2 of 2 | 1.50 |"
