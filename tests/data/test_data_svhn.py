import io

import numpy as np
import pytest
from scipy.io import savemat

from mcjax import data
from mcjax.core.errors import UserError


def mat(image, label):
    file = io.BytesIO()
    savemat(file, {"X": image, "y": label}, do_compression=True)
    return file.getvalue()


def images(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3, size), np.uint8)


def write(folder, **changes):
    label = np.array([[1], [10], [9], [10]], np.uint8)
    files = {"train_32x32": mat(images(4), label), "test_32x32": mat(images(2, 1), label[:2])}
    for name, contents in (files | changes).items():
        (folder / f"{name}.mat").write_bytes(contents)


def test_small_files_read_as_written_and_label_10_is_digit_0(tmp_path):
    write(tmp_path)
    dataset = data.load("svhn_cropped", data_dir=tmp_path, verify=False)
    np.testing.assert_array_equal(dataset.train["label"], [1, 0, 9, 0])
    for n in range(4):
        np.testing.assert_array_equal(dataset.train["image"][n], images(4)[..., n])
    np.testing.assert_array_equal(dataset.test["image"][1], images(2, 1)[..., 1])


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"MATLAB",
        mat(images(3), np.ones((2, 1), np.uint8)),
        mat(images(3), np.array([[0], [1], [2]], np.uint8)),
        mat(images(3), np.array([[11], [1], [2]], np.uint8)),
        mat(images(3).astype(float), np.ones((3, 1), np.uint8)),
        mat(images(3)[:16], np.ones((3, 1), np.uint8)),
        mat(images(3), np.ones((3, 1), np.uint8))[:-500],
    ],
)
def test_foreign_or_truncated_files_are_refused_in_one_line(tmp_path, contents):
    write(tmp_path, train_32x32=contents)
    with pytest.raises(UserError, match="train_32x32") as caught:
        data.load("svhn_cropped", data_dir=tmp_path, verify=False)
    assert "\n" not in str(caught.value)


def test_other_contents_than_published_are_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(UserError, match="eb5a983be6a315427106f1b164d9cef3"):
        data.load("svhn_cropped", data_dir=tmp_path)
