"""Bits by hand, twice flipped is never flipped, and the search on a linear network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow import all_but

from mcjax.attacks.weights.bit_flips import bit_flip_attack, flip, load, random_bit_errors, store
from mcjax.attacks.weights.fault_sneaking import importance, injection_loss
from mcjax.attacks.weights.faults import choose_faults, select_layers
from mcjax.core.errors import UserError

VARIABLES = {"a": jnp.array([[0.5, -1.27], [0.01, 0.0]]), "b": jnp.zeros(3)}


def linear(variables, x):
    return x.reshape(len(x), -1) @ variables["w"] + variables["b"][None]


def case(*, num_faults=1, num_images=40):
    x = np.array(jax.random.uniform(jax.random.key(0), (num_images, 4, 4, 1)))
    variables = {"w": jax.random.normal(jax.random.key(1), (16, 4)), "b": jnp.zeros(4)}
    y = np.asarray(linear(variables, x).argmax(-1)).astype(np.int32)
    return variables, choose_faults(
        {"image": x, "label": y},
        np.ones(num_images, bool),
        seed=0,
        num_faults=num_faults,
        num_images=num_images,
        num_classes=4,
    )


@settings(deadline=None)
@given(st.integers(0, 6), st.sampled_from(["int8", "float32"]), st.integers(0, 31))
def test_a_bit_flipped_twice_gives_the_same_bytes(index, stored_as, bit):
    memory = store(select_layers(VARIABLES), stored_as)
    bit %= memory.words.dtype.itemsize * 8
    once = flip(memory, index, bit)
    changed = np.asarray(once.words) ^ np.asarray(memory.words)
    assert changed[index] == 1 << bit
    assert np.count_nonzero(changed) == 1
    assert np.asarray(flip(once, index, bit).words).tobytes() == np.asarray(memory.words).tobytes()


def test_what_memory_holds_by_hand():
    memory = store(select_layers(VARIABLES), "int8")
    # Scale 0.01: 50, -127 (129 as two's complement), 1, 0; and a tensor of zeros.
    np.testing.assert_array_equal(memory.words, [50, 129, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(load(memory), [0.5, -1.27, 0.01, 0, 0, 0, 0], rtol=1e-6)
    assert float(load(flip(memory, 2, 7))[2]) == pytest.approx(-1.27)  # 1 - 128
    exact = store(select_layers(VARIABLES), "float32")
    np.testing.assert_array_equal(load(exact), select_layers(VARIABLES).theta)
    assert float(load(flip(exact, 0, 31))[0]) == -0.5
    assert float(load(flip(exact, 0, 23))[0]) == 1.0  # the exponent's lowest bit: 0.5 to 1


def test_random_errors_meet_their_rate_and_nothing_else():
    variables = {"w": jax.random.normal(jax.random.key(0), (200, 100)), "b": jnp.ones(5)}
    selected = select_layers(variables, ["w"])
    before = np.asarray(store(selected).words)
    tampered = random_bit_errors(jax.random.key(1), variables, rate=0.02, layers=["w"])
    scale = np.asarray(store(selected).scale)
    after = np.round(np.asarray(tampered["w"]).ravel() / scale).astype(np.int64).astype(np.uint8)
    flipped = np.unpackbits((before ^ after)[:, None], axis=1).astype(int)
    # 160,000 bits of probability 0.02: 3,200 and 56; every place of a byte alike, 400 and 20.
    assert abs(flipped.sum() - 3200) < 5 * 56
    assert (abs(flipped.sum(0) - 400) < 5 * 20).all()
    np.testing.assert_array_equal(tampered["b"], variables["b"])
    same = random_bit_errors(jax.random.key(1), variables, rate=0.0, stored_as="float32")
    jax.tree.map(np.testing.assert_array_equal, same, variables)


@pytest.mark.parametrize("stored_as", ["int8", "float32"])
def test_the_search_brings_the_fault_in_and_lists_its_flips(stored_as):
    variables, faults = case()
    result = bit_flip_attack(linear, variables, faults, num_flips=12, stored_as=stored_as)
    report = result.report
    assert report["injection_success"] == 1.0
    assert report["kept_accuracy"] >= 0.7
    assert 1 <= len(report["flips"]) <= 12
    # The listed flips, made again one by one, give the same network.
    selected = select_layers(variables)
    memory = store(selected, stored_as)
    starts = dict(zip(selected.names, (part.start for part in selected.slices), strict=True))
    for name, index, bit in report["flips"]:
        memory = flip(memory, starts[name] + index, bit)
    np.testing.assert_array_equal(load(memory), select_layers(result.variables).theta)


def test_the_first_flip_is_no_worse_than_any_single_flip_of_the_best_bits_tensor():
    variables, faults = case()

    def loss(theta, selected):
        z = np.asarray(linear(selected.with_weights(theta), faults.examples["image"]), np.float64)
        y = faults.examples["label"]
        own = z[np.arange(len(y)), y]
        z[np.arange(len(y)), y] = -np.inf
        each = np.maximum(z.max(1) - own + 1, 0)
        weight = np.r_[39.0, np.ones(39)]
        return (weight * each).sum() / weight.sum()

    selected = select_layers(variables, ["b"])  # logits are linear in b: four weights, eight bits
    memory = store(select_layers({"b": jnp.array([1.0, 0.5, -0.25, 0.1])}), "int8")
    variables = {**variables, "b": load(memory)}
    faults.examples["label"][1:] = np.asarray(
        linear(variables, faults.examples["image"]).argmax(-1)
    )[1:]
    chosen = bit_flip_attack(linear, variables, faults, num_flips=1, layers=["b"])
    single = [loss(load(flip(memory, i, bit)), selected) for i in range(4) for bit in range(8)]
    got = loss(chosen.variables["b"], selected)
    assert got < loss(load(memory), selected)
    assert got <= np.sort(single)[3]  # by the gradient, so among the best, not always the best


@pytest.mark.parametrize("stored_as", all_but(["int8"], ["int8", "float32"]))
def test_an_early_end_is_one_where_no_tensors_best_flip_of_any_bit_helps(stored_as):
    """With one tensor the first look has one candidate, and would end where others still help."""
    variables, faults = case(num_faults=4, num_images=60)
    result = bit_flip_attack(
        linear, variables, faults, num_flips=400, layers=["w"], stored_as=stored_as
    )
    assert 20 < len(result.report["flips"]) < 400  # with one candidate a step it ended before
    assert result.report["injection_success"] >= {"int8": 1, "float32": 0.75}[stored_as]
    images, weight = jnp.asarray(faults.examples["image"]), importance(faults)

    def loss(theta):
        z = linear({**variables, "w": theta.reshape(16, 4)}, images)
        return injection_loss(z, jnp.asarray(faults.examples["label"]), weight, confidence=1.0)

    memory = store(select_layers(variables, ["w"]), stored_as)
    for _, index, bit in result.report["flips"]:
        memory = flip(memory, index, bit)
    theta, gradient = np.asarray(load(memory)), np.asarray(jax.grad(loss)(load(memory)))
    for bit in range(memory.words.dtype.itemsize * 8):
        flipped = np.array([load(flip(memory, i, bit))[i] for i in range(64)])
        near = np.abs(flipped) <= 2 * np.abs(theta).max()
        gain = np.where(near, gradient * (flipped - theta), np.inf)
        if near.any():
            other = loss(load(flip(memory, int(gain.argmin()), bit)))
            assert other >= loss(load(memory)) * (1 - 1.01e-4)


def test_a_tensor_of_zeros_stays_one():
    """The scale of int8 is the largest weight over 127: here 0, and no flip can make it another."""
    variables = {"k": jnp.array([0.1, -0.2]), "bias": jnp.zeros(64)}
    worn = random_bit_errors(jax.random.key(0), variables, rate=0.3)
    assert (worn["bias"] == 0).all()
    assert (worn["k"] != variables["k"]).any()


def test_mistakes():
    with pytest.raises(UserError, match=r"rate is 1.5"):
        random_bit_errors(jax.random.key(0), VARIABLES, rate=1.5)
    with pytest.raises(UserError, match="unknown stored_as 'int4'; use one of int8, float32"):
        random_bit_errors(jax.random.key(0), VARIABLES, rate=0.1, stored_as="int4")
