"""Figures are images, and equal numbers give equal files."""

import numpy as np

from mcjax.report import figures


def table():
    return {
        f"{s}_{m}": np.linspace(0.1, 0.5, 4)
        for s in ("train", "test")
        for m in ("loss", "accuracy")
    }


def test_path_figure(tmp_path):
    for name in ("a", "b"):
        figures.path_figure(tmp_path / f"{name}.png", np.linspace(0, 1, 4), table(), table())
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert data == (tmp_path / "b.png").read_bytes()


def test_plane_figure_with_losses_that_are_not_numbers(tmp_path):
    loss = np.arange(9.0).reshape(3, 3)
    loss[2, 2] = np.nan
    surface = {
        "x": np.arange(3.0),
        "y": np.arange(3.0),
        "test_loss": loss,
        "trace": np.zeros((5, 2)),
        "points": np.array([[0, 0], [1, 1], [2, 0.0]]),
    }
    figures.plane_figure(tmp_path / "plane.png", surface)
    assert (tmp_path / "plane.png").read_bytes().startswith(b"\x89PNG")
