"""Figures of a notebook: what they show, and what they refuse."""

import numpy as np
import pytest
from made_runs import repaired

from mcjax.core.errors import UserError
from mcjax.report.plot import plot, plot_images

TS = np.linspace(0, 1, 3)
LINE = {"loss": [0.1, 2.0, 0.1], "accuracy": [0.9, 0.2, 0.8]}
CURVE = {"loss": [0.1, 0.3, 0.1], "accuracy": [0.9, 0.85, 0.8]}


def test_a_panel_per_metric_and_a_line_per_path():
    figure = plot({"straight line": LINE, "curve": CURVE}, TS)
    loss, accuracy = figure.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy")
    assert [line.get_ydata().tolist() for line in loss.lines] == [LINE["loss"], CURVE["loss"]]
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["straight line", "curve"]
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), TS)


def test_a_notebook_shows_a_picture():
    assert plot(LINE, TS)._repr_png_().startswith(b"\x89PNG")


def test_one_table_needs_no_legend():
    figure = plot(LINE, TS)
    assert len(figure.axes) == 2
    assert not figure.legends


def test_mistakes_are_one_line():
    for report, ts, message in (
        (LINE, None, "ts is missing"),
        (LINE, [0, 1], r"loss has shape \(3,\), but ts \(2,\)"),
        ({}, TS, "give what evaluate_path or repair_model returns"),
        ([1, 2], TS, "give what evaluate_path or repair_model returns"),
    ):
        with pytest.raises(UserError, match=message):
            plot(report, ts)


def test_the_triggers_of_a_repair_are_shown_with_what_they_change():
    clean, _, stamped, _, change, _ = plot_images(repaired(0.5)).axes
    assert [a.get_ylabel() for a in (clean, stamped, change)] == [
        "clean", "patch, class 3", "patch:\ndifference x 4",
    ]  # fmt: skip
    shown = [a.images[0].get_array().max() for a in (clean, stamped, change)]
    assert shown == [0, 0.25, 1]


def test_images_that_are_none():
    x = np.zeros([2, 4, 4, 1])
    for rows in ({}, x, {"a": x[0]}, {"a": x[:0]}, {"a": x, "b": x[:1]}):
        with pytest.raises(UserError, match="give"):
            plot_images(rows)
