"""Compares logits of mcjax and PyTorch on the same images, and finds the first layer that differs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mcjax.core.errors import UserError
from mcjax.core.foreign import refuse_torch
from mcjax.core.keys import check_seed
from mcjax.core.tree import PyTree
from mcjax.interop.rows import Row, check_rows
from mcjax.models.given import classes_of
from mcjax.models.network import Network

TOLERANCE = 1e-5
LAYER_TOLERANCE = 1e-4
"""Relative error of one layer's output above which it is reported, well above rounding errors."""


class Parity(NamedTuple):
    """The difference between two sets of logits.

    Attributes:
        largest: The largest absolute difference of two logits.
        scale: PyTorch's largest absolute logit.
        layer: The first layer whose output differs, in words; "" if none does, or if it is not known.
    """

    largest: float
    scale: float
    layer: str = ""

    @property
    def relative(self) -> float:
        """The largest difference divided by the largest logit."""
        return self.largest / self.scale if self.scale else self.largest

    @property
    def equal(self) -> bool:
        """Whether `relative` is at most 1e-5, about the rounding error of float32 sums."""
        return bool(self.relative <= TOLERANCE)

    @property
    def reason(self) -> str:
        """What differs; "" if the logits are equal."""
        if self.equal:
            return ""
        where = f"; the first layer whose output differs is {self.layer}" if self.layer else ""
        return f"logits differ by {self.relative:.2g} of the largest{where}"


def parity(
    torch_module: Any,
    network: Network,
    variables: PyTree,
    image_shape: tuple[int, int, int],
    *,
    rows: Sequence[Row] = (),
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
        rows: The table that `variables` were made by; with it the first layer whose output differs is
            named. Layers are those that the table names and PyTorch calls.
        num_images: Number of images, uniform in [0, 1].
        seed: Seed of the images.
        normalisation: (mean, std) per channel for the PyTorch module's images; `network` must
            normalise its own.

    Returns:
        The difference.

    Raises:
        UserError: The variables or the images do not fit the network.
    """
    import torch

    refuse_torch("network", network)
    x = (
        np.random.default_rng(check_seed(seed))
        .uniform(size=(num_images, *image_shape))
        .astype(np.float32)
    )
    _check(torch_module, network, variables, x, rows)
    logits = np.asarray(_quickly(network.apply)(variables, x))
    scaled = x
    if normalisation is not None:
        mean, std = (np.asarray(v, np.float32) for v in normalisation)
        scaled = (x - mean) / std
    images = torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))
    with torch.no_grad():
        expected = torch_module.eval()(images).numpy()
    scale = float(np.abs(expected).max())
    same_shape = logits.shape == expected.shape
    found = Parity(float(np.abs(logits - expected).max()) if same_shape else float("inf"), scale)
    if found.equal or not rows or network.layer_outputs is None:
        return found
    ours = _quickly(network.layer_outputs)(variables, x)
    return found._replace(
        layer=_first_difference(_outputs_in_torch(torch_module, images), ours, rows)
    )


def _check(
    torch_module: Any, network: Network, variables: PyTree, x: np.ndarray, rows: Sequence[Row]
) -> None:
    try:
        classes_of(network, variables, x)
    except UserError:
        tensors = torch_module.state_dict()
        if rows and all(row.torch in tensors for row in rows):
            check_rows(tensors, rows, network)  # raises with PyTorch's names
        raise


def _quickly(fn: Any) -> Any:
    # Not optimised on CPU: it runs once, and compiling a deep network takes longer than running it.
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(fn, compiler_options=quick)


def _outputs_in_torch(module: Any, images: Any) -> dict[str, np.ndarray]:
    """The first output of each submodule, in call order, channels last."""
    import torch

    outputs: dict[str, np.ndarray] = {}

    def record(name: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            if name not in outputs and isinstance(output, torch.Tensor):
                # A copy, because an activation may overwrite it.
                outputs[name] = np.moveaxis(output.detach().numpy().copy(), 1, -1)

        return hook

    handles = [
        inner.register_forward_hook(record(name)) for name, inner in module.named_modules() if name
    ]
    try:
        with torch.no_grad():
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _first_difference(
    theirs: dict[str, np.ndarray], ours: dict[str, Any], rows: Sequence[Row]
) -> str:
    """The first layer, in PyTorch's call order, whose output differs, in words."""
    layers = {
        row.torch.rpartition(".")[0]: (row.path.partition("/")[2].rpartition("/")[0], row)
        for row in reversed(rows)  # the first row of a layer is kept: its weight
    }
    for name, expected in theirs.items():
        path, row = layers.get(name, ("", None))
        if row is None or path not in ours:
            continue
        found = np.asarray(ours[path])
        if found.shape != expected.shape:
            return f"{name} ({path}): shape {list(found.shape)} here, {list(expected.shape)} in PyTorch"
        difference = float(np.abs(found - expected).max())
        scale = float(np.abs(expected).max())
        if difference > LAYER_TOLERANCE * scale:
            flattened = row.transform.name == "dense" and row.torch.endswith("weight")
            advice = (
                "; if its input is a flattened image, its row needs flat(height, width, channels)"
                if flattened
                else ""
            )
            return f"{name} ({path}): by {difference / scale if scale else difference:.2g} of its largest value{advice}"
    return ""
