"""A run's page, written without a run."""

import json

import numpy as np
import pytest

from mcjax.report import page
from mcjax.report.connect_figures import path_panels, plane_figure
from mcjax.report.panels import Chart

NUM_POINTS = 21


def columns(height):
    t = np.linspace(0, 1, NUM_POINTS)
    bump = height * 4 * t * (1 - t)
    return {
        "train_loss": 0.01 + bump,
        "test_loss": 0.1234567 + bump,
        "train_accuracy": 1 - bump / 4,
        "test_accuracy": 0.9 - bump / 4,
    }


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
    """A run's directory with a page that has a chart, a picture and tables."""
    folder = tmp_path_factory.mktemp("page")
    hashed = {"curve.num_bends": 1, "data.name": "<digits>", "curve.fix_start": True}
    config = {"hashed": hashed, "git_revision": "abc", "num_devices": 1, "device_kind": "cpu"}
    (folder / "config.json").write_text(json.dumps(config))
    surface = {
        "x": np.arange(3.0),
        "y": np.arange(3.0),
        "test_loss": np.arange(9.0).reshape(3, 3),
        "trace": np.zeros((5, 2)),
        "points": np.array([[0, 0], [1, 1], [2, 0.0]]),
    }
    plane_figure(folder / "figures" / "plane.png", surface)
    result = {
        "experiment": "connect",
        "data": {
            "name": "<digits>",
            "source": "made by a test",
            "protocol": "disjoint",
            "num_images": {"train": 30, "test": 20},
        },
        "batch_stats": None,
        "config_hash": "0123456789ab",
        "seconds": 1.5,
        "metrics": {"line_test_loss_barrier": 2.0, "curve_worst_test_accuracy": 0.9123456},
    }
    ts = np.linspace(0, 1, NUM_POINTS)
    panels = path_panels(ts, columns(0.1), columns(2.0), {"train": 30, "test": 20})
    wide = {f"a_rather_long_name_{i}": 0.123456 for i in range(14)}
    page.write_page(
        folder,
        result,
        question="Is a < b?",
        answer=["Yes.", "By 1 & a half."],
        charts=[Chart("path", panels, "Along the path.", title="A title")],
        tables={"Rows": [{"method": "start", "t": 0.0, "acceptable": 1, **wide}]},
    )
    return folder
