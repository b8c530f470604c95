"""The figure shows stamped images, and equal images give equal files."""

import contextlib

import numpy as np
import pytest
from slow import all_but

from mcjax.attacks.poisoning import triggers
from mcjax.report import figures, image_grid, stamps


@pytest.mark.parametrize("channels", all_but([1], [1, 2, 3]))
def test_equal_images_equal_files(tmp_path, channels):
    shape = (8, 8, channels)
    image = np.random.default_rng(0).integers(0, 256, (9, *shape), np.uint8)
    examples = {"image": image, "label": np.arange(9) % 3}
    named = {name: triggers.create(name, shape) for name in ("square", "blended")}
    for name in ("a", "b"):
        stamps.stamps_figure(tmp_path / f"{name}.png", examples, named)
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert data == (tmp_path / "b.png").read_bytes()


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written, to be looked into."""
    kept = []

    @contextlib.contextmanager
    def keep(path, size):
        with figures.figure(path, size) as fig:
            kept.append(fig)
            yield fig

    monkeypatch.setattr(image_grid, "figure", keep)
    return kept


def test_rows_of_clean_and_stamped_images_and_their_difference(tmp_path, drawn):
    image = np.random.default_rng(0).random((6, 8, 8, 1))
    examples = {"image": image, "label": np.array([2, 0, 0, 1, 2, 1])}
    stamp = triggers.create("square", (8, 8, 1))
    stamps.stamps_figure(tmp_path / "a.png", examples, {"square": stamp}, num_images=2)
    shown = [axes.images[0].get_array() for axes in drawn[0].axes]
    stamped = np.asarray(stamp(image[[1, 3]]))
    change = stamped - image[[1, 3]]
    expected = [*image[[1, 3]], *stamped, *(0.5 + change / np.abs(change).max() / 2)]
    for got, want in zip(shown, expected, strict=True):
        np.testing.assert_allclose(got, want[..., 0], rtol=1e-6)
    labels = [axes.get_ylabel() for axes in drawn[0].axes]
    assert labels[:4] == ["clean", "", "square", ""]
    assert labels[4].split()[:2] == ["square:", "difference"]


def test_frames_mark_images_that_are_misclassified(tmp_path, drawn):
    clean = np.full((2, 4, 4, 1), 0.5)
    attacked = {0.0: (clean + 0.1, np.array([True, False])), 0.5: (clean, np.array([False, False]))}
    stamps.adversarial_figure(tmp_path / "a.png", clean, attacked)
    axes = drawn[0].axes
    assert [one.get_ylabel().split(":")[0] for one in axes[::2]] == [
        "clean",
        "t = 0",
        "t = 0",
        "t = 0.5",
        "t = 0.5",
    ]
    assert [one.spines["top"].get_visible() for one in axes].index(True) == 2
    assert sum(one.spines["top"].get_visible() for one in axes) == 1
    np.testing.assert_allclose(axes[4].images[0].get_array(), 1)
    np.testing.assert_allclose(axes[8].images[0].get_array(), 0.5)  # nothing changed
