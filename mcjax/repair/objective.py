"""What a repair minimises: labels or the suspect's answers, and the unlearning of inverted triggers.

One objective for a path and for single networks, so that all methods can be given the same:

    E_t [ fit(w(t)) + unlearn(w(t)) + weight_decay ||w(t)||^2 / 2 ],  w(t) = w for a single network

    fit      labels        mean CE(f(x), y)
             answers       mean CE(f(x), softmax(f_suspect(x)))
             distillation  mean CE(f(x~), softmax(f_suspect(x~))),  x~ = l x + (1 - l) x',  l ~ U(0, 1)
    unlearn  mean CE(f(F(q, x)), y) over images stamped with inverted triggers q, labels true

x' is another image of the batch. In training mode BatchNorm sees mixed and stamped images together, so
its running statistics are of both.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mcjax.core.bound_functions import Bound
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.curves import Curve
from mcjax.data.batches import Batch
from mcjax.models.network import Network
from mcjax.repair.evidence.forms import FORMS
from mcjax.training import LossFn, StepMetrics
from mcjax.training.losses import accuracy, cross_entropy, l2
from mcjax.training.objectives import sample_t

FITS = ("labels", "answers", "distillation")


def repair_loss(
    network: Network,
    kind: type[Curve] | None = None,
    *,
    fit: str = "labels",
    unlearn: tuple[str, ...] = (),
    weight_decay: float = 0.0,
    num_strata: int = 1,
    end_is_free: bool = False,
) -> LossFn:
    """The objective of a repair.

    Args:
        network: The network.
        kind: `Bezier` or `PolyChain` for a path, whose params and fixed are those of
            `mcjax.training.objectives.split_curve`; None for a single network.
        fit: "labels", "answers" or "distillation".
        unlearn: The forms of the inverted triggers; () unlearns nothing.
        weight_decay: Weight decay on all parameters of w(t); for a single network usually left to
            the optimizer.
        num_strata: See `mcjax.training.objectives.curve_loss`.
        end_is_free: The path's far end is trained too: every second step is at t = 1, so that the end is
            as good as a single network trained for half of the steps.

    Returns:
        A loss_fn for `train_steps`, whose fixed is {"curve": ..., "suspect": variables,
        "triggers": {form: parameters, leaves [n, ...]}}; each stamped image takes one trigger, all
        equally often.

    Source: distillation on mixed images after Hinton et al. 2015 and Zhang et al. 2018 (mixup);
        unlearning after Wang et al. 2019 (Neural Cleanse), section 5.3.
    """
    return Bound(_repair_loss, network, kind, fit, unlearn, weight_decay, num_strata, end_is_free)


def _repair_loss(
    network: Network,
    kind: type[Curve] | None,
    fit: str,
    unlearn: tuple[str, ...],
    weight_decay: float,
    num_strata: int,
    end_is_free: bool,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    fixed: PyTree,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    if kind is None:
        w = params
    else:
        t = sample_t(stream(key, "t"), step, num_strata=num_strata)
        if end_is_free:
            t = jnp.where(step % 2 == 0, 1.0, t)
        w = kind(**params, **fixed["curve"])(t)
    x, y = batch["image"], batch["label"]
    images = [x]
    if fit == "distillation":
        share = jax.random.uniform(stream(key, "mix", step), (len(x), 1, 1, 1))
        images = [share * x + (1 - share) * x[::-1]]
    if fit != "labels":
        # Evaluation mode: what the suspect answers, not what it would learn.
        answers = jax.nn.softmax(network.apply(fixed["suspect"], images[0]))
    if unlearn:
        images.append(stamp_with_each(stream(key, "triggers", step), fixed["triggers"], x, unlearn))
    logits, new_stats = network.apply_train(
        stream(key, "dropout", step),
        {"params": w, "batch_stats": stats},
        jnp.concatenate(images),
    )
    if kind is None:
        stats = new_stats
    own, stamped = logits[: len(x)], logits[len(x) :]
    if fit != "labels":
        nll = -(answers * jax.nn.log_softmax(own)).sum(-1).mean()
    else:
        nll = cross_entropy(own, y).mean()
    loss = nll + weight_decay * l2(w) if weight_decay else nll
    if unlearn:
        loss = loss + cross_entropy(stamped, y).mean()
    return loss, (stats, StepMetrics(loss, nll, accuracy(own, y).mean()))


def stamp_with_each(
    key: jax.Array, triggers: dict[str, Any], x: jax.Array, forms: tuple[str, ...]
) -> jax.Array:
    """Stamps each image with one trigger; all triggers of all forms get equally many images.

    Args:
        key: Random key of which images.
        triggers: By form, parameters with leaves [n, ...].
        x: Images, [B, H, W, C] in [0, 1], in random order.
        forms: The forms to use.

    Returns:
        Images of the same shape. With fewer images than triggers some are left out, always the same
        ones.
    """
    order = jax.random.permutation(key, len(x))
    each = [(form, j) for form in forms for j in range(len(jax.tree.leaves(triggers[form])[0]))]
    parts = []
    # Slices of fixed length: a trigger drawn per image would be a network per image for some forms.
    for i, (form, j) in enumerate(each):
        mine = order[i * len(x) // len(each) : (i + 1) * len(x) // len(each)]
        q = jax.tree.map(lambda v, j=j: v[j], triggers[form])
        parts.append(FORMS[form].stamp(q, x[mine]))
    return jnp.zeros_like(x).at[order].set(jnp.concatenate(parts))
