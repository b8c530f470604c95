"""Inversion of planted backdoors, and its costs beside NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import all_but

from mcjax.core.errors import UserError
from mcjax.models.network import from_apply
from mcjax.repair.evidence import invert as invert_module
from mcjax.repair.evidence.control import THRESHOLDS, Control
from mcjax.repair.evidence.forms import FORMS
from mcjax.repair.evidence.invert import invert
from mcjax.repair.evidence.verdict import findings

SHAPE = (6, 6, 1)
NUM_CLASSES = 5
RNG = np.random.default_rng(0)
TEMPLATES = RNG.normal(size=(36, NUM_CLASSES)).astype(np.float32)
IMAGES = {
    "image": (0.8 * RNG.random((40, *SHAPE))).astype(np.float32),
    "label": np.arange(40) % NUM_CLASSES,
}
IMAGES["image"][:, 5, 5] = 0  # where the planted trigger is


def apply(w, x):
    """Logits by templates; a bright last pixel gives class 3 as much as `w["gain"]` says."""
    logits = x.reshape(len(x), -1)[:, :35] @ w["templates"][:35]
    return logits.at[:, 3].add(w["gain"] * x[:, 5, 5, 0])


NETWORK = from_apply(apply)


def variables(gain):
    return {"templates": jnp.asarray(TEMPLATES), "gain": jnp.float32(gain)}


def inverted(gain, network=NETWORK, **options):
    options = {"num_steps": 60, "batch_size": 8, "num_restarts": 2, **options}
    return invert(jax.random.key(0), network, variables(gain), IMAGES, **options)


def test_a_planted_trigger_is_found_and_a_clean_network_gives_no_alarm():
    planted = findings(inverted(40.0, forms=("patch", "pattern")))
    assert {one.target for one in planted} == {3}
    assert planted[0].evident
    assert planted[0].success > 0.95
    clean = findings(inverted(0.0, forms=("patch", "pattern")))
    assert not clean[0].evident


@pytest.mark.parametrize("form", all_but(["patch"], FORMS))
def test_costs_are_those_of_the_triggers_found(form):
    one = inverted(10.0, forms=(form,), num_steps=5, num_restarts=2)[form]
    assert one.cost.shape == one.size.shape == one.success.shape == (2, NUM_CLASSES)
    f = FORMS[form]
    for restart, k in ((0, 1), (1, 3)):
        q = jax.tree.map(lambda v, i=restart, k=k: v[i, k], one.triggers)
        logits = np.asarray(apply(variables(10.0), f.stamp(q, jnp.asarray(IMAGES["image"]))))
        logits = logits.astype(np.float64)
        nll = (np.log(np.exp(logits).sum(1)) - logits[:, k]).mean()
        size = float(f.size(q, jnp.asarray(IMAGES["image"])))
        assert one.size[restart, k] == pytest.approx(size, rel=1e-4)
        assert one.cost[restart, k] == pytest.approx(nll + size / f.natural(SHAPE), rel=1e-3)
        assert one.success[restart, k] == pytest.approx((logits.argmax(1) == k).mean())


@pytest.mark.parametrize("form", all_but(["pattern"], FORMS))
def test_triggers_are_tried_on_the_controls(form):
    """What they leave of the cross-entropy of a network without the backdoor, and of the suspect."""
    for control in (variables(0.0), variables(10.0)):
        one = inverted(10.0, forms=(form,), control=Control(control, "away"))[form]
        assert float(one.threshold) == pytest.approx(THRESHOLDS["away"])
        assert one.control_share.shape == (2, NUM_CLASSES)
        q = jax.tree.map(lambda v: v[0, 3], one.triggers)
        stamped, plain = (
            loss(control, x, 3)
            for x in (FORMS[form].stamp(q, jnp.asarray(IMAGES["image"])), IMAGES["image"])
        )
        assert float(one.control_share[0, 3]) == pytest.approx(stamped / plain, rel=1e-3)
    # The last control is the suspect itself.
    nll = float(one.cost[0, 3] - one.size[0, 3] / FORMS[form].natural(SHAPE))
    assert float(one.control_share[0, 3]) == pytest.approx(nll / plain, rel=1e-2)


def loss(v, x, k):
    """Mean cross-entropy with class k."""
    logits = np.float64(apply(v, jnp.asarray(x)))
    return (np.log(np.exp(logits).sum(1)) - logits[:, k]).mean()


@pytest.mark.parametrize("chunk", [1, 2, 3, 99])
def test_all_classes_are_searched_in_chunks_of_any_size(chunk, monkeypatch):
    options = {"forms": ("pattern",), "num_steps": 5}
    expected = inverted(10.0, **options)["pattern"]
    monkeypatch.setattr(invert_module, "CHUNK", {jax.default_backend(): chunk})
    found = inverted(10.0, **options)["pattern"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), found, expected
    )


def test_one_class_alone_is_the_same_and_needs_no_other_program():
    traces = []

    def traced(w, x):
        traces.append(x.shape)
        return apply(w, x)

    network, options = from_apply(traced), {"forms": ("pattern", "patch"), "num_steps": 5}
    whole = inverted(10.0, network=network, **options)
    num_traces = len(traces)
    some = inverted(10.0, network=network, classes={"pattern": 3, "patch": 1}, **options)
    assert len(traces) == num_traces
    for form, k in (("pattern", 3), ("patch", 1)):
        others = np.delete(np.arange(NUM_CLASSES), k)
        np.testing.assert_array_equal(some[form].cost[:, k], whole[form].cost[:, k])
        for a, b in zip(
            *map(jax.tree.leaves, (some[form].triggers, whole[form].triggers)), strict=True
        ):
            np.testing.assert_array_equal(a[:, k], b[:, k])
        assert np.isinf(some[form].cost[:, others]).all()


def test_restarts_are_independent_and_repeatable():
    one, two = (inverted(10.0, forms=("pattern",), num_restarts=n)["pattern"] for n in (1, 2))
    np.testing.assert_allclose(one.cost[0], two.cost[0], rtol=1e-4)
    assert not np.allclose(two.cost[0], two.cost[1], rtol=1e-6)
    again = inverted(10.0, forms=("pattern",), num_restarts=2)["pattern"]
    np.testing.assert_array_equal(two.cost, again.cost)


def test_more_steps_make_triggers_cheaper():
    few, many = (inverted(10.0, forms=("pattern",), num_steps=n)["pattern"] for n in (3, 60))
    assert (many.cost < few.cost).all()


def test_mistakes_are_refused():
    with pytest.raises(UserError, match="no images to invert triggers on"):
        invert(jax.random.key(0), NETWORK, variables(0.0), {"image": IMAGES["image"][:0]})
    with pytest.raises(UserError, match="unknown form of triggers 'blob'"):
        inverted(0.0, forms=("blob",))
    with pytest.raises(UserError, match="give at least 1 of each"):
        inverted(0.0, num_steps=0)
