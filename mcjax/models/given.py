"""A user's network and variables: checked, and in the forms that mcjax works with."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mcjax.core.bound_functions import Bound
from mcjax.core.errors import UserError, shown
from mcjax.core.foreign import refuse_torch
from mcjax.core.tree import PyTree, by_name
from mcjax.models.network import Network, from_apply


def as_network(apply_fn: Any, variables: PyTree) -> tuple[Network, dict[str, PyTree]]:
    """The network, and its variables as {"params", "batch_stats"}.

    Args:
        apply_fn: A forward pass `apply_fn(variables, x)`, or a `Network`.
        variables: The variables, in the user's form.

    Raises:
        UserError: A linen module without an image shape, a PyTorch module, or running statistics
            without a `Network`.
    """
    refuse_torch("apply_fn", apply_fn)
    if isinstance(apply_fn, Network):
        if not isinstance(variables, Mapping) or "params" not in variables:
            raise UserError('variables of a Network are {"params": ...}; give them so')
        return apply_fn, {"batch_stats": {}, **variables}
    if isinstance(apply_fn, nn.Module):
        raise UserError(
            "a linen module alone does not say how large its images are; give "
            "mcjax.models.network.from_linen(module, image_shape)"
        )
    if isinstance(variables, Mapping) and "batch_stats" in variables:
        raise UserError(
            "this network has running statistics, which a path must recompute at each t; give "
            "mcjax.models.network.from_linen(module, image_shape) in place of apply_fn"
        )
    network = from_apply(Bound(_apply_to_params, apply_fn))
    return network, {"params": variables, "batch_stats": {}}


def check_variables(name: str, variables: PyTree, apply_fn: Any) -> None:
    """Refuses variables between which there is no path.

    Args:
        name: What messages call them.
        variables: The variables, in the user's form.
        apply_fn: A forward pass, or a `Network`.

    Raises:
        UserError: There are none, or they are a PyTorch module, not numbers, not real numbers, or
            not finite.
    """
    refuse_torch(name, variables)
    leaves = by_name(variables)
    if not leaves:
        raise UserError(f"{name} is {shown(variables)}; it must be a tree of arrays")
    for where, leaf in leaves.items():
        try:
            dtype = jnp.asarray(leaf).dtype
        except (TypeError, ValueError, OverflowError):  # text, an object, a huge number
            raise UserError(
                f"{name}: {where or 'it'} is {shown(leaf)}; give arrays of numbers"
            ) from None
        floating = jnp.issubdtype(dtype, jnp.floating)
        if not floating and (not isinstance(apply_fn, Network) or where.startswith("params/")):
            raise UserError(
                f"{name}: {where or 'it'} is {dtype}; parameters must be real numbers, float32 say"
            )
        if floating and not jnp.isfinite(leaf).all():
            raise UserError(f"{name}: {where or 'it'} holds NaN or infinity; give a sound network")


def _apply_to_params(
    apply_fn: Callable[..., jax.Array], variables: PyTree, x: jax.Array
) -> jax.Array:
    return apply_fn(variables["params"], x)


def as_given(variables: dict[str, PyTree], like: PyTree, apply_fn: Any) -> PyTree:
    """The variables of a point in the form in which the suspect came.

    Args:
        variables: {"params", "batch_stats"}.
        like: The suspect's variables, in the user's form.
        apply_fn: A forward pass, or a `Network`.
    """
    if not isinstance(apply_fn, Network):
        return variables["params"]
    return {name: variables[name] if variables.get(name) else like[name] for name in like}


def classes_of(network: Network, variables: PyTree, image: np.ndarray) -> int:
    """The number of a network's classes, found by tracing it on an image's shape.

    Args:
        network: The network.
        variables: Its variables.
        image: Images, [N, H, W, C]; only the shape is used.

    Raises:
        UserError: The variables are not the network's, or it does not accept such images or does not
            return logits.
    """
    x = jax.ShapeDtypeStruct((1, *image.shape[1:]), jnp.float32)
    try:
        logits = jax.eval_shape(network.apply, variables, x)
    except Exception as error:  # the user's network can raise anything for a wrong shape
        if wrong := misfit(network, variables):
            raise UserError(
                f"the variables do not fit the network: {wrong}; give variables of its architecture"
            ) from None
        reason = str(error).strip().splitlines()[0][:150]
        raise UserError(
            f"the network does not accept images of shape {image.shape[1:]} ({reason}); give images of "
            "the shape that it was trained on"
        ) from None
    if len(logits.shape) != 2 or logits.shape[0] != 1:
        raise UserError(
            f"the network returns shape {logits.shape} for one image; it must return [1, classes]"
        )
    return logits.shape[1]


def misfit(network: Network, variables: PyTree) -> str:
    """The first leaf of variables that is not as the network's `init` makes it, in words; "" if none.

    Args:
        network: The network; without an `init` nothing is found.
        variables: Its variables.
    """
    try:
        expected = by_name(jax.eval_shape(network.init, jax.random.key(0)))
    except Exception:  # there is no init
        return ""
    found = by_name(variables)
    for path, leaf in expected.items():
        if path not in found:
            return f"there is no {path} {list(leaf.shape)}"
        if jnp.shape(found[path]) != leaf.shape:
            return f"{path} is {list(jnp.shape(found[path]))}, the network's {list(leaf.shape)}"
    return ""
