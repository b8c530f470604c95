import numpy as np
import pytest
from data_files import mat, svhn_images, write_svhn

from mcjax import data
from mcjax.errors import UserError


def test_small_files_read_as_written_and_label_10_is_digit_0(tmp_path):
    write_svhn(tmp_path)
    dataset = data.load("svhn_cropped", data_dir=tmp_path, verify=False)
    np.testing.assert_array_equal(dataset.train["label"], [1, 0, 9, 0])
    for n in range(4):
        np.testing.assert_array_equal(dataset.train["image"][n], svhn_images(4)[..., n])
    np.testing.assert_array_equal(dataset.test["image"][1], svhn_images(2, 1)[..., 1])


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"MATLAB",
        mat(svhn_images(3), np.ones((2, 1), np.uint8)),
        mat(svhn_images(3), np.array([[0], [1], [2]], np.uint8)),
        mat(svhn_images(3), np.array([[11], [1], [2]], np.uint8)),
        mat(svhn_images(3).astype(float), np.ones((3, 1), np.uint8)),
        mat(svhn_images(3)[:16], np.ones((3, 1), np.uint8)),
        mat(svhn_images(3), np.ones((3, 1), np.uint8))[:-500],
    ],
)
def test_foreign_or_truncated_files_are_refused_in_one_line(tmp_path, contents):
    write_svhn(tmp_path, train_32x32=contents)
    with pytest.raises(UserError, match="train_32x32") as caught:
        data.load("svhn_cropped", data_dir=tmp_path, verify=False)
    assert "\n" not in str(caught.value)


def test_other_contents_than_published_are_refused(tmp_path):
    write_svhn(tmp_path)
    with pytest.raises(UserError, match="eb5a983be6a315427106f1b164d9cef3"):
        data.load("svhn_cropped", data_dir=tmp_path)
