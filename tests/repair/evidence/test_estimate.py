"""The estimated attack success beside hand-worked numbers and a plain loop."""

import jax.numpy as jnp
import numpy as np
import pytest
from made_triggers import CHEAP, ORDINARY, inverted

from mcjax.curves import Bezier
from mcjax.evaluation.path import evaluate_path
from mcjax.repair.evidence import estimate
from mcjax.training.losses import classification_metrics


def test_only_images_of_other_classes_are_judged():
    found = {"smooth": inverted(ORDINARY), "pattern": inverted(CHEAP)}  # class 1
    label = np.tile([0, 1, 2, 1], 300)
    assert estimate.num_judged({"image": label, "label": label}, found) == estimate.NUM_IMAGES // 2
    assert estimate.num_judged({"image": label[:6], "label": label[:6]}, found) == 3


def test_one_restart_is_unlearned_and_the_other_judges():
    found = {"pattern": inverted(CHEAP)}
    assert estimate.chosen_triggers(found, 0)["pattern"]["pattern"][0, 0, 0, 0] == pytest.approx(
        0.1
    )
    assert estimate.chosen_triggers(found, 1)["pattern"]["pattern"][0, 0, 0, 0] == pytest.approx(
        0.5
    )
    only = {"pattern": inverted(CHEAP, restarts=1)}
    assert estimate.chosen_triggers(only, 1)["pattern"]["pattern"][0, 0, 0, 0] == pytest.approx(0.1)
    path = estimate.held_out(lambda t: t, found)
    np.testing.assert_array_equal(path.triggers["pattern"]["pattern"], np.full((1, 2, 2, 1), 0.5))
    assert int(path.targets["pattern"]) == 1
    # Triggers inverted anew judge as well, for the class that was found first.
    other = {
        "pattern": inverted([0.1, 3.0, 2.7, 3.3])._replace(
            triggers={"pattern": found["pattern"].triggers["pattern"] + 7}
        )
    }
    both = estimate.held_out(lambda t: t, found, [other]).triggers["pattern"]["pattern"]
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
    rates = estimate.success_by_form(table)
    np.testing.assert_allclose(rates["pattern"], [0.2, 0.4])
    np.testing.assert_allclose(estimate.estimated_success(table, found), [0.2, 0.6])


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
    sets = {"clean": clean, estimate.MARK: estimate.marked(examples)}
    metric_fn = estimate.with_success(classification_metrics(linear), linear)
    table = evaluate_path(metric_fn, estimate.held_out(curve, found), ts, sets)
    plain = evaluate_path(classification_metrics(linear), curve, ts, clean)
    np.testing.assert_allclose(table["clean"]["accuracy"], plain["accuracy"])
    estimated = estimate.estimated_success(table[estimate.MARK], found)
    assert estimated.max() > 0
    others = examples["label"] != 1
    for t, rate in zip(ts, estimated, strict=True):
        x = np.clip(examples["image"] + 0.5, 0, 1)[others].reshape(-1, 4)
        answers = (x @ np.asarray(curve(t))).argmax(1)
        assert rate == pytest.approx((answers == 1).mean(), abs=1e-6)
    # The ordinary form succeeds too, but is no evidence.
    ordinary = estimate.estimated_success(table[estimate.MARK], {"smooth": found["smooth"]})
    np.testing.assert_array_equal(ordinary, 0)
    # For the choice of t the most suspicious form serves all the same.
    by_form = estimate.success_by_form(table[estimate.MARK])
    assert by_form["smooth"].max() > 0
    for names, expected in ((("smooth",), by_form["smooth"]), (("pattern", "smooth"), estimated)):
        some = {name: found[name] for name in names}
        chosen_by = estimate.suspicious_success(table[estimate.MARK], some)
        np.testing.assert_array_equal(chosen_by, expected)
    assert set(estimate.success_by_form(table[estimate.MARK])) == {"pattern", "smooth"}
