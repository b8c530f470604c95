"""Data sets by name: `load("digits")`, `load("cifar10")`, `load("npz:mine.npz")`.

To add a data set with its own files, write a module like `svhn.py` and add a line below.
"""

import contextlib
import difflib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mcjax.core.bucket import local
from mcjax.core.errors import UserError
from mcjax.data import cache, digits, fake, npz, tfds
from mcjax.data.cifar import CIFAR10, CIFAR100
from mcjax.data.dataset import Dataset
from mcjax.data.idx import FASHION_MNIST, MNIST
from mcjax.data.splits import Splits, split
from mcjax.data.svhn import SVHN_CROPPED

__all__ = ["ORIGINALS", "Dataset", "Splits", "load", "split"]

ORIGINALS = {
    original.name: original
    for original in (
        MNIST,
        FASHION_MNIST,
        CIFAR10,
        CIFAR100,
        SVHN_CROPPED,
    )
}


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    verify: bool = True,
    cache_dir: str | os.PathLike | None = None,
) -> Dataset:
    """Loads a data set by name.

        digits              scikit-learn's handwritten digits, always available
        fashion_mnist, mnist, cifar10, cifar100, svhn_cropped
                            from the first available of: the original files in `data_dir`
                            (Fashion-MNIST without `data_dir`: Debian's package); a prepared TFDS
                            set in `data_dir` (default: TFDS's folder); a TFDS download, which
                            needs mcjax[tfds]
        npz:FILE            a user's arrays, see `mcjax.data.npz`
        tfds:NAME, NAME     any other image-classification set of TFDS
        fake:NAME           synthetic images with the shape of NAME, always available, easy to learn

    Args:
        name: One of the above.
        data_dir: Folder of the original files or of prepared TFDS sets.
        verify: Whether to compare original files with their published checksums; recorded in the
            result's `source`.
        cache_dir: Cache folder for arrays that are slow to read from the original files. Default:
            $XDG_CACHE_HOME/mcjax or ~/.cache/mcjax.

    Returns:
        The data set.

    Raises:
        UserError: The name is unknown, or the data are missing, damaged or not as published.

    Example:
        >>> load("fake:cifar10").image_shape
        (32, 32, 3)
    """
    folder = local(data_dir) if data_dir is not None else None
    kind, _, rest = name.partition(":")
    if kind == "npz":
        if not rest:
            raise UserError("the data set npz: has no file; give npz:FILE, such as npz:mine.npz")
        return npz.load(local(rest))
    if kind == "fake":
        return _load_fake(rest, folder)
    if name == "digits":
        return digits.load()
    advice = None
    if original := ORIGINALS.get(name):
        cache_folder = local(cache_dir) if cache_dir is not None else cache.default_dir()
        dataset = original.load(folder, verify=verify, cache_dir=cache_folder)
        if dataset is not None:
            return dataset
        advice = original.advice
    if advice is None:
        _check_name(name)
    with _names_listed(name):
        return tfds.load(name.removeprefix("tfds:"), data_dir=folder, advice=advice)


def _load_fake(name: str, data_dir: Path | None) -> Dataset:
    if original := ORIGINALS.get(name):
        return fake.make(name, image_shape=original.image_shape, num_classes=original.num_classes)
    if name == "digits" or name.startswith("npz:"):
        real = load(name)
        return fake.make(
            name,
            image_shape=real.image_shape,
            num_classes=real.num_classes,
            dtype=real.train["image"].dtype.type,
        )
    _check_name(name)
    with _names_listed(name):
        image_shape, num_classes = tfds.shape(name.removeprefix("tfds:"), data_dir=data_dir)
    return fake.make(name, image_shape=image_shape, num_classes=num_classes)


@contextlib.contextmanager
def _names_listed(name: str) -> Iterator[None]:
    try:
        yield
    except tfds.UnknownNameError as error:
        raise _unknown(name, f" (TFDS: {error})") from None


_OF_TFDS = r"[a-z]\w*(/[\w.+-]+)?(:[\w.*]+)?"


def _check_name(name: str) -> None:
    """Refuses, before the slow import of TFDS, names that can't be its.

    Raises:
        UserError: The name is no name of a TFDS set, or TFDS is not installed.
    """
    if not re.fullmatch(_OF_TFDS, name.removeprefix("tfds:")):
        raise _unknown(name)
    if importlib.util.find_spec("tensorflow_datasets") is None and not name.startswith("tfds:"):
        raise _unknown(name, '; to read sets of TFDS, pip install "mcjax[tfds]"')


def _unknown(name: str, reason: str = "") -> UserError:
    """The error for an unknown name, with a name that may be meant."""
    if name.endswith(".npz"):
        near = [f"npz:{name}"]
    else:
        plain = name.lower().replace("-", "_")
        near = difflib.get_close_matches(plain, ["digits", *ORIGINALS], 1, 0.75)
    hint = f"did you mean {near[0]}? " if near else ""
    return UserError(
        f"unknown data set {name!r}{reason}; {hint}give digits, {', '.join(ORIGINALS)}, npz:FILE (your own "
        "arrays), fake:NAME or the name of a TFDS set"
    )
