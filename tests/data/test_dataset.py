import numpy as np
import pytest

from mcjax import data
from mcjax.core.errors import UserError
from mcjax.data import Dataset


def part(size=6, shape=(4, 5, 3), dtype=np.uint8):
    return {
        "image": np.ones((size, *shape), dtype),
        "label": (np.arange(size) % 3).astype(np.int32),
    }


def dataset(train, test=None):
    return Dataset("mine", train=train, test=test or part(), num_classes=3, source="by hand")


def with_pixel(value):
    changed = part(dtype=np.float32)
    changed["image"][2, 1, 1, 0] = value
    return changed


def test_accepts_bytes_and_floats_up_to_the_ends_of_the_unit_interval():
    assert dataset(part()).image_shape == (4, 5, 3)
    whole = with_pixel(0.0)
    assert dataset(whole, part(dtype=np.float32)).train is whole


@pytest.mark.parametrize("value", [-0.001, 1.001, np.nan, np.inf, -np.inf])
def test_floats_outside_the_unit_interval_are_refused(value):
    with pytest.raises(UserError, match=r"mine.*train.*scale them to \[0, 1\]"):
        dataset(with_pixel(value), part(dtype=np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((6, 4, 5), np.uint8)}, "shape"),
        ({"image": np.zeros((0, 4, 5, 3), np.uint8), "label": np.zeros(0, np.int32)}, "shape"),
        ({"image": np.zeros((6, 4, 5, 3), np.int32)}, "int32"),
        ({"image": np.zeros((6, 4, 5, 3), np.float64)}, "float64"),
        ({"label": np.zeros(5, np.int32)}, r"\[5\] for 6 images"),
        ({"label": np.zeros((6, 1), np.int32)}, r"\[6, 1\] for 6 images"),
        ({"label": np.zeros(6, np.int64)}, "int64"),
        ({"label": np.full(6, 3, np.int32)}, "give 0 to 2"),
        ({"label": np.full(6, -1, np.int32)}, "give 0 to 2"),
        ({"weight": np.ones(6)}, "keys"),
    ],
)
def test_each_wrong_array_is_named_in_one_line(change, message):
    for train, test, where in (
        (part() | change, part(), "train"),
        (part(), part() | change, "test"),
    ):
        with pytest.raises(UserError, match=f"{where}.*{message}") as caught:
            dataset(train, test)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", [part(shape=(4, 4, 3)), part(dtype=np.float32)])
def test_both_parts_have_one_shape_and_type(other):
    with pytest.raises(UserError, match="same shape and dtype"):
        dataset(part(), other)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.npz", "did you mean npz:mine.npz"),
        ("fashion-mnist", "did you mean fashion_mnist"),
        ("/some/folder", "unknown data set '/some/folder'; give digits"),
        ("npz:", "npz: has no file"),
        ("fake:Mine", "unknown data set 'Mine'"),
    ],
)
def test_unknown_names_get_a_suggestion(name, message):
    with pytest.raises(UserError, match=message):
        data.load(name)
