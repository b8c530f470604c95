"""A folder of images per class: FOLDER/CLASS/.../IMAGE, as torchvision's ImageFolder reads it."""

from pathlib import Path

import numpy as np

from mcjax.core.errors import UserError, listed
from mcjax.data.pictures import Labelled, Reading, decode_all

SUFFIXES = {
    ".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".pbm", ".bmp", ".tif", ".tiff", ".webp", ".gif",
}  # fmt: skip
SPLITS = {"train", "training", "val", "valid", "validation", "test"}


def fits(path: Path) -> bool:
    """Whether a path can be read: any folder."""
    return path.is_dir()


def read(path: Path, how: Reading) -> Labelled:
    """Reads the images of a folder with one sub-folder per class.

    The classes are numbered in the sorted order of the sub-folders' names, as torchvision does: 10
    comes before 2. An empty sub-folder keeps its number. Names that start with a dot are ignored.

    Args:
        path: The folder.
        how: Size, channels and progress.

    Returns:
        The images in sorted order of their paths, and the sub-folders' names.

    Raises:
        UserError: There are no sub-folders, or they are splits; an image can't be read.
    """
    try:
        classes = sorted(p.name for p in path.iterdir() if p.is_dir() and p.name[0] != ".")
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); give another folder") from None
    if not classes:
        raise UserError(
            f"{path} has no sub-folders; give one sub-folder of images per class, or Parquet or Arrow "
            "files"
        )
    if {name.lower() for name in classes} <= SPLITS:
        options = [str(path / name) for name in classes]
        raise UserError(
            f"the sub-folders of {path} are splits, not classes; give {listed(options)}"
        )
    files, labels = [], []
    for label, name in enumerate(classes):
        found = [p for p in _below(path / name) if p.suffix.lower() in SUFFIXES]
        files += found
        labels += [label] * len(found)
    if not files:
        raise UserError(f"the sub-folders of {path} hold no images ({', '.join(sorted(SUFFIXES))})")
    names = [str(p.relative_to(path)) for p in files]
    image = decode_all(str(path), zip(names, files, strict=True), len(files), how)
    return Labelled({"image": image, "label": np.array(labels, np.int32)}, tuple(classes))


def _below(folder: Path) -> list[Path]:
    """The files below a folder, sorted, without hidden ones."""
    return sorted(
        p
        for p in folder.rglob("*")
        if p.is_file() and not any(part[0] == "." for part in p.relative_to(folder).parts)
    )
