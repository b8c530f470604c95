"""CIFAR-10 and CIFAR-100, from the published "python version": pickles in a tar archive."""

import io
import pickle
from typing import Any

import numpy as np

from mcjax.data.originals import Original, Part


def _dtype(code: Any, align: int = 0, copy: int = 1) -> np.dtype:
    # The files store these flags as 0 and 1, which newer NumPy warns about.
    return np.dtype(code, align=bool(align), copy=bool(copy))


def _reconstruct(subtype: type, shape: tuple[int, ...], code: Any) -> np.ndarray:
    # The empty array that unpickling then fills, as in NumPy's function of the same name.
    if subtype is not np.ndarray:
        raise pickle.UnpicklingError("asks for another type than numpy.ndarray")
    return np.ndarray(shape, _dtype(code))


_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles plain containers and NumPy arrays and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, refused") from None


def parse_batch(data: bytes, *, label_key: bytes) -> Part:
    """Reads one pickled batch without executing code from the pickle.

    Args:
        data: File contents: a pickled dict with the labels and `b"data"`, uint8 [N, 3072], the red
            values of an image row by row, then green, then blue.
        label_key: b"labels" (CIFAR-10) or b"fine_labels" (CIFAR-100).

    Returns:
        {"image": uint8 [N, 32, 32, 3], "label": int32 [N]}.

    Raises:
        Exception: Of any kind, if the contents are not as expected.
    """
    batch = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    image, label = batch[b"data"], batch[label_key]
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 2:
        raise ValueError("b'data' is not a matrix of bytes")
    if len(image) != len(label):
        raise ValueError(f"{len(image)} images but {len(label)} labels")
    image = image.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return {"image": np.ascontiguousarray(image), "label": np.asarray(label, np.int32)}


def _parse(contents: list[bytes], label_key: bytes) -> Part:
    batches = [parse_batch(data, label_key=label_key) for data in contents]
    return {key: np.concatenate([batch[key] for batch in batches]) for key in ("image", "label")}


# MD5 of the archives' members, as torchvision publishes them.
CIFAR10 = Original(
    name="cifar10",
    image_shape=(32, 32, 3),
    num_classes=10,
    train=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
    test=("test_batch",),
    md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    parse=lambda contents: _parse(contents, b"labels"),
    advice="cifar-10-python.tar.gz, or its folder cifar-10-batches-py, into the data directory",
    folders=("cifar-10-batches-py",),
    archive="cifar-10-python.tar.gz",
    cached=True,
)

CIFAR100 = Original(
    name="cifar100",
    image_shape=(32, 32, 3),
    num_classes=100,
    train=("train",),
    test=("test",),
    md5={
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
    parse=lambda contents: _parse(contents, b"fine_labels"),
    advice="cifar-100-python.tar.gz, or its folder cifar-100-python, into the data directory",
    folders=("cifar-100-python",),
    archive="cifar-100-python.tar.gz",
    cached=True,
)
