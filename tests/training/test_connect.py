"""The notebook's calls: a trained network, and the curve between two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import Bezier, connect, data, evaluate_path, models, train_network
from mcjax.core.errors import UserError
from mcjax.models.network import from_linen
from mcjax.training.losses import classification_metrics

DIGITS = data.load("digits")
SOME = {name: v[:200] for name, v in DIGITS.train.items()}
NETWORK = from_linen(models.create("mlp", num_classes=10, hidden=(8,)), (8, 8, 1))


@pytest.fixture(scope="module")
def ends():
    return [train_network(jax.random.key(s), NETWORK, SOME, num_steps=150) for s in (0, 1)]


def test_a_network_learns_and_its_key_decides_it(ends):
    accuracy = (NETWORK.apply(ends[0], SOME["image"]).argmax(-1) == SOME["label"]).mean()
    assert accuracy > 0.9
    again = train_network(jax.random.key(0), NETWORK, SOME, num_steps=150)
    jax.tree.map(np.testing.assert_array_equal, ends[0], again)
    assert set(ends[0]) == {"params"}


def test_the_curve_is_better_than_the_line_it_started_from(ends):
    line = connect(jax.random.key(2), NETWORK, *ends, SOME, num_bends=0)
    curve = connect(jax.random.key(2), NETWORK, *ends, SOME, num_steps=300)
    assert isinstance(curve.curve, Bezier)
    for t, end in ((0.0, ends[0]), (1.0, ends[1])):
        for path in (line, curve):
            jax.tree.map(np.testing.assert_array_equal, path(jnp.float32(t)), end)
    ts = np.linspace(0, 1, 5)
    metric_fn = classification_metrics(NETWORK.apply)
    loss = [
        np.asarray(evaluate_path(metric_fn, path, ts, SOME)["loss"]).max() for path in (line, curve)
    ]
    assert loss[1] < 0.5 * loss[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "spline"}, "kind is 'spline'"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1"),
        ({"num_bends": -1}, "num_bends is -1"),
    ],
)
def test_options_without_sense_are_refused(ends, changes, message):
    with pytest.raises(UserError, match=message):
        connect(jax.random.key(0), NETWORK, *ends, SOME, **changes)


def test_inputs_that_do_not_fit_are_refused(ends):
    a, b = ends
    bad = jax.tree.map(lambda v: v * jnp.nan, b)
    other = {"params": {"x": jnp.ones(2)}}
    for network, end, images, message in (
        (NETWORK, bad, SOME, "end: .* holds NaN"),
        (NETWORK, other, SOME, "start and end differ"),
        (NETWORK.apply, b, SOME, "network must be a mcjax.models.network.Network"),
        (NETWORK, b, {**SOME, "label": SOME["label"] + 5}, r"the labels lie in \[5, 14\]"),
        (NETWORK, b, {"x": SOME["image"]}, r"have no image and no label \(they have x\)"),
        (NETWORK, b, {**SOME, "image": SOME["image"][:, :4]}, "does not accept images of shape"),
    ):
        with pytest.raises(UserError, match=message):
            connect(jax.random.key(0), network, a, end, images)
    with pytest.raises(TypeError, match="there is no option 'steps'"):
        train_network(jax.random.key(0), NETWORK, SOME, steps=3)
