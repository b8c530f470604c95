import numpy as np
import pytest
from image_files import COLOURS, GREYS, LABELS, NAMES, picture

from mcjax.core.errors import UserError
from mcjax.data.examples import read_examples


def folder(path, images=COLOURS, suffix="png"):
    for name in NAMES:
        (path / name).mkdir(parents=True)
    for i, (pixels, label) in enumerate(zip(images, LABELS, strict=True)):
        picture(pixels).save(path / NAMES[label] / f"{i}.{suffix}")
    return path


ORDER = np.argsort(LABELS, kind="stable")


def refusal(path, **options):
    with pytest.raises(UserError) as refused:
        read_examples(path, **options)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("images", [COLOURS, GREYS], ids=["RGB", "grey"])
@pytest.mark.parametrize("suffix", ["png", "bmp", "PNG"])
def test_pixels_and_labels_in_sorted_order(tmp_path, images, suffix):
    found = read_examples(folder(tmp_path, images, suffix))
    np.testing.assert_array_equal(found.examples["image"], images[ORDER])
    np.testing.assert_array_equal(found.examples["label"], sorted(LABELS))
    assert found.examples["label"].dtype == np.int32
    assert found.class_names == tuple(NAMES)


def test_lossy_files_are_near(tmp_path):
    smooth = np.broadcast_to(np.arange(100, 180, 20, np.uint8)[:, None, None], (6, 4, 5, 3))
    found = read_examples(folder(tmp_path, smooth, "jpg")).examples["image"]
    assert np.abs(found.astype(int) - smooth).max() < 12


def test_files_below_sub_folders_count_and_others_do_not(tmp_path):
    folder(tmp_path)
    (tmp_path / "cat" / "more").mkdir()
    picture(COLOURS[0]).save(tmp_path / "cat" / "more" / "x.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "ant").mkdir()  # empty: keeps its number
    found = read_examples(tmp_path)
    assert found.class_names == ("ant", *NAMES)
    assert np.bincount(found.examples["label"]).tolist() == [0, 3, 2, 2]


def test_the_order_is_that_of_text(tmp_path):
    for name in ("10", "2"):
        (tmp_path / name).mkdir()
        picture(COLOURS[0]).save(tmp_path / name / "x.png")
    assert read_examples(tmp_path).class_names == ("10", "2")


def test_sizes(tmp_path):
    folder(tmp_path)
    picture(COLOURS[0, :3]).save(tmp_path / "eel" / "small.png")
    message = refusal(tmp_path)
    assert "differ in size" in message
    assert "--resize" in message
    assert "small.png 3x5" in message
    found = read_examples(tmp_path, resize=(2, 3)).examples["image"]
    assert found.shape == (7, 2, 3, 3)
    expected = picture(COLOURS[1]).resize((3, 2), 2)  # 2: bilinear
    np.testing.assert_array_equal(found[0], np.asarray(expected))


def test_channels(tmp_path):
    folder(tmp_path)
    picture(GREYS[0]).save(tmp_path / "cat" / "grey.png")
    message = refusal(tmp_path)
    assert "mixes grey and RGB" in message
    assert "--channels" in message
    grey = read_examples(tmp_path, channels=1).examples["image"]
    assert grey.shape == (7, 4, 5, 1)
    np.testing.assert_array_equal(grey[2], GREYS[0])
    colour = read_examples(tmp_path, channels=3).examples["image"]
    np.testing.assert_array_equal(colour[2], np.repeat(GREYS[0], 3, -1))


def test_palettes_and_transparency(tmp_path):
    folder(tmp_path)
    picture(COLOURS[0]).convert("RGBA").save(tmp_path / "eel" / "x.png")
    picture(COLOURS[0]).quantize().save(tmp_path / "eel" / "y.gif")
    found = read_examples(tmp_path).examples["image"]
    np.testing.assert_array_equal(found[-2:], np.stack([COLOURS[0]] * 2))


def test_unreadable_files_are_named(tmp_path):
    folder(tmp_path)
    (tmp_path / "cat" / "1.png").write_bytes(b"no image")
    whole = (tmp_path / "dog" / "2.png").read_bytes()
    (tmp_path / "dog" / "2.png").write_bytes(whole[:60])
    message = refusal(tmp_path)
    assert "can't read 2 of 6 images" in message
    assert "cat/1.png (not an image)" in message
    assert "dog/2.png (" in message


def test_sixteen_bits_are_refused(tmp_path):
    folder(tmp_path)
    from PIL import Image

    Image.fromarray(np.full((4, 5), 9999, np.uint16)).save(tmp_path / "cat" / "deep.png")
    assert "cat/deep.png (pixels of mode I" in refusal(tmp_path)


def test_progress(tmp_path):
    told = []
    read_examples(folder(tmp_path), tell=lambda *found: told.append(found))
    assert told == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], "no sub-folders"),
        (["train", "test"], "are splits, not classes"),
        (["cat"], "hold no images"),
    ],
)
def test_other_folders(tmp_path, folders, message):
    for name in folders:
        (tmp_path / name).mkdir()
    assert message in refusal(tmp_path)
