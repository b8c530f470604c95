"""Decodes image files (PNG, JPEG, ...) into one array, for the readers of data sets in this folder."""

import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mcjax.core.errors import UserError, listed
from mcjax.core.extras import need
from mcjax.data.npz import LARGEST, MOST_CLASSES

GREY = {"1", "L", "LA"}
COLOUR = {"RGB", "RGBA", "RGBX", "P", "CMYK", "YCbCr", "HSV", "LAB", "PA"}
WORDS = {1: "grey", 3: "RGB"}


class Reading(NamedTuple):
    """How images are read.

    Attributes:
        resize: (height, width) to stretch every image to; None if all have the same size.
        channels: 1 (grey) or 3 (RGB) to convert to; None if all have the same number.
        tell: Called as `tell(done, total)` after every image.
    """

    resize: tuple[int, int] | None = None
    channels: int | None = None
    tell: Callable[[int, int], None] = lambda done, total: None


class Labelled(NamedTuple):
    """Images with labels.

    Attributes:
        examples: {"image": [N, H, W, C] uint8 or float32, "label": int32 [N]}.
        class_names: Names of the classes 0, 1, ...; () if the data have none.
    """

    examples: dict[str, np.ndarray]
    class_names: tuple[str, ...] = ()


def decode_all(
    where: str, images: Iterable[tuple[str, Any]], total: int, how: Reading
) -> np.ndarray:
    """Decodes images.

    Args:
        where: Name of the data set in messages.
        images: (name, encoded bytes or a path) of each image.
        total: Their number, N.
        how: Size, channels and progress.

    Returns:
        uint8 [N, H, W, C].

    Raises:
        UserError: Images can't be decoded, or differ in size or channels; the message names files.
    """
    need("PIL.Image", "images", f"{where}: reading image files")
    out: Any = None
    first, unreadable = "", []
    if not total:
        raise UserError(f"{where} holds no images")
    for i, (name, data) in enumerate(images):
        try:
            pixels = decode(data, how)
        except _Unreadable as error:
            unreadable.append(f"{name} ({error})")
            continue
        finally:
            how.tell(i + 1, total)
        if not first:
            first = name
            if total * pixels.size > LARGEST:
                raise UserError(
                    f"{where}: {total} images of {_size(pixels)} exceed {LARGEST / 2**30:.0f} GiB; give "
                    "fewer, or smaller ones (--resize H,W)"
                )
            out = np.zeros((total, *pixels.shape), np.uint8)
        elif pixels.shape[:2] != out.shape[1:3]:
            raise UserError(
                f"{where}: images differ in size ({first} is {_size(out[0])}, {name} {_size(pixels)}); "
                "give the size that the network takes (--resize H,W)"
            )
        elif pixels.shape != out.shape[1:]:
            raise UserError(
                f"{where} mixes grey and RGB images ({first} is {WORDS[out.shape[3]]}, {name} "
                f"{WORDS[pixels.shape[2]]}); choose one (--channels 1 or --channels 3)"
            )
        out[i] = pixels
    if unreadable:
        raise UserError(
            f"{where}: can't read {len(unreadable)} of {total} images: {listed(unreadable, 3)}; remove "
            "or replace them"
        )
    return out


class _Unreadable(Exception):
    """An image can't be decoded; says why."""


def decode(data: Any, how: Reading) -> np.ndarray:
    """One image: encoded bytes or a path, to uint8 [H, W, C].

    Palettes become RGB, and transparency is dropped, as torchvision's ImageFolder does. Images are
    stretched by antialiased bilinear interpolation, as by torchvision's Resize((H, W)).
    """
    from PIL import Image

    if data == b"":
        raise _Unreadable("no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
                channels = how.channels or _channels(image.mode)
                pixels = image.convert(WORDS[channels].replace("grey", "L"))
    except _Unreadable:
        raise
    except Image.UnidentifiedImageError:
        raise _Unreadable("not an image") from None
    except Exception as error:  # a damaged file makes decoders raise anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _Unreadable(" ".join(reason.split())) from None
    if how.resize is not None and pixels.size != how.resize[::-1]:
        pixels = pixels.resize(how.resize[::-1], Image.Resampling.BILINEAR)
    array = np.asarray(pixels, np.uint8)
    return array.reshape(*array.shape[:2], channels)


def _channels(mode: str) -> int:
    if mode in GREY:
        return 1
    if mode in COLOUR:
        return 3
    raise _Unreadable(f"pixels of mode {mode}, not 8 bits per channel")


def labels_of(where: str, values: Sequence[Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels and class names of labels that are integers or names.

    Args:
        where: Name of the data set in messages.
        values: Integers, which are taken as they are, or names, which are numbered in sorted order.

    Returns:
        int32 [N], and the names (() for integers).

    Raises:
        UserError: Labels are neither, or outside 0 ... `mcjax.data.npz.MOST_CLASSES` - 1.

    Example:
        >>> labels_of("animals", ["dog", "cat", "dog"])
        (array([1, 0, 1], dtype=int32), ('cat', 'dog'))
    """
    if all(isinstance(v, str) for v in values):
        names = tuple(sorted(set(values)))
        numbers = {name: i for i, name in enumerate(names)}
        return np.array([numbers[v] for v in values], np.int32), names
    for i, v in enumerate(values):
        if not isinstance(v, int) or isinstance(v, bool) or not 0 <= v < MOST_CLASSES:
            raise UserError(
                f"{where}: the label of image {i} is {v!r}; give integers from 0, or names"
            )
    return np.array(values, np.int32), ()


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[0]}x{pixels.shape[1]}"
