import numpy as np
import pytest

from mcjax import data
from mcjax.errors import UserError


def arrays(size=20, dtype=np.uint8, shape=(6, 5, 3)):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size, *shape), np.uint8)
    return (image if dtype == np.uint8 else (image / 255).astype(dtype)), np.arange(size) % 4


def save(path, **contents):
    np.savez(path, **contents)
    return f"npz:{path}"


def four(image, label, **changes):
    return {
        "train_images": image,
        "train_labels": label,
        "test_images": image[:3],
        "test_labels": label[:3],
    } | changes


def test_own_test_set(tmp_path):
    image, label = arrays()
    dataset = data.load(save(tmp_path / "mine.npz", **four(image, label)))
    np.testing.assert_array_equal(dataset.train["image"], image)
    np.testing.assert_array_equal(dataset.test["label"], label[:3])
    assert (dataset.num_classes, dataset.name) == (4, "npz:mine.npz")


def test_one_set_is_divided_the_same_way_at_every_load(tmp_path):
    image, label = arrays()
    name = save(tmp_path / "mine.npz", image=image, label=label, notes=np.array(["any"]))
    dataset, again = data.load(name), data.load(name)
    assert [len(part["label"]) for part in (dataset.train, dataset.test)] == [16, 4]
    assert np.bincount(dataset.test["label"]).tolist() == [1, 1, 1, 1]
    np.testing.assert_array_equal(dataset.test["image"], again.test["image"])
    pairs = [
        (x.tobytes(), y)
        for part in (dataset.train, dataset.test)
        for x, y in zip(part["image"], part["label"], strict=True)
    ]
    assert sorted(pairs) == sorted((x.tobytes(), y) for x, y in zip(image, label, strict=True))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_float_in_the_unit_interval(tmp_path, dtype):
    image, label = arrays(dtype=dtype)
    dataset = data.load(save(tmp_path / "mine.npz", **four(image, label)))
    np.testing.assert_array_equal(dataset.train["image"], image.astype(np.float32))


def test_images_without_a_channel_axis(tmp_path):
    image, label = arrays(shape=(6, 5))
    dataset = data.load(save(tmp_path / "mine.npz", image=image, label=label))
    assert dataset.image_shape == (6, 5, 1)


def test_an_unwanted_object_array_does_no_harm(tmp_path):
    image, label = arrays()
    name = save(tmp_path / "mine.npz", image=image, label=label, notes=np.array([{}], object))
    assert data.load(name).num_classes == 4


IMAGE, LABEL = arrays()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"x": IMAGE, "y": LABEL}, "holds x, y; give train_images"),
        ({}, "holds nothing"),
        ({"image": IMAGE}, "holds image;"),
        ({"image": IMAGE, "label": LABEL[:-1]}, "one label per image"),
        ({"image": IMAGE, "label": LABEL[:, None]}, "one label per image"),
        ({"image": np.uint8(3), "label": np.int64(1)}, r"have shape \(\)"),
        ({"image": IMAGE, "label": LABEL.astype(float)}, "whole numbers"),
        ({"image": IMAGE, "label": LABEL - 1}, "give 0 or more"),
        ({"image": IMAGE, "label": LABEL + 2**31}, "give 0 or more"),
        ({"image": IMAGE.astype(np.int64), "label": LABEL}, "int64"),
        ({"image": IMAGE.astype(float), "label": LABEL}, "scale them"),
        ({"image": IMAGE * np.nan, "label": LABEL}, "scale them"),
        ({"image": IMAGE + 1e300, "label": LABEL}, "scale them"),
        ({"image": IMAGE[:0], "label": LABEL[:0]}, "shape"),
        ({"image": IMAGE[0, 0], "label": LABEL[:5]}, "shape"),
        ({"image": IMAGE.reshape(len(IMAGE), -1), "label": LABEL}, r"give \[N, H, W, C\], or"),
        ({"image": np.array([{}], object), "label": LABEL[:1]}, "plain arrays"),
        (four(IMAGE, LABEL, test_images=IMAGE[:3, :4]), "same shape"),
    ],
)
def test_each_wrong_thing_is_said_in_one_line(tmp_path, contents, message):
    name = save(tmp_path / "mine.npz", **contents)
    with pytest.raises(UserError, match=message) as caught:
        data.load(name)
    assert "mine.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_npz_file(tmp_path):
    np.save(tmp_path / "one.npy", IMAGE)
    np.savez_compressed(tmp_path / "cut.npz", image=IMAGE, label=LABEL)
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.npz").write_bytes(whole[:300] + bytes(50) + whole[350:])
    (tmp_path / "text.npz").write_text("not arrays")
    (tmp_path / "empty.npz").touch()
    for name in ("one.npy", "cut.npz", "flipped.npz", "text.npz", "empty.npz", ""):
        with pytest.raises(UserError, match=r"not an \.npz file") as caught:
            data.load(f"npz:{tmp_path / name}")
        assert "allow_pickle" not in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        data.load(f"npz:{tmp_path / 'none.npz'}")
