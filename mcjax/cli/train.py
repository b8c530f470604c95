"""Runs a config's whole experiment: trains networks, connects them, evaluates the path.

    python -m mcjax.train --config configs/digits.py
    python -m mcjax.train --config configs/resnet_cifar.py --config.seed=1 --workdir runs/seed1
    python -m mcjax.train --config configs/vgg_svhn.py:quick

Everything is left in the working directory: report.html, path.csv, figures, checkpoints. The same
command again goes on where a stopped run was, and does nothing where it is complete.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from mcjax import experiments
from mcjax.cli import command
from mcjax.cli.command import NoAnswer
from mcjax.core.files import as_path
from mcjax.core.progress import say
from mcjax.runs.config import config_hash, validate


def define_flags() -> None:
    """The command's flags; defined when it runs, so that the module can be imported freely."""
    config_flags.DEFINE_config_file(
        "config", None, "Config file, configs/NAME.py, or configs/NAME.py:quick.", lock_config=True
    )
    flags.DEFINE_string(
        "workdir",
        None,
        "Where everything is left, a folder or gs://...; runs/NAME-HASH unless given.",
    )
    command.define_process_flags()


def main() -> None:
    """Reads the flags and runs the experiment."""
    config = command.config_or_error(flags.FLAGS.config)
    validate(config)  # also what the folder is named after
    run_experiment = experiments.get(config.experiment)
    config_file = config_flags.get_config_filename(flags.FLAGS["config"])
    workdir = flags.FLAGS.workdir or default_workdir(config_file, config)
    result = run_experiment(config, workdir)
    for name, value in result["metrics"].items():
        say(f"{name:32} {'not defined' if value is None else f'{value:.4f}'}")
    say(f"done in {result['seconds']:.0f} s: {as_path(workdir) / 'report.html'}")
    if result.get("problems"):
        raise NoAnswer("; ".join(result["problems"]))


def default_workdir(config_file: str, config: ConfigDict) -> Path:
    """runs/NAME-HASH: every config has its own, so that no run overwrites another."""
    return Path("runs") / f"{Path(config_file).stem}-{config_hash(config)}"
