"""Another look along a path that is already trained, at other or more t's.

    python -m mcjax.evaluate --workdir runs/digits-... --num_points 201

Leaves evaluations/points_N/path.csv, line.csv, path.png and report.html in the run's directory; the run's own files stay.
"""

from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from mcjax import command
from mcjax.config import validate
from mcjax.errors import UserError
from mcjax.experiments import connect
from mcjax.experiments.run import open_run
from mcjax.logs import say
from mcjax.report import page
from mcjax.report.chart import chart
from mcjax.report.connect_figures import PATH_CAPTION, path_panels
from mcjax.report.definitions import TERMS
from mcjax.report.figures import chart_figure
from mcjax.report.panels import Chart
from mcjax.workdir import as_path, read_config


def define_flags() -> None:
    """The command's flags; defined when it runs, so that the module can be imported freely."""
    flags.DEFINE_string("workdir", None, "The directory of a finished run.")
    flags.DEFINE_integer("num_points", 61, "Number of t's, equally spaced, ends included.")
    command.define_process_flags()


def main() -> None:
    """Reads the flags and evaluates."""
    workdir, num_points = flags.FLAGS.workdir, flags.FLAGS.num_points
    if not workdir:
        raise UserError("no run was given; add --workdir DIR, one that mcjax.train has left")
    if num_points < 2:
        raise UserError(f"--num_points is {num_points}; it must be at least 2")
    evaluate(as_path(workdir), num_points)


def config_of(workdir: Path) -> ConfigDict:
    """The config of a run of connect, whole.

    Raises:
        UserError: There is none, it is another experiment's, or it lacks fields.
    """
    config = ConfigDict(read_config(workdir).get("config", {}))
    experiment = config.get("experiment")
    if experiment != "connect":
        raise UserError(
            f"{workdir} is a run of the experiment {experiment}, whose paths are in its table; "
            "this command looks along the one curve of connect"
        )
    try:
        validate(config)
    except UserError as error:
        raise UserError(
            f"{workdir / 'config.json'} is damaged, or of another version of mcjax ({error}); run "
            "mcjax.train with that version, or give another --workdir"
        ) from None
    return config


def evaluate(workdir: Path, num_points: int) -> Path:
    """Evaluates the trained curve of a run, and its straight line, at equally spaced t's.

    Args:
        workdir: The run's directory.
        num_points: Number of t's.

    Returns:
        The folder with path.csv, line.csv, path.png and report.html.

    Raises:
        UserError: The directory holds no trained curve.
    """
    config = config_of(as_path(workdir))
    run = open_run(config, workdir)
    a, b, curve, line = connect.trained(run)
    ts = np.linspace(0, 1, num_points)
    folder = run.workdir / "evaluations" / f"points_{num_points}"
    tables = {}
    for name, one in (("path", curve), ("line", line)):
        stage = f"{name}_{num_points}"
        tables[name] = connect.walk(
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
    say(f"left in {folder}")
    return folder


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
