"""A curve before and after its training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.core.keys import stream
from mcjax.core.tree import digest
from mcjax.curves import Bezier, PolyChain
from mcjax.models.network import from_linen
from mcjax.models.small import MLP
from mcjax.training.curve import CurveOptions, starting_curve, train_curve
from mcjax.training.fit import Budget, fit
from mcjax.training.objectives import curve_loss

KEY = jax.random.key(0)
NETWORK = from_linen(MLP(num_classes=3, hidden=(4,)), (2, 2, 1))
A, B = (NETWORK.init(stream(KEY, name)) for name in "ab")
IMAGES = {"image": jax.random.uniform(KEY, (6, 2, 2, 1)), "label": jnp.arange(6) % 3}


def same(a, b):
    return digest(a) == digest(b)


@pytest.mark.parametrize(("kind", "curve_type"), [("bezier", Bezier), ("polychain", PolyChain)])
def test_bends_begin_on_the_line_or_as_new_networks(kind, curve_type):
    line = starting_curve(KEY, NETWORK, CurveOptions(kind, num_bends=2), A, B)
    assert isinstance(line, curve_type)
    for j, bend in enumerate(line.bends, 1):
        expected = jax.tree.map(lambda a, b, s=j / 3: (1 - s) * a + s * b, A["params"], B["params"])
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), bend, expected
        )
    new = starting_curve(KEY, NETWORK, CurveOptions(kind, 2, init="random"), A, B)
    assert same(new.bends[1], NETWORK.init(stream(KEY, "init", 1))["params"])
    assert not same(new.bends[0], new.bends[1])


@pytest.mark.parametrize(("fix_start", "fix_end"), [(True, True), (False, True), (True, False)])
def test_only_what_is_free_moves(fix_start, fix_end):
    curve = starting_curve(KEY, NETWORK, CurveOptions(), A, B)
    trained = train_curve(
        curve,
        {},
        IMAGES,
        loss_fn=curve_loss(NETWORK, Bezier, weight_decay=0.0),
        learning_rate=0.1,
        budget=Budget(3, 2, weight_decay=10.0),  # which only the loss may use
        fit_fn=functools.partial(fit, KEY),
        fix_start=fix_start,
        fix_end=fix_end,
    )
    assert same(trained.start, curve.start) == fix_start
    assert same(trained.end, curve.end) == fix_end
    assert not same(trained.bends, curve.bends)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(trained.bends)) < 5


def test_a_line_has_nothing_to_train():
    curve = starting_curve(KEY, NETWORK, CurveOptions(num_bends=0), A, B)
    options = {"loss_fn": None, "learning_rate": 0.1, "budget": Budget(3), "fit_fn": None}
    assert train_curve(curve, {}, IMAGES, **options) is curve
