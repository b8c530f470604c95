"""Aligns two networks by the name of a way, as the commands and `repair_model` take it."""

from collections.abc import Callable, Iterator

import jax

from mcjax.alignment.activations import activation_matching
from mcjax.alignment.matching import weight_matching
from mcjax.alignment.permutation import PermutationSpec, permute
from mcjax.core.tree import PyTree
from mcjax.models.network import Network

WAYS = ("none", "weights", "away", "activations", "activations_away")


def aligned(
    key: jax.Array,
    by: str,
    spec_fn: Callable[[], PermutationSpec],
    network: Network,
    start: PyTree,
    end: PyTree,
    images_fn: Callable[[], Iterator[jax.Array]],
) -> PyTree:
    """The second network with its channels permuted.

    Args:
        key: Key of the order in which weight matching visits the layers.
        by: One of `WAYS`: "weights" and "activations" bring channels into the order nearest to the
            first network's, "away" and "activations_away" into the order least like it.
        spec_fn: Finds what can be permuted; called unless `by` is "none".
        network: The network.
        start: The first network's variables.
        end: The second's.
        images_fn: Batches of images, [B, H, W, C] in [0, 1], for ways by activations.

    Returns:
        The second network's variables, permuted; it computes the same function.
    """
    if by == "none":
        return end
    spec, away = spec_fn(), by.endswith("away")
    if by.startswith("activations"):
        permutations = activation_matching(spec, network.apply, start, end, images_fn(), away=away)
    else:
        permutations = weight_matching(key, spec, start, end, away=away).permutations
    return permute(spec, permutations, end)
