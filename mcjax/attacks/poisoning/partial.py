"""A pattern that works only as a whole: an attacker who expects triggers to be inverted.

Inversion looks for the smallest trigger. Here images with a part of the pattern keep their label, so
that no small part of it opens the backdoor.
"""

import dataclasses
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.attacks.poisoning.options import between, positive, whole
from mcjax.attacks.poisoning.stamped import ImageShape, Stamp, Trigger
from mcjax.data.stratify import stream

__all__ = ["Whole", "adaptive_blended"]


@dataclasses.dataclass(frozen=True, eq=False)
class Whole(Trigger):
    """A stamp whose decoys are parts of it.

    Args:
        name: The trigger's name.
        inner: The stamp.
        cells: The image is divided into cells x cells parts.
        share: Share of the cells that a decoy stamps, drawn anew for each image.
        cover: Fraction of the training images that get a decoy.
    """

    name: str
    inner: Stamp
    cells: int
    share: float = 0.5
    cover: float = 0.2

    @property
    def image_shape(self) -> ImageShape:
        """(height, width, channels) of the images it stamps."""
        return self.inner.image_shape

    @property
    def contents(self) -> Hashable:
        """The stamp and its division."""
        return self.inner.contents, self.cells, self.share

    def stamp(self, x: Any) -> Any:
        """The whole pattern."""
        return self.inner.stamp(x)

    def decoy(self, key: jax.Array, x: Any) -> Any:
        """The pattern on a random share of the cells; see `Trigger.decoy`."""
        self.check_shape(x.shape)
        height, width, _ = self.image_shape
        number = self.cells**2
        kept = round(self.share * number)
        order = jax.vmap(lambda k: jax.random.permutation(k, number))(jax.random.split(key, len(x)))
        rows, columns = (jnp.arange(n) * self.cells // n for n in (height, width))
        cell = rows[:, None] * self.cells + columns[None]
        stamped = (order < kept)[:, cell][..., None]
        result = jnp.where(stamped, self(jnp.asarray(x)), jnp.asarray(x))
        return np.asarray(result, x.dtype) if isinstance(x, np.ndarray) else result


def adaptive_blended(
    image_shape: ImageShape,
    *,
    alpha: float = 0.2,
    cells: int = 4,
    share: float = 0.5,
    cover: float = 0.2,
    seed: int = 0,
) -> Whole:
    """A blended pattern that works only as a whole: x' = (1 - alpha) x + alpha pattern.

    Images that are blended on a random share of the cells keep their label.

    Args:
        image_shape: (height, width, channels).
        alpha: Weight of the pattern, in (0, 1].
        cells: Cells per side, at most the image's smaller side.
        share: Share of the cells in a decoy, in [0, 1].
        cover: Fraction of the training images that get a decoy.
        seed: Seed of the pattern, uniform noise.

    Returns:
        The trigger.

    Source: after Qi et al. 2023 (Adaptive-Blend), whose decoys have the whole pattern and whose
        poisoned images a part of it; here it is the other way round, against inversion.
    """
    alpha, share, cover = (
        positive("alpha", alpha),
        between("share", share, 0, 1),
        between("cover", cover, 0, 1),
    )
    cells = whole("cells", cells, least=1, most=min(image_shape[:2]))
    pattern = stream(seed, "adaptive blended trigger").random(image_shape)
    inner = Stamp("blended", np.full(image_shape, 1 - alpha), alpha * pattern)
    return Whole("adaptive_blended", inner, cells, share, cover)
