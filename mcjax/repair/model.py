"""Repairing one suspect network with clean images: the path, the choice of t, the result."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mcjax import alignment
from mcjax.core import fields
from mcjax.core.bound_functions import Bound
from mcjax.core.errors import UserError, shown
from mcjax.core.fields import Field
from mcjax.core.keys import check_key, stream
from mcjax.core.progress import progress
from mcjax.core.tree import PyTree, by_name, check_same_structure, digest
from mcjax.curves import KINDS, MOST_BENDS, Curve
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.curves.geometry import distances
from mcjax.data import augmentation as augmentations
from mcjax.data.batches import Batch, stack_batches
from mcjax.evaluation.path import evaluate_path
from mcjax.models.network import Network, from_apply
from mcjax.repair.bonafide import check_images, check_suspect
from mcjax.repair.choose import choose
from mcjax.training import Augmentation, LossFn, TrainState, init_state, sgd, train
from mcjax.training.losses import classification_metrics
from mcjax.training.objectives import curve_loss, endpoint_loss, split_curve


@dataclasses.dataclass(frozen=True)
class Repaired:
    """What `repair_model` returns.

    Args:
        variables: The repaired network, of the suspect's structure; the suspect itself where no
            point of the path was accurate enough.
        t: The chosen point; None where none was accurate enough.
        curve: The trained path.
        report: What was measured: "ts", "selection_accuracy" and "bonafide_accuracy" along the
            path, "distance" to the nearest suspect; and of the choice "suspect_accuracy",
            "repaired_accuracy", "floor", "moved" and "moved_relative" (distance to the suspect,
            and over the suspect's norm), "num_bonafide", "num_selection", "seconds".
    """

    variables: PyTree
    t: float | None
    curve: Curve
    report: dict[str, Any]


_OPTIONS: Mapping[str, Field] = {
    "second_is_clean": fields.flag(),
    "tolerance": fields.number(0, 1),
    "kind": fields.choice(*KINDS),
    "num_bends": fields.whole(0, MOST_BENDS),
    "align": fields.choice("none", "weights"),
    "num_points": fields.whole(2, 100_000),
    "num_steps": fields.whole(1),
    "batch_size": fields.whole(1, 2**20),
    "learning_rate": fields.number(0, 1e3, above=True),
    "fine_tune_learning_rate": fields.number(0, 1e3, above=True),
    "momentum": fields.number(0, 1, below=True),
    "weight_decay": fields.number(0, 1e3),
    "augmentation": fields.choice(*augmentations.AUGMENTATIONS),
    "verbose": fields.flag(),
}


def repair_model(
    key: jax.Array,
    apply_fn: Network | Callable[[PyTree, jax.Array], jax.Array],
    suspect: PyTree,
    bonafide: Mapping[str, Any],
    second: PyTree | None = None,
    *,
    second_is_clean: bool = False,
    selection: Mapping[str, Any] | None = None,
    tolerance: float = 0.02,
    kind: str = "bezier",
    num_bends: int = 1,
    align: str = "none",
    num_points: int = 61,
    num_steps: int = 2000,
    batch_size: int = 128,
    learning_rate: float = 0.05,
    fine_tune_learning_rate: float = 0.02,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    augmentation: str = "none",
    verbose: bool = False,
) -> Repaired:
    """Joins a suspect network to a second one by a path of low loss, and takes a point of it.

    The path is trained on clean images alone. Among the points that lose at most `tolerance` on
    images held out for that, the one farthest from its nearest suspect is chosen
    (`mcjax.repair.choose`). What was tampered with is never looked at, and nothing here proves
    that it is gone.

    Args:
        key: Random key.
        apply_fn: The forward pass `apply_fn(variables, x) -> logits`, x [B, H, W, C] in [0, 1]; or
            a `Network`, which a network with BatchNorm or dropout needs.
        suspect: The variables of the network to repair.
        bonafide: Clean images: "image" [N, H, W, C] uint8 or in [0, 1], "label" [N].
        second: Variables of a second network of the same structure, suspect too; None makes one by
            fine-tuning the suspect, which counts as suspect.
        second_is_clean: Whether the second network is known to be clean: then only the first is
            to be far from.
        selection: More clean images, to choose t by; a fifth of `bonafide` is held out if None.
        tolerance: Accuracy on the selection images that the repair may cost, a fraction.
        kind: "bezier" or "polychain".
        num_bends: Bends of the path.
        align: "weights" brings the second network's hidden channels into the order nearest to the
            suspect's before they are joined (`mcjax.alignment`); "none" leaves them.
        num_points: Points of the path that are looked at, equally spaced in t.
        num_steps: Training steps of the path (and of the fine-tuning).
        batch_size: Images a step.
        learning_rate: Of the path's first half of training.
        fine_tune_learning_rate: Of the second network, where it is made.
        momentum: Of SGD.
        weight_decay: Of the path's points.
        augmentation: See `mcjax.data.augmentation`.
        verbose: Tell of the progress on standard error.

    Returns:
        The repaired variables, t, the curve and a report.

    Raises:
        UserError: An option that no training can have, which is told before anything is computed;
            images or labels that do not fit the network, a class without images, networks of
            different structure, parameters or a loss that are not finite.

    Example:
        >>> from mcjax.models.network import from_apply
        >>> x = np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1)
        >>> bonafide = {"image": np.tile(x, (5, 1, 1, 1)), "label": np.tile(np.arange(4), 5)}
        >>> apply_fn = lambda w, x: x.reshape(len(x), -1) @ w
        >>> a, b = 2 * jnp.eye(4), 3 * jnp.eye(4)
        >>> fixed = repair_model(jax.random.key(0), apply_fn, a, bonafide, b, num_steps=4)
        >>> round(fixed.t, 2), fixed.variables.shape
        (0.5, (4, 4))

    Source: Zhao et al. 2020, section 4.
    """
    began = time.monotonic()
    given = locals()
    for name, field in _OPTIONS.items():
        fields.check(name, given[name], field)
    num_bends, num_points = int(num_bends), int(num_points)
    num_steps, batch_size = int(num_steps), int(batch_size)
    rates = (float(x) for x in (learning_rate, fine_tune_learning_rate, momentum, weight_decay))
    learning_rate, fine_tune_learning_rate, momentum, weight_decay = rates
    key = check_key(key)
    if not callable(apply_fn) and not isinstance(apply_fn, Network):
        raise UserError(
            f"apply_fn is {shown(apply_fn)}; it must be a function apply_fn(variables, x) or a "
            "mcjax.models.network.Network"
        )
    network, start = _as_network(apply_fn, suspect)
    if second is None and second_is_clean:
        raise UserError(
            "second_is_clean, but no second network was given: a copy of the suspect, trained on, is "
            "as suspect as it is; give second, or leave second_is_clean out"
        )
    _check_variables("suspect", suspect, apply_fn)
    if second is not None:
        _check_variables("second", second, apply_fn)
        check_same_structure(suspect, second, ("the suspect", "the second network"))
    parts = check_images(network, start, bonafide, selection)
    check_suspect(network, start, parts)
    if second is not None and digest(suspect) == digest(second):
        raise UserError("the second network is the suspect itself; give another, or none")
    images = jax.tree.map(jnp.asarray, parts["bonafide"])
    fit = functools.partial(
        _fit,
        images=images,
        batch_stats=start["batch_stats"],
        num_steps=num_steps,
        batch_size=batch_size,
        momentum=momentum,
        augment_fn=augmentations.get(augmentation),
        verbose=verbose,
    )
    if second is None:
        state = fit(
            stream(key, "fine_tune"),
            "fine_tune",
            start["params"],
            endpoint_loss(network),
            learning_rate=fine_tune_learning_rate,
            weight_decay=weight_decay,
        )
        end = {"params": state.params, "batch_stats": state.batch_stats}
    else:
        end = _as_network(apply_fn, second)[1]
        if align == "weights":
            spec = alignment.permutation_spec(network.apply, start, images["image"].shape[1:])
            end = alignment.align(stream(key, "alignment"), spec, start, end)

    curve = KINDS[kind].connect(start["params"], end["params"], num_bends)
    trained, fixed = split_curve(curve)
    if num_bends:
        loss_fn = curve_loss(network, KINDS[kind], weight_decay=weight_decay)
        state = fit(
            stream(key, "path"), "path", trained, loss_fn, fixed=fixed, learning_rate=learning_rate
        )
        curve = KINDS[kind](**fixed, **state.params)

    points = CurveWithStats(
        curve,
        start["batch_stats"],
        end["batch_stats"],
        images["image"] if network.has_batch_stats else None,
        network.apply_train,
    )
    ts = np.linspace(0, 1, num_points)
    sets = {
        name: stack_batches(part, min(len(part["label"]), 1000)) for name, part in parts.items()
    }
    table = evaluate_path(classification_metrics(network.apply), points, ts, sets)
    accuracy = {name: np.asarray(metrics["accuracy"]) for name, metrics in table.items()}
    suspects = (0,) if second_is_clean else (0, -1)
    far = [np.asarray(distances(curve, ts, s)) for s in suspects]
    suspect_accuracy = float(max(accuracy["selection"][s] for s in suspects))
    choice = choose(
        accuracy["selection"], far, suspect_accuracy=suspect_accuracy, tolerance=tolerance
    )
    t = None if choice.index is None else float(ts[choice.index])
    repaired = suspect if t is None else _as_given(points(jnp.float32(t)), suspect, apply_fn)
    moved = 0.0 if choice.index is None else float(far[0][choice.index])
    norm = float(optax.tree.norm(start["params"]))
    report = {
        "ts": ts,
        "selection_accuracy": accuracy["selection"],
        "bonafide_accuracy": accuracy["bonafide"],
        "distance": np.min(far, axis=0),
        "suspect_accuracy": suspect_accuracy,
        "repaired_accuracy": float(accuracy["selection"][choice.index or 0]),
        "floor": choice.floor,
        "num_acceptable": choice.num_acceptable,
        "moved": moved,
        "moved_relative": moved / norm if norm else float("nan"),
        "second": "fine-tuned from the suspect" if second is None else "given",
        "num_bonafide": len(parts["bonafide"]["label"]),
        "num_selection": len(parts["selection"]["label"]),
        "seconds": time.monotonic() - began,
    }
    return Repaired(repaired, t, curve, report)


def _as_network(apply_fn: Any, variables: PyTree) -> tuple[Network, dict[str, PyTree]]:
    """The network, and its variables as {"params", "batch_stats"}."""
    if isinstance(apply_fn, Network):
        if not isinstance(variables, Mapping) or "params" not in variables:
            raise UserError('variables of a Network are {"params": ...}; give them so')
        return apply_fn, {"batch_stats": {}, **variables}
    if isinstance(apply_fn, nn.Module):
        raise UserError(
            "a linen module alone does not say how large its images are; give "
            "mcjax.models.network.from_linen(module, image_shape)"
        )
    if isinstance(variables, Mapping) and "batch_stats" in variables:
        raise UserError(
            "this network has running statistics, which a path must recompute at each t; give "
            "mcjax.models.network.from_linen(module, image_shape) in place of apply_fn"
        )
    network = from_apply(Bound(_apply_to_params, apply_fn))
    return network, {"params": variables, "batch_stats": {}}


def _check_variables(name: str, variables: PyTree, apply_fn: Any) -> None:
    """Refuses variables between which there is no path: no numbers, whole ones, NaN."""
    leaves = by_name(variables)
    if not leaves:
        raise UserError(f"{name} is {shown(variables)}; it must be a tree of arrays")
    for where, leaf in leaves.items():
        try:
            dtype = jnp.asarray(leaf).dtype
        except (TypeError, ValueError, OverflowError):  # text, an object, a huge number
            raise UserError(
                f"{name}: {where or 'it'} is {shown(leaf)}; give arrays of numbers"
            ) from None
        floating = jnp.issubdtype(dtype, jnp.floating)
        if not floating and (not isinstance(apply_fn, Network) or where.startswith("params/")):
            raise UserError(
                f"{name}: {where or 'it'} is {dtype}; parameters must be real numbers, float32 say"
            )
        if floating and not jnp.isfinite(leaf).all():
            raise UserError(f"{name}: {where or 'it'} holds NaN or infinity; give a sound network")


def _apply_to_params(
    apply_fn: Callable[..., jax.Array], variables: PyTree, x: jax.Array
) -> jax.Array:
    return apply_fn(variables["params"], x)


def _as_given(variables: dict[str, PyTree], like: PyTree, apply_fn: Any) -> PyTree:
    """The variables of a point in the form in which the suspect came."""
    if not isinstance(apply_fn, Network):
        return variables["params"]
    return {name: variables[name] if variables.get(name) else like[name] for name in like}


def _fit(
    key: jax.Array,
    name: str,
    params: PyTree,
    loss_fn: LossFn,
    *,
    images: Batch,
    batch_stats: PyTree,
    fixed: PyTree = None,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    momentum: float,
    weight_decay: float = 0.0,
    augment_fn: Augmentation,
    verbose: bool,
) -> TrainState:
    optimizer = sgd(learning_rate, num_steps, momentum=momentum, weight_decay=weight_decay)
    state = init_state(params, batch_stats, optimizer)
    with progress(name, num_steps, unit="step") if verbose else nullcontext() as bar:
        for new, means in train(
            key,
            state,
            fixed,
            images,
            num_steps=num_steps,
            steps_per_dispatch=100,
            loss_fn=loss_fn,
            optimizer=optimizer,
            batch_size=batch_size,
            augment_fn=augment_fn,
        ):
            if not np.isfinite(means["loss"]):
                raise UserError(
                    f"{name}: the loss became {means['loss']}; lower its learning rate, "
                    f"{learning_rate}"
                )
            if bar:
                bar.advance(int(new.step) - bar.done, loss=means["loss"])
    return new
