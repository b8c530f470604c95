"""Input normalisations of PyTorch networks; mcjax's images are in [0, 1]."""

import re

from mcjax.core.errors import UserError
from mcjax.data.transforms import Normalisation

KNOWN = {
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    "cifar100": Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mnist": Normalisation((0.5,), (0.5,)),
    "tiny": Normalisation((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
}
"""From BackdoorBench (its gtsrb and celeba are not normalised); imagenet is torchvision's."""


def parse(text: str) -> Normalisation:
    """Parses a normalisation.

    Args:
        text: A name (cifar10, cifar100, imagenet, mnist, tiny), or "means/stds", each with one
            number per channel, joined by commas.

    Returns:
        The normalisation.

    Raises:
        UserError: The text is neither.

    Example:
        >>> parse("0.5,0.5,0.4/0.25,0.25,0.2").std
        (0.25, 0.25, 0.2)
    """
    if text in KNOWN:
        return KNOWN[text]
    if re.fullmatch(r"[\d.,]+/[\d.,]+", text):
        try:
            mean, std = (tuple(map(float, part.split(","))) for part in text.split("/"))
        except ValueError:
            pass
        else:
            if len(mean) == len(std) and min(std) > 0:
                return Normalisation(mean, std)
    raise UserError(
        f"normalisation {text!r}; give {', '.join(KNOWN)}, or MEAN,MEAN,MEAN/STD,STD,STD"
    )
