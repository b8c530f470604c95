"""Error injection: which images are to be misclassified, and what a change of weights has done."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from mcjax.core.errors import UserError
from mcjax.core.tree import PyTree, by_name
from mcjax.data.splits import Examples
from mcjax.data.stratify import stream

ApplyFn = Callable[[PyTree, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Faults:
    """The images that an attack on weights looks at; made by `choose_faults`.

    Args:
        examples: "image" [T, H, W, C] and "label" [T]: the first S labels are the attacker's
            targets, the others the true ones.
        num_faults: S.
        true_label: int32 [S], of the first S.
        indices: int64 [T], where the images stood in the set that they were drawn from.
    """

    examples: Examples
    num_faults: int
    true_label: np.ndarray
    indices: np.ndarray


def choose_faults(
    examples: Examples,
    correct: np.ndarray,
    *,
    seed: int,
    num_faults: int = 4,
    num_images: int = 1000,
    num_classes: int,
) -> Faults:
    """Draws T images that are classified rightly, and targets for the first S of them.

    A target is uniform over the classes other than the true one.

    Args:
        examples: Where to draw from; keep it apart from what repairs and reports use.
        correct: bool [N], whether every network under attack classifies the image rightly.
        seed: Of the draw.
        num_faults: S, images to be misclassified.
        num_images: T, all images, whose others are to keep their class.
        num_classes: Number of classes, at least 2.

    Returns:
        The images, the targets first.

    Raises:
        UserError: S above T, S below 1, T more than there are images classified rightly, or
            labels that are not one of the classes per image.

    Example:
        >>> examples = {"image": np.zeros((6, 1, 1, 1)), "label": np.arange(6) % 3}
        >>> faults = choose_faults(
        ...     examples, np.ones(6, bool), seed=0, num_faults=2, num_images=5, num_classes=3
        ... )
        >>> len(faults.indices), bool((faults.examples["label"][:2] == faults.true_label).any())
        (5, False)

    Source: Zhao et al. 2019 (fault sneaking), section 3. The official code of Zhao et al. 2020 draws
        targets that can be the true class.
    """
    if num_faults < 1 or num_faults > num_images:
        raise UserError(f"{num_faults} faults among {num_images} images; give 1 to {num_images}")
    available = np.flatnonzero(correct)
    if num_images > len(available):
        raise UserError(
            f"{num_images} images asked for, but the networks classify only {len(available)} of "
            f"{len(correct)} rightly; ask for fewer"
        )
    if num_classes < 2:
        raise UserError(f"{num_classes} classes; a fault needs at least 2")
    known = np.asarray(examples["label"])
    if (
        known.shape != np.shape(correct)
        or known.ndim != 1
        or known.min() < 0
        or known.max() >= num_classes
    ):
        raise UserError(
            f"labels have shape {list(known.shape)} and lie in [{known.min()}, {known.max()}]; give "
            f"{len(correct)}, from 0 to {num_classes - 1}"
        )
    rng = stream(seed, "faults")
    indices = rng.permutation(available)[:num_images]
    label = np.array(examples["label"])[indices].astype(np.int32)
    true_label = label[:num_faults].copy()
    shift = rng.integers(1, num_classes, num_faults)
    label[:num_faults] = (true_label + shift) % num_classes
    chosen = {"image": np.asarray(examples["image"])[indices], "label": label}
    return Faults(chosen, num_faults, true_label, indices)


@dataclasses.dataclass(frozen=True)
class Selected:
    """The weights under attack as one vector; made by `select_layers`.

    Args:
        theta: [D], their values.
        with_weights: `with_weights(theta) -> variables`, the network with other values there.
        names: The layers' names.
        slices: For each name, where in theta it stands.
    """

    theta: jax.Array
    with_weights: Callable[[jax.Array], PyTree]
    names: tuple[str, ...]
    slices: tuple[slice, ...]


def select_layers(variables: PyTree, layers: Sequence[str] = ()) -> Selected:
    """Picks the weights of some layers out of a network.

    Args:
        variables: {"params": ...}, or any tree of weights.
        layers: Names of tensors ("Dense_0/kernel") or of what holds them ("Dense_0"); () is all.

    Returns:
        Their values as one vector, and the way back.

    Raises:
        UserError: No such layer; the names that there are are listed.

    Example:
        >>> import jax.numpy as jnp
        >>> variables = {"params": {"a": jnp.ones(2), "b": jnp.zeros(3)}}
        >>> selected = select_layers(variables, ["b"])
        >>> selected.with_weights(selected.theta + 1)["params"]["b"]
        Array([1., 1., 1.], dtype=float32)
    """
    in_params = isinstance(variables, dict) and "params" in variables
    params = variables["params"] if in_params else variables
    values, treedef = jax.tree.flatten(params)
    names = list(by_name(params))
    for layer in layers:
        if not any(_inside(name, layer) for name in names):
            raise UserError(f"no layer {layer!r}; there are {', '.join(names)}")
    places = [
        i for i, name in enumerate(names) if not layers or any(_inside(name, x) for x in layers)
    ]
    theta, unravel = ravel_pytree([values[i] for i in places])

    def with_weights(theta: jax.Array) -> PyTree:
        new = list(values)
        for i, value in zip(places, unravel(theta), strict=True):
            new[i] = value
        changed = jax.tree_util.tree_unflatten(treedef, new)
        return {**variables, "params": changed} if in_params else changed

    ends = np.cumsum([0, *(values[i].size for i in places)])
    slices = tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(ends))
    return Selected(theta, with_weights, tuple(names[i] for i in places), slices)


def _inside(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}/")


@dataclasses.dataclass(frozen=True)
class Injected:
    """A network whose weights were tampered with.

    Args:
        variables: The network.
        report: "injection_success" (of the S images, the share classified as the attacker wants),
            "kept_accuracy" (of the T - S others, the share that keeps its class; nan without others),
            "norm_l0" (weights changed), "norm_l2", "norm_linf", "layers" (changed ones),
            "num_weights" (under attack), "converged" (every fault is in).
    """

    variables: PyTree
    report: dict[str, Any]


def describe(before: Selected, theta: jax.Array, logits: jax.Array, faults: Faults) -> Injected:
    """What a change of weights has done.

    Args:
        before: The weights before it.
        theta: [D], after it.
        logits: Of the T images after it, [T, classes].
        faults: The images.

    Returns:
        The network and the report.
    """
    right = np.asarray(logits.argmax(-1)) == faults.examples["label"]
    delta = np.asarray(theta, np.float64) - np.asarray(before.theta, np.float64)
    touched = [
        name for name, part in zip(before.names, before.slices, strict=True) if delta[part].any()
    ]
    kept = right[faults.num_faults :]
    report = {
        "injection_success": float(right[: faults.num_faults].mean()),
        "kept_accuracy": float(kept.mean()) if len(kept) else float("nan"),
        "norm_l0": int(np.count_nonzero(delta)),
        "norm_l2": float(np.linalg.norm(delta)),
        "norm_linf": float(np.abs(delta).max(initial=0)),
        "layers": touched,
        "num_weights": len(delta),
        "converged": bool(right[: faults.num_faults].all()),
    }
    return Injected(before.with_weights(theta), report)
