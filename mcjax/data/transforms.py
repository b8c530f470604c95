"""Reads the transforms of torchvision and timm that a network was evaluated with.

A transform ends in Normalize. mcjax computes the normalisation inside the network, so that triggers,
attack radii and pictures are those of images in [0, 1]; the steps before it are applied to the images.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mcjax.core.errors import UserError, shown

GEOMETRY = {"Resize", "CenterCrop", "CenterCropOrPad", "ResizeKeepRatio", "TrimBorder"}
TYPES = {
    "ToTensor", "MaybeToTensor", "PILToTensor", "MaybePILToTensor", "ToImage", "ToPureTensor", "ToDtype",
    "ConvertImageDtype", "ConvertDtype", "ToPILImage", "RGB", "Grayscale", "Identity",
}  # fmt: skip
"""Steps by their class's name. All of them do the same to an image at every call."""


class Normalisation(NamedTuple):
    """The network's input is (image - mean) / std, with images in [0, 1].

    Attributes:
        mean: Per channel.
        std: Per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def per_channel(self, channels: int) -> "Normalisation":
        """With one number per channel, where there is one for all.

        Raises:
            UserError: There is another number of them.
        """
        if len(self.mean) not in (1, channels):
            raise UserError(
                f"normalisation by {self} is for {len(self.mean)} channels, but images have {channels}; "
                "give one mean and one std per channel"
            )
        repeat = channels // len(self.mean)
        return Normalisation(self.mean * repeat, self.std * repeat)

    def __str__(self) -> str:
        """In the form that --normalise takes."""
        return "/".join(",".join(f"{v:g}" for v in part) for part in self)


class Transform(NamedTuple):
    """A transform in two parts.

    Attributes:
        pixels: What it does to an image before the normalisation.
        normalisation: The rest; None without Normalize.
    """

    pixels: Callable[[Any], Any]
    normalisation: Normalisation | None


def read_transform(transform: Any) -> Transform:
    """Takes a transform of torchvision or timm apart.

        transforms.Compose([Resize(256), CenterCrop(224), ToTensor(), Normalize(mean, std)])
        timm.data.create_transform(**timm.data.resolve_data_config(model=model))
        torchvision.models.ResNet18_Weights.DEFAULT.transforms()

    Args:
        transform: The transform of evaluation, of torchvision.transforms, its v2, or timm: resizing,
            centre crops, conversions to tensors and dtypes, and Normalize last.

    Returns:
        Its parts.

    Raises:
        UserError: A step is of another kind, such as a random one; the message names it.

    Example:
        >>> read_transform(print)
        Traceback (most recent call last):
        mcjax.core.errors.UserError: transform: <built-in function print> is not a step of torchvision ...
    """
    steps = _steps(transform)
    normalisation = None
    if steps and _name(steps[-1]) == "ToPureTensor":
        steps = steps[:-1]
    if steps and _name(steps[-1]) == "Normalize":
        normalisation = _numbers(steps[-1])
        steps = steps[:-1]
    elif len(steps) == 1 and _name(steps[0]) == "ImageClassification":  # of torchvision's weights
        normalisation = _numbers(steps[0])
        plain = copy.copy(steps[0])
        plain.mean, plain.std = ([v] * len(normalisation.mean) for v in (0.0, 1.0))
        return Transform(plain, normalisation)
    for step in steps:
        _check(step)
    return Transform(functools.partial(_apply, steps), normalisation)


def _apply(steps: Sequence[Callable[[Any], Any]], image: Any) -> Any:
    """The image after all steps."""
    for step in steps:
        image = step(image)
    return image


def _numbers(step: Any) -> Normalisation:
    """The mean and std of a step."""
    try:
        # timm's are float32: 0.485 is 0.48500001430511475.
        mean, std = (
            tuple(float(f"{float(v):.6g}") for v in getattr(step, name)) for name in ("mean", "std")
        )
    except (TypeError, ValueError, AttributeError):
        mean, std = (), ()
    if not mean or len(mean) != len(std) or not min(std) > 0:
        raise UserError(f"transform: {shown(step)} needs one mean and one positive std per channel")
    return Normalisation(mean, std)


def _steps(transform: Any) -> list[Any]:
    """The steps of a transform, nested ones in place."""
    inner = getattr(transform, "transforms", None)
    if _name(transform) == "Sequential" and callable(getattr(transform, "children", None)):
        inner = list(transform.children())
    elif _name(transform) != "Compose":
        inner = None
    return [transform] if inner is None else [s for one in inner for s in _steps(one)]


def _name(step: Any) -> str:
    package = type(step).__module__.partition(".")[0]
    return type(step).__name__ if package in ("torchvision", "timm", "torch") else ""


def _check(step: Any) -> None:
    name = _name(step)
    if name == "Normalize":
        raise UserError("transform: Normalize is not its last step; move it to the end")
    if name not in GEOMETRY | TYPES:
        raise UserError(
            f"transform: {shown(step)} is not a step of torchvision or timm that mcjax takes "
            f"({', '.join(sorted(GEOMETRY))}, conversions, Normalize); give the transform of evaluation, "
            "or apply it to the images yourself"
        )
    if any(getattr(step, p, 0) for p in ("random_scale_prob", "random_aspect_prob")):
        raise UserError(f"transform: {shown(step)} is random; give the transform of evaluation")
