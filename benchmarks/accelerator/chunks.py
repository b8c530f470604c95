"""How many points of a path to vmap together here: time and memory of 1, 2, 4, 8."""

from collections.abc import Iterator, Set
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks import chunk
from benchmarks.accelerator.networks import network
from mcjax.network import in_bfloat16

Row = dict[str, Any]
NETWORKS = ("vgg16", "preresnet26", "convfc")


def rows(name: str, done: Set[str], tiny: bool) -> Iterator[Row]:
    """As `benchmarks.chunk`, over 10,000 images in batches of 1,000, in bfloat16.

    Args:
        name: The tiny network's, if tiny.
        done: Names of rows to leave out.
        tiny: Small sizes.

    Yields:
        `benchmarks.chunk.measure`'s row, and "worst", the largest relative difference to chunk 1's losses.
    """
    sizes = {"num_images": 24, "batch_size": 12, "repeats": 1} if tiny else {
        "num_images": 10_000, "batch_size": 1000, "repeats": 3,
    }  # fmt: skip
    for which in (name,) if tiny else NETWORKS:
        net, first = in_bfloat16(network(which)), None
        for number in (1, 2) if tiny else (1, 2, 4, 8):
            if f"{which} {number}" in done:
                continue
            shape = (8, 8, 3) if tiny else (32, 32, 3)
            row, losses = chunk.measure(net, number, 2 if tiny else 8, image_shape=shape, **sizes)
            first = losses if first is None else first
            worst = float(jnp.abs(losses / first - 1).max()) if np.all(first) else 0.0
            yield {"name": f"{which} {number}", "network": which, "worst": worst, **row}
