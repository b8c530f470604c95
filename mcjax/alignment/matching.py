"""Weight matching: permutes a network's hidden channels to be closest to another network's.

Independently trained networks may compute nearly the same function with their channels in a different
order. Of the permutations p that leave network b's function unchanged, weight matching finds those
that bring its weights closest to a's, i.e. maximise the inner product:

    max over p of  sum over leaves <w_a, p w_b>

For one class of channels, with the others held fixed, this is a linear assignment problem, solved
exactly. Sweeps over the classes until none improves are coordinate ascent. With `away` the inner
product is minimised: the same function, as far as possible from a in weight space.
"""

from typing import NamedTuple

import jax
import numpy as np

from mcjax.alignment.permutation import (
    Permutations,
    PermutationSpec,
    factors,
    identity,
    permute,
    reorder,
)
from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree, check_same_structure


class Matching(NamedTuple):
    """The result of `weight_matching`.

    Args:
        permutations: Permutations of network b's channels, one per class.
        inner_products: <w_a, p w_b> at the start and after each sweep; non-decreasing, or with
            `away` non-increasing.
    """

    permutations: Permutations
    inner_products: tuple[float, ...]


def weight_matching(
    key: jax.Array,
    spec: PermutationSpec,
    a: PyTree,
    b: PyTree,
    *,
    away: bool = False,
    max_sweeps: int = 100,
) -> Matching:
    """Finds permutations of b's channels that bring its weights closest to a's, or farthest.

    Running statistics, variables["batch_stats"], are not compared.

    Args:
        key: Random key for the order of the classes.
        spec: The network's spec, from `permutation_spec`.
        a: The reference variables.
        b: The variables to permute, with the same structure; may be `a` itself with `away`.
        away: Minimise the inner product instead of maximising it.
        max_sweeps: Maximum number of sweeps over all classes; a few are usually enough.

    Returns:
        The permutations and the inner products.

    Raises:
        UserError: The networks differ in structure, from each other or from the spec; weights are
            not finite.

    Source: Ainsworth, Hayase and Srinivasa 2023, Git Re-Basin, section 3.2 and algorithm 1.
    """
    check_same_structure(a, b)
    leaves = [
        (factors(spec, path, w_a), factors(spec, path, w_b)[0])
        for (path, w_a), w_b in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True)
        if getattr(path[0], "key", None) != "batch_stats"
    ]
    classes = [found for (_, found), _ in leaves]
    fixed = [np.asarray(w, np.float64) for (w, _), _ in leaves]
    moved = [np.asarray(w, np.float64) for _, w in leaves]
    norm = float(np.sqrt(sum((w**2).sum() for w in fixed) * sum((w**2).sum() for w in moved)))
    if not np.isfinite(norm):
        raise UserError(
            "weights are not finite, so the networks can't be aligned; check the training"
        )

    if away:
        fixed = [-w for w in fixed]

    def product(places: list[int]) -> float:
        return sum(float(np.vdot(fixed[i], moved[i])) for i in places)

    everywhere = list(range(len(leaves)))
    permutations, products = list(identity(spec)), [product(everywhere)]
    for sweep in range(max_sweeps):
        gained = False
        for k in np.asarray(jax.random.permutation(stream(key, "sweep", sweep), len(spec.sizes))):
            places = [i for i in everywhere if k in classes[i]]
            order = assign(
                sum(
                    _rows(fixed[i], axis) @ _rows(moved[i], axis).T
                    for i in places
                    for axis, one in enumerate(classes[i])
                    if one == k
                )
            )
            if (order == np.arange(len(order))).all():
                continue
            old, before = {i: moved[i] for i in places}, product(places)
            only = [order if one == k else None for one in range(len(spec.sizes))]
            for i in places:
                moved[i] = reorder(moved[i], classes[i], only)
            # A leaf with this class on two axes is not linear in p, so compare true values; requiring
            # a gain avoids cycling between ties.
            if product(places) > before + 1e-12 * norm:
                permutations[k] = permutations[k][order]
                gained = True
            else:
                for i in places:
                    moved[i] = old[i]
        products.append(product(everywhere))
        if not gained:
            break
    sign = -1 if away else 1
    return Matching(tuple(permutations), tuple(sign * p for p in products))


def align(key: jax.Array, spec: PermutationSpec, a: PyTree, b: PyTree) -> PyTree:
    """Permutes network b's hidden channels to be closest to a's.

    The result computes the same function as b, up to rounding.

    Args:
        key: Random key; see `weight_matching`.
        spec: The network's spec, from `permutation_spec`.
        a: The reference variables.
        b: The variables to permute, including running statistics.

    Returns:
        A tree like `b`, of numpy arrays.

    Example:
        >>> from mcjax.alignment import permutation_spec
        >>> a = {"in": np.float32([[1, 2, 3]]), "out": np.float32([[1, 0], [0, 1], [1, 1]])}
        >>> b = {"in": a["in"][:, ::-1], "out": a["out"][::-1]}
        >>> apply_fn = lambda v, x: jax.nn.relu(x.reshape(len(x), -1) @ v["in"]) @ v["out"]
        >>> spec = permutation_spec(apply_fn, a, (1, 1, 1))
        >>> align(jax.random.key(0), spec, a, b)["in"].tolist()
        [[1.0, 2.0, 3.0]]

    Source: Ainsworth, Hayase and Srinivasa 2023.
    """
    return permute(spec, weight_matching(key, spec, a, b).permutations, b)


def _rows(w: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1)


def assign(similarity: np.ndarray) -> np.ndarray:
    """The permutation p that maximises the sum of similarity[i, p[i]].

    Example:
        >>> assign(np.array([[0.0, 1.0], [1.0, 0.5]])).tolist()
        [1, 0]
    """
    from scipy.optimize import linear_sum_assignment  # slow to import

    return linear_sum_assignment(similarity, maximize=True)[1]
