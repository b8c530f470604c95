"""Activation matching: permutes hidden channels by the correlation of what they compute.

The channels of one class are read in the output of the first convolution or matrix product that
computes them (`mcjax.alignment.permutation.Tap`), before normalisation and ReLU. Permuting other
classes does not change these outputs, so every class is one assignment problem.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from mcjax.alignment.dataflow import PRODUCTS, inner_jaxpr
from mcjax.alignment.matching import assign
from mcjax.alignment.permutation import Permutations, PermutationSpec
from mcjax.core.bound_functions import FewPrograms
from mcjax.core.errors import UserError
from mcjax.core.tree import PyTree, check_same_structure

ApplyFn = Callable[[PyTree, jax.Array], jax.Array]


def activation_matching(
    spec: PermutationSpec,
    apply_fn: ApplyFn,
    a: PyTree,
    b: PyTree,
    images: Iterable[jax.Array],
    *,
    away: bool = False,
) -> Permutations:
    """Finds permutations of b's channels that compute most nearly what a's channels compute.

        p = argmax over p of  sum_i C[i, p(i)],
        C[i, j] = cov(a_i, b_j) / (std(a_i) std(b_j) + 1e-4)

    over all images and positions, per class; `away` minimises. A class that is not the output of
    any convolution or matrix product keeps its order.

    Args:
        spec: The network's spec, from `permutation_spec`.
        apply_fn: The network's forward pass, as given to `permutation_spec`.
        a: The reference variables.
        b: The variables to permute; may be `a` itself with `away`.
        images: Batches of clean images, each [B, H, W, C] in [0, 1].
        away: Make the channels least alike instead of most alike.

    Returns:
        One permutation per class.

    Raises:
        UserError: There are no images, or activations are not finite.

    Source: Li et al. 2015 and Ainsworth, Hayase and Srinivasa 2023, section 3.1 (activation
        matching); the minimised form is the un-alignment of TSC, 2025 (arXiv 2506.07467).
    """
    check_same_structure(a, b)
    sums, number = None, 0
    for x in images:
        found = _moments(a, b, x, apply_fn=apply_fn, taps=spec.taps)
        found = jax.tree.map(functools.partial(_times, len(x)), found)
        sums = found if sums is None else jax.tree.map(np.add, sums, found)
        number += len(x)
    if sums is None:
        raise UserError("there are no images to compare activations on; give at least one batch")
    permutations = []
    for size, moments in zip(spec.sizes, sums, strict=True):
        if moments is None:
            permutations.append(np.arange(size))
            continue
        mean_a, mean_b, square_a, square_b, product = (m / number for m in moments)
        if not np.isfinite(product).all():
            raise UserError("activations are not finite; check the networks and the images")
        std_a, std_b = (
            np.sqrt(np.maximum(square - mean**2, 0))
            for mean, square in ((mean_a, square_a), (mean_b, square_b))
        )
        correlation = (product - np.outer(mean_a, mean_b)) / (np.outer(std_a, std_b) + 1e-4)
        permutations.append(assign(-correlation if away else correlation))
    return tuple(permutations)


def _times(number: int, mean: jax.Array) -> np.ndarray:
    return number * np.asarray(mean, np.float64)


def product_outputs(apply_fn: ApplyFn, variables: PyTree, x: jax.Array) -> list[jax.Array]:
    """The outputs of a forward pass's convolutions and matrix products, in order of execution.

    Args:
        apply_fn: `apply_fn(variables, x) -> logits`.
        variables: The network's variables.
        x: Images, [B, H, W, C].

    Example:
        >>> two = lambda w, x: jax.nn.relu(x.reshape(len(x), -1) @ w) @ w
        >>> [v.tolist() for v in product_outputs(two, jnp.array([[-1.0]]), jnp.ones((1, 1, 1, 1)))]
        [[[-1.0]], [[-0.0]]]
    """
    found: list[jax.Array] = []
    arguments = jax.tree.leaves((variables, x))
    _run(jax.make_jaxpr(apply_fn)(variables, x), arguments, found)
    return found


def _run(closed: Any, arguments: list[Any], found: list[jax.Array]) -> list[Any]:
    jaxpr = getattr(closed, "jaxpr", closed)
    known = dict(zip(jaxpr.invars, arguments, strict=True))
    known |= dict(zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=True))

    def value(v: Any) -> Any:
        return v.val if isinstance(v, Literal) else known[v]

    for equation in jaxpr.eqns:
        operands = [value(v) for v in equation.invars]
        if (inner := inner_jaxpr(equation)) is not None:
            results = _run(inner, operands, found)
        else:
            params = equation.primitive.get_bind_params(equation.params)
            # Before JAX 0.10 the functions of a call came apart from its other parameters.
            functions, params = params if isinstance(params, tuple) else ((), params)
            results = equation.primitive.bind(*functions, *operands, **params)
            results = results if equation.primitive.multiple_results else [results]
        if equation.primitive.name in PRODUCTS:
            found.append(results[0])
        known.update(zip(equation.outvars, results, strict=True))
    return [value(v) for v in jaxpr.outvars]


def _channel_moments(
    a: PyTree, b: PyTree, x: jax.Array, *, apply_fn: ApplyFn, taps: tuple[Any, ...]
) -> list[Any]:
    """Per class the means, mean squares and mean products of both networks' channels."""
    outputs = [product_outputs(apply_fn, variables, x) for variables in (a, b)]
    moments: list[Any] = []
    for tap in taps:
        if tap is None:
            moments.append(None)
            continue
        u, v = (
            jnp.moveaxis(one[tap.place], tap.axis, -1).reshape(-1, one[tap.place].shape[tap.axis])
            for one in outputs
        )
        moments.append((u.mean(0), v.mean(0), (u**2).mean(0), (v**2).mean(0), u.T @ v / len(u)))
    return moments


_moments = FewPrograms(_channel_moments, static=("apply_fn", "taps"))
