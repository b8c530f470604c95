"""Evaluates a trained path at other or more t's.

    python -m mcjax.evaluate --workdir runs/digits-... --num_points 201
    python -m mcjax.evaluate --workdir runs/digits-... --num_points 11 --attack autoattack --eps 0.1

Writes evaluations/points_N/path.csv, line.csv, path.png and report.html in the run's directory; the
run's other files do not change. With --attack autoattack also autoattack.csv: robust accuracy at every t
by AutoAttack, and by PGD on the same images.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from mcjax.cli import command
from mcjax.core.errors import UserError
from mcjax.core.files import as_path
from mcjax.core.progress import say
from mcjax.experiments import connect
from mcjax.experiments.stages.autoattack import autoattack_stage, write_autoattack
from mcjax.experiments.stages.path import Table
from mcjax.report import page
from mcjax.report.autoattack_figures import autoattack_panel
from mcjax.report.chart import chart
from mcjax.report.connect_figures import PATH_CAPTION, path_panels
from mcjax.report.definitions import TERMS
from mcjax.report.figures import chart_figure
from mcjax.report.panels import Chart
from mcjax.runs.config import validate
from mcjax.runs.run import Run, open_run
from mcjax.runs.workdir import read_config


def define_flags() -> None:
    """Defines the command's flags, when the command runs and not when the module is imported."""
    flags.DEFINE_string("workdir", None, "The directory of a finished run.")
    flags.DEFINE_integer(
        "num_points", 61, "Number of t's, equally spaced, including the endpoints."
    )
    flags.DEFINE_enum("attack", "none", ["none", "autoattack"], "Also attack every point.")
    flags.DEFINE_float("eps", None, "Radius of the attack's ball, images in [0, 1].")
    flags.DEFINE_enum("norm", "linf", ["linf", "l2", "l1"], "Norm of the attack's ball.")
    flags.DEFINE_integer("num_images", 200, "Test images to attack.")
    flags.DEFINE_integer("num_queries", 5000, "Queries of AutoAttack's Square; standard: 5000.")
    flags.DEFINE_integer("num_steps", 100, "Steps of AutoAttack's APGD and FAB; standard: 100.")
    command.define_process_flags()


def main() -> None:
    """Reads the flags and evaluates."""
    workdir, num_points = flags.FLAGS.workdir, flags.FLAGS.num_points
    if not workdir:
        raise UserError("no run was given; add --workdir DIR, the workdir of a run of mcjax.train")
    if num_points < 2:
        raise UserError(f"--num_points is {num_points}; it must be at least 2")
    f = flags.FLAGS
    attacked = f.attack != "none"
    if attacked != (f.eps is not None):
        raise UserError("give --attack autoattack and --eps EPS together, e.g. --eps 0.1")
    if attacked and not f.eps > 0:
        raise UserError(f"--eps is {f.eps}; it must be above 0")
    for name in ("num_images", "num_queries", "num_steps"):
        if getattr(f, name) < 1:
            raise UserError(f"--{name} is {getattr(f, name)}; it must be at least 1")
    attack = Attack(f.eps, f.norm, f.num_images, f.num_steps, f.num_queries) if attacked else None
    command.use_cpu_convolution(config_of(as_path(workdir)))
    evaluate(as_path(workdir), num_points, attack)


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


class Attack(NamedTuple):
    """The settings of AutoAttack along the path; see `mcjax.autoattack`."""

    eps: float
    norm: str = "linf"
    num_images: int = 200
    num_steps: int = 100
    num_queries: int = 5000


def evaluate(workdir: Path, num_points: int, attack: Attack | None = None) -> Path:
    """Evaluates a run's trained curve, and the straight line, at equally spaced t's.

    Args:
        workdir: The run's directory.
        num_points: Number of t's.
        attack: AutoAttack at every t of the curve; None leaves it out.

    Returns:
        The folder with path.csv, line.csv, path.png and report.html, and with an attack autoattack.csv.

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
    caption = PATH_CAPTION
    metrics = connect.summary(curve, ts, tables["path"], tables["line"])
    if attack is not None:
        points = connect.with_stats(run, curve, a, b)
        robust = under_attack(run, points, ts, attack, folder / "autoattack.csv")
        panels.append(
            autoattack_panel(robust, min(attack.num_images, len(run.splits.test["label"])))
        )
        caption += f" Right: under attacks in the {attack.norm} ball of radius {attack.eps:g}."
    figure = Chart("path", panels, caption)
    chart_figure(folder, figure)
    title = f"{run.config.data.name}: {num_points} points of a trained path"
    page.write_document(
        folder / "report.html",
        "evaluation.html",
        title=title,
        question=connect.QUESTION,
        answer=connect.answer(metrics, guessing=connect.guessing(run)),
        path=chart(figure),
        numbers=page.numbers(metrics, caption=f"Over these {num_points} points"),
        definitions=page.definitions(TERMS.items()),
        config_hash=run.config_hash,
    )
    accuracy = tables["path"]["test_accuracy"]
    say(f"worst test accuracy {accuracy.min():.4f} at t = {ts[accuracy.argmin()]:.4f}")
    if attack is not None:
        by_t = robust["autoattack_accuracy"]
        say(f"worst accuracy under AutoAttack {by_t.min():.4f} at t = {ts[by_t.argmin()]:.4f}")
    say(f"results in {folder}")
    return folder


def under_attack(run: Run, points: Any, ts: np.ndarray, attack: Attack, file: Path) -> Table:
    """AutoAttack and PGD (20 steps of eps / 8) at every t: the means, which it writes."""
    words = "_".join(map(str, attack))
    table = autoattack_stage(
        run, f"autoattack_{len(ts)}_{words}", points, ts,
        batch_size=run.config.evaluation.batch_size, pgd_step_size=attack.eps / 8, pgd_num_steps=20,
        **attack._asdict(),
    )  # fmt: skip
    return write_autoattack(file, ts, table)
