"""Checks a user's bonafide images before a repair."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from mcjax.core.errors import UserError, listed
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.data.batches import to_unit
from mcjax.data.given import Examples, given_examples, given_labels
from mcjax.data.stratify import holdout
from mcjax.models.given import classes_of
from mcjax.models.network import Network, normalisation_of

LOW = 0.5
"""An accuracy below which a network is more often fed wrongly than bad."""


def check_images(
    network: Network,
    variables: PyTree,
    bonafide: Mapping[str, Any],
    selection: Mapping[str, Any] | None = None,
) -> dict[str, Examples]:
    """Checks and converts the bonafide images and the selection images for a network.

    Args:
        network: The network.
        variables: Its variables.
        bonafide: "image" [N, H, W, C] (or [N, H, W]) uint8 or in [0, 1], "label" [N]; or a data set,
            see `mcjax.data.given.given_examples`.
        selection: Selection images in the same form; None holds out a fifth of bonafide,
            stratified by class.

    Returns:
        {"bonafide", "selection"}, each with "image", uint8 or float32, and "label", int32.

    Raises:
        UserError: A shape or dtype is wrong, images are outside [0, 1], labels are not valid
            classes, a class has no images, or the network does not accept the images.
    """
    normalisation = normalisation_of(network)
    parts = {"bonafide": given_examples("bonafide", bonafide, normalisation)}
    if selection is not None:
        parts["selection"] = given_examples("selection", selection, normalisation)
    num_classes = classes_of(network, variables, parts["bonafide"]["image"])
    for name, part in parts.items():
        if part["image"].shape[1:] != parts["bonafide"]["image"].shape[1:]:
            raise UserError(
                f"{name} images and bonafide images have different shapes; give the same shape"
            )
        part["label"] = given_labels(name, part["label"], num_classes)
    if selection is None:
        whole = parts["bonafide"]
        if len(whole["label"]) < 2:
            raise UserError(
                "one bonafide image can't be split; give more, or give selection images"
            )
        index = holdout(whole["label"], num_test=max(1, len(whole["label"]) // 5), seed=0)
        for name, i in zip(("bonafide", "selection"), index, strict=True):
            parts[name] = {k: v[i] for k, v in whole.items()}
    missing = np.setdiff1d(np.arange(num_classes), parts["bonafide"]["label"])
    if len(missing):
        raise UserError(
            f"there is no bonafide image of {'class' if len(missing) == 1 else 'classes'} "
            f"{listed([str(c) for c in missing], 5)} to train on ({len(parts['bonafide']['label'])} "
            f"images for {num_classes} classes); give at least two clean images per class"
        )
    return parts


def check_suspect(network: Network, variables: PyTree, parts: Mapping[str, Examples]) -> float:
    """Checks that the suspect's accuracy on the images is above chance.

    A repair preserves this accuracy, so otherwise there is nothing to preserve.

    Args:
        network: The network.
        variables: Its variables.
        parts: The result of `check_images`.

    Returns:
        The accuracy on all images, a fraction.

    Raises:
        UserError: The accuracy on all images is less than two standard deviations above
            1 / classes.
    """
    right, number = num_right(network, variables, parts)
    shape = next(iter(parts.values()))["image"].shape[1:]
    num_classes = classes_of(network, variables, parts["bonafide"]["image"])
    chance = 1 / num_classes
    if right / number <= chance + 2 * math.sqrt(chance * (1 - chance) / number):
        raise UserError(
            f"the suspect classifies only {right} of the {number} images correctly, no better than "
            "chance; check the labels, the order of the classes, the images' size "
            f"({'x'.join(map(str, shape))}) and scale (uint8 means 0 to 255), and the "
            "normalisation"
        )
    return right / number


def doubts(accuracy: float) -> list[str]:
    """What is to be said of a suspect whose accuracy is low, a sentence or none.

    Args:
        accuracy: On the images that were given, a fraction.

    Example:
        >>> len(doubts(0.4)), doubts(0.9)
        (1, [])
    """
    if accuracy >= LOW:
        return []
    return [
        f"The network gives only {100 * accuracy:.0f} % of your images their label. If you know it to be better, "
        "check the labels, the order of the classes, the images' size and the normalisation before you trust what follows."
    ]


def tell_doubts(accuracy: float, *, verbose: bool) -> None:
    """Says `doubts` on standard error where progress is shown, and warns otherwise."""
    for doubt in doubts(accuracy):
        if verbose:
            say(doubt)
        else:
            warnings.warn(doubt, stacklevel=3)  # at the caller of `repair_model`


def num_right(
    network: Network, variables: PyTree, parts: Mapping[str, Examples]
) -> tuple[int, int]:
    """How many images of all parts are classified correctly, and of how many."""
    right, number = 0, 0
    for part in parts.values():
        for i in range(0, len(part["label"]), 1000):
            logits = network.apply(variables, to_unit(jnp.asarray(part["image"][i : i + 1000])))
            right += int((np.asarray(logits.argmax(-1)) == part["label"][i : i + 1000]).sum())
        number += len(part["label"])
    return right, number
