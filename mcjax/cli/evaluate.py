"""Evaluates a trained path at other or more t's.

    python -m mcjax.evaluate --workdir runs/digits-... --num_points 201

Writes evaluations/points_N/path.csv, line.csv, path.png and report.html in the run's directory; the
run's other files do not change.
"""

from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from mcjax.cli import command
from mcjax.core.errors import UserError
from mcjax.core.files import as_path
from mcjax.core.progress import say
from mcjax.experiments import connect
from mcjax.report import page
from mcjax.report.chart import chart
from mcjax.report.connect_figures import PATH_CAPTION, path_panels
from mcjax.report.definitions import TERMS
from mcjax.report.figures import chart_figure
from mcjax.report.panels import Chart
from mcjax.runs.config import validate
from mcjax.runs.run import open_run
from mcjax.runs.workdir import read_config


def define_flags() -> None:
    """Defines the command's flags, when the command runs and not when the module is imported."""
    flags.DEFINE_string("workdir", None, "The directory of a finished run.")
    flags.DEFINE_integer(
        "num_points", 61, "Number of t's, equally spaced, including the endpoints."
    )
    command.define_process_flags()


def main() -> None:
    """Reads the flags and evaluates."""
    workdir, num_points = flags.FLAGS.workdir, flags.FLAGS.num_points
    if not workdir:
        raise UserError("no run was given; add --workdir DIR, the workdir of a run of mcjax.train")
    if num_points < 2:
        raise UserError(f"--num_points is {num_points}; it must be at least 2")
    command.use_cpu_convolution(config_of(as_path(workdir)))
    evaluate(as_path(workdir), num_points)


def config_of(workdir: Path) -> ConfigDict:
    """The complete config of a run of connect.

    Raises:
        UserError: The config is missing, is of another experiment, or lacks fields.
    """
    config = ConfigDict(read_config(workdir).get("config", {}))
    experiment = config.get("experiment")
    if experiment != "connect":
        raise UserError(
            f"{workdir} is a run of the experiment {experiment}, whose paths are in its table; this "
            "command evaluates the curve of a connect run: give the workdir of one"
        )
    try:
        validate(config)
    except UserError as error:
        raise UserError(
            f"{workdir / 'config.json'} is damaged, or of another version of mcjax ({error}); use "
            "that version, or give another workdir"
        ) from None
    return config


def evaluate(workdir: Path, num_points: int) -> Path:
    """Evaluates a run's trained curve, and the straight line, at equally spaced t's.

    Args:
        workdir: The run's directory.
        num_points: Number of t's.

    Returns:
        The folder with path.csv, line.csv, path.png and report.html.

    Raises:
        UserError: The directory has no trained curve.
    """
    config = config_of(as_path(workdir))
    run = open_run(config, workdir)
    a, b, curve, line = connect.trained(run)
    ts = np.linspace(0, 1, num_points)
    folder = run.workdir / "evaluations" / f"points_{num_points}"
    tables = {}
    for name, one in (("path", curve), ("line", line)):
        stage = f"{name}_{num_points}"
        tables[name] = connect.path_stage(
            run, stage, connect.with_stats(run, one, a, b), ts, run.evaluated
        )
        connect.write_path(folder / f"{name}.csv", ts, tables[name])
    panels = path_panels(ts, tables["path"], tables["line"], run.num_evaluated)
    figure = Chart("path", panels, PATH_CAPTION)
    chart_figure(folder, figure)
    metrics = connect.summary(curve, ts, tables["path"], tables["line"])
    title = f"{run.config.data.name}: {num_points} points of a trained path"
    page.write_document(
        folder / "report.html",
        "evaluation.html",
        title=title,
        question=connect.QUESTION,
        answer=connect.answer(metrics),
        path=chart(figure),
        numbers=page.numbers(metrics, caption=f"Over these {num_points} points"),
        definitions=page.definitions(TERMS.items()),
        config_hash=run.config_hash,
    )
    accuracy = tables["path"]["test_accuracy"]
    say(f"worst test accuracy {accuracy.min():.4f} at t = {ts[accuracy.argmin()]:.4f}")
    say(f"results in {folder}")
    return folder
