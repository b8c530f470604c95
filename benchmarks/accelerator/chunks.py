"""How many points of a path to vmap together here: time and memory of 1, 2, 4, 8."""

from collections.abc import Iterator, Set

import numpy as np

from benchmarks import chunk
from benchmarks.accelerator.networks import network
from benchmarks.accelerator.record import Row
from mcjax.models.network import in_bfloat16

# Images per point.
NETWORKS = {"vgg16": 10_000, "preresnet26": 10_000, "convfc": 10_000, "wide_resnet28x10": 1000}


def rows(name: str, done: Set[str], tiny: bool) -> Iterator[Row]:
    """As `benchmarks.chunk`, in bfloat16 and batches of 1,000 images.

    Args:
        name: The tiny network's, if tiny.
        done: Names of rows to leave out.
        tiny: Small sizes.

    Yields:
        `benchmarks.chunk.measure`'s row, and "worst", the largest relative difference to the losses of the first row.
    """
    shape = (8, 8, 3) if tiny else (32, 32, 3)
    batch, repeats, points, numbers = (12, 1, 2, (1, 2)) if tiny else (1000, 3, 8, (1, 2, 4, 8))
    for which in (name,) if tiny else NETWORKS:
        net, first = in_bfloat16(network(which)), None
        for number in numbers:
            if f"{which} {number}" in done:
                continue
            row, losses = chunk.measure(
                net,
                number,
                points,
                num_images=24 if tiny else NETWORKS[which],
                batch_size=batch,
                repeats=repeats,
                image_shape=shape,
            )
            first = losses if first is None else first
            worst = float(np.abs(losses / first - 1).max())
            yield {"name": f"{which} {number}", "network": which, "worst": worst, **row}
