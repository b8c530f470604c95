"""Data sets in their original formats, small, for the tests of their readers."""

import gzip
import io
import struct
from pathlib import Path

import numpy as np
from scipy.io import savemat


def mat(image, label):
    file = io.BytesIO()
    savemat(file, {"X": image, "y": label}, do_compression=True)
    return file.getvalue()


def svhn_images(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3, size), np.uint8)


def write_svhn(folder, **changes):
    label = np.array([[1], [10], [9], [10]], np.uint8)
    files = {
        "train_32x32": mat(svhn_images(4), label),
        "test_32x32": mat(svhn_images(2, 1), label[:2]),
    }
    for name, contents in (files | changes).items():
        (folder / f"{name}.mat").write_bytes(contents)


def idx(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write_mnist(folder: Path, *, suffix="", train=7, test=4):
    """A small set in the original format; returns what a reader should find."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    wrap = gzip.compress if suffix else bytes
    written = {}
    for stem, part, size in (("train", "train", train), ("t10k", "test", test)):
        image = rng.integers(0, 256, (size, 28, 28), np.uint8)
        label = (np.arange(size) % 10).astype(np.uint8)
        (folder / f"{stem}-images-idx3-ubyte{suffix}").write_bytes(wrap(idx(image)))
        (folder / f"{stem}-labels-idx1-ubyte{suffix}").write_bytes(wrap(idx(label)))
        written[part] = {"image": image[..., None], "label": label}
    return written
