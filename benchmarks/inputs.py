"""The same numbers for both frameworks: control points, images, the t and the batch of each step."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mcjax import models
from mcjax.core.keys import stream
from mcjax.core.tree import by_name
from mcjax.data.batches import epoch_indices
from mcjax.models.network import Network, from_linen
from mcjax.training.objectives import sample_t

NETWORKS = {
    "convfc": ("convfc", {}),
    "preresnet26": ("preresnet", {"depth": 26}),
    "vgg16": ("vgg", {"depth": 16}),
}
IMAGE_SHAPE = (32, 32, 3)
NUM_IMAGES = 1000
BATCH_SIZE = 128
WEIGHT_DECAY = 5e-4
LEARNING_RATE = 0.01
MOMENTUM = 0.9
T = 0.3  # the point that is evaluated and attacked
EPS, STEP_SIZE, PGD_STEPS = 8 / 255, 2 / 255, 10
MAX_STEPS = 32
TRAIN_KEY = 7


def network(name: str) -> Network:
    """The network of a benchmark."""
    family, options = NETWORKS[name]
    return from_linen(models.create(family, num_classes=10, **options), IMAGE_SHAPE)


def write_inputs(name: str, folder: Path, *, num_images: int = NUM_IMAGES) -> Path:
    """Draws everything that the work on a network needs.

    Args:
        name: A key of `NETWORKS`.
        folder: Where to.
        num_images: Images of the data set.

    Returns:
        The .npz file.
    """
    net = network(name)
    arrays = {}
    for i, point in enumerate(("start", "bend", "end")):
        variables = net.init(jax.random.key(i))
        for part in ("params", "batch_stats"):
            for leaf, value in by_name(variables.get(part, {})).items():
                arrays[f"{point}:{part}:{leaf}"] = value
    key = jax.random.key(TRAIN_KEY)
    arrays["images"] = np.asarray(jax.random.uniform(jax.random.key(9), (num_images, *IMAGE_SHAPE)))
    arrays["labels"] = np.asarray(jnp.arange(num_images) % 10, np.int32)
    steps = jnp.arange(MAX_STEPS)
    arrays["ts"] = np.asarray(jax.vmap(lambda s: sample_t(stream(key, "t"), s))(steps))
    arrays["indices"] = np.asarray(
        epoch_indices(
            stream(key, "shuffle"),
            first_step=0,
            num_steps=MAX_STEPS,
            batch_size=BATCH_SIZE,
            num_examples=num_images,
        )
    )
    path = folder / f"{name}.npz"
    np.savez(path, allow_pickle=False, **arrays)
    return path
