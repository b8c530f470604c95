"""Custom images from an .npz file."""

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mcjax.core.errors import UserError
from mcjax.data.dataset import Dataset, check_channels_last
from mcjax.data.stratify import holdout

_FOUR = ("train_images", "train_labels", "test_images", "test_labels")
_TWO = ("image", "label")
_TEST_SHARE = 0.2
_SPLIT_SEED = 0
MOST_CLASSES = 100_000
LARGEST = 16 * 2**30
"""Maximum bytes of a file's arrays; a small compressed archive can declare far more."""


def load(path: Path) -> Dataset:
    """Loads a data set from an .npz file that has one of these groups of arrays.

        train_images, train_labels, test_images, test_labels
        image, label        a random fifth, stratified by class, becomes the test set; the split is
                            the same at every load

    Images are [N, H, W, C], or [N, H, W] for one channel; uint8, or any float in [0, 1]. Labels are
    integers [N] from 0; the largest sets the number of classes. Other arrays are ignored.

    Args:
        path: The file, written by np.savez or np.savez_compressed.

    Returns:
        The data set, named "npz:" plus the file's name.

    Raises:
        UserError: The file does not exist or is not an .npz file, or its arrays' names, shapes,
            dtypes or values are not as above.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.npz"
        >>> np.savez(path, image=np.zeros((10, 4, 4), np.uint8), label=np.arange(10) % 2)
        >>> load(path).train["image"].shape
        (8, 4, 4, 1)
    """
    arrays = _read(path)
    if set(_FOUR) <= arrays.keys():
        train, test = (_part(path, arrays, *names) for names in (_FOUR[:2], _FOUR[2:]))
        how = "its own test set"
    elif set(_TWO) <= arrays.keys():
        whole = _part(path, arrays, *_TWO)
        num_test = round(_TEST_SHARE * len(whole["label"]))
        index = holdout(whole["label"], num_test=num_test, seed=_SPLIT_SEED)
        train, test = ({key: value[i] for key, value in whole.items()} for i in index)
        how = f"fixed stratified split {len(index[0])}/{len(index[1])}"
    else:
        raise UserError(
            f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}; give {', '.join(_FOUR)}, or "
            f"{' and '.join(_TWO)}"
        )
    return Dataset(
        name=f"npz:{path.name}",
        train=train,
        test=test,
        num_classes=1 + max(int(part["label"].max(initial=0)) for part in (train, test)),
        source=f"arrays in {path}, {how}",
    )


def read_examples(path: Path) -> dict[str, np.ndarray]:
    """Reads the images and labels of a file: `image`, `label` or `train_images`, `train_labels`.

    Args:
        path: The file; see `load`.

    Returns:
        {"image": [N, H, W, C] uint8 or float32, "label": int32 [N]}.

    Raises:
        UserError: As `load`.
    """
    arrays = _read(path)
    for names in (_TWO, _FOUR[:2]):
        if set(names) <= arrays.keys():
            return _part(path, arrays, *names)
    raise UserError(f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}; give image and label")


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:  # np.load does not close a damaged file
            npz = np.load(file, allow_pickle=False)
            if not isinstance(npz, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            # Other arrays are not loaded: an object array could not be loaded safely.
            wanted = {*_FOUR, *_TWO} & set(npz.files)
            assert npz.zip is not None
            _check_sizes(npz.zip, wanted)
            return {name: npz[name] if name in wanted else np.empty(0) for name in npz.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give an existing .npz file") from None
    # RuntimeError: encrypted; NotImplementedError: an unsupported compression.
    except (
        OSError, ValueError, EOFError, RuntimeError, OverflowError, TypeError, SyntaxError,
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError, struct.error,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        if "pickle" in reason:  # numpy's message for any other file suggests allow_pickle
            reason = "neither a zip archive nor numbers"
        raise UserError(
            f"{path}: not an .npz file of plain arrays ({reason}); write it with np.savez"
        ) from error


def _check_sizes(archive: zipfile.ZipFile, names: set[str]) -> None:
    """Checks that arrays are as large as their headers declare, and fit in memory.

    Raises:
        ValueError: An array is not; the message names it.
    """
    total = 0
    for name in sorted(names):
        about = archive.getinfo(f"{name}.npy")
        total += about.file_size
        if total > LARGEST:
            raise ValueError(f"its arrays are larger than {LARGEST / 2**30:.0f} GiB")
        with archive.open(about) as member:
            version = np.lib.format.read_magic(member)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"{name} has an unknown .npy version, {version}")
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read(member)
            held = about.file_size - member.tell()
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects")
        if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != held:
            raise ValueError(f"{name} holds {held} bytes, but its header declares {list(shape)}")


def _part(
    path: Path, arrays: dict[str, np.ndarray], images: str, labels: str
) -> dict[str, np.ndarray]:
    image, label = arrays[images], arrays[labels]
    if image.ndim == 3:
        image = image[..., None]
    if image.ndim != 4:
        raise UserError(
            f"{path}: {images} has shape {image.shape}; give [N, H, W, C], or [N, H, W] for one channel"
        )
    check_channels_last(f"{path}: {images}", image.shape)
    if np.issubdtype(image.dtype, np.floating):
        with np.errstate(over="ignore"):  # gives inf, which `Dataset` rejects
            image = image.astype(np.float32)
    if not np.issubdtype(label.dtype, np.integer):
        raise UserError(
            f"{path}: {labels} has type {label.dtype}; give integers, 0 for the first class"
        )
    if label.ndim != 1 or label.shape != image.shape[:1]:
        raise UserError(
            f"{path}: {labels} has shape {label.shape}, {images} {image.shape}; "
            "give one label per image, shape [N] (label.reshape(-1))"
        )
    if label.size and not 0 <= label.min() <= label.max() < MOST_CLASSES:
        raise UserError(
            f"{path}: the numbers of {labels} lie in [{label.min()}, {label.max()}]; give 0 or more, and less than "
            f"{MOST_CLASSES}: the largest label sets the number of classes"
        )
    return {"image": image, "label": label.astype(np.int32)}
