"""Images and labels of a user, in any form: files, folders, data sets by name or as objects.

To add a form, write a module with `fits` and `read` like `image_folder.py`, and add a line below.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mcjax.core.errors import UserError, shown
from mcjax.data import (
    arrow,
    hugging_face,
    image_folder,
    npz,
    objects,
    parquet,
    torchvision_sets,
)
from mcjax.data.pictures import INTERPOLATIONS, Labelled, Reading
from mcjax.data.transforms import read_transform


class Form(NamedTuple):
    """A form of data.

    Attributes:
        fits: Whether a path is of this form.
        read: Reads it.
    """

    fits: Callable[[Path], bool]
    read: Callable[[Path, Reading], Labelled]


def read_examples(
    source: Any,
    *,
    resize: tuple[int, int] | None = None,
    channels: int | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
    shorter_side: int | None = None,
    crop: tuple[int, int] | None = None,
    interpolation: str = "bilinear",
    transform: Any = None,
) -> Labelled:
    """Reads images and labels.

        FILE.npz                        arrays, see `mcjax.data.npz`
        FOLDER of .parquet, FILE.parquet, 'FOLDER/train-*.parquet'
                                        bytes of images, see `mcjax.data.parquet`
        FOLDER of save_to_disk, FILE.arrow
                                        a Hugging Face data set, see `mcjax.data.arrow`
        torchvision:NAME:FOLDER@SPLIT   a data set of torchvision, see `mcjax.data.torchvision_sets`
        hf:NAME@SPLIT                   a data set of the Hugging Face Hub, see `mcjax.data.hugging_face`
        any other FOLDER                one sub-folder of images per class, see `mcjax.data.image_folder`
        an object                       a data set of torchvision, PyTorch (map-style) or Hugging Face

    Args:
        source: The file, folder, name or object.
        resize: (height, width) to stretch images to; None if all have the same size.
        channels: 1 (grey) or 3 (RGB) to convert images to; None if all have the same number.
        tell: Called as `tell(done, total)` after every image that was decoded.
        shorter_side: Pixels to which the shorter side is resized, in place of `resize`.
        crop: (height, width) of the centre to cut out, after resizing.
        interpolation: "bilinear", "bicubic", "nearest" or "lanczos".
        transform: In place of these, a transform of torchvision or timm
            (`mcjax.data.transforms.read_transform`), without its Normalize, which belongs to the
            network: `mcjax.from_torch(..., transform=transform)`.

    Returns:
        {"image", "label"}, the classes' names, and the normalisation of a transform.

    Raises:
        UserError: The path does not exist or is damaged, an image can't be read (the message names it),
            images differ in size or channels, labels are invalid; an option does not fit the form.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> path = Path(tempfile.mkdtemp()) / "mine.npz"
        >>> np.savez(path, image=np.zeros((10, 4, 4), np.uint8), label=np.arange(10) % 2)
        >>> read_examples(path).examples["image"].shape
        (10, 4, 4, 1)
    """
    how = Reading(resize, channels, tell, shorter_side, crop, interpolation)
    if resize is not None and shorter_side is not None:
        raise UserError("images are resized once; give resize or shorter_side")
    if interpolation not in INTERPOLATIONS:
        raise UserError(f"interpolation is {interpolation!r}; use {', '.join(INTERPOLATIONS)}")
    if transform is None:
        return _read(source, how)
    if resize is not None or shorter_side is not None or crop is not None:
        raise UserError("a transform sets the size; leave out resize, shorter_side and crop")
    pixels, normalisation = read_transform(transform)
    found = _read(source, how._replace(transform=pixels))
    if found.normalisation not in (None, normalisation):
        raise UserError(
            f"the data set has a transform that normalises by {found.normalisation}; leave out one of "
            "the transforms"
        )
    return found._replace(normalisation=normalisation)


def _read(source: Any, how: Reading) -> Labelled:
    if objects.fits(source):
        return objects.read("the data set", source, how)
    if not isinstance(source, str | os.PathLike):
        raise UserError(
            f"{shown(source)} is not a path or a data set with a length and items; of a DataLoader "
            "give its `dataset`"
        )
    path = Path(source)
    for form in FORMS:
        if form.fits(path):
            return form.read(path, how)
    raise UserError(
        f"{path}: no such file or folder; give an .npz file, a folder with one sub-folder of images per "
        f"class, a Parquet file, a data set of save_to_disk, {torchvision_sets.FORM}, or "
        f"{hugging_face.FORM}"
    )


def parse_size(name: str, text: str) -> tuple[int, int]:
    """The size in "H,W".

    Args:
        name: Name of the option in messages.
        text: Two integers, or one for squares.

    Raises:
        UserError: It is not of that form.

    Example:
        >>> parse_size("--resize", "32,48"), parse_size("--resize", "32")
        ((32, 48), (32, 32))
    """
    found = re.fullmatch(r"(\d{1,5})(?:[,x](\d{1,5}))?", text.strip())
    height, width = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if height < 1 or width < 1:
        raise UserError(f"{name} is {text!r}; give height and width in pixels, such as 32,32")
    return height, width


def _read_npz(path: Path, how: Reading) -> Labelled:
    if how != Reading(tell=how.tell, interpolation=how.interpolation):
        raise UserError(
            f"{path} holds arrays, which are taken as they are; leave out sizes, channels and transform"
        )
    return Labelled(npz.read_examples(path))


FORMS = (
    Form(torchvision_sets.fits, torchvision_sets.read),
    Form(hugging_face.fits, hugging_face.read),
    Form(arrow.fits, arrow.read),
    Form(parquet.fits, parquet.read),
    Form(image_folder.fits, image_folder.read),
    Form(lambda path: path.is_file() or path.suffix == ".npz", _read_npz),
)
