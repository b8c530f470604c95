"""Error injection: the images to misclassify, and reports on tampered weights."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from mcjax.data.splits import Examples
from mcjax.data.stratify import stream
from mcjax.errors import UserError
from mcjax.tree import PyTree, by_name

ApplyFn = Callable[[PyTree, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Faults:
    """The images of an attack on weights, made by `choose_faults`.

    Args:
        examples: "image" [T, H, W, C] and "label" [T]: the first S labels are the attacker's
            targets, the others the true labels.
        num_faults: S.
        true_label: True labels of the first S images, int32 [S].
        indices: The images' indices in the set they were drawn from, int64 [T].
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
    """Draws T correctly classified images, and targets for the first S of them.

    A target is uniform over the classes other than the true one.

    Args:
        examples: The set to draw from; do not use it for repairs or reports.
        correct: Whether every attacked network classifies the image correctly, bool [N].
        seed: Seed of the draw.
        num_faults: S, the number of images to misclassify.
        num_images: T, the total number of images; the other T - S must keep their class.
        num_classes: Number of classes, at least 2.

    Returns:
        The images; the S images with targets come first.

    Raises:
        UserError: S is not in [1, T]; fewer than T images are classified correctly; or there is not
            one valid label per image.

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
            f"num_images is {num_images}, but only {len(available)} of {len(correct)} images are "
            "classified correctly; use a smaller num_images"
        )
    if num_classes < 2:
        raise UserError(f"num_classes is {num_classes}; a fault needs at least 2 classes")
    known = np.asarray(examples["label"])
    if (
        known.shape != np.shape(correct)
        or known.ndim != 1
        or known.min() < 0
        or known.max() >= num_classes
    ):
        raise UserError(
            f"labels have shape {list(known.shape)} and lie in [{known.min()}, {known.max()}]; give "
            f"{len(correct)} labels from 0 to {num_classes - 1}"
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
    """The attacked weights as one vector, made by `select_layers`.

    Args:
        theta: The weights, [D].
        with_weights: `with_weights(theta) -> variables`, the network with these weights.
        names: Names of the tensors.
        slices: For each name, its slice of theta.
    """

    theta: jax.Array
    with_weights: Callable[[jax.Array], PyTree]
    names: tuple[str, ...]
    slices: tuple[slice, ...]


def select_layers(variables: PyTree, layers: Sequence[str] = ()) -> Selected:
    """Selects the weights of some layers of a network.

    Args:
        variables: {"params": ...}, or any tree of weights.
        layers: Names of tensors ("Dense_0/kernel") or modules ("Dense_0"); () for all.

    Returns:
        The weights as one vector, and the function that puts them back.

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
    """A network with tampered weights.

    Args:
        variables: The network's variables.
        report: "injection_success" (fraction of the S images classified as their targets),
            "kept_accuracy" (fraction of the T - S others that keep their class; nan if T = S),
            "norm_l0" (number of changed weights), "norm_l2", "norm_linf", "layers" (changed layers),
            "num_weights" (attacked weights), "converged" (whether every fault succeeds).
    """

    variables: PyTree
    report: dict[str, Any]


def describe(before: Selected, theta: jax.Array, logits: jax.Array, faults: Faults) -> Injected:
    """Reports the effect of a weight change.

    Args:
        before: The weights before the change.
        theta: The weights after the change, [D].
        logits: Logits of the T images after the change, [T, classes].
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
