"""Checks a user's bonafide images before a repair."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.core.errors import UserError, listed
from mcjax.core.tree import PyTree
from mcjax.data.batches import to_unit
from mcjax.data.dataset import check_channels_last
from mcjax.data.stratify import holdout
from mcjax.models.network import Network

Examples = dict[str, np.ndarray]


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
        bonafide: "image" [N, H, W, C] (or [N, H, W]) uint8 or in [0, 1], "label" [N].
        selection: Selection images in the same form; None holds out a fifth of bonafide,
            stratified by class.

    Returns:
        {"bonafide", "selection"}, each with "image", uint8 or float32, and "label", int32.

    Raises:
        UserError: A shape or dtype is wrong, images are outside [0, 1], labels are not valid
            classes, a class has no images, or the network does not accept the images.
    """
    parts = {"bonafide": _checked("bonafide", bonafide)}
    if selection is not None:
        parts["selection"] = _checked("selection", selection)
    num_classes = _num_classes(network, variables, parts["bonafide"]["image"])
    for name, part in parts.items():
        if part["image"].shape[1:] != parts["bonafide"]["image"].shape[1:]:
            raise UserError(
                f"{name} images and bonafide images have different shapes; give the same shape"
            )
        label = part["label"]
        if label.min() < 0 or label.max() >= num_classes:
            raise UserError(
                f"{name} labels lie in [{label.min()}, {label.max()}], but the network has "
                f"{num_classes} classes; give 0 to {num_classes - 1}"
            )
        part["label"] = label.astype(np.int32)  # after the check: 2^32 would become class 0
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


def check_suspect(network: Network, variables: PyTree, parts: Mapping[str, Examples]) -> None:
    """Checks that the suspect's accuracy on the images is above chance.

    A repair preserves this accuracy, so otherwise there is nothing to preserve.

    Args:
        network: The network.
        variables: Its variables.
        parts: The result of `check_images`.

    Raises:
        UserError: The accuracy on all images is less than two standard deviations above
            1 / classes.
    """
    right, number, num_classes = 0, 0, 2
    for part in parts.values():
        for i in range(0, len(part["label"]), 1000):
            logits = network.apply(variables, to_unit(jnp.asarray(part["image"][i : i + 1000])))
            right += int((np.asarray(logits.argmax(-1)) == part["label"][i : i + 1000]).sum())
            num_classes = logits.shape[1]
        number += len(part["label"])
    chance = 1 / num_classes
    if right / number <= chance + 2 * math.sqrt(chance * (1 - chance) / number):
        raise UserError(
            f"the suspect classifies only {right} of the {number} images correctly, no better than "
            "chance; check the labels, the order of the classes, the images' scale (uint8 means 0 to "
            "255) and the normalisation"
        )


def _checked(name: str, examples: Mapping[str, Any]) -> Examples:
    try:
        image, label = np.asarray(examples["image"]), np.asarray(examples["label"])
    except (KeyError, TypeError):
        raise UserError(f'{name} must have "image" and "label"') from None
    except ValueError as error:  # ragged lists
        raise UserError(
            f"{name} images or labels are not an array ({error}); give arrays"
        ) from None
    if image.ndim == 3:
        image = image[..., None]
    if image.ndim != 4 or len(image) == 0 or label.shape != image.shape[:1]:
        raise UserError(
            f"{name} images have shape {image.shape} and labels {label.shape}; give [N, H, W, C] "
            "and [N] (label.reshape(-1))"
        )
    check_channels_last(f"{name} images", image.shape)
    if not np.issubdtype(label.dtype, np.integer):
        raise UserError(f"{name} labels are {label.dtype}; give integers")
    if image.dtype != np.uint8:
        if not np.issubdtype(image.dtype, np.floating):
            raise UserError(f"{name} images are {image.dtype}; give uint8, or floats in [0, 1]")
        image = image.astype(np.float32)
        if np.isnan(image).any():
            raise UserError(f"{name} images contain NaN; remove those images")
        if not (image.min() >= 0 and image.max() <= 1):
            raise UserError(
                f"{name} images lie in [{image.min():g}, {image.max():g}]; give uint8, or floats "
                "in [0, 1]"
            )
    return {"image": image, "label": label}


def _num_classes(network: Network, variables: PyTree, image: np.ndarray) -> int:
    x = jax.ShapeDtypeStruct((1, *image.shape[1:]), jnp.float32)
    try:
        logits = jax.eval_shape(network.apply, variables, x)
    except Exception as error:  # the user's network can raise anything for a wrong shape
        reason = str(error).strip().splitlines()[0][:150]
        raise UserError(
            f"the network does not accept images of shape {image.shape[1:]} ({reason}); give images of "
            "the shape that it was trained on"
        ) from None
    if len(logits.shape) != 2 or logits.shape[0] != 1:
        raise UserError(
            f"the network returns shape {logits.shape} for one image; it must return [1, classes]"
        )
    return logits.shape[1]
