"""I-BAU: adversarial unlearning of universal perturbations, a backdoor repair.

    min_theta  F(delta*(theta), theta),    delta*(theta) = argmax_{||delta|| <= eps} L(delta, theta)

L is the mean loss on clean images with a common perturbation delta, the defender's estimate of a
trigger. The gradient of F takes into account that delta* depends on theta.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from mcjax.attacks.images.attack_losses import log_cross_entropy
from mcjax.core.errors import Diverged, UserError
from mcjax.core.fields import number, whole
from mcjax.core.keys import stream
from mcjax.core.settings import Setting
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch, epoch_indices, to_unit
from mcjax.models.network import Network
from mcjax.repair.methods.method import Case, Method, Plan, Work, num_repeats
from mcjax.repair.methods.tuning import by_length
from mcjax.training.losses import cross_entropy


def hypergradient(
    outer_fn: Callable[[jax.Array, PyTree], jax.Array],
    map_fn: Callable[[jax.Array, PyTree], jax.Array],
    delta: jax.Array,
    params: PyTree,
    *,
    num_terms: int,
) -> PyTree:
    """The gradient of outer(delta*(w), w), with delta* the fixed point of a map.

    From delta* = Phi(delta*, w), with J = d Phi / d delta and all derivatives at delta,

        d outer = d_w outer + (d_w Phi)^T v,    v = (1 - J^T)^-1 d_delta outer
                                                  = sum_k (J^T)^k d_delta outer

    and the series is truncated after num_terms terms. It converges if J is a contraction.

    Args:
        outer_fn: `outer_fn(delta, params) -> scalar`.
        map_fn: `map_fn(delta, params) -> delta`, one step of the inner optimisation.
        delta: The fixed point, or its approximation by the inner optimisation.
        params: Parameters.
        num_terms: Number of terms; 0 ignores that delta* depends on the parameters.

    Returns:
        A tree like `params`.

    Example:
        >>> outer_fn = lambda delta, w: delta**2
        >>> map_fn = lambda delta, w: 0.5 * delta + w  # delta* = 2 w, so the gradient is 8 w
        >>> hypergradient(outer_fn, map_fn, jnp.array(2.0), jnp.array(1.0), num_terms=30)
        Array(8., dtype=float32, weak_type=True)

    Source: Zeng et al. 2022, equations 4 to 6; Grazzi et al. 2020, the fixed-point method.
    """
    from_delta, direct = jax.grad(outer_fn, argnums=(0, 1))(delta, params)
    _, pull_back = jax.vjp(map_fn, delta, params)

    def add(_: jax.Array, v: jax.Array) -> jax.Array:
        return from_delta + pull_back(v)[0]

    v = lax.fori_loop(0, num_terms, add, jnp.zeros_like(from_delta))
    return jax.tree.map(jnp.add, direct, pull_back(v)[1])


def unlearn(
    key: jax.Array,
    network: Network,
    variables: PyTree,
    bonafide: Batch,
    *,
    num_rounds: int = 100,
    eps: float = 3.0,
    num_inner: int = 10,
    num_fixed_point: int = 5,
    fixed_point_step: float = 0.1,
    perturbed: float = 0.5,
    learning_rate: float = 3e-3,
    batch_size: int = 64,
) -> PyTree:
    """Removes a backdoor using clean images only.

    Each round starts from delta = 0 and maximises the loss, with the network's predictions as
    targets, by num_inner steps of length 2 eps / num_inner along the gradient, projected onto the
    ball, with one batch per step. Then it passes once over the images and takes one Adam step per
    batch, with the `hypergradient` of

        F(delta, w) = (1 - perturbed) mean CE(x) + perturbed mean CE(x + delta)

    for the map Phi(delta, w) = P_eps(delta + fixed_point_step d_delta L(delta, w)), whose fixed point
    is the constrained maximum. x + delta is clipped to [0, 1] like a stamped image (the official code
    does not clip, so its networks also become robust to inputs that are not images).

    The network runs in evaluation mode: BatchNorm's running statistics do not change; its scale and
    bias are trained like all parameters.

    Args:
        key: Key of the batches' order.
        network: The network.
        variables: The suspect's {"params", "batch_stats"}.
        bonafide: Clean images, {"image" [N, H, W, C], "label" [N]}.
        num_rounds: Number of rounds.
        eps: Largest l2 norm of the perturbation, in units of the images.
        num_inner: Steps of the inner maximisation.
        num_fixed_point: Terms of the hypergradient's series.
        fixed_point_step: Step size of the map, in squared units of the images.
        perturbed: Weight of the loss on perturbed images; 1 in the paper's F, 0.01 in its official
            code (one image in a hundred is perturbed).
        learning_rate: Adam's learning rate.
        batch_size: Images per step.

    Returns:
        The repaired variables.

    Raises:
        UserError: An option is out of range, or there are no images.

    Source: Zeng et al. 2022, algorithm 1. Adam and the network's predictions as targets of the inner
        maximisation are from its official code; the projection in Phi is mcjax's own.
    """
    positive = {"eps": eps, "learning_rate": learning_rate, "batch_size": batch_size}
    for name, value in positive.items():
        if not value > 0:
            raise UserError(f"I-BAU: {name} is {value}; it must be positive")
    for name, count in {"num_rounds": num_rounds, "num_inner": num_inner}.items():
        if count < 1:
            raise UserError(f"I-BAU: {name} is {count}; give at least 1")
    if not 0 <= perturbed <= 1:
        raise UserError(f"I-BAU: perturbed is {perturbed}; it must be in [0, 1]")
    num_examples = len(bonafide["label"])
    if num_examples == 0:
        raise UserError("I-BAU: there are no bonafide images; give at least one")

    examples = {name: jnp.asarray(bonafide[name]) for name in ("image", "label")}
    params = variables["params"]
    opt_state = optax.adam(learning_rate).init(params)
    for i in range(num_rounds):
        params, opt_state = _round(
            stream(key, "round", i),
            {**variables, "params": params},
            opt_state,
            examples,
            eps,
            fixed_point_step,
            perturbed,
            learning_rate,
            network=network,
            num_inner=num_inner,
            num_fixed_point=num_fixed_point,
            batch_size=batch_size,
        )
    return {**variables, "params": params}


def project(delta: jax.Array, eps: Any) -> jax.Array:
    """Projects delta, as one vector, onto the l2 ball of radius eps.

    Example:
        >>> project(jnp.array([3.0, 4.0]), 1.0)
        Array([0.6, 0.8], dtype=float32)
    """
    square = jnp.sum(delta**2)
    outside = square > eps**2
    # Inside the ball the norm is not differentiated, because it has no derivative at 0.
    return delta * jnp.where(outside, eps * lax.rsqrt(jnp.where(outside, square, 1)), 1)


@functools.partial(
    jax.jit, static_argnames=("network", "num_inner", "num_fixed_point", "batch_size")
)
def _round(
    key: jax.Array,
    variables: PyTree,
    opt_state: PyTree,
    examples: Batch,
    eps: Any,
    fixed_point_step: Any,
    perturbed: Any,
    learning_rate: Any,
    *,
    network: Network,
    num_inner: int,
    num_fixed_point: int,
    batch_size: int,
) -> tuple[PyTree, PyTree]:
    """One inner maximisation, then one pass over the images."""
    optimizer = optax.adam(learning_rate)
    num_examples = len(examples["label"])
    num_steps = max(1, num_examples // batch_size)

    def batches(name: str, num_steps: int) -> jax.Array:
        return epoch_indices(
            stream(key, name),
            first_step=0,
            num_steps=num_steps,
            batch_size=batch_size,
            num_examples=num_examples,
        )

    def images(index: jax.Array) -> jax.Array:
        return to_unit(examples["image"][index])

    def logits(delta: jax.Array, params: PyTree, x: jax.Array) -> jax.Array:
        shifted = (x + jnp.broadcast_to(delta, x.shape)).clip(0, 1)
        return network.apply({**variables, "params": params}, shifted)

    def loss(delta: jax.Array, params: PyTree, x: jax.Array, y: jax.Array) -> jax.Array:
        return cross_entropy(logits(delta, params, x), y).mean()

    def log_loss(delta: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        # Same direction as the loss's gradient, which underflows for a confident network.
        return jax.nn.logsumexp(log_cross_entropy(logits(delta, variables["params"], x), y))

    def ascend(delta: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
        x = images(index)
        y = network.apply(variables, x).argmax(-1)
        gradient = jax.grad(log_loss)(delta, x, y)
        unit = gradient / jnp.maximum(jnp.linalg.norm(gradient.ravel()), 1e-12)
        return project(delta + 2 * eps / num_inner * unit, eps), None

    def descend(
        carry: tuple[PyTree, PyTree], index: jax.Array
    ) -> tuple[tuple[PyTree, PyTree], None]:
        params, opt_state = carry
        x, y = images(index), examples["label"][index]

        def outer_fn(delta: jax.Array, params: PyTree) -> jax.Array:
            clean = loss(jnp.zeros_like(delta), params, x, y)
            return (1 - perturbed) * clean + perturbed * loss(delta, params, x, y)

        def map_fn(delta: jax.Array, params: PyTree) -> jax.Array:
            return project(delta + fixed_point_step * jax.grad(loss)(delta, params, x, y), eps)

        gradient = hypergradient(outer_fn, map_fn, delta, params, num_terms=num_fixed_point)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    delta = jnp.zeros((1, *examples["image"].shape[1:]))
    delta, _ = lax.scan(ascend, delta, batches("ascent", num_inner))
    carry, _ = lax.scan(descend, (variables["params"], opt_state), batches("descent", num_steps))
    return carry


def run(case: Case) -> PyTree:
    """Unlearns on the images of a case.

    A round goes once through `case.images`, which a study repeats so that every size gets as many
    steps: another list of sizes is another budget.

    Raises:
        Diverged: A parameter is not finite.
    """
    options = {
        name.removeprefix("i_bau."): value
        for name, value in case.options.items()
        if name.startswith("i_bau.")
    }
    found = unlearn(
        case.key_fn("i_bau"),
        case.network,
        case.suspect,
        case.images,
        batch_size=case.budget.batch_size,
        **options,
    )
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(found))):
        raise Diverged("I-BAU: the parameters are not finite; lower its learning rate")
    return found


ASCENT_PASSES = 3  # the network's own answers, then forward and back to the images


def descent_passes(num_fixed_point: int) -> int:
    """Forward passes that a step with the hypergradient is worth, counted from its program."""
    return 12 + 4 * num_fixed_point


def work(plan: Plan) -> Iterator[Work]:
    """The descents and the ascents of all rounds."""
    rounds, batch = plan.options["i_bau.num_rounds"], plan.batch_size
    lengths = [n * num_repeats(n, plan.sizes) for n in plan.sizes]
    passes = descent_passes(plan.options["i_bau.num_fixed_point"])
    descents = rounds * sum(max(1, n // batch) for n in lengths)
    yield Work("train i_bau", descents, batch, passes, 14, "")
    yield Work("ascents of i_bau", 10 * rounds * len(plan.sizes), batch, ASCENT_PASSES, 2, "")


METHOD = Method(
    run=run,
    settings={
        "i_bau.num_rounds": Setting(100, whole(1, 10**6), "number of rounds of I-BAU", 1),
        "i_bau.learning_rate": Setting(
            3e-3, number(0, 1e3, above=True), "learning rate of I-BAU's Adam"
        ),
        "i_bau.eps": Setting(
            3.0, number(0, above=True), "l2 norm of the universal perturbation, images in [0, 1]"
        ),
        "i_bau.perturbed": Setting(0.5, number(0, 1), "fraction of a batch that is perturbed"),
        "i_bau.num_fixed_point": Setting(
            5, whole(0, 10_000), "fixed-point iterations for the implicit gradient"
        ),
    },
    work=work,
    tuning=by_length("i_bau", rounds="i_bau.num_rounds"),
)
