"""What a repair leaves, from a result that no training made: the page, the figure, the table."""

import json

import numpy as np
import pytest
from made_runs import repaired

from mcjax.report.definitions import meaning
from mcjax.report.repaired_page import NO_PROMISE, path_panels, write_repaired
from mcjax.workdir import read_csv


@pytest.mark.parametrize("t", [0.5, None])
def test_the_page_says_what_happened_and_what_is_not_promised(tmp_path, t):
    write_repaired(tmp_path, repaired(t), {"arch": "mlp", "seed": 0})
    text = (tmp_path / "report.html").read_text()
    assert NO_PROMISE[:40] in text
    assert ("these t = 0.5000 is the farthest" in text) == (t is not None)
    assert ("nothing was repaired" in text) == (t is None)
    assert "fraction of the norm" in text  # what moved_relative means
    for name in ("path.png", "path.pdf"):
        assert (tmp_path / name).stat().st_size > 0
    assert read_csv(tmp_path / "path.csv")["distance"] == [0, 2.5, 0]
    assert json.loads((tmp_path / "result.json").read_text())["metrics"]["t"] == t


def test_every_number_has_a_meaning():
    for name, value in repaired(0.5).report.items():
        assert isinstance(value, np.ndarray) or meaning(name), name


def test_the_figure_marks_the_chosen_t_and_the_floor():
    accuracy, distance = path_panels(repaired(0.5))
    assert accuracy.chosen == distance.chosen == 0.5
    np.testing.assert_allclose(accuracy.lines[2].y, 75)
    assert path_panels(repaired(None))[0].chosen is None
