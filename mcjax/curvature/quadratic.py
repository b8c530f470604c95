"""The quadratic model of the loss at a perturbation, and its alignment with the Hessian."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mcjax.attacks.attack_losses import confident_cross_entropy
from mcjax.attacks.checks import check_examples
from mcjax.curvature.eigenvalue import rayleigh
from mcjax.curvature.input_hessian import loss_gradient
from mcjax.errors import UserError
from mcjax.tree import as_partial


class QuadraticModel(NamedTuple):
    """The terms of f(x + delta) = f(x) + g . delta + delta . H delta / 2 + error, each [B], in nats.

    Attributes:
        clean_loss: f(x).
        perturbed_loss: f(x + delta).
        gradient_term: g . delta.
        curvature_term: delta . H delta / 2.
        error: f(x + delta) - f(x) - g . delta - delta . H delta / 2.
        alignment: c = |v . delta| / ||delta||, in [0, 1]; 0 where delta is zero.
        eigenvalue_term: lambda ||delta||^2 / 2 with lambda = v . H v, the limit of curvature_term
            as c goes to 1.
    """

    clean_loss: jax.Array
    perturbed_loss: jax.Array
    gradient_term: jax.Array
    curvature_term: jax.Array
    error: jax.Array
    alignment: jax.Array
    eigenvalue_term: jax.Array


def quadratic_model(
    logits_fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    y: jax.Array,
    delta: jax.Array,
    eigenvector: jax.Array,
) -> QuadraticModel:
    """Measures, per example, the assumptions of "the worst-case loss grows with lambda_max".

    The proposition states: if f(x) is constant along the path, the quadratic model of f is accurate
    in the ball, and the worst perturbation's alignment with the top eigenvector goes to 1, then the
    largest loss in the ball is an increasing function of lambda_max. It applies if `gradient_term`
    and `error` are small compared with `curvature_term` and `alignment` is near 1.

    Args:
        logits_fn: `logits_fn(x) -> logits [B, classes]`; examples must be independent.
        x: Images, [B, H, W, C], in [0, 1].
        y: Labels, [B].
        delta: Perturbations, [B, H, W, C], e.g. `pgd(...) - x`.
        eigenvector: Unit vectors, [B, H, W, C], from `input_hessian_eigenvalue(...,
            return_eigenvector=True)`.

    Returns:
        The terms.

    Raises:
        UserError: Shapes do not match, or images are outside [0, 1].

    Example:
        >>> logits_fn = lambda x: x.reshape(len(x), 2) @ jnp.array([[2.0, 0.0], [0.0, 0.0]])
        >>> x, y = jnp.zeros((1, 1, 2, 1)), jnp.array([0])
        >>> delta, v = (jnp.float32(a).reshape(1, 1, 2, 1) for a in ([0.1, 0.1], [1.0, 0.0]))
        >>> model = quadratic_model(logits_fn, x, y, delta, v)
        >>> [round(float(v[0]), 4) for v in (model.alignment, model.gradient_term, model.curvature_term)]
        [0.7071, -0.1, 0.005]

    Source: Zhao et al. 2020, proposition 1.
    """
    logits_fn = as_partial(logits_fn)
    check_examples(logits_fn, x, y)
    for name, value in (("delta", delta), ("eigenvector", eigenvector)):
        if jnp.shape(value) != x.shape:
            raise UserError(f"{name} has shape {list(jnp.shape(value))}; give {list(x.shape)}")
    return _terms(logits_fn, x, y, delta, eigenvector)


@jax.jit
def _terms(
    logits_fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    y: jax.Array,
    delta: jax.Array,
    v: jax.Array,
) -> QuadraticModel:
    def dot(a: jax.Array, b: jax.Array) -> jax.Array:
        return (a * b).sum((1, 2, 3))

    def loss(x: jax.Array) -> jax.Array:
        return confident_cross_entropy(logits_fn(x), y)

    gradient, hvp = jax.linearize(loss_gradient(logits_fn, y), x)
    clean, perturbed = loss(x), loss(x + delta)
    slope, bend = dot(gradient, delta), dot(delta, hvp(delta)) / 2
    length = jnp.sqrt(dot(delta, delta))
    alignment = jnp.abs(dot(v, delta)) / jnp.where(length > 0, length, 1)
    rows = (len(x), -1)
    eigenvalue, _ = rayleigh(v.reshape(rows), hvp(v).reshape(rows))
    return QuadraticModel(
        clean, perturbed, slope, bend, perturbed - clean - slope - bend,
        alignment, eigenvalue * length**2 / 2,
    )  # fmt: skip
