"""The networks that are measured here, and what one pass of them costs."""

import jax
import jax.numpy as jnp

from benchmarks.accelerator.numbers import sizes
from mcjax import models
from mcjax.core.operation_counts import count
from mcjax.models.network import Network, from_linen

NETWORKS = {
    "tiny": ("preresnet", {"depth": 8}),
    "convfc": ("convfc", {}),
    "preresnet26": ("preresnet", {"depth": 26}),
    "vgg16": ("vgg", {"depth": 16}),
    "wide_resnet28x10": ("wide_resnet", {"depth": 28, "width": 10}),
}


def network(name: str) -> Network:
    """A network by its name here."""
    family, options = NETWORKS[name]
    return from_linen(models.create(family, num_classes=10, **options), sizes(name).image)


def operations(name: str) -> float:
    """Floating-point operations of a forward pass of one image, 2 a multiply-add.

    Example:
        >>> round(operations("vgg16") / 1e6)
        627
    """
    net = network(name)
    variables = shapes_of(net)
    x = jax.ShapeDtypeStruct((1, *sizes(name).image), jnp.float32)
    return count(net.apply, variables, x).operations


def shapes_of(net: Network) -> dict:
    """The tree of a network's variables, shapes only; touches no device."""
    return jax.eval_shape(lambda: net.init(jax.random.key(0)))
