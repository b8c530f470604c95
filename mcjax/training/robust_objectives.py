"""What robust training minimises: worst-case losses, and penalties on the loss's slope and bend.

Where a network normalises by the batch, attacks see it as the step does: the statistics of the
batch under attack, which the attack's own passes do not add to the running ones; dropout drops the
same units in all passes of a step. The images that are found are constants to the gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mcjax.attacks.checks import check_count, check_sizes
from mcjax.attacks.images.attack_losses import confident_cross_entropy, kl
from mcjax.attacks.images.pgd import fgsm, pgd
from mcjax.core.bound_functions import Bound
from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.curves import Curve
from mcjax.data.batches import Batch
from mcjax.models.network import Network
from mcjax.training import LossFn, StepMetrics
from mcjax.training.losses import accuracy, cross_entropy, l2
from mcjax.training.objectives import sample_t

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
        step_size: Of the inner ascent.
        num_steps: Of the inner ascent, from a random start; its last iterate is used.
        norm: "linf", "l2" or "l1".

    Returns:
        A loss_fn for `train_steps`, as `mcjax.training.objectives.endpoint_loss`; its metrics are those of
        the adversarial images.

    Raises:
        UserError: Negative eps or step_size; when first traced, unknown norm.

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
    """`madry_loss` with one long step from a random start: about a fifth of PGD-10's cost.

    Args:
        network: The network.
        eps: Radius of the ball, in units of the images.
        step_size: Of the one step; 1.25 eps unless given.
        norm: "linf", "l2" or "l1".

    Returns:
        A loss_fn for `train_steps`.

    Raises:
        UserError: Negative eps or step_size; when first traced, unknown norm.

    Source: Wong et al. 2020, algorithm 3 (which also warns: it can fail suddenly late in training,
    seen as a robust accuracy under PGD near 0).
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

    The inner ascent starts at a uniform random point of the ball (the authors' code: a tiny normal
    one). The running statistics are updated by the clean pass and then by the adversarial one.

    Args:
        network: The network.
        beta: Weight of the robust term (1 / lambda in the paper).
        eps: Radius of the ball, in units of the images.
        step_size: Of the inner ascent.
        num_steps: Of the inner ascent.
        norm: "linf", "l2" or "l1".

    Returns:
        A loss_fn for `train_steps`; its metrics are those of the clean images.

    Raises:
        UserError: Negative beta, eps or step_size; when first traced, unknown norm.

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

    One t a step; the attack is on the network at this t.

    Args:
        network: The network.
        kind: `Bezier` or `PolyChain`.
        weight_decay: Of all parameters of the sampled point.
        eps: Radius of the ball, in units of the images.
        step_size: Of the inner ascent.
        num_steps: Of the inner ascent, from a random start; its last iterate is used.
        norm: "linf", "l2" or "l1".
        num_strata: See `mcjax.training.objectives.curve_loss`.

    Returns:
        A loss_fn for `train_steps`; its params and fixed are the two halves of `split_curve`.

    Raises:
        UserError: Negative eps or step_size; when first traced, unknown norm.

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
        weight: Of the penalty.

    Returns:
        A loss_fn for `train_steps`.

    Raises:
        UserError: Negative weight.

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

    The difference of gradients is a Hessian-vector product along z, times h. z is a constant to
    the gradient; both g are not.

    Args:
        network: The network.
        weight: Of the penalty.
        h: Length of the step between the two gradients, in l2.

    Returns:
        A loss_fn for `train_steps`.

    Raises:
        UserError: Negative weight, h not above 0.

    Source: Moosavi-Dezfooli et al. 2019, section 4 (CURE).
    """
    check_sizes(weight=weight)
    if not h > 0:
        raise UserError(f"h is {h}; give a number above 0")

    return Bound(_penalised, network, Bound(_squared_bend, weight, h))


def _squared_bend(
    weight: float, h: float, gradient_fn: Callable[[jax.Array], jax.Array], x: jax.Array
) -> jax.Array:
    gradient = gradient_fn(x)
    sign = jnp.sign(jax.lax.stop_gradient(gradient))
    length = jnp.sqrt((sign**2).sum((1, 2, 3), keepdims=True))
    z = sign / jnp.maximum(length, 1)  # at least 1 unless all is zero
    return weight * ((gradient_fn(x + h * z) - gradient) ** 2).sum((1, 2, 3)).mean()


def _forward(network: Network, key: jax.Array, step: jax.Array, stats: PyTree) -> Forward:
    """`forward(params, x) -> (logits, batch_stats)`, in training mode, with one dropout a step."""

    def forward(params: PyTree, x: jax.Array) -> tuple[jax.Array, PyTree]:
        variables = {"params": params, "batch_stats": stats}
        return network.apply_train(stream(key, "dropout", step), variables, x)

    return forward


def _constant(forward: Forward, params: PyTree) -> Callable[[jax.Array], jax.Array]:
    """The logits of images for an attack, through which no gradient flows to the parameters."""
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
