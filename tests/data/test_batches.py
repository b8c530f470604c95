import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcjax.data.batches import _divide_product, epoch_indices, stack_batches, to_unit
from mcjax.errors import UserError

KEY = jax.random.key(5)


@pytest.mark.parametrize("convert", [to_unit, jax.jit(to_unit)])
def test_to_unit(convert):
    every = np.arange(256, dtype=np.uint8)
    unit = convert(every)
    assert unit.dtype == jnp.float32
    np.testing.assert_allclose(unit, every / 255, rtol=2e-7)
    assert (unit[0], unit[255]) == (0, 1)
    np.testing.assert_array_equal(jnp.rint(unit * 255), every)
    floats = np.array([0, 0.3, 1], np.float32)
    np.testing.assert_array_equal(convert(floats), floats)
    with pytest.raises(TypeError, match="int32"):
        convert(np.array([1], np.int32))


@given(size=st.integers(1, 20), batch_size=st.integers(1, 25))
def test_stack_batches_keeps_order_and_masks_what_it_adds(size, batch_size):
    rng = np.random.default_rng(0)
    examples = {
        "image": rng.integers(1, 256, (size, 2, 3, 1), np.uint8),
        "label": rng.integers(1, 10, size).astype(np.int32),
    }
    batches = stack_batches(examples, batch_size)
    assert batches["image"].shape == (-(-size // batch_size), batch_size, 2, 3, 1)
    assert batches["mask"].dtype == np.float32
    mask = batches["mask"].ravel()
    assert mask.tolist() == [1.0] * size + [0.0] * (len(mask) - size)
    for key, array in examples.items():
        flat = batches[key].reshape(-1, *array.shape[1:])
        np.testing.assert_array_equal(flat[:size], array)
        assert not flat[size:].any()
        assert flat.dtype == array.dtype


@pytest.mark.parametrize(("size", "batch_size"), [(0, 4), (4, 0)])
def test_nothing_to_stack(size, batch_size):
    with pytest.raises(UserError, match="at least 1"):
        stack_batches({"image": np.zeros((size, 1, 1, 1)), "label": np.zeros(size)}, batch_size)


def reference(first_step, num_steps, batch_size, num_examples):
    """The definition, one place at a time, in Python's own integers."""
    orders = {}
    stream = []
    for p in range(first_step * batch_size, (first_step + num_steps) * batch_size):
        epoch = p // num_examples
        if epoch not in orders:
            key = jax.random.fold_in(KEY, epoch)
            orders[epoch] = np.asarray(jax.random.permutation(key, num_examples))
        stream.append(orders[epoch][p % num_examples])
    return np.array(stream).reshape(num_steps, batch_size)


@settings(deadline=None, max_examples=15)
@given(
    first_step=st.one_of(st.integers(0, 50), st.integers(2**30, 2**31 - 8)),
    # Few static shapes, so that compiling does not take the time.
    shape=st.sampled_from([(3, 4, 10), (2, 7, 3), (1, 1, 1), (3, 8, 64)]),
)
def test_agrees_with_its_definition(first_step, shape):
    num_steps, batch_size, num_examples = shape
    if first_step * batch_size // num_examples >= 2**31 - 16:
        first_step = first_step % 1000  # the number of the epoch itself must fit
    index = epoch_indices(
        KEY,
        first_step=first_step,
        num_steps=num_steps,
        batch_size=batch_size,
        num_examples=num_examples,
    )
    assert index.dtype == jnp.int32
    np.testing.assert_array_equal(index, reference(first_step, *shape))


@settings(deadline=None, max_examples=15)
@given(
    first_step=st.integers(0, 10_000),
    pieces=st.lists(st.sampled_from([1, 3]), min_size=1, max_size=4),
    sizes=st.sampled_from([(4, 10), (16, 10)]),
)
def test_consecutive_calls_join_to_one(first_step, pieces, sizes):
    batch_size, num_examples = sizes
    joined, step = [], first_step
    for num_steps in pieces:
        joined.append(call(step, num_steps, batch_size, num_examples))
        step += num_steps
    whole = [call(s, 1, batch_size, num_examples) for s in range(first_step, step)]
    np.testing.assert_array_equal(np.concatenate(joined), np.concatenate(whole))


def call(first_step, num_steps, batch_size, num_examples):
    return np.asarray(
        epoch_indices(
            KEY,
            first_step=first_step,
            num_steps=num_steps,
            batch_size=batch_size,
            num_examples=num_examples,
        )
    )


def test_each_epoch_has_every_example_once_in_another_order():
    index = call(0, 35, 2, 10).reshape(7, 10)
    np.testing.assert_array_equal(np.sort(index, axis=1), np.tile(np.arange(10), (7, 1)))
    assert len({tuple(row) for row in index.tolist()}) == 7


def test_one_trace_serves_every_first_step():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def piece(step):
        return epoch_indices(KEY, first_step=step, num_steps=2, batch_size=3, num_examples=7)

    for step in (0, 1, 5):
        np.testing.assert_array_equal(piece(step), reference(step, 2, 3, 7))


@given(step=st.integers(0, 2**31 - 1), factor=st.integers(1, 2**17), divisor=st.integers(1, 2**29))
@settings(deadline=None, max_examples=40)
def test_quotient_and_remainder_of_a_product_that_overflows(step, factor, divisor):
    quotient, remainder = step * factor // divisor, step * factor % divisor
    if quotient < 2**31:
        found = _divide_product(np.int32(step), factor, divisor)
        assert tuple(map(int, found)) == (quotient, remainder)
