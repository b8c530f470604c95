"""MNIST and Fashion-MNIST, from files in the IDX format."""

import math
import struct
from pathlib import Path

import numpy as np

from mcjax.data.originals import Original, Part

_TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_UINT8 = 0x08


def parse_idx(data: bytes) -> np.ndarray:
    """Reads one IDX file of unsigned bytes.

    Args:
        data: File contents: two zero bytes, the type, the number of dimensions, each dimension as
            a big-endian uint32, the values.

    Returns:
        uint8 array.

    Raises:
        ValueError: The header is wrong, or the number of values does not match it.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
        array([7, 9], dtype=uint8)
    """
    if len(data) < 4 or data[:3] != bytes([0, 0, _UINT8]):
        raise ValueError("no IDX header for unsigned bytes")
    ndim = data[3]
    start = 4 + 4 * ndim
    if len(data) < start:
        raise ValueError("truncated header")
    shape = struct.unpack(f">{ndim}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(f"{len(data) - start} values where the header says {math.prod(shape)}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _parse(contents: list[bytes]) -> Part:
    image, label = (parse_idx(data) for data in contents)
    if image.ndim != 3 or label.shape != image.shape[:1]:
        raise ValueError(f"images {image.shape} do not go with labels {label.shape}")
    return {"image": image[..., None], "label": label.astype(np.int32)}


# MD5 of the uncompressed files, as found in many independent public projects; Debian's package has
# the same Fashion-MNIST files.
MNIST = Original(
    name="mnist",
    image_shape=(28, 28, 1),
    num_classes=10,
    train=_TRAIN,
    test=_TEST,
    md5={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    parse=_parse,
    advice=(
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        "t10k-labels-idx1-ubyte of MNIST (.gz or not) into the data directory"
    ),
    folders=("MNIST/raw",),
)

FASHION_MNIST = Original(
    name="fashion_mnist",
    image_shape=(28, 28, 1),
    num_classes=10,
    train=_TRAIN,
    test=_TEST,
    md5={
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    parse=_parse,
    advice=(
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        "t10k-labels-idx1-ubyte of Fashion-MNIST (.gz or not) into the data directory, or install "
        "Debian's package dataset-fashion-mnist and omit the data directory"
    ),
    folders=("FashionMNIST/raw",),
    default_dir=Path("/usr/share/datasets/fashion-mnist"),
)
