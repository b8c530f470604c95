"""Objectives for robust training: adversarial losses, gradient and curvature penalties.

Attacks run on the network in training mode: BatchNorm uses the statistics of the attacked batch (the
attack does not update the running statistics), and dropout uses the same mask in all passes of a
step. No gradient flows through the adversarial images.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mcjax.attacks.attack_losses import confident_cross_entropy, kl
from mcjax.attacks.checks import check_count, check_sizes
from mcjax.attacks.pgd import fgsm, pgd
from mcjax.bound import Bound
from mcjax.curves import Curve
from mcjax.errors import UserError
from mcjax.keys import stream
from mcjax.losses import Batch, accuracy, cross_entropy, l2
from mcjax.network import Network
from mcjax.objectives import sample_t
from mcjax.training import LossFn, StepMetrics
from mcjax.tree import PyTree

Forward = Callable[[PyTree, jax.Array], tuple[jax.Array, PyTree]]


def madry_loss(
    network: Network,
    *,
    eps: float = 8 / 255,
    step_size: float = 2 / 255,
    num_steps: int = 10,
    norm: str = "linf",
) -> LossFn:
    """Mean over (x, y) of max_{|delta| <= eps} CE(f(x + delta), y), the maximum by `pgd`.

    Args:
        network: The network.
        eps: Radius of the ball, in units of the images.
        step_size: Step size of the inner maximisation.
        num_steps: Steps of the inner maximisation, from a random start; its last iterate is used.
        norm: "linf", "l2" or "l1".

    Returns:
        A loss_fn for `train_steps`, like `mcjax.objectives.endpoint_loss`; its metrics are those of
        the adversarial images.

    Raises:
        UserError: eps or step_size is negative; the norm is unknown (raised when first traced).

    Source: Madry et al. 2018, equation 2.1.
    """
    check_sizes(eps=eps, step_size=step_size)
    check_count("num_steps", num_steps, 0)
    attack = Bound(
        pgd, eps=eps, step_size=step_size, num_steps=num_steps, norm=norm, keep_best=False
    )
    return Bound(_endpoint, network, attack)


def fgsm_loss(
    network: Network,
    *,
    eps: float = 8 / 255,
    step_size: float | None = None,
    norm: str = "linf",
) -> LossFn:
    """`madry_loss` with a single large step from a random start: about a fifth of PGD-10's cost.

    Args:
        network: The network.
        eps: Radius of the ball, in units of the images.
        step_size: Size of the step. Default: 1.25 eps.
        norm: "linf", "l2" or "l1".

    Returns:
        A loss_fn for `train_steps`.

    Raises:
        UserError: eps or step_size is negative; the norm is unknown (raised when first traced).

    Source: Wong et al. 2020, algorithm 3 (which also describes catastrophic overfitting: late in
    training the robust accuracy under PGD can suddenly drop to 0).
    """
    check_sizes(eps=eps, step_size=0 if step_size is None else step_size)
    attack = Bound(fgsm, eps=eps, step_size=step_size, norm=norm, random_start=True)
    return Bound(_endpoint, network, attack)


def trades_loss(
    network: Network,
    *,
    beta: float = 6.0,
    eps: float = 8 / 255,
    step_size: float = 2 / 255,
    num_steps: int = 10,
    norm: str = "linf",
) -> LossFn:
    """Mean of CE(f(x), y) + beta max_{|delta| <= eps} KL(softmax f(x) || softmax f(x + delta)).

    The inner maximisation starts at a uniform random point of the ball (the authors' code uses small
    Gaussian noise). The clean pass updates the running statistics first, then the adversarial pass.

    Args:
        network: The network.
        beta: Weight of the robust term (1 / lambda in the paper).
        eps: Radius of the ball, in units of the images.
        step_size: Step size of the inner maximisation.
        num_steps: Steps of the inner maximisation.
        norm: "linf", "l2" or "l1".

    Returns:
        A loss_fn for `train_steps`; its metrics are those of the clean images.

    Raises:
        UserError: beta, eps or step_size is negative; the norm is unknown (raised when first traced).

    Source: Zhang et al. 2019, equation 5 and algorithm 1.
    """
    check_sizes(beta=beta, eps=eps, step_size=step_size)
    check_count("num_steps", num_steps, 0)
    attack = Bound(
        pgd, eps=eps, step_size=step_size, num_steps=num_steps, norm=norm, loss="kl",
        keep_best=False,
    )  # fmt: skip
    return Bound(_trades_loss, network, attack, beta)


def _trades_loss(
    network: Network,
    attack: Bound,
    beta: float,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    fixed: None,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    forward = _forward(network, key, step, stats)
    x, y = batch["image"], batch["label"]
    x_adv = attack(stream(key, "attack", step), _constant(forward, params), x, y)
    logits, stats = forward(params, x)
    perturbed, stats = _forward(network, key, step, stats)(params, x_adv)
    nll = cross_entropy(logits, y).mean()
    loss = nll + beta * kl(logits, perturbed).mean()
    return loss, (stats, StepMetrics(loss, nll, accuracy(logits, y).mean()))


def robust_curve_loss(
    network: Network,
    kind: type[Curve],
    *,
    weight_decay: float,
    eps: float = 8 / 255,
    step_size: float = 2 / 255,
    num_steps: int = 10,
    norm: str = "linf",
    num_strata: int = 1,
) -> LossFn:
    """E_{t ~ U(0,1)} [ mean of max_{|delta| <= eps} CE(f_{w(t)}(x + delta), y) + wd ||w(t)||^2 / 2 ].

    Each step draws one t and attacks the network at this t.

    Args:
        network: The network.
        kind: `Bezier` or `PolyChain`.
        weight_decay: Weight decay on all parameters of w(t).
        eps: Radius of the ball, in units of the images.
        step_size: Step size of the inner maximisation.
        num_steps: Steps of the inner maximisation, from a random start; its last iterate is used.
        norm: "linf", "l2" or "l1".
        num_strata: See `mcjax.objectives.curve_loss`.

    Returns:
        A loss_fn for `train_steps`; its params and fixed are the two results of `split_curve`.

    Raises:
        UserError: eps or step_size is negative; the norm is unknown (raised when first traced).

    Source: Zhao et al. 2020, section 4.3 (robust connection).
    """
    check_sizes(eps=eps, step_size=step_size)
    check_count("num_steps", num_steps, 0)
    attack = Bound(
        pgd, eps=eps, step_size=step_size, num_steps=num_steps, norm=norm, keep_best=False
    )
    return Bound(_robust_curve_loss, network, attack, kind, weight_decay, num_strata)


def _robust_curve_loss(
    network: Network,
    attack: Bound,
    kind: type[Curve],
    weight_decay: float,
    num_strata: int,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    fixed: PyTree,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    t = sample_t(stream(key, "t"), step, num_strata=num_strata)
    w = kind(**params, **fixed)(t)
    forward = _forward(network, key, step, stats)
    y = batch["label"]
    x_adv = attack(stream(key, "attack", step), _constant(forward, w), batch["image"], y)
    logits, _ = forward(w, x_adv)
    nll = cross_entropy(logits, y).mean()
    loss = nll + weight_decay * l2(w)
    return loss, (stats, StepMetrics(loss, nll, accuracy(logits, y).mean()))


def gradient_penalty_loss(network: Network, *, weight: float) -> LossFn:
    """Mean of CE(f(x), y) + weight ||grad_x CE(f(x), y)||^2, differentiated through the gradient.

    Args:
        network: The network.
        weight: Weight of the penalty.

    Returns:
        A loss_fn for `train_steps`.

    Raises:
        UserError: weight is negative.

    Source: Ross & Doshi-Velez 2018, equation 3.
    """
    check_sizes(weight=weight)

    return Bound(_penalised, network, Bound(_squared_gradient, weight))


def _squared_gradient(
    weight: float, gradient_fn: Callable[[jax.Array], jax.Array], x: jax.Array
) -> jax.Array:
    return weight * (gradient_fn(x) ** 2).sum((1, 2, 3)).mean()


def curvature_penalty_loss(network: Network, *, weight: float, h: float = 1.5) -> LossFn:
    """Mean of CE(f(x), y) + weight ||g(x + h z) - g(x)||^2, with g = grad_x CE and z = sign g / ||sign g||.

    The difference of gradients is approximately h times the Hessian-vector product along z. No
    gradient flows through z; gradients flow through both g.

    Args:
        network: The network.
        weight: Weight of the penalty.
        h: l2 distance between the points of the two gradients.

    Returns:
        A loss_fn for `train_steps`.

    Raises:
        UserError: weight is negative, or h is not positive.

    Source: Moosavi-Dezfooli et al. 2019, section 4 (CURE).
    """
    check_sizes(weight=weight)
    if not h > 0:
        raise UserError(f"h is {h}; it must be positive")

    return Bound(_penalised, network, Bound(_squared_bend, weight, h))


def _squared_bend(
    weight: float, h: float, gradient_fn: Callable[[jax.Array], jax.Array], x: jax.Array
) -> jax.Array:
    gradient = gradient_fn(x)
    sign = jnp.sign(jax.lax.stop_gradient(gradient))
    length = jnp.sqrt((sign**2).sum((1, 2, 3), keepdims=True))
    z = sign / jnp.maximum(length, 1)  # length is at least 1 unless the gradient is zero
    return weight * ((gradient_fn(x + h * z) - gradient) ** 2).sum((1, 2, 3)).mean()


def _forward(network: Network, key: jax.Array, step: jax.Array, stats: PyTree) -> Forward:
    """`forward(params, x) -> (logits, batch_stats)` in training mode, one dropout mask per step."""

    def forward(params: PyTree, x: jax.Array) -> tuple[jax.Array, PyTree]:
        variables = {"params": params, "batch_stats": stats}
        return network.apply_train(stream(key, "dropout", step), variables, x)

    return forward


def _constant(forward: Forward, params: PyTree) -> Callable[[jax.Array], jax.Array]:
    """The logits function for an attack; no gradient flows to the parameters."""
    params = jax.lax.stop_gradient(params)
    return lambda x: forward(params, x)[0]


def _endpoint(
    network: Network,
    attack: Bound,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    fixed: None,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    forward = _forward(network, key, step, stats)
    y = batch["label"]
    x_adv = attack(stream(key, "attack", step), _constant(forward, params), batch["image"], y)
    logits, stats = forward(params, x_adv)
    loss = cross_entropy(logits, y).mean()
    return loss, (stats, StepMetrics(loss, loss, accuracy(logits, y).mean()))


def _penalised(
    network: Network,
    penalty: Bound,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    fixed: None,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    forward = _forward(network, key, step, stats)
    x, y = batch["image"], batch["label"]
    gradient_fn = jax.grad(lambda x: confident_cross_entropy(forward(params, x)[0], y).sum())
    logits, stats = forward(params, x)
    nll = cross_entropy(logits, y).mean()
    loss = nll + penalty(gradient_fn, x)
    return loss, (stats, StepMetrics(loss, nll, accuracy(logits, y).mean()))
