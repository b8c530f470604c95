"""The flags for a user's images, shared by the commands that take --data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from mcjax.core.bucket import local
from mcjax.core.errors import UserError, listed
from mcjax.core.progress import Progress, say
from mcjax.data.examples import parse_size, read_examples
from mcjax.data.pictures import INTERPOLATIONS


def define(what: str) -> None:
    """Defines --data, and the flags for the size and colours of image files.

    Args:
        what: What the images are, for the help.
    """
    flags.DEFINE_string(
        "data",
        None,
        f"{what}: .npz with `image` and `label`, a folder with one sub-folder of images per class, "
        ".parquet with bytes of images, a folder of Hugging Face's save_to_disk, hf:NAME@SPLIT, or "
        "torchvision:NAME:FOLDER@SPLIT.",
    )
    flags.DEFINE_string(
        "resize", None, "H,W: stretch image files to this size; needed if they differ in size."
    )
    flags.DEFINE_integer(
        "shorter_side", None, "Resize image files so that the shorter side has so many pixels."
    )
    flags.DEFINE_string("crop", None, "H,W: then cut this out of their centre.")
    flags.DEFINE_enum("interpolation", "bilinear", INTERPOLATIONS, "Of resizing.")
    flags.DEFINE_integer(
        "channels", None, "Convert image files to 1 channel (grey) or 3 (RGB); default: as found."
    )


def read(path: str) -> dict[str, np.ndarray]:
    """Reads images as the flags say, with a progress bar, and says how classes are numbered.

    Args:
        path: Their path.

    Returns:
        {"image": [N, H, W, C], "label": int32 [N]}.

    Raises:
        UserError: A flag is invalid, or as `mcjax.data.examples.read_examples`.
    """
    options = flags.FLAGS
    if options.channels not in (None, 1, 3):
        raise UserError(f"--channels is {options.channels}; give 1 (grey) or 3 (RGB)")
    size, crop = (
        None if text is None else parse_size(name, text)
        for name, text in (("--resize", options.resize), ("--crop", options.crop))
    )
    if options.shorter_side is not None and not 0 < options.shorter_side < 100_000:
        raise UserError(f"--shorter_side is {options.shorter_side}; give pixels, such as 256")
    bars: list[Progress] = []

    def tell(done: int, total: int) -> None:
        if not bars:
            bars.append(Progress("images", total, unit="image"))
        bars[0].advance(done - bars[0].done)

    try:
        found = read_examples(
            local(path),
            resize=size,
            channels=options.channels,
            tell=tell,
            shorter_side=options.shorter_side,
            crop=crop,
            interpolation=options.interpolation,
        )
    finally:
        for bar in bars:
            bar.close()
    if found.class_names:
        say(numbering(path, found.class_names))
    return found.examples


def numbering(path: str, class_names: Sequence[str]) -> str:
    """Which label each class has, also of names that are numbers: in sorted order 10 precedes 2.

    Args:
        path: The images.
        class_names: Names of the classes 0, 1, ...

    Example:
        >>> numbering("my", ["1", "10", "2"])
        'classes of my (label = name): 0 = 1, 1 = 10, 2 = 2; the network must number them so'
    """
    numbered = [f"{i} = {name}" for i, name in enumerate(class_names)]
    return (
        f"classes of {path} (label = name): {listed(numbered, 10)}; the network must number them so"
    )


def place(path: str) -> str:
    """The files or the folder that --data names.

    Example:
        >>> place("torchvision:SVHN:data@test"), place("clean.npz")
        ('data', 'clean.npz')
    """
    kind, _, rest = path.partition(":")
    return rest.partition(":")[2].rpartition("@")[0] if kind == "torchvision" else path


def settings() -> dict[str, Any]:
    """The flags beside --data, for result.json; those that were given."""
    names = ("resize", "shorter_side", "crop", "interpolation", "channels")
    return {name: flags.FLAGS[name].value for name in names if flags.FLAGS[name].present}
