"""Backdoors: training sets with stamped, relabelled images, and the sets that measure success."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.attacks.stamped import Stamp, stamp_examples
from mcjax.bound import Bound
from mcjax.data.splits import Examples
from mcjax.data.stratify import stream
from mcjax.errors import UserError
from mcjax.keys import check_seed
from mcjax.losses import Batch
from mcjax.training import LossFn, StepMetrics
from mcjax.tree import PyTree

LABEL_MAPS = ("single_target", "all_to_all", "clean_label")
WHEN = ("before", "after")


@dataclasses.dataclass(frozen=True)
class Poisoned:
    """A training set with a backdoor in it; made by `poison`.

    Args:
        examples: The whole set in its old order, "image" and the mapped "label"; for stamping
            after augmentation the images are unstamped, and "poisoned" (bool [N]) marks them.
        indices: int64, ascending: where the poisoned examples are.
        counts: int64 [num_classes]: how many are poisoned, by true class.
    """

    examples: Examples
    indices: np.ndarray
    counts: np.ndarray


def relabel(
    y: np.ndarray,
    *,
    label_map: str = "single_target",
    target: int = 1,
    num_classes: int,
) -> np.ndarray:
    """The labels that poisoned training images get.

        single_target  y' = target
        all_to_all     y' = (y + 1) mod num_classes
        clean_label    y' = y, for only images of the target class are poisoned

    Args:
        y: Integer labels, [N].
        label_map: One of the above.
        target: The class that the attacker wants; not used by all_to_all.
        num_classes: Number of classes, at least 2.

    Returns:
        New labels, [N], of the same type.

    Raises:
        UserError: unknown label map, target or labels outside of the classes.

    Example:
        >>> relabel(np.array([0, 1, 2]), label_map="all_to_all", num_classes=3).tolist()
        [1, 2, 0]

    Source: Gu et al. 2017 (single_target, all_to_all), Turner et al. 2018 (clean_label).
    """
    _check(y, label_map, target, num_classes)
    if label_map == "single_target":
        return np.full_like(y, target)
    if label_map == "all_to_all":
        return ((y + 1) % num_classes).astype(y.dtype)
    return y.copy()


def poison(
    examples: Examples,
    stamp: Stamp,
    *,
    seed: int,
    fraction: float = 0.10,
    label_map: str = "single_target",
    target: int = 1,
    num_classes: int,
    when: str = "before",
) -> Poisoned:
    """Puts a backdoor into a training set.

    Of each eligible class c with n_c images, floor(fraction n_c + 1/2) are drawn, stamped and given
    the label of `relabel`. Eligible are all classes but the target for single_target, all for
    all_to_all, the target alone for clean_label. So of ten equal classes and fraction 0.10,
    single_target poisons 9 % of the whole set, all_to_all 10 % and clean_label 1 %.

    Each class is drawn by a stream of its own: the draw does not depend on the other classes, and a
    smaller fraction's images are among those of a larger one.

    Args:
        examples: The training set, "image" [N, H, W, C] uint8 or in [0, 1], "label" int32 [N];
            left as it is.
        stamp: The trigger, from `mcjax.attacks.triggers.create`.
        seed: Seed of the draw, non-negative.
        fraction: Of each eligible class, in (0, 1].
        label_map: "single_target", "all_to_all" or "clean_label".
        target: The class that the attacker wants; not used by all_to_all.
        num_classes: Number of classes.
        when: "before" stamps the images here, so that training augments the trigger with them;
            "after" marks them, for `stamping` to stamp them after augmentation. Without
            augmentation the two agree but for "before" rounding bytes.

    Returns:
        The poisoned set, which images it poisons and how many of each class.

    Raises:
        UserError: unknown label map or `when`, fraction outside (0, 1], target or labels outside
            of the classes, images of another shape than the trigger's or outside [0, 1], or no
            image to poison.

    Example:
        >>> from mcjax import data
        >>> from mcjax.attacks import triggers
        >>> digits = data.load("digits")
        >>> stamp = triggers.create("square", digits.image_shape)
        >>> poisoned = poison(digits.train, stamp, seed=0, num_classes=10)
        >>> poisoned.counts.tolist()
        [13, 0, 13, 13, 13, 13, 13, 13, 13, 13]

    Source: Gu et al. 2017; Zhao et al. 2020, section 4.1.
    """
    label = examples["label"]
    _check(label, label_map, target, num_classes)
    if when not in WHEN:
        raise UserError(f"unknown time of stamping {when!r}; give one of {', '.join(WHEN)}")
    if not 0 < fraction <= 1:
        raise UserError(f"poison fraction is {fraction}; give a number above 0, at most 1")
    check_seed(seed)

    drawn = []
    for c in range(num_classes):
        members = np.flatnonzero(label == c)
        count = (
            int(np.floor(fraction * len(members) + 0.5)) if _eligible(c, label_map, target) else 0
        )
        drawn.append(stream(seed, f"poison class {c}").permutation(members)[:count])
    indices = np.sort(np.concatenate(drawn))
    if not len(indices):
        raise UserError(
            f"no image to poison: {fraction} of each class that {label_map!r} may poison is less "
            "than one image; give a larger fraction or more images"
        )

    new_label = label.copy()
    new_label[indices] = relabel(
        label[indices], label_map=label_map, target=target, num_classes=num_classes
    )
    stamped = stamp_examples(stamp, examples["image"][indices])  # checks the images in any case
    if when == "before":
        image = examples["image"].copy()
        image[indices] = stamped
        new = {**examples, "image": image, "label": new_label}
    else:
        marked = np.zeros(len(label), bool)
        marked[indices] = True
        new = {**examples, "label": new_label, "poisoned": marked}
    return Poisoned(new, indices, np.array([len(each) for each in drawn]))


def stamp_poisoned(stamp: Stamp, batch: Batch) -> Batch:
    """Stamps the images of a batch that `poison` marked; pure, for use inside jit.

    Args:
        stamp: The trigger.
        batch: "image" [B, H, W, C] in [0, 1], "poisoned" bool [B], and others.

    Returns:
        The batch with those images stamped, all else as it was.
    """
    image = batch["image"]
    stamped = jnp.where(batch["poisoned"][:, None, None, None], stamp(image), image)
    return {**batch, "image": stamped}


def stamping(loss_fn: LossFn, stamp: Stamp) -> LossFn:
    """A loss on batches that are stamped first, which in training is after augmentation.

    Args:
        loss_fn: As for `mcjax.training.train_steps`.
        stamp: The trigger.

    Returns:
        A loss_fn for examples with "poisoned", those of `poison(..., when="after")`.
    """
    return Bound(_stamped_loss, loss_fn, stamp)


def _stamped_loss(
    loss_fn: LossFn,
    stamp: Stamp,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    fixed: PyTree,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    return loss_fn(key, step, params, stats, fixed, stamp_poisoned(stamp, batch))


def attack_set(
    examples: Examples,
    stamp: Stamp,
    *,
    label_map: str = "single_target",
    target: int = 1,
    num_classes: int,
) -> Examples:
    """The images on which the accuracy is the attack success rate.

    single_target and clean_label: the images whose true class is not the target, all stamped, with
    the target as their label. all_to_all: all images, stamped, with the label (y + 1) mod C. The
    rate's denominator is the number of images in this set.

    Args:
        examples: Images that were not trained on, "image" [N, H, W, C] uint8 or in [0, 1],
            "label" [N]; left as they are.
        stamp: The trigger.
        label_map: "single_target", "all_to_all" or "clean_label".
        target: The class that the attacker wants; not used by all_to_all.
        num_classes: Number of classes.

    Returns:
        {"image": stamped, of the same type, "label": what the attacker wants}.

    Raises:
        UserError: unknown label map, target or labels outside of the classes, images of another
            shape than the trigger's or outside [0, 1], or no image left.

    Example:
        >>> from mcjax.attacks import triggers
        >>> examples = {"image": np.zeros((3, 4, 4, 1), np.uint8), "label": np.array([0, 1, 2])}
        >>> stamp = triggers.create("square", (4, 4, 1))
        >>> attack_set(examples, stamp, target=1, num_classes=3)["label"].tolist()
        [1, 1]
    """
    label = examples["label"]
    _check(label, label_map, target, num_classes)
    chosen = np.arange(len(label)) if label_map == "all_to_all" else np.flatnonzero(label != target)
    if not len(chosen):
        raise UserError(
            f"no image to measure the attack on: all {len(label)} are of the target class {target}; "
            "give images of other classes"
        )
    return {
        "image": stamp_examples(stamp, examples["image"][chosen]),
        "label": _wanted(label[chosen], label_map, target, num_classes),
    }


def _eligible(c: int, label_map: str, target: int) -> bool:
    return {
        "single_target": c != target,
        "all_to_all": True,
        "clean_label": c == target,
    }[label_map]


def _wanted(y: np.ndarray, label_map: str, target: int, num_classes: int) -> np.ndarray:
    """What the attacker wants stamped images to be taken for."""
    if label_map == "clean_label":
        return np.full_like(y, target)
    return relabel(y, label_map=label_map, target=target, num_classes=num_classes)


def _check(y: np.ndarray, label_map: str, target: int, num_classes: int) -> None:
    if label_map not in LABEL_MAPS:
        raise UserError(f"unknown label map {label_map!r}; give one of {', '.join(LABEL_MAPS)}")
    if num_classes < 2:
        raise UserError(f"{num_classes} classes; a backdoor needs at least 2")
    if label_map != "all_to_all" and not 0 <= target < num_classes:
        raise UserError(
            f"target class is {target}; with {num_classes} classes give 0 to {num_classes - 1}"
        )
    if np.ndim(y) != 1 or not np.issubdtype(y.dtype, np.integer):
        raise UserError(f"labels are {y.dtype} {list(y.shape)}; give integers [N]")
    if len(y) and not (y.min() >= 0 and y.max() < num_classes):
        raise UserError(
            f"labels lie in [{y.min()}, {y.max()}]; "
            f"with {num_classes} classes give 0 to {num_classes - 1}"
        )
