"""Bit flips in stored weights: a targeted search and random errors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mcjax.attacks.checks import check_choice, check_sizes
from mcjax.attacks.fault_sneaking import importance, injection_loss
from mcjax.attacks.injection import (
    ApplyFn,
    Faults,
    Injected,
    Selected,
    describe,
    select_layers,
)
from mcjax.data.batches import to_unit
from mcjax.errors import UserError
from mcjax.tree import PyTree

STORED_AS = {"int8": 8, "float32": 32}


class Memory(NamedTuple):
    """Weights as stored in memory.

    Attributes:
        words: uint8 or uint32 [D]; int8 values are in two's complement.
        scale: float32 [D], the weight that int8 1 stands for, max |w| / 127 of each tensor; 1 for
            float32.
    """

    words: jax.Array
    scale: jax.Array


def store(selected: Selected, stored_as: str = "int8") -> Memory:
    """Stores weights as int8 with one scale per tensor, or as float32.

    Example:
        >>> selected = select_layers({"w": jnp.array([0.5, -1.27])})
        >>> store(selected).words
        Array([ 50, 129], dtype=uint8)
    """
    check_choice("stored_as", stored_as, tuple(STORED_AS))
    theta = selected.theta.astype(jnp.float32)
    if stored_as == "float32":
        return Memory(lax.bitcast_convert_type(theta, jnp.uint32), jnp.ones_like(theta))
    largest = [jnp.abs(theta[part]).max() for part in selected.slices]
    scales = [
        jnp.full(part.stop - part.start, top / 127)
        for part, top in zip(selected.slices, largest, strict=True)
    ]
    scale = jnp.concatenate(scales)
    rounded = jnp.round(theta / jnp.where(scale > 0, scale, 1))  # scale is 0 for a zero tensor
    return Memory(lax.bitcast_convert_type(rounded.astype(jnp.int8), jnp.uint8), scale)


def load(memory: Memory) -> jax.Array:
    """Reads the weights back, float32 [D]."""
    if memory.words.dtype == jnp.uint32:
        return lax.bitcast_convert_type(memory.words, jnp.float32)
    return lax.bitcast_convert_type(memory.words, jnp.int8).astype(jnp.float32) * memory.scale


def flip(memory: Memory, index: jax.typing.ArrayLike, bit: jax.typing.ArrayLike) -> Memory:
    """Flips one bit; bit 0 is the least significant.

    Example:
        >>> memory = store(select_layers({"w": jnp.array([1.0, -2.0])}), "float32")
        >>> load(flip(memory, 1, 31))
        Array([1., 2.], dtype=float32)
    """
    one = jnp.ones((), memory.words.dtype)
    mask = one << jnp.asarray(bit).astype(memory.words.dtype)
    return memory._replace(words=memory.words.at[index].set(memory.words[index] ^ mask))


def random_bit_errors(
    key: jax.Array,
    variables: PyTree,
    *,
    rate: float,
    stored_as: str = "int8",
    layers: Sequence[str] = (),
) -> PyTree:
    """Flips each stored bit independently with probability `rate`, as in undervolted memory.

    Args:
        key: Random key.
        variables: The network's variables; not modified.
        rate: Probability that a bit flips, in [0, 1].
        stored_as: "int8" (one scale per tensor) or "float32", where a flipped exponent bit can make
            a weight infinite.
        layers: Layers whose bits can flip; () for all.

    Returns:
        The variables with the weights read back from memory.

    Raises:
        UserError: rate is outside [0, 1]; stored_as or a layer is unknown.

    Source: Stutz et al. 2021 (random bit errors).
    """
    if not 0 <= rate <= 1:
        raise UserError(f"rate is {rate}; give a probability from 0 to 1")
    selected = select_layers(variables, layers)
    memory = store(selected, stored_as)
    num_bits = STORED_AS[stored_as]
    errors = jax.random.bernoulli(key, rate, (num_bits, len(memory.words)))
    places = jnp.ones(num_bits, memory.words.dtype) << jnp.arange(
        num_bits, dtype=memory.words.dtype
    )
    mask = (errors * places[:, None]).sum(0).astype(memory.words.dtype)
    return selected.with_weights(load(memory._replace(words=memory.words ^ mask)))


def bit_flip_attack(
    apply_fn: ApplyFn,
    variables: PyTree,
    faults: Faults,
    *,
    num_flips: int = 20,
    stored_as: str = "int8",
    layers: Sequence[str] = (),
    fault_weight: float | None = None,
    confidence: float = 1.0,
) -> Injected:
    """Injects faults by flipping one bit after another (progressive bit search).

    Each step takes, from every tensor, the bit with the best first-order change of the loss,
    argmin_b dL/dw (w_flipped - w), among those that keep the weight within twice the tensor's
    largest; the one with the lowest true loss stays flipped. If none lowers the loss (by 1e-4 of it),
    the best candidate of each bit position (1s, 2s, 4s, ...) in each tensor is tried; if none of
    those does, the search ends early. The loss is that of fault sneaking.

    Args:
        apply_fn: `apply_fn(variables, x) -> logits`.
        variables: The network's variables; not modified.
        faults: The images, see `mcjax.attacks.injection.choose_faults`.
        num_flips: Maximum number of flips.
        stored_as: "int8" or "float32".
        layers: Layers whose bits can flip; () for all.
        fault_weight: Weight of the first S images' loss, see `fault_sneaking`.
        confidence: Margin, in logits, by which a target must win.

    Returns:
        The network read back from memory, and a report; its norms are those of the flips alone,
        without the rounding to int8, and "flips" lists (tensor, index in it, bit).

    Raises:
        UserError: stored_as or a layer is unknown; a size is negative.

    Source: Rakin et al. 2019 (bit-flip attack); with targets as in Rakin et al. 2021.
    """
    check_sizes(num_flips=num_flips, confidence=confidence)
    original = select_layers(variables, layers)
    memory = store(original, stored_as)
    x = to_unit(jnp.asarray(faults.examples["image"]))
    y = jnp.asarray(faults.examples["label"])
    weight = importance(faults, fault_weight)

    @jax.jit
    def search(memory: Memory, x: jax.Array, y: jax.Array) -> tuple[Memory, jax.Array, jax.Array]:
        def logits_fn(theta: jax.Array) -> jax.Array:
            return apply_fn(original.with_weights(theta), x)

        def loss(theta: jax.Array) -> jax.Array:
            return injection_loss(logits_fn(theta), y, weight, confidence=confidence)

        def best(memory: Memory, flips: jax.Array, gain: jax.Array) -> tuple[jax.Array, jax.Array]:
            losses = lax.map(lambda f: loss(load(flip(memory, *f))), flips)
            losses = jnp.where(jnp.isfinite(gain) & jnp.isfinite(losses), losses, jnp.inf)
            return flips[losses.argmin()], losses.min()

        def step(state: Any, _: None) -> tuple[Any, jax.Array]:
            memory, lowest, ended = state
            gradient = jax.grad(loss)(load(memory))
            flips, gain = _candidates(memory, gradient, original.slices)
            tensors = jnp.arange(gain.shape[1])
            found = best(memory, flips[gain.argmin(0), tensors], gain.min(0))
            # Flips of the lowest bits of float32 would lower the loss by tiny amounts forever.
            enough = lowest * (1 - 1e-4)
            found = lax.cond(
                (found[1] < enough) | ended,
                lambda: found,
                lambda: best(memory, flips.reshape(-1, 2), gain.reshape(-1)),
            )
            chosen, low = found
            better = low < enough
            words = jnp.where(better, flip(memory, *chosen).words, memory.words)
            state = (memory._replace(words=words), jnp.minimum(low, lowest), ~better)
            return state, jnp.where(better, chosen, -1)

        start: Any = (memory, loss(load(memory)), jnp.array(False))
        (memory, _, _), flips = lax.scan(step, start, None, length=num_flips)
        return memory, flips, logits_fn(load(memory))

    after, flips, logits = search(memory, x, y)
    before = select_layers(original.with_weights(load(memory)), layers)
    injected = describe(before, load(after), logits, faults)
    injected.report["flips"] = [
        _named(original, int(i), int(bit)) for i, bit in jax.device_get(flips) if i >= 0
    ]
    return injected


def _candidates(
    memory: Memory, gradient: jax.Array, slices: Sequence[slice]
) -> tuple[jax.Array, jax.Array]:
    """For each bit position and tensor: the best (weight, bit) and its predicted change of the loss.

    Returns:
        int32 [bits, tensors, 2] and float32 [bits, tensors].
    """
    theta, num_bits = load(memory), memory.words.dtype.itemsize * 8
    everywhere = jnp.arange(len(memory.words))
    # A flipped exponent bit can give 1e38, where the first-order prediction is meaningless.
    limit = jnp.concatenate(
        [jnp.full(part.stop - part.start, 2 * jnp.abs(theta[part]).max()) for part in slices]
    )

    def promise(bit: jax.Array) -> tuple[jax.Array, jax.Array]:
        flipped = load(flip(memory, everywhere, bit))
        gain = jnp.where(jnp.abs(flipped) <= limit, gradient * (flipped - theta), jnp.inf)
        best = jnp.stack([part.start + gain[part].argmin() for part in slices])
        return best, gain[best]

    index, gain = lax.map(promise, jnp.arange(num_bits))  # one bit in memory
    bits = jnp.broadcast_to(jnp.arange(num_bits)[:, None], index.shape)
    return jnp.stack([index, bits], -1), gain


def _named(selected: Selected, index: int, bit: int) -> tuple[str, int, int]:
    for name, part in zip(selected.names, selected.slices, strict=True):
        if part.start <= index < part.stop:
            return name, index - part.start, bit
    raise AssertionError(index)
