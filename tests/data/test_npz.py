import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcjax import data
from mcjax.core.errors import UserError
from mcjax.data import npz
from mcjax.models.network import from_apply
from mcjax.repair.bonafide import check_images


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
        ({"image": np.uint8(3), "label": np.int64(1)}, r"has shape \(\)"),
        ({"image": IMAGE, "label": LABEL.astype(float)}, "give integers"),
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


def member(shape, content=b"", dtype="|u1", version=(1, 0)):
    """A .npy file whose header says `shape`, whatever follows."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    data = bytearray(file.getvalue() + content)
    data[6:8] = bytes(version)
    return bytes(data)


def archive(path, *, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


LABELS = member((2,), bytes([0, 1]))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (member((2**23, 2**23)), "holds 0 bytes, but its header declares"),  # 64 TiB
        (member((-1, 4, 4)), "holds 0 bytes"),
        (member((2, 4, 4), bytes(31)), "holds 31 bytes"),
        (member((2, 4, 4), bytes(32), version=(9, 9)), "unknown .npy version|magic|version"),
        (member((1,), bytes(8), dtype="|O"), "holds Python objects"),
        (b"not an array at all", "magic"),
        (b"", "magic|EOF"),
    ],
)
def test_members_that_are_not_what_they_say(image, message, tmp_path):
    path = archive(tmp_path / "bad.npz", image=image, label=LABELS)
    for read in (npz.load, npz.read_examples):
        with pytest.raises(UserError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_archives_that_promise_more_than_memory(tmp_path, monkeypatch):
    """A bomb: 16 MiB of zeros in 16 KiB, with the limit where a test can reach it."""
    path = archive(
        tmp_path / "bomb.npz",
        compression=zipfile.ZIP_DEFLATED,
        image=member((2, 2**12, 2**11), bytes(2**24)),
        label=LABELS,
    )
    assert path.stat().st_size < 2**15
    monkeypatch.setattr(npz, "LARGEST", 2**20)
    with pytest.raises(UserError, match="arrays are larger than"):
        npz.load(path)


def test_archives_that_python_cannot_open(tmp_path):
    path = archive(tmp_path / "a.npz", image=member((2, 4, 4), bytes(32)), label=LABELS)
    whole = bytearray(path.read_bytes())
    for offset_local, offset_central, value in ((6, 8, b"\1\0"), (8, 10, b"\x63\0")):
        data = bytearray(whole)  # encrypted, or a compression that nobody knows
        for signature, offset in ((b"PK\3\4", offset_local), (b"PK\1\2", offset_central)):
            place = data.index(signature) + offset
            data[place : place + 2] = value
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"not an \.npz file"):
            npz.load(path)


def test_labels_that_would_make_a_layer_of_billions(tmp_path):
    image = np.zeros((4, 4, 4, 1), np.uint8)
    for label in (2**31 - 3, npz.MOST_CLASSES):
        save(tmp_path / "a.npz", image=image, label=np.array([0, 1, 2, label]))
        with pytest.raises(UserError, match="the largest label sets the number of classes"):
            npz.load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("shape", "refused"),
    [
        ((3, 32, 32), True),
        ((1, 28, 28), True),
        ((3, 32, 48), True),
        ((32, 32, 3), False),
        ((3, 3, 3), False),
        ((4, 4, 8), False),
        ((1, 100, 8), False),  # signals
        ((3, 4, 4), False),
    ],
)
def test_pytorchs_order_is_refused_everywhere(shape, refused, tmp_path):
    image, label = np.zeros((8, *shape), np.uint8), np.arange(8) % 2
    save(tmp_path / "a.npz", image=image, label=label)
    part = {"image": image, "label": label.astype(np.int32)}
    network = from_apply(lambda w, x: x.reshape(len(x), -1)[:, :2])
    for read in (
        lambda: npz.load(tmp_path / "a.npz"),
        lambda: npz.read_examples(tmp_path / "a.npz"),
        lambda: data.dataset.Dataset("a", train=part, test=part, num_classes=2, source=""),
        lambda: check_images(network, {}, part),
    ):
        if refused:
            with pytest.raises(UserError, match=r"np\.moveaxis\(image, 1, -1\)"):
                read()
        else:
            read()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_file_of_any_bytes_is_the_arrays_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("npz")
    image, label = arrays(8)
    np.savez_compressed(folder / "a.npz", image=image, label=label)
    content = bytearray((folder / "a.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] ^= data.draw(st.integers(1, 255))
        else:
            content[place : place + data.draw(st.integers(1, 64))] = b""
    (folder / "a.npz").write_bytes(content)
    try:
        found = npz.read_examples(folder / "a.npz")
    except UserError as error:
        message = str(error)
        assert "\n" not in message
    else:  # a time or a comment was hit
        np.testing.assert_array_equal(found["image"], image)
        np.testing.assert_array_equal(found["label"], label)
