"""The input-aware attack: a generator makes a trigger for each image."""

import dataclasses
import functools
from collections.abc import Hashable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mcjax.attacks.poisoning.options import between, positive, whole
from mcjax.attacks.poisoning.stamped import ImageShape, Trigger, constant
from mcjax.core.errors import UserError
from mcjax.core.keys import check_seed, stream
from mcjax.core.tree import PyTree

__all__ = ["Generated", "Generator", "diversity", "input_aware"]


class Generator(nn.Module):
    """Maps images to patterns in [-1, 1] of their shape: a small convolutional autoencoder.

    Args:
        width: Channels of the first layer.
    """

    width: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Makes the patterns of images [B, H, W, C] in [0, 1]."""
        conv = functools.partial(nn.Conv, kernel_size=(3, 3))
        half = nn.relu(conv(self.width, strides=2, name="down1")(x))
        quarter = nn.relu(conv(2 * self.width, strides=2, name="down2")(half))
        y = nn.relu(conv(self.width, name="up1")(_resized(quarter, half.shape)))
        return jnp.tanh(conv(x.shape[-1], name="up2")(_resized(y, x.shape)))


def _resized(y: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.image.resize(y, (*shape[:3], y.shape[-1]), "nearest")


@dataclasses.dataclass(frozen=True, eq=False)
class Generated(Trigger):
    """x' = clip(x + strength g(x), 0, 1), g a generator network.

    The decoy of an image is stamped with another image's trigger: x' = clip(x + strength g(z), 0, 1),
    z another image of the batch.

    Args:
        name: The trigger's name.
        generator: The network g.
        params: Its parameters.
        shape: (height, width, channels) of the images.
        strength: Largest change of a pixel.
        cover: Fraction of the training images that get a decoy.
        diversity: Weight of the diversity loss in the generator's training.
    """

    name: str
    generator: Generator
    params: PyTree = dataclasses.field(repr=False)
    shape: ImageShape
    strength: float = 0.2
    cover: float = 0.0
    diversity: float = 1.0

    @property
    def image_shape(self) -> ImageShape:
        """(height, width, channels) of the images it stamps."""
        return self.shape

    @property
    def contents(self) -> Hashable:
        """The generator and its parameters."""
        leaves = jax.tree.leaves(self.params)
        bytes_of = tuple((leaf.shape, np.asarray(leaf).tobytes()) for leaf in leaves)
        return self.generator, bytes_of, self.strength, self.diversity

    def with_params(self, params: PyTree) -> "Generated":
        """The trigger with other parameters: of a trained generator, or traced ones."""
        if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(params)):
            params = jax.tree.map(constant, params)
        return dataclasses.replace(self, params=params)

    def pattern(self, x: Any) -> Any:
        """g(x) in [-1, 1], [..., H, W, C], computed in float32."""
        flat = jnp.asarray(x, jnp.float32).reshape(-1, *self.image_shape)
        return _apply(self.params, flat, generator=self.generator).reshape(x.shape)

    def stamp(self, x: Any) -> Any:
        """Adds each image's own pattern."""
        return _added(x, self.strength * self.pattern(x))

    def decoy(self, key: jax.Array, x: Any) -> Any:
        """Adds the patterns of other images of the batch; see `Trigger.decoy`."""
        self.check_shape(x.shape)
        return _added(x, self.strength * others(key, self.pattern(x))).clip(0, 1)


@functools.partial(jax.jit, static_argnames="generator")
def _apply(params: PyTree, x: jax.Array, *, generator: Generator) -> jax.Array:
    return generator.apply({"params": params}, x)  # type: ignore[return-value]


def _added(x: Any, pattern: jax.Array) -> Any:
    return x + (
        np.asarray(pattern, x.dtype) if isinstance(x, np.ndarray) else pattern.astype(x.dtype)
    )


def others(key: jax.Array, x: jax.Array) -> jax.Array:
    """For each image of a batch another one: x rolled by a random number of places.

    Args:
        key: Random key.
        x: [N, ...], N at least 2.

    Returns:
        [N, ...]; no row is at its place in x.

    Raises:
        UserError: There is only one image.
    """
    if len(x) < 2:
        raise UserError("a decoy needs another image's trigger; give at least 2 images, or cover=0")
    return jnp.roll(x, jax.random.randint(key, (), 1, len(x)), axis=0)


def diversity(key: jax.Array, x: jax.Array, pattern: jax.Array) -> jax.Array:
    """The diversity loss: mean of ||x - z|| / (||g(x) - g(z)|| + 1e-3), z another image of the batch.

    Args:
        key: Random key.
        x: Images [N, H, W, C], N at least 2.
        pattern: g(x), [N, H, W, C].

    Returns:
        A scalar; large if different images have nearly the same pattern.

    Example:
        >>> x = jnp.array([0.0, 1.0]).reshape(2, 1, 1, 1)
        >>> round(float(diversity(jax.random.key(0), x, 0.5 * x)), 2)
        2.0

    Source: Nguyen and Tran 2020, equation 6.
    """
    return (_distance(x, others(key, x)) / (_distance(pattern, others(key, pattern)) + 1e-3)).mean()


def _distance(a: jax.Array, b: jax.Array) -> jax.Array:
    squares = jnp.square(a - b).reshape(len(a), -1).sum(1)
    return jnp.sqrt(squares + 1e-12)  # the gradient at 0 is finite


def input_aware(
    image_shape: ImageShape,
    *,
    strength: float = 0.2,
    width: int = 16,
    cover: float = 0.2,
    diversity: float = 1.0,
    seed: int = 0,
) -> Generated:
    """Input-aware: each image has its own trigger, x' = clip(x + strength g(x), 0, 1).

    The generator g returned here is random. `mcjax.training.generator_objective` trains it together
    with a classifier: images with their own trigger get the attacker's label, decoys (images with
    another image's trigger) keep theirs, and a diversity loss keeps the patterns apart.

    Two simplifications: the paper has a second generator for a mask, trained before, while here the
    pattern is bounded by `strength` at each pixel; and the paper releases the classifier that is
    trained with g, while here the released networks are trained afterwards, with g fixed, on images
    that it stamped.

    Args:
        image_shape: (height, width, channels).
        strength: Largest change of a pixel, in (0, 1].
        width: Channels of the generator's first layer.
        cover: Fraction of the training images that get a decoy and keep their label.
        diversity: Weight of the diversity loss.
        seed: Seed of the generator's initial parameters.

    Returns:
        The trigger with an untrained generator.

    Source: after Nguyen and Tran 2020, section 3 (whose cover fraction is 0.1; 0.2 separates the
    triggers of different images better in few epochs).
    """
    strength, cover = positive("strength", strength), between("cover", cover, 0, 1)
    diversity = between("diversity", diversity, 0, 1e6)
    generator = Generator(whole("width", width, least=1, most=1024))
    key = stream(jax.random.key(check_seed(seed)), "input_aware trigger")
    params = jax.jit(generator.init)(key, jnp.zeros((1, *image_shape)))["params"]
    untrained = Generated("input_aware", generator, params, image_shape, strength, cover, diversity)
    return untrained.with_params(params)
