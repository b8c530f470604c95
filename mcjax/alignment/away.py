"""An un-aligned copy: the same network with its channels permuted to be least like itself.

The copy computes the same function and is far away in weight space, so a path between the two
passes through other networks. It needs no second network.
"""

from collections.abc import Iterable

import jax

from mcjax.alignment.activations import ApplyFn, activation_matching
from mcjax.alignment.matching import weight_matching
from mcjax.alignment.permutation import (
    Permutations,
    PermutationSpec,
    permute,
    random_permutations,
)
from mcjax.core.errors import UserError
from mcjax.core.tree import PyTree


def away_permutations(
    key: jax.Array,
    spec: PermutationSpec,
    apply_fn: ApplyFn,
    variables: PyTree,
    *,
    by: str = "weights",
    images: Iterable[jax.Array] = (),
) -> Permutations:
    """The permutations of an un-aligned copy.

        weights      minimise <w, p w>; needs no images
        activations  minimise the summed correlation of channel i and p(i)
        random       uniformly random

    Args:
        key: Random key.
        spec: The network's spec, from `permutation_spec`.
        apply_fn: Its forward pass.
        variables: Its variables.
        by: One of the names above.
        images: Batches of clean images in [0, 1], for "activations".

    Returns:
        One permutation per class.

    Raises:
        UserError: `by` is unknown; weights or activations are not finite.

    Source: TSC, 2025 (arXiv 2506.07467), for activations; weights are mcjax's own.
    """
    if by == "weights":
        return weight_matching(key, spec, variables, variables, away=True).permutations
    if by == "activations":
        return activation_matching(spec, apply_fn, variables, variables, images, away=True)
    if by == "random":
        return random_permutations(key, spec)
    raise UserError(f"an un-aligned copy by {by!r}; use weights, activations or random")


def unaligned_copy(
    key: jax.Array,
    spec: PermutationSpec,
    apply_fn: ApplyFn,
    variables: PyTree,
    *,
    by: str = "weights",
    images: Iterable[jax.Array] = (),
) -> PyTree:
    """The same network with its channels permuted; see `away_permutations`.

    Args:
        key: Random key.
        spec: The network's spec, from `permutation_spec`.
        apply_fn: Its forward pass.
        variables: Its variables.
        by: "weights", "activations" or "random".
        images: Batches of clean images in [0, 1], for "activations".

    Returns:
        A tree like `variables`, of numpy arrays; its function is the same up to rounding.

    Example:
        >>> import numpy as np
        >>> from mcjax.alignment import permutation_spec
        >>> w = {"in": np.float32([[1, 2]]), "out": np.float32([[1, 0], [0, 1]])}
        >>> apply_fn = lambda v, x: jax.nn.relu(x.reshape(len(x), -1) @ v["in"]) @ v["out"]
        >>> spec = permutation_spec(apply_fn, w, (1, 1, 1))
        >>> unaligned_copy(jax.random.key(0), spec, apply_fn, w)["in"].tolist()
        [[2.0, 1.0]]
    """
    permutations = away_permutations(key, spec, apply_fn, variables, by=by, images=images)
    return permute(spec, permutations, variables)
