"""The inputs of a repair, checked before anything is computed with them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from mcjax.core.errors import UserError, shown
from mcjax.core.tree import PyTree, check_same_structure, digest
from mcjax.data.given import Examples
from mcjax.models.given import as_network, check_variables
from mcjax.models.network import Network
from mcjax.repair.bonafide import check_images


class Inputs(NamedTuple):
    """The checked inputs of a repair.

    Attributes:
        network: The network.
        suspect: The suspect's variables, {"params", "batch_stats"}.
        parts: The images to train on, "bonafide", and those held out, "selection".
    """

    network: Network
    suspect: dict[str, PyTree]
    parts: dict[str, Examples]


def check_inputs(
    apply_fn: Network | Callable[[PyTree, jax.Array], jax.Array],
    suspect: PyTree,
    bonafide: Mapping[str, Any],
    second: PyTree | None = None,
    selection: Mapping[str, Any] | None = None,
) -> Inputs:
    """Checks a suspect, its images and a second network; the networks are traced, but not run.

    Args:
        apply_fn: See `mcjax.repair.model.repair_model`.
        suspect: Likewise.
        bonafide: Likewise.
        second: Likewise.
        selection: Likewise.

    Returns:
        The network, the suspect's variables and the images, as a repair works with them.

    Raises:
        UserError: Images or labels do not fit the network, a class has no images, networks have
            different structures or are the same, parameters are not finite.
    """
    if not callable(apply_fn) and not isinstance(apply_fn, Network):
        raise UserError(
            f"apply_fn is {shown(apply_fn)}; it must be a function apply_fn(variables, x) or a "
            "mcjax.models.network.Network"
        )
    network, start = as_network(apply_fn, suspect)
    check_variables("suspect", suspect, apply_fn)
    parts = check_images(network, start, bonafide, selection)
    if second is not None:
        check_variables("second", second, apply_fn)
        check_same_structure(suspect, second, ("the suspect", "the second network"))
        if digest(suspect) == digest(second):
            raise UserError("the second network is the suspect itself; give another, or none")
    return Inputs(network, start, parts)
