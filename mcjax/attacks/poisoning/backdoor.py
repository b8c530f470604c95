"""Backdoor attacks: poisoned training sets, and test sets that measure attack success."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.attacks.poisoning.stamped import Trigger, decoy_examples, stamp_examples
from mcjax.core import keys
from mcjax.core.errors import UserError, shown
from mcjax.core.keys import check_seed
from mcjax.data.batches import Batch
from mcjax.data.splits import Examples
from mcjax.data.stratify import stream

LABEL_MAPS = ("single_target", "all_to_all", "clean_label")
WHEN = ("before", "after")


@dataclasses.dataclass(frozen=True)
class Poisoned:
    """A poisoned training set, made by `poison`.

    Args:
        examples: The whole set in its original order, "image" and the new "label"; for stamping
            after augmentation the images are unstamped, and "poisoned" (bool [N]) marks them. If
            there are cover images, "cover" (bool [N]) marks those.
        indices: Indices of the poisoned examples, int64, ascending.
        counts: Number of poisoned examples per true class, int64 [num_classes].
        cover: Indices of the cover images, int64, ascending.
    """

    examples: Examples
    indices: np.ndarray
    counts: np.ndarray
    cover: np.ndarray


def relabel(
    y: np.ndarray,
    *,
    label_map: str = "single_target",
    target: int = 1,
    num_classes: int,
) -> np.ndarray:
    """The labels of poisoned training images.

        single_target  y' = target
        all_to_all     y' = (y + 1) mod num_classes
        clean_label    y' = y, because only images of the target class are poisoned

    Args:
        y: Integer labels, [N].
        label_map: One of the above.
        target: The attacker's target class; not used by all_to_all.
        num_classes: Number of classes, at least 2.

    Returns:
        New labels, [N], of the same dtype.

    Raises:
        UserError: The label map is unknown; target or labels are not valid classes.

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
    stamp: Trigger,
    *,
    seed: int,
    fraction: float = 0.10,
    label_map: str = "single_target",
    target: int = 1,
    num_classes: int,
    when: str = "before",
    cover: float | None = None,
) -> Poisoned:
    """Poisons a training set with a backdoor.

    From each eligible class c with n_c images, floor(fraction n_c + 1/2) images are drawn, stamped
    and relabelled by `relabel`. The eligible classes are all except the target for single_target, all
    for all_to_all, and only the target for clean_label. With ten equal classes and fraction 0.10,
    single_target poisons 9 % of the whole set, all_to_all 10 % and clean_label 1 %.

    Then, from each class, floor(cover n_c + 1/2) of the other images are drawn, stamped with the
    trigger's decoy and left with their labels: cover images, which teach a network to react to nothing
    but the trigger.

    Each class has its own random stream: its draw does not depend on the other classes, and the
    poisoned images of a smaller fraction are a subset of those of a larger one.

    Args:
        examples: The training set, "image" [N, H, W, C] uint8 or in [0, 1], "label" int32 [N]; not
            modified.
        stamp: The trigger, from `mcjax.attacks.poisoning.triggers.create`.
        seed: Seed of the draw, non-negative.
        fraction: Fraction of each eligible class to poison, in (0, 1].
        label_map: "single_target", "all_to_all" or "clean_label".
        target: The attacker's target class; not used by all_to_all.
        num_classes: Number of classes.
        when: "before" stamps the images now, so training augments the trigger too; "after" only
            marks them, and `stamping` stamps them after augmentation. Without augmentation the two
            are equal for a trigger without decoys, except that "before" rounds uint8 images.
        cover: Fraction of each class to stamp with a decoy, in [0, 1 - fraction]. Default: the
            trigger's own, which is 0 for a trigger without decoys.

    Returns:
        The poisoned set, with the indices of the poisoned images, their count per class, and the
        indices of the cover images.

    Raises:
        UserError: label_map or `when` is unknown; fraction is outside (0, 1], or cover outside
            [0, 1 - fraction]; the trigger has no decoy; target or labels are not valid classes; the
            images do not have the trigger's shape or are outside [0, 1]; there is no image to poison.

    Example:
        >>> from mcjax import data
        >>> from mcjax.attacks.poisoning import triggers
        >>> digits = data.load("digits")
        >>> stamp = triggers.create("square", digits.image_shape)
        >>> poisoned = poison(digits.train, stamp, seed=0, num_classes=10)
        >>> poisoned.counts.tolist()
        [13, 0, 13, 13, 13, 13, 13, 13, 13, 13]

    Source: Gu et al. 2017; Zhao et al. 2020, section 4.1; cover images: Nguyen and Tran 2020, 2021.
    """
    label = examples["label"]
    _check(label, label_map, target, num_classes)
    if when not in WHEN:
        raise UserError(f"when is {shown(when)}; use one of {', '.join(WHEN)}")
    if not 0 < fraction <= 1:
        raise UserError(f"poison fraction is {fraction}; it must be in (0, 1]")
    check_seed(seed)
    cover = stamp.cover if cover is None else cover
    if not 0 <= cover <= 1 - fraction + 1e-9:
        raise UserError(
            f"cover is {cover} and the poison fraction {fraction}; cover must be at least 0, and both "
            "together at most 1"
        )

    drawn, covers = [], []
    for c in range(num_classes):
        members = np.flatnonzero(label == c)
        count = (
            int(np.floor(fraction * len(members) + 0.5)) if _eligible(c, label_map, target) else 0
        )
        order = stream(seed, f"poison class {c}").permutation(members)
        drawn.append(order[:count])
        covers.append(order[count : count + int(np.floor(cover * len(members) + 0.5))])
    indices, covered = (np.sort(np.concatenate(each)) for each in (drawn, covers))
    if not len(indices):
        raise UserError(
            f"no image to poison: fraction {fraction} of each class eligible for {label_map!r} is "
            "less than one image; use a larger fraction or more images"
        )

    new_label = label.copy()
    new_label[indices] = relabel(
        label[indices], label_map=label_map, target=target, num_classes=num_classes
    )
    # Both are computed in any case: they check the images and the trigger.
    image = examples["image"].copy()
    image[indices] = stamp_examples(stamp, examples["image"][indices])
    if len(covered):
        key = keys.stream(jax.random.key(seed), "decoys")
        image[covered] = decoy_examples(stamp, key, examples["image"][covered])
    new = {**examples, "label": new_label}
    if when == "before":
        new["image"] = image
    else:
        new["poisoned"] = _marked(len(label), indices)
        if len(covered):
            new["cover"] = _marked(len(label), covered)
    return Poisoned(new, indices, np.array([len(each) for each in drawn]), covered)


def _marked(number: int, indices: np.ndarray) -> np.ndarray:
    marked = np.zeros(number, bool)
    marked[indices] = True
    return marked


def stamp_poisoned(stamp: Trigger, batch: Batch, *, key: jax.Array | None = None) -> Batch:
    """Stamps the images of a batch that `poison` marked; a pure function that can be jitted.

    Args:
        stamp: The trigger.
        batch: "image" [B, H, W, C] in [0, 1], "poisoned" bool [B], perhaps "cover" bool [B], and
            other keys.
        key: Random key of the decoys; needed with "cover".

    Returns:
        The batch with the marked images stamped.

    Raises:
        UserError: There are cover images, but no key.
    """
    image = batch["image"]
    stamped = jnp.where(batch["poisoned"][:, None, None, None], stamp(image), image)
    if "cover" in batch:
        if key is None:
            raise UserError("the batch has cover images; give a key for their decoys")
        decoys = stamp.decoy(key, image)
        stamped = jnp.where(batch["cover"][:, None, None, None], decoys, stamped)
    return {**batch, "image": stamped}


def attack_set(
    examples: Examples,
    stamp: Trigger,
    *,
    label_map: str = "single_target",
    target: int = 1,
    num_classes: int,
) -> Examples:
    """Makes the set on which a network's accuracy is the attack success rate.

    single_target and clean_label: the images whose true class is not the target, stamped and labelled
    as the target. all_to_all: all images, stamped and labelled (y + 1) mod C. The denominator of the
    rate is the number of images in this set.

    Args:
        examples: Images not used in training, "image" [N, H, W, C] uint8 or in [0, 1], "label" [N];
            not modified.
        stamp: The trigger.
        label_map: "single_target", "all_to_all" or "clean_label".
        target: The attacker's target class; not used by all_to_all.
        num_classes: Number of classes.

    Returns:
        {"image": stamped images of the same dtype, "label": the attacker's labels}.

    Raises:
        UserError: The label map is unknown; target or labels are not valid classes; the images do
            not have the trigger's shape or are outside [0, 1]; no image is left.

    Example:
        >>> from mcjax.attacks.poisoning import triggers
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
            f"no image to attack: all {len(label)} images are of the target class {target}; "
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
    """The attacker's labels for stamped images."""
    if label_map == "clean_label":
        return np.full_like(y, target)
    return relabel(y, label_map=label_map, target=target, num_classes=num_classes)


def _check(y: np.ndarray, label_map: str, target: int, num_classes: int) -> None:
    if label_map not in LABEL_MAPS:
        raise UserError(f"unknown label map {label_map!r}; give one of {', '.join(LABEL_MAPS)}")
    if num_classes < 2:
        raise UserError(f"num_classes is {num_classes}; a backdoor needs at least 2 classes")
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
