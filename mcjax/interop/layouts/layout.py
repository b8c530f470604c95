"""Layouts: the names that a PyTorch code base gives to the tensors of a family of networks."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from mcjax.interop.rows import CONV, DENSE, SAME, Row, flat

Tensors = Mapping[str, np.ndarray]
Shape = tuple[int, int, int]


class Layout(NamedTuple):
    """The names of one code base for one family.

    Args:
        code: The code base.
        family: The family in `mcjax.models`.
        layer_fn: `layer_fn(module, layer) -> name`: PyTorch's name of the layer at the path `layer`
            of mcjax's parameters.
        options_fn: `options_fn(tensors) -> options` of the family, from the tensors' names and
            shapes; raises KeyError, IndexError or ZeroDivisionError for a different network.
        logits_fn: `logits_fn(module)`: mcjax's name of the last dense layer.
        flat: mcjax's name of the dense layer after a flattened feature map, or "".
        features_fn: `features_fn(height, width)`: height and width of that feature map.
        curve: Whether these are the names of a curve's network.
    """

    code: str
    family: str
    layer_fn: Callable[[Any, str], str]
    options_fn: Callable[[Tensors], dict[str, Any]]
    logits_fn: Callable[[Any], str]
    flat: str = ""
    features_fn: Callable[[int, int], tuple[int, int]] = lambda h, w: (h, w)
    curve: bool = False


def rows_of(layout: Layout, module: nn.Module, image_shape: Shape) -> list[Row]:
    """Makes the table of a network: one row per parameter and running statistic.

    Args:
        layout: The layout.
        module: The network, of the layout's family.
        image_shape: (height, width, channels) of its images.

    Returns:
        The rows, grouped by layer.

    Example:
        >>> from mcjax import models
        >>> from mcjax.interop.layouts import find
        >>> rows = rows_of(find("convfc")[0], models.create("convfc", num_classes=10), (32, 32, 3))
        >>> rows[1].torch, rows[1].path, rows[1].transform.name
        ('conv_part.0.weight', 'params/conv1/kernel', 'conv')
        >>> [row.transform.name for row in rows if row.torch == "fc_part.0.weight"]
        ['flat 3x3x128']
    """
    rows = []
    for path, leaf in jax.tree.leaves_with_path(shapes_of(module, image_shape)):
        collection, *layers, kind = [key.key for key in path]
        layer = "/".join(layers)
        transform = SAME
        if kind == "kernel":
            transform = CONV if leaf.ndim == 4 else DENSE
            if layer == layout.flat:
                height, width = layout.features_fn(*image_shape[:2])
                transform = flat(height, width, leaf.shape[0] // (height * width))
        name = f"{layout.layer_fn(module, layer)}.{_KINDS[kind]}"
        rows.append(Row(name, "/".join([collection, *layers, kind]), transform))
    return rows


@functools.lru_cache(64)  # a deep network takes seconds to trace
def shapes_of(module: nn.Module, image_shape: Shape) -> dict[str, Any]:
    """The shapes and dtypes of a network's variables."""
    x = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    return dict(jax.eval_shape(module.init, jax.random.key(0), x))


_KINDS = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
