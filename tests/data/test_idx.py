import gzip

import numpy as np
import pytest
from data_files import idx, write_mnist

from mcjax import data
from mcjax.core.errors import UserError
from mcjax.data import originals
from mcjax.data.idx import FASHION_MNIST, parse_idx

DEBIAN = FASHION_MNIST.default_dir
needs_debian = pytest.mark.skipif(
    not (DEBIAN / "train-images-idx3-ubyte.gz").is_file(),
    reason="Debian's package dataset-fashion-mnist is not installed",
)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("place", ["", "mnist", "MNIST/raw"])
def test_small_files_read_as_written(tmp_path, suffix, place):
    written = write_mnist(tmp_path / place, suffix=suffix)
    dataset = data.load("mnist", data_dir=tmp_path, verify=False)
    for part in ("train", "test"):
        for key in ("image", "label"):
            np.testing.assert_array_equal(getattr(dataset, part)[key], written[part][key])
    assert "not verified" in dataset.source
    assert str(tmp_path) in dataset.source


def test_other_contents_are_refused_unless_told(tmp_path):
    write_mnist(tmp_path)
    with pytest.raises(UserError, match=r"t10k-images.*MD5.*2646ac647ad5339dbf082846283269ea"):
        data.load("mnist", data_dir=tmp_path)


def test_a_missing_file_is_named(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte not found"):
        data.load("mnist", data_dir=tmp_path, verify=False)


def test_truncated_files_are_refused(tmp_path):
    write_mnist(tmp_path / "plain")
    write_mnist(tmp_path / "gz", suffix=".gz")
    for folder, name in (
        ("plain", "train-images-idx3-ubyte"),
        ("gz", "train-images-idx3-ubyte.gz"),
    ):
        path = tmp_path / folder / name
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(UserError, match=name) as caught:
            data.load("mnist", data_dir=tmp_path / folder, verify=False)
        assert "\n" not in str(caught.value)


def test_labels_that_do_not_go_with_the_images_are_refused(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(6, np.uint8)))
    with pytest.raises(UserError, match="do not go with"):
        data.load("mnist", data_dir=tmp_path, verify=False)


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"\0\0",
        b"\x89PNG....",
        bytes([0, 0, 9, 1, 0, 0, 0, 0]),
        bytes([0, 0, 8, 3, 0, 0, 0, 1]),
        bytes([0, 0, 8, 1, 0, 0, 0, 9]),
    ],
)
def test_what_is_not_idx_is_a_value_error(contents):
    with pytest.raises(ValueError, match=r"header|values"):
        parse_idx(contents)


@needs_debian
def test_real_fashion_mnist_is_verified_and_split_without_leaks():
    dataset = data.load("fashion_mnist")
    assert dataset.source.endswith("checksums verified")
    assert dataset.train["image"].shape == (60_000, 28, 28, 1)
    assert np.bincount(dataset.train["label"]).tolist() == [6000] * 10
    assert np.bincount(dataset.test["label"]).tolist() == [1000] * 10
    # Published statistics of the training images, on [0, 1].
    assert dataset.train["image"].mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert dataset.train["image"].std() / 255 == pytest.approx(0.3530, abs=5e-5)
    splits = data.split(dataset, seed=0, num_bonafide=2500, num_selection=1000)
    contents = [
        {x.tobytes() for x in getattr(splits, part)["image"]}
        for part in ("train", "bonafide", "selection", "test")
    ]
    assert [len(c) for c in contents] == [56_500, 2500, 1000, 10_000]
    assert len(set.union(*contents)) == 70_000


@needs_debian
def test_fashion_mnist_is_not_mnist():
    with pytest.raises(UserError, match="but that published for mnist"):
        data.load("mnist", data_dir=DEBIAN)


def test_without_files_the_message_names_them_and_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"dataset-fashion-mnist") as caught:
        data.load("fashion_mnist", data_dir=tmp_path)
    assert "t10k-labels-idx1-ubyte" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    """A bomb, with the limit where a test can reach it."""
    monkeypatch.setattr(originals, "LARGEST", 2**16)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(bytes(2**24)))
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(bytes(4))
    with pytest.raises(UserError, match="holds more than 0 MiB"):
        data.load("mnist", data_dir=tmp_path, verify=False)


@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (2**31, 1), (0, 2**32 - 1)])
def test_headers_that_promise_more_than_there_is(shape):
    header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    with pytest.raises(ValueError, match="values where the header says"):
        parse_idx(header + bytes(7))
