"""Training objectives: the loss of one network and the expected loss over a curve."""

import dataclasses
from typing import Any

import jax

from mcjax.bound import Bound
from mcjax.curves import Curve
from mcjax.keys import stream
from mcjax.losses import Batch, accuracy, cross_entropy, l2
from mcjax.network import Network
from mcjax.training import LossFn, StepMetrics
from mcjax.tree import PyTree


def endpoint_loss(network: Network) -> LossFn:
    """Mean cross-entropy of one network; weight decay is left to the optimizer.

    Args:
        network: The network.

    Returns:
        A loss_fn for `train_steps`; `fixed` is not used.
    """
    return Bound(_endpoint_loss, network)


def _endpoint_loss(
    network: Network,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    fixed: None,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    variables = {"params": params, "batch_stats": stats}
    logits, stats = network.apply_train(stream(key, "dropout", step), variables, batch["image"])
    loss = cross_entropy(logits, batch["label"]).mean()
    return loss, (stats, StepMetrics(loss, loss, accuracy(logits, batch["label"]).mean()))


def curve_loss(
    network: Network, kind: type[Curve], *, weight_decay: float, num_strata: int = 1
) -> LossFn:
    """E_{t ~ U(0,1)} [ mean cross-entropy at w(t) + weight_decay ||w(t)||^2 / 2 ], one t per step.

    Args:
        network: The network.
        kind: `Bezier` or `PolyChain`.
        weight_decay: Weight decay on all parameters of w(t), including BatchNorm's scale and bias.
        num_strata: [0, 1] is divided into this many equal parts, and every num_strata consecutive
            steps visit each part once, in random order; 1 draws every t independently.

    Returns:
        A loss_fn for `train_steps`; its params and fixed are the two results of `split_curve`.

    Source: Garipov et al. 2018, equation 2; Zhao et al. 2020, section 3.
    """
    return Bound(_curve_loss, network, kind, weight_decay, num_strata)


def _curve_loss(
    network: Network,
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
    # Batch statistics: running statistics, averaged over many t, fit no single t.
    logits, _ = network.apply_train(
        stream(key, "dropout", step), {"params": w, "batch_stats": stats}, batch["image"]
    )
    nll = cross_entropy(logits, batch["label"]).mean()
    loss = nll + weight_decay * l2(w)
    return loss, (stats, StepMetrics(loss, nll, accuracy(logits, batch["label"]).mean()))


def sample_t(key: jax.Array, step: jax.Array, *, num_strata: int = 1) -> jax.Array:
    """Draws t ~ U(0, 1) for one step; depends on the key and the step only.

    Args:
        key: The key of the whole training.
        step: The index of the step.
        num_strata: See `curve_loss`.

    Returns:
        A scalar in [0, 1).

    Example:
        >>> ts = [float(sample_t(jax.random.key(0), i, num_strata=4)) for i in range(4)]
        >>> sorted(int(4 * t) for t in ts)
        [0, 1, 2, 3]
    """
    u = jax.random.uniform(stream(key, "within", step))
    if num_strata == 1:
        return u
    order = jax.random.permutation(stream(key, "order", step // num_strata), num_strata)
    return (order[step % num_strata] + u) / num_strata


def split_curve(
    curve: Curve, *, fix_start: bool = True, fix_end: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a curve into trained and fixed control points; `kind(**trained, **fixed)` rejoins them.

    Args:
        curve: The curve.
        fix_start: Do not train the start.
        fix_end: Do not train the end.

    Returns:
        Two dicts by field name, trained and fixed.

    Example:
        >>> from mcjax.curves import Bezier
        >>> trained, fixed = split_curve(Bezier(start={"w": 0.0}, bends=({"w": 0.5},), end={"w": 1.0}))
        >>> list(trained), list(fixed)
        (['bends'], ['start', 'end'])
    """
    fields = {f.name: getattr(curve, f.name) for f in dataclasses.fields(curve)}
    keep = {"start": fix_start, "bends": False, "end": fix_end}
    return (
        {name: v for name, v in fields.items() if not keep[name]},
        {name: v for name, v in fields.items() if keep[name]},
    )
