"""Verdicts beside hand-worked numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_triggers import CHEAP, ORDINARY, inverted

from mcjax.repair.evidence import verdict


def with_control(costs, shares, threshold=2.4):
    """Triggers of known costs, tried on one control; the two restarts differ, their mean is known."""
    shift = np.float32([[-0.25], [0.25]])
    shares = np.float32(shares) + shift
    return inverted(costs)._replace(control_share=shares, threshold=np.float32(threshold))


def test_outlying_by_hand():
    # Others of class 1: logs of 3, 2.7, 3.1: median log 3; deviations 0, 0.1054, 0.0328.
    spread = 1.4826 * (np.log(3.1) - np.log(3.0))
    expected = (np.log(3.0) - np.log(0.3)) / spread
    assert verdict.outlying(-np.log(CHEAP), 0.01)[1] == pytest.approx(expected)
    assert verdict.outlying(-np.log(CHEAP), 0.1)[1] == pytest.approx(np.log(10) / 0.1)
    # Wide spreads count: the others of class 0 are 1, 2, 4.
    wide = 1.4826 * np.log(2)
    found = verdict.outlying(-np.log([1.0, 1.0, 2.0, 4.0]), 0.1)
    assert found[0] == pytest.approx(np.log(2) / wide)
    assert verdict.outlying([2.0, 2.0], 0.1)[0] == 0


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=8), st.floats(-9, 9), st.floats(0.1, 9))
def test_outlying_does_not_depend_on_the_origin_or_the_unit(v, origin, unit):
    found = verdict.outlying(v, 0.5)
    moved = verdict.outlying(np.asarray(v) * unit + origin, 0.5 * unit)
    np.testing.assert_allclose(found, moved, atol=1e-6)


def test_the_cost_alone_counts_without_a_control():
    expected = verdict.outlying(-np.log(CHEAP), verdict.LEAST_SPREADS["cost"])
    np.testing.assert_allclose(verdict.anomalies(inverted(CHEAP)), expected, rtol=1e-5)


def test_cost_and_share_count_alone_and_together():
    shares = np.array([0.4, 0.9, 0.2, 0.3])
    found = verdict.anomalies(with_control(CHEAP, shares))
    cheap = verdict.outlying(-np.log(CHEAP), 0.1)
    both = verdict.outlying(shares - np.log(CHEAP), 0.2)
    # Others of class 1: 0.4, 0.2, 0.3: median 0.3, median deviation 0.1.
    assert found[1] == pytest.approx((cheap[1] + 0.6 / 0.14826) / 4 + both[1] / 2, rel=1e-4)
    # Of class 0: 0.9, 0.2, 0.3: median 0.3, median deviation 0.1.
    assert found[0] == pytest.approx((cheap[0] + 0.1 / 0.14826) / 4 + both[0] / 2, rel=1e-4)


def test_natural_triggers_are_as_unlike_as_their_costs_but_not_in_the_sum():
    costs = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 1.0])
    natural = 1 - np.array([0.7, 0.5, 0.3, 0.15, 0.05, 0.5])  # the cheaper, the smaller
    planted = np.where(np.arange(6) == 5, 1.0, natural)
    before, after = (verdict.outlying_in_both(costs, v) for v in (natural, planted))
    assert before.max() < 1
    assert after.argmax() == 5
    mean_of_both = (verdict.outlying(-np.log(costs), 0.1) + verdict.outlying(planted, 0.1)) / 2
    assert after[5] > 1.2 * mean_of_both[5]


def test_a_class_that_is_cheap_by_nature_is_no_evidence():
    costs = [2.0, 1.3, 2.1, 1.9]
    alone = verdict.findings({"patch": inverted(costs)})[0]
    assert alone.target == 1
    assert alone.evident
    for shares, evident in (([0.6, 0.4, 0.6, 0.5], False), ([0.4, 1.0, 0.5, 0.5], True)):
        found = verdict.findings({"patch": with_control(costs, shares)})[0]
        assert found.evident == evident
    assert found.target == 1


def test_thresholds_differ_between_forms_only_without_a_control():
    forms = {"patch": inverted(CHEAP), "warp": inverted(CHEAP)}
    alone = {one.form: one.threshold for one in verdict.findings(forms)}
    assert alone["warp"] > alone["patch"]
    tried = {form: with_control(CHEAP, [0.5] * 4, threshold=3.1) for form in forms}
    assert {one.threshold for one in verdict.findings(tried)} == {3.1}


def test_findings_name_the_cheapest_class_and_the_clearest_form_first():
    found = verdict.findings({"smooth": inverted(ORDINARY), "pattern": inverted(CHEAP)})
    assert [one.form for one in found] == ["pattern", "smooth"]
    assert found[0].target == 1
    assert found[0].cost == pytest.approx(0.3)
    assert [one.evident for one in found] == [True, False]


def with_margins(**of_form):
    """A form per (class, margin), by the threshold that gives the margin."""
    found = {}
    for form, (target, margin) in of_form.items():
        one = with_control(np.roll(CHEAP, target - 1), [0.5] * 4)
        anomaly = verdict.findings({form: one})[0].anomaly
        found[form] = one._replace(threshold=np.float32(anomaly / margin))
    return found


@pytest.mark.parametrize(
    ("found", "suspicious"),
    [
        # Evidence, and what is half as suspicious and names another class.
        ({"patch": (1, 0.66), "smooth": (3, 1.3), "warp": (2, 0.64)}, ("patch", "smooth")),
        # The class is known; its other forms are not needed.
        ({"patch": (3, 0.66), "smooth": (3, 1.3), "warp": (1, 0.5)}, ("smooth",)),
        ({"patch": (3, 0.9), "smooth": (3, 1.1), "warp": (1, 1.3)}, ("smooth", "warp")),
        # Evidence, although it is less than half as suspicious.
        ({"warp": (1, 9.0), "smooth": (2, 1.01), "patch": (3, 0.99)}, ("warp", "smooth")),
        # No evidence: all.
        ({"warp": (1, 0.9), "patch": (1, 0.1)}, ("warp", "patch")),
    ],
)
def test_a_rival_of_the_evidence_is_suspicious_too(found, suspicious):
    assert verdict.suspicious_forms(with_margins(**found)) == suspicious
