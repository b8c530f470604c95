"""Decodes images (PNG, JPEG, PIL, tensors) into one array, for the readers of data sets in this folder."""

import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mcjax.core.errors import UserError, listed, shown
from mcjax.core.extras import need
from mcjax.data.npz import LARGEST, MOST_CLASSES
from mcjax.data.transforms import Normalisation

GREY = {"1", "L", "LA"}
COLOUR = {"RGB", "RGBA", "RGBX", "P", "CMYK", "YCbCr", "HSV", "LAB", "PA"}
WORDS = {1: "grey", 3: "RGB"}
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")


class Reading(NamedTuple):
    """How images are read.

    Attributes:
        resize: (height, width) to stretch every image to; None if all have the same size.
        channels: 1 (grey) or 3 (RGB) to convert to; None if all have the same number.
        tell: Called as `tell(done, total)` after every image.
        shorter_side: Pixels of the shorter side, to which an image is resized; None: not.
        crop: (height, width) of the centre to cut out, after resizing.
        interpolation: Of resizing, one of `INTERPOLATIONS`.
        transform: Applied to the image after conversion, `transform(image)`; None: nothing.
    """

    resize: tuple[int, int] | None = None
    channels: int | None = None
    tell: Callable[[int, int], None] = lambda done, total: None
    shorter_side: int | None = None
    crop: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    transform: Callable[[Any], Any] | None = None


class Labelled(NamedTuple):
    """Images with labels.

    Attributes:
        examples: {"image": [N, H, W, C] uint8 or float32, "label": int32 [N]}.
        class_names: Names of the classes 0, 1, ...; () if the data have none.
        normalisation: What the data set's transform normalises by, which was not applied.
    """

    examples: dict[str, np.ndarray]
    class_names: tuple[str, ...] = ()
    normalisation: Normalisation | None = None


def decode_all(
    where: str, images: Iterable[tuple[str, Any]], total: int, how: Reading
) -> np.ndarray:
    """Decodes images.

    Args:
        where: Name of the data set in messages.
        images: (name, image) of each: encoded bytes, a path, an image of PIL, a tensor [C, H, W], an
            array [H, W, C], or a function without arguments that returns one.
        total: Their number, N.
        how: Size, channels and progress.

    Returns:
        [N, H, W, C], uint8; or float32 in [0, 1] if they are given in other steps than 1/255.

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
            out = np.zeros((total, *pixels.shape), pixels.dtype)
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
        if out.dtype != pixels.dtype:
            out, pixels = map(_unit, (out, pixels))
        out[i] = pixels
    if unreadable:
        raise UserError(
            f"{where}: can't read {len(unreadable)} of {total} images: {listed(unreadable, 3)}; remove "
            "or replace them"
        )
    return out


class _Unreadable(Exception):
    """An image can't be decoded; says why."""


def _converted(image: Any, how: Reading) -> Any:
    """In as many channels as are wanted, or as the image has."""
    channels = how.channels or _channels(image.mode)
    return image.convert(WORDS[channels].replace("grey", "L"))


def decode(data: Any, how: Reading) -> np.ndarray:
    """One image as an array [H, W, C], uint8 or float32 in [0, 1].

    Palettes become RGB, and transparency is dropped, as torchvision's ImageFolder does. Images are
    resized by antialiased interpolation and cropped as by torchvision's Resize and CenterCrop.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if callable(data):
                data = data()
            if isinstance(data, bytes) and not data:
                raise _Unreadable("no bytes")
            if not isinstance(data, bytes | str | Path | Image.Image):
                return _pixels(data, how)
            if isinstance(data, Image.Image):
                image = _converted(data, how)
            else:
                with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as opened:
                    image = _converted(opened, how)
            image = crop(resized(image, how), how)
            return _array(how.transform(image) if how.transform else image)
    except (_Unreadable, UserError):
        raise
    except Image.UnidentifiedImageError:
        raise _Unreadable("not an image") from None
    except Exception as error:  # a damaged file makes decoders raise anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _Unreadable(" ".join(reason.split())) from None


def resized(image: Any, how: Reading) -> Any:
    """An image of PIL in the size that `how` says, as by torchvision's Resize."""
    from PIL import Image

    width, height = image.size
    size = how.resize and how.resize[::-1]
    if how.shorter_side is not None:
        longer = int(how.shorter_side * max(width, height) / min(width, height))
        size = (how.shorter_side, longer) if width <= height else (longer, how.shorter_side)
    if size is None or size == image.size:
        return image
    return image.resize(size, Image.Resampling[how.interpolation.upper()])


def crop(image: Any, how: Reading) -> Any:
    """The centre of an image of PIL, as by torchvision's CenterCrop.

    Raises:
        UserError: The image is smaller.
    """
    if how.crop is None:
        return image
    (width, height), (rows, columns) = image.size, how.crop
    if rows > height or columns > width:
        raise UserError(
            f"an image of {height}x{width} pixels is smaller than the crop of {rows}x{columns}; give "
            "a smaller crop, or resize it first"
        )
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    return image.crop((left, top, left + columns, top + rows))


def _pixels(data: Any, how: Reading) -> np.ndarray:
    """A tensor or an array, with the transform if there is one."""
    if how.resize or how.shorter_side or how.crop or how.channels:
        raise UserError(
            "images that are arrays are taken as they are; leave out sizes and channels, or give a "
            "transform"
        )
    return _array(how.transform(data) if how.transform else data)


def _array(image: Any) -> np.ndarray:
    """An image of PIL, a tensor [C, H, W] or an array [H, W, C]: uint8, or float32 in [0, 1]."""
    array = np.asarray(image)
    if callable(getattr(image, "numpy", None)) and array.ndim == 3:  # a tensor
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in WORDS or not array.size:
        raise _Unreadable(f"shape {list(array.shape)}, not an image with 1 or 3 channels")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise _Unreadable(f"{array.dtype} values, not uint8 or floats in [0, 1]")
    if not (array.min() >= -1e-6 and array.max() <= 1 + 1e-6):
        raise _Unreadable(
            f"values from {array.min():g} to {array.max():g}, not in [0, 1]; images must not be "
            "normalised"
        )
    steps = 255 * np.clip(array, 0, 1).astype(np.float64)
    whole = np.rint(steps)
    return whole.astype(np.uint8) if np.abs(steps - whole).max() < 1e-3 else _unit(array)


def _unit(array: np.ndarray) -> np.ndarray:
    """float32 in [0, 1]."""
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 255
    return np.clip(array, 0, 1).astype(np.float32)


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
                f"{where}: the label of image {i} is {shown(v)}; give integers from 0, or names"
            )
    return np.array(values, np.int32), ()


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[0]}x{pixels.shape[1]}"
