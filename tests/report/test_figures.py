"""Figures are images and PDFs, and equal numbers give equal files."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from mcjax.report import connect_figures, figures, repair_figures
from mcjax.report.chart import chart
from mcjax.report.panels import Chart, Line, Panel
from mcjax.runs.workdir import write_csv


def table():
    return {
        f"{s}_{m}": np.linspace(0.1, 0.5, 4)
        for s in ("train", "test")
        for m in ("loss", "accuracy")
    }


def test_a_chart_is_a_png_and_a_pdf(tmp_path):
    panels = connect_figures.path_panels(
        np.linspace(0, 1, 4), table(), table(), {"train": 30, "test": 20}
    )
    for name in ("a", "b"):
        figures.chart_figure(tmp_path / name, Chart("path", panels, "A caption."))
    for kind, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        data = (tmp_path / "a" / f"path.{kind}").read_bytes()
        assert data.startswith(start)
        assert data == (tmp_path / "b" / f"path.{kind}").read_bytes()
    pdf = (tmp_path / "a" / "path.pdf").read_bytes()
    assert b"/CIDFontType2" in pdf or b"/TrueType" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


def test_error_is_one_minus_accuracy_in_percent_and_says_of_how_many():
    loss, error = connect_figures.path_panels(
        np.linspace(0, 1, 4), table(), table(), {"train": 30, "test": 20}
    )
    assert [line.label for line in error.lines] == [
        "curve, 30 training images",
        "straight line, 30 training images",
        "curve, 20 test images",
        "straight line, 20 test images",
    ]
    np.testing.assert_allclose(error.lines[0].y, [90, 76.6666667, 63.3333333, 50])
    np.testing.assert_allclose(loss.lines[0].y, table()["train_loss"])


def test_a_level_is_seen_over_a_single_point(tmp_path):
    """With a single bonafide size, the suspect's dotted line spans the panel, in the PDF and on the page."""
    lines = (
        Line("path", np.array([90.0]), mark="o"),
        Line("suspect", np.array([45.0]), level=True),
    )
    panel = Panel(np.array([1000.0]), lines, "bonafide images", "%", log_x=True)
    with figures.figure(tmp_path / "a.png", (3, 3), pdf=False) as fig:
        axes = fig.subplots()
        figures.draw(axes, panel)
        assert list(axes.lines[1].get_ydata()) == [45, 45]
        low, high = axes.transAxes.transform([(0, 0), (1, 0)])[:, 0]
        drawn = axes.lines[1].get_transform().transform(axes.lines[1].get_xydata())[:, 0]
        np.testing.assert_allclose(drawn, [low, high])
    assert re.search(r'd="M52,[\d.]+H790"/></g>', chart(Chart("table", [panel], "")))


def test_bars_bands_marks_and_gaps_are_drawn(tmp_path):
    x = np.array([50.0, 100, 200])
    lines = (
        Line("bars", np.array([1.0, np.nan, 3]), mark="o", half=np.array([0.5, np.nan, 0.5])),
        Line("band", np.array([1.0, 2, 3]), band=(np.zeros(3), np.full(3, 4.0))),
    )
    panel = Panel(x, lines, "bonafide images", "%", chosen=100, log_x=True)
    with figures.figure(tmp_path / "a.png", (3, 3), pdf=False) as fig:
        axes = fig.subplots()
        figures.draw(axes, panel)
        assert [label.get_text() for label in axes.get_xticklabels()] == ["50", "100", "200"]
        assert len(axes.containers) == 1  # the bars
        assert axes.get_ylim()[1] >= 4  # the band's upper edge
    assert not (tmp_path / "a.pdf").exists()


def test_no_legend_reaches_beyond_its_figure(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "_save", lambda fig, path, metadata: drawn.append(fig))
    for columns in (1, 2, 3):
        for length in (5, 20, 45):
            lines = [Line(f"{i} " + "m" * length, np.ones(2)) for i in range(6)]
            panel = Panel(np.arange(2.0), lines, "t", "error (%)")
            figures.panels_figure(tmp_path / "a.png", [panel] * columns)
            fig = drawn[-1]
            fig.draw_without_rendering()
            (legend,) = fig.legends
            inside = legend.get_window_extent().width <= fig.bbox.width
            assert inside or legend._ncols == 1


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
    connect_figures.plane_figure(tmp_path / "plane.png", surface)
    assert (tmp_path / "plane.png").read_bytes().startswith(b"\x89PNG")


def test_relearning_has_a_panel_per_number_of_poisoned_images(tmp_path):
    assert repair_figures.explanations(tmp_path, "rate") == {}

    def row(m, after, **place):
        rates = {"rate_before": 0.25, "rate_after": after, "twin_after": 0.5, "excess": after - 0.5}
        return {**place, "m": m, **rates, "clean_accuracy_before": 1, "clean_accuracy_after": 0.75}

    points = [row(m, m / 10 + t / 2, t=t) for m in (5, 1) for t in (0.0, 1.0)]
    networks = [row(m, m / 10, method=name) for m in (5, 1) for name in ("suspect", "clean twin")]
    write_csv(tmp_path / "relearning.csv", points[0], points)
    write_csv(tmp_path / "relearning_methods.csv", networks[0], networks)
    found = repair_figures.explanations(tmp_path, "rate")
    assert list(found) == ["relearning", "relearning_methods"]
    assert [p.title for p in found["relearning"]] == ["5 poisoned images", "1 poisoned image"]
    lines = {line.label: line.y.tolist() for line in found["relearning"][1].lines}
    assert lines == {
        "rate before": [25, 25],
        "after": [10, 60],
        "clean twin after": [50, 50],
        "clean accuracy after": [75, 75],
    }
    (panel,) = found["relearning_methods"]
    assert panel.x.tolist() == [1, 5]
    assert [(line.label, line.y.tolist()) for line in panel.lines] == [
        ("suspect", [10, 50]),
        ("clean twin", [10, 50]),
    ]


def test_methods_stand_side_by_side_where_there_is_one_size(tmp_path):
    summary = [
        {
            "method": name,
            "bonafide": size,
            "clean_accuracy": clean,
            "rate": 0.5,
            "clean_accuracy_interval": 0.01,
            "rate_interval": np.nan,
        }
        for name, size, clean in (("suspect", 0, 0.9), ("fine_tune", 50, 0.8), ("path", 50, 0.7))
    ]
    clean, rate = repair_figures.table_panels(summary, "rate", None)
    assert clean.names == ["fine tune", "path"]
    assert clean.lines[0].y.tolist() == [80, 70]
    assert clean.lines[1].y.tolist() == [90, 90]
    assert rate.xlabel == "50 bonafide images"
    html = chart(Chart("table", [clean, rate], ""))
    assert html.count(">fine tune</text>") == 2
    with figures.figure(tmp_path / "a.png", (3, 3), pdf=False) as fig:
        axes = fig.subplots()
        figures.draw(axes, clean)
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["fine tune", "path"]
        assert axes.containers[0].lines[0].get_linestyle() == "None"  # points are not joined


def test_a_single_panel_takes_the_width_of_the_page():
    panel = Panel(np.arange(2.0), [Line("a", np.ones(2))], "t", "y")
    assert 'viewBox="0 0 800 230"' in chart(Chart("one", [panel], ""))
    assert 'viewBox="0 0 360 230"' in chart(Chart("two", [panel, panel], ""))


def test_the_test_error_has_its_interval():
    _, error = connect_figures.path_panels(
        np.linspace(0, 1, 4), table(), table(), {"train": 30, "test": 20}
    )
    bands = {line.label: line.band for line in error.lines}
    low, high = bands["curve, 20 test images"]
    assert (low < error.lines[2].y).all()
    assert (high > error.lines[2].y).all()
    assert bands["curve, 30 training images"] is None


@pytest.mark.parametrize(("estimate", "shown"), [((0.0, 0.0), False), ((0.5, 0.0), True)])
def test_an_estimate_is_drawn_where_there_is_evidence(estimate, shown):
    rates = {name: np.array([0.9, 0.8]) for name in ("test_accuracy", "train_accuracy", "rate")}
    table = {"t": np.array([0.0, 1.0]), **rates, "estimated_attack_success": np.array(estimate)}
    repair = SimpleNamespace(path=table, choice=None, t=0.5)
    (panel,) = repair_figures.path_panels({"100": repair}, "rate", {"test": 10, "success": 10})
    labels = [line.label for line in panel.lines]
    assert ("estimated attack success" in labels) == shown
    del table["estimated_attack_success"]
    (without,) = repair_figures.path_panels({"100": repair}, "rate", {"test": 10, "success": 10})
    assert [line.label for line in without.lines] == labels[:3]
