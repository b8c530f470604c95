"""Compares logits of mcjax and PyTorch on the same images."""

from typing import Any, NamedTuple

import jax
import numpy as np

from mcjax.keys import check_seed
from mcjax.network import Network
from mcjax.tree import PyTree

TOLERANCE = 1e-5


class Parity(NamedTuple):
    """The difference between two sets of logits.

    Attributes:
        largest: The largest absolute difference of two logits.
        scale: PyTorch's largest absolute logit.
    """

    largest: float
    scale: float

    @property
    def relative(self) -> float:
        """The largest difference divided by the largest logit."""
        return self.largest / self.scale if self.scale else self.largest

    @property
    def equal(self) -> bool:
        """Whether `relative` is at most 1e-5, about the rounding error of float32 sums."""
        return bool(self.relative <= TOLERANCE)


def parity(
    torch_module: Any,
    network: Network,
    variables: PyTree,
    image_shape: tuple[int, int, int],
    *,
    num_images: int = 8,
    seed: int = 0,
    normalisation: tuple[Any, Any] | None = None,
) -> Parity:
    """Compares a network with a PyTorch module on random images, in evaluation mode.

    Args:
        torch_module: Maps a tensor [B, C, H, W] to logits [B, classes]; it is switched to
            evaluation mode.
        network: mcjax's network, for images in [0, 1].
        variables: Its variables.
        image_shape: (height, width, channels).
        num_images: Number of images, uniform in [0, 1].
        seed: Seed of the images.
        normalisation: (mean, std) per channel for the PyTorch module's images; `network` must
            normalise its own.

    Returns:
        The difference.
    """
    import torch

    x = (
        np.random.default_rng(check_seed(seed))
        .uniform(size=(num_images, *image_shape))
        .astype(np.float32)
    )
    # Not optimised on CPU: it runs once, and compiling a deep network takes longer than running it.
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    logits = np.asarray(jax.jit(network.apply, compiler_options=quick)(variables, x))
    if normalisation is not None:
        mean, std = (np.asarray(v, np.float32) for v in normalisation)
        x = (x - mean) / std
    with torch.no_grad():
        images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        expected = torch_module.eval()(images).numpy()
    if logits.shape != expected.shape:
        return Parity(float("inf"), float(np.abs(expected).max()))
    return Parity(float(np.abs(logits - expected).max()), float(np.abs(expected).max()))
