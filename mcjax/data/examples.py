"""Images and labels of a user, in any form: an .npz file, a folder per class, Parquet, Arrow.

To add a form, write a module with `fits` and `read` like `image_folder.py`, and add a line below.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mcjax.core.errors import UserError
from mcjax.data import arrow, image_folder, npz, parquet
from mcjax.data.pictures import Labelled, Reading


class Form(NamedTuple):
    """A form of data.

    Attributes:
        fits: Whether a path is of this form.
        read: Reads it.
    """

    fits: Callable[[Path], bool]
    read: Callable[[Path, Reading], Labelled]


def read_examples(
    path: Path,
    *,
    resize: tuple[int, int] | None = None,
    channels: int | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Labelled:
    """Reads images and labels.

        FILE.npz                        arrays, see `mcjax.data.npz`
        FOLDER of .parquet, FILE.parquet, 'FOLDER/train-*.parquet'
                                        bytes of images, see `mcjax.data.parquet`
        FOLDER of save_to_disk, FILE.arrow
                                        a Hugging Face data set, see `mcjax.data.arrow`
        any other FOLDER                one sub-folder of images per class, see `mcjax.data.image_folder`

    Args:
        path: The file or folder.
        resize: (height, width) to stretch images to; None if all have the same size.
        channels: 1 (grey) or 3 (RGB) to convert images to; None if all have the same number.
        tell: Called as `tell(done, total)` after every image that was decoded.

    Returns:
        {"image", "label"}, and the classes' names.

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
    how = Reading(resize, channels, tell)
    for form in FORMS:
        if form.fits(path):
            return form.read(path, how)
    raise UserError(
        f"{path}: no such file or folder; give an .npz file, a folder with one sub-folder of images per "
        "class, a Parquet file, or a data set of save_to_disk"
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
    if how.resize is not None or how.channels is not None:
        raise UserError(
            f"{path} holds arrays, which are taken as they are; leave out --resize and --channels"
        )
    return Labelled(npz.read_examples(path))


FORMS = (
    Form(arrow.fits, arrow.read),
    Form(parquet.fits, parquet.read),
    Form(image_folder.fits, image_folder.read),
    Form(lambda path: path.is_file() or path.suffix == ".npz", _read_npz),
)
