"""Verdicts and estimates beside hand-worked numbers and a plain loop."""

import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.curves import Bezier
from mcjax.evaluation.path import evaluate_path
from mcjax.repair.evidence import judge
from mcjax.repair.evidence.invert import Inverted
from mcjax.training.losses import classification_metrics

ORDINARY, CHEAP = [3.0, 2.7, 3.3, 3.1], [3.0, 0.3, 2.7, 3.1]


def inverted(costs, restarts=2):
    """Patterns of 2 x 2 pixels whose value names restart and class."""
    cost = np.tile(np.float32(costs), (restarts, 1))
    number = len(costs)
    pattern = np.arange(restarts * number, dtype=np.float32).reshape(restarts, number, 1, 1, 1)
    triggers = {"pattern": np.broadcast_to(pattern, (restarts, number, 2, 2, 1)) / 10}
    return Inverted(triggers, cost, cost, np.full_like(cost, 0.5))


def test_anomalies_by_hand():
    # Others of class 1: logs of 3, 2.7, 3.1: median log 3; deviations 0, 0.1054, 0.0328.
    spread = max(1.4826 * (np.log(3.1) - np.log(3.0)), 0.1)
    expected = (np.log(3.0) - np.log(0.3)) / spread
    assert judge.anomalies(CHEAP)[1] == pytest.approx(expected)
    # Wide spreads count: the others of class 0 are 1, 2, 4.
    wide = 1.4826 * np.log(2)
    assert judge.anomalies([1.0, 1.0, 2.0, 4.0])[0] == pytest.approx(np.log(2) / wide)
    assert judge.anomalies([2.0, 2.0])[0] == 0


def test_findings_name_the_cheapest_class_and_the_clearest_form_first():
    found = judge.findings({"smooth": inverted(ORDINARY), "pattern": inverted(CHEAP)})
    assert [one.form for one in found] == ["pattern", "smooth"]
    assert found[0].target == 1
    assert found[0].cost == pytest.approx(0.3)
    assert [one.evident for one in found] == [True, False]


def test_only_images_of_other_classes_are_judged():
    found = {"smooth": inverted(ORDINARY), "pattern": inverted(CHEAP)}  # class 1
    label = np.tile([0, 1, 2, 1], 300)
    assert judge.num_judged({"image": label, "label": label}, found) == judge.NUM_IMAGES // 2
    assert judge.num_judged({"image": label[:6], "label": label[:6]}, found) == 3


def test_one_restart_is_unlearned_and_the_other_judges():
    found = {"pattern": inverted(CHEAP)}
    assert judge.chosen_triggers(found, 0)["pattern"]["pattern"][0, 0, 0, 0] == pytest.approx(0.1)
    assert judge.chosen_triggers(found, 1)["pattern"]["pattern"][0, 0, 0, 0] == pytest.approx(0.5)
    only = {"pattern": inverted(CHEAP, restarts=1)}
    assert judge.chosen_triggers(only, 1)["pattern"]["pattern"][0, 0, 0, 0] == pytest.approx(0.1)
    path = judge.held_out(lambda t: t, found)
    np.testing.assert_array_equal(path.triggers["pattern"]["pattern"], np.full((1, 2, 2, 1), 0.5))
    assert int(path.targets["pattern"]) == 1
    # Triggers inverted anew judge as well, for the class that was found first.
    other = {
        "pattern": inverted([0.1, 3.0, 2.7, 3.3])._replace(
            triggers={"pattern": found["pattern"].triggers["pattern"] + 7}
        )
    }
    both = judge.held_out(lambda t: t, found, [other]).triggers["pattern"]["pattern"]
    np.testing.assert_allclose(both[:, 0, 0, 0], [0.5, 7.5])


def test_the_best_held_out_trigger_of_the_most_suspicious_class_counts():
    found = {
        "pattern": inverted(CHEAP),
        "smooth": inverted([0.31, 3.0, 2.7, 3.1]),  # evidence, but for another class
        "warp": inverted([3.0, 0.4, 2.7, 3.1]),
    }
    table = {f"{form}_others": [0.5, 0.5] for form in found}
    table |= {
        "pattern_hits_0": [0.1, 0.0],
        "pattern_hits_1": [0.0, 0.2],
        "warp_hits_0": [0.05, 0.3],
    }
    table |= {"smooth_hits_0": [0.5, 0.5]}
    rates = judge.success_by_form(table)
    np.testing.assert_allclose(rates["pattern"], [0.2, 0.4])
    np.testing.assert_allclose(judge.estimated_success(table, found), [0.2, 0.6])


def linear(w, x):
    return x.reshape(len(x), -1) @ w


def test_success_along_a_path_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    ends = [jnp.asarray(rng.normal(size=(4, 4)), jnp.float32) for _ in range(2)]
    curve, ts = Bezier.connect(*ends), np.linspace(0, 1, 5)
    examples = {"image": rng.random((9, 2, 2, 1)).astype(np.float32), "label": np.arange(9) % 4}
    found = {"pattern": inverted(CHEAP), "smooth": inverted(ORDINARY)}
    found["smooth"] = found["smooth"]._replace(
        triggers={"grid": found["smooth"].triggers["pattern"]}
    )
    clean = {k: jnp.asarray(v)[None] for k, v in examples.items()}
    sets = {"clean": clean, judge.MARK: judge.marked(examples)}
    metric_fn = judge.with_success(classification_metrics(linear), linear)
    table = evaluate_path(metric_fn, judge.held_out(curve, found), ts, sets)
    plain = evaluate_path(classification_metrics(linear), curve, ts, clean)
    np.testing.assert_allclose(table["clean"]["accuracy"], plain["accuracy"])
    estimated = judge.estimated_success(table[judge.MARK], found)
    assert estimated.max() > 0
    others = examples["label"] != 1
    for t, rate in zip(ts, estimated, strict=True):
        x = np.clip(examples["image"] + 0.5, 0, 1)[others].reshape(-1, 4)
        answers = (x @ np.asarray(curve(t))).argmax(1)
        assert rate == pytest.approx((answers == 1).mean(), abs=1e-6)
    # The ordinary form succeeds too, but is no evidence.
    ordinary = judge.estimated_success(table[judge.MARK], {"smooth": found["smooth"]})
    np.testing.assert_array_equal(ordinary, 0)
    # For the choice of t the most suspicious form serves all the same.
    by_form = judge.success_by_form(table[judge.MARK])
    assert by_form["smooth"].max() > 0
    for names, expected in ((("smooth",), by_form["smooth"]), (("pattern", "smooth"), estimated)):
        some = {name: found[name] for name in names}
        chosen_by = judge.suspicious_success(table[judge.MARK], some)
        np.testing.assert_array_equal(chosen_by, expected)
    assert set(judge.success_by_form(table[judge.MARK])) == {"pattern", "smooth"}
