"""Data sets as Python objects: of torchvision and PyTorch (map-style), and of Hugging Face."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mcjax.core.errors import UserError, shown
from mcjax.data.columns import columns_of
from mcjax.data.pictures import Labelled, Reading, decode_all, labels_of
from mcjax.data.transforms import Normalisation, read_transform


def fits(data: Any) -> bool:
    """Whether an object is a data set: it has a length and items, and is not an array or a collection."""
    if callable(getattr(data, "with_format", None)):  # of Hugging Face, also all splits as a dict
        return True
    plain = Mapping | list | tuple | str | bytes | np.ndarray
    return hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, plain)


def read(where: str, data: Any, how: Reading) -> Labelled:
    """Reads all images of a data set.

    Its own transform is applied without Normalize, whose numbers are returned.

    Args:
        where: What messages call it.
        data: Items (image, label), or dicts with `image` and `label`; images as of PIL, as tensors
            [C, H, W] or as arrays [H, W, C].
        how: Size, channels, transform and progress.

    Returns:
        The images in [0, 1] or uint8, in the data set's order, and its class names.

    Raises:
        UserError: It is empty, a step of its transform is not supported, or an image or label can't
            be read.

    Example:
        >>> class Two:
        ...     __len__ = lambda self: 2
        ...     __getitem__ = lambda self, i: (np.full((4, 4, 3), i, np.uint8), i)
        >>> read("my", Two(), Reading()).examples["image"].shape
        (2, 4, 4, 3)
    """
    found: list[Normalisation | None] = []
    if callable(getattr(data, "with_format", None)):  # of Hugging Face: images as of PIL
        names: Any = getattr((data.features or {}).get(_label_column(where, data)), "names", None)
        data = data.with_format(None)
    else:
        names = getattr(data, "classes", None)
        data = _without_normalise(data, found)
    if len(set(found)) > 1:
        raise UserError(f"{where}: its parts are normalised differently; give them one by one")
    values: list[Any] = []
    image = decode_all(where, _items(where, data, values), len(data), how)
    labels, found_names = labels_of(where, values)
    known = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return Labelled(
        {"image": image, "label": labels},
        found_names or (tuple(names) if known else ()),
        found[0] if found else None,
    )


def _label_column(where: str, data: Any) -> str:
    names = getattr(data, "column_names", None)
    if isinstance(names, Mapping):  # a DatasetDict
        raise UserError(f"{where} holds several splits ({', '.join(names)}); give one of them")
    return columns_of(where, list(names or []))[1]


def _without_normalise(data: Any, found: list[Normalisation | None]) -> Any:
    """A shallow copy that does not normalise; the numbers are appended to `found`."""
    parts = getattr(data, "datasets", None)  # ConcatDataset
    if isinstance(parts, list):
        data = copy.copy(data)
        data.datasets = [_without_normalise(part, found) for part in parts]
        return data
    if hasattr(data, "dataset") and hasattr(data, "indices"):  # Subset
        data = copy.copy(data)
        data.dataset = _without_normalise(data.dataset, found)
        return data
    transform, joint = getattr(data, "transform", None), getattr(data, "transforms", None)
    if not callable(transform) and not callable(joint):
        found.append(None)
        return data
    read = read_transform(transform if callable(transform) else joint)
    found.append(read.normalisation)
    data = copy.copy(data)
    if not callable(transform):
        data.transforms = lambda image, label: (read.pixels(image), label)
        return data
    data.transform = read.pixels
    if hasattr(joint, "transform"):  # what torchvision's own data sets call
        data.transforms = copy.copy(joint)
        data.transforms.transform = read.pixels
    return data


def _items(where: str, data: Any, values: list[Any]) -> Iterator[tuple[str, Any]]:
    """(name, function that loads the image) per item; labels are appended to `values`."""
    files = getattr(data, "samples", None)  # ImageFolder
    for i in range(len(data)):
        named = isinstance(files, list) and len(files) == len(data)
        name = f"image {i}" + (f", {files[i][0]}" if named and files else "")

        def load(i: int = i) -> Any:
            image, label = _pair(where, data[i])
            values.append(label.item() if hasattr(label, "item") and np.ndim(label) == 0 else label)
            return image

        yield name, load


def _pair(where: str, item: Any) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        image, label = columns_of(where, list(item))
        return item[image], item[label]
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    raise UserError(f"{where}: an item is {shown(item)}; give pairs of an image and a label")
