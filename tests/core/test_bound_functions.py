"""Functions that are equal where their arguments are, and programs that are forgotten."""

import gc
import weakref

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import models
from mcjax.core.bound_functions import FewPrograms
from mcjax.curves import Bezier, PolyChain
from mcjax.models.network import from_linen, in_bfloat16, normalised
from mcjax.training.objectives import curve_loss, endpoint_loss
from mcjax.training.robust_objectives import madry_loss, trades_loss


def made(width=4):
    return from_linen(models.create("cnn", num_classes=3, width=width), (8, 8, 1))


@pytest.mark.parametrize(
    "of",
    [
        lambda n: n,
        lambda n: normalised(n, [0.5], [0.25]),
        in_bfloat16,
        endpoint_loss,
        lambda n: curve_loss(n, Bezier, weight_decay=0.1),
        lambda n: madry_loss(n, eps=0.1),
        lambda n: trades_loss(n, beta=2.0),
    ],
)
def test_what_is_made_of_equal_networks_is_equal(of):
    assert of(made()) == of(made())
    assert hash(of(made())) == hash(of(made()))
    assert of(made()) != of(made(width=5))


def test_other_arguments_are_another_function():
    network = made()
    losses = {
        curve_loss(network, Bezier, weight_decay=0.1),
        curve_loss(network, Bezier, weight_decay=0.2),
        curve_loss(network, PolyChain, weight_decay=0.1),
        endpoint_loss(network),
        endpoint_loss(normalised(network, [0.5], [0.25])),
        madry_loss(network, eps=0.1),
        madry_loss(network, eps=0.2),
        trades_loss(network, eps=0.1),
    }
    assert len(losses) == 8


def test_a_module_that_cannot_be_hashed_equals_only_itself():
    class Net(nn.Module):
        sizes: object

        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(self.sizes[0])(x.reshape(len(x), -1))

    a, b = (from_linen(Net(np.array([2])), (4, 4, 1)) for _ in range(2))
    assert a == a
    assert a.apply != b.apply
    variables = a.init(jax.random.key(0))
    assert jax.jit(a.apply)(variables, jnp.ones((1, 4, 4, 1))).shape == (1, 2)


def test_programs_beyond_the_bound_are_forgotten_with_the_functions_they_were_made_for():
    traces = []

    def apply(x, *, fn):
        traces.append(1)
        return fn(x)

    program = FewPrograms(apply, static=("fn",), most=2)
    fns = [lambda x, i=i: x + i for i in range(3)]
    kept = [weakref.ref(fn) for fn in fns]
    for _ in range(2):
        for i, fn in enumerate(fns[:2]):
            assert program(1.0, fn=fn) == 1 + i
    assert len(traces) == 2
    assert program(1.0, fn=fns[2]) == 3
    del fns, fn
    gc.collect()
    assert [ref() is not None for ref in kept] == [False, True, True]


def test_a_static_argument_that_is_missing_is_named():
    program = FewPrograms(lambda x, *, fn: fn(x), static=("fn",))
    with pytest.raises(TypeError, match="fn"):
        program(1.0)
