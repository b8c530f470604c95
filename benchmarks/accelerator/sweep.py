"""Many small networks: trained side by side in one program, and one after the other."""

import time
from collections.abc import Iterator, Set

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.record import Row
from mcjax import models
from mcjax.core.tree import PyTree
from mcjax.data import augmentation
from mcjax.models.network import from_linen
from mcjax.training import TrainState, init_state, sgd, train_steps
from mcjax.training.objectives import endpoint_loss

NUMBERS = (1, 4, 16, 64)
MOST_SECONDS = 15  # of training one after the other; what remains is scaled, and said so


def rows(_: str, done: Set[str], tiny: bool) -> Iterator[Row]:
    """Seconds of a training of n networks (cnn of width 16, 28 x 28 images, batches of 128), both ways.

    Args:
        _: Not used.
        done: Names of rows to leave out.
        tiny: Fewer, smaller, and no convolutions: many side by side are slow on a CPU.

    Yields:
        "together", "one_by_one" (of "timed_alone" networks, scaled to n) in seconds, "speedup", and "worst",
        the largest difference of a loss between the two ways, relative to the largest loss.
    """
    shape, steps = ((8, 8, 1), 3) if tiny else ((28, 28, 1), 200)
    name, options = ("mlp", {}) if tiny else ("cnn", {"width": 16})
    module = models.create(name, num_classes=10, **options)
    net = from_linen(module, shape)
    rng = np.random.default_rng(0)
    examples = {
        "image": jnp.asarray(rng.integers(0, 256, (2048, *shape), np.uint8)),
        "label": jnp.asarray(rng.integers(0, 10, 2048), jnp.int32),
    }
    optimizer = sgd(0.01, steps, momentum=0.9)

    def train(keys: jax.Array) -> np.ndarray:
        """Losses [networks, steps]; one key trains one network without a first axis."""
        variables = jax.vmap(net.init)(keys) if keys.ndim else net.init(keys)

        def state_of(variables: PyTree) -> TrainState:
            return init_state(variables["params"], variables.get("batch_stats", {}), optimizer)

        state = (jax.vmap(state_of) if keys.ndim else state_of)(variables)
        _, history = train_steps(
            keys, state, None, examples, jnp.int32(steps),
            capacity=steps, loss_fn=endpoint_loss(net), optimizer=optimizer,
            batch_size=16 if tiny else 128, augment_fn=augmentation.get("none"),
        )  # fmt: skip
        return np.asarray(history.loss)

    for number in NUMBERS[:2] if tiny else NUMBERS:
        if f"{number} networks" in done:
            continue
        keys = jax.random.split(jax.random.key(0), number)
        train(keys), train(keys[0])  # compiled
        began = time.perf_counter()
        losses = train(keys)
        together = time.perf_counter() - began
        alone: list[np.ndarray] = []
        began = time.perf_counter()
        while len(alone) < number and (not alone or time.perf_counter() - began < MOST_SECONDS):
            alone.append(train(keys[len(alone)]))
        one_by_one = (time.perf_counter() - began) * number / len(alone)
        yield {
            "name": f"{number} networks",
            "steps": steps,
            "together": together,
            "one_by_one": one_by_one,
            "timed_alone": len(alone),
            "speedup": one_by_one / together,
            "worst": float(np.abs(losses[: len(alone)] - alone).max() / np.abs(losses).max()),
        }
