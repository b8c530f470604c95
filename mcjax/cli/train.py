"""Runs an experiment: trains networks, connects them and evaluates the path.

    python -m mcjax.train --config configs/digits.py
    python -m mcjax.train --config configs/resnet_cifar.py --config.seed=1 --workdir runs/seed1
    python -m mcjax.train --config configs/vgg_svhn.py:quick

All results are in the working directory: report.html, path.csv, figures, checkpoints. Run the same
command again to resume a stopped run; it does nothing if the run is complete.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from mcjax import experiments
from mcjax.cli import command
from mcjax.cli.command import NoAnswer
from mcjax.core.files import as_path
from mcjax.core.progress import say
from mcjax.runs.complete import complete
from mcjax.runs.config import config_hash, validate


def define_flags() -> None:
    """Defines the command's flags, when the command runs and not when the module is imported."""
    config_flags.DEFINE_config_file(
        "config", None, "Config file, configs/NAME.py, or configs/NAME.py:quick.", lock_config=True
    )
    flags.DEFINE_string(
        "workdir",
        None,
        "Working directory, a folder or gs://...; default: runs/NAME-HASH, with the name of other data.",
    )
    command.define_process_flags()


def main() -> None:
    """Reads the flags and runs the experiment."""
    config = command.config_or_error(flags.FLAGS.config)
    validate(config)  # before the config's values are used in the folder's name
    config_file = config_flags.get_config_filename(flags.FLAGS["config"])
    changed = config_flags.get_override_values(flags.FLAGS["config"])
    workdir = flags.FLAGS.workdir or default_workdir(config_file, config, changed)
    command.use_cpu_convolution(config)
    before = complete(config, workdir)
    # An experiment's imports take as long as all the rest of a complete run.
    result = before or experiments.get(config.experiment)(config, workdir)
    for sentence in result.get("answer", ()):  # none in a result that an earlier version wrote
        say(sentence)
    page = as_path(workdir) / "report.html"
    if before:
        command.say_already(result, page)
    else:
        say(f"done in {result['seconds']:.0f} s: {page}")
    if result.get("problems"):
        raise NoAnswer("; ".join(result["problems"]))


def default_workdir(config_file: str, config: ConfigDict, changed: Mapping[str, Any]) -> Path:
    """runs/NAME-HASH, which is different for each config, so runs do not overwrite each other.

    Args:
        config_file: The config's file, of which NAME is the stem.
        config: The config.
        changed: The fields that were changed on the command line; other data are part of the name.

    Example:
        >>> from mcjax.runs import config as base
        >>> config = base.connect()
        >>> config.data.name = "npz:my images.npz"
        >>> folder = default_workdir("configs/digits.py", config, {"data.name": config.data.name})
        >>> folder.name.rpartition("-")[0]
        'digits-my_images'
    """
    name = Path(config_file).stem
    if "data.name" in changed:
        kind, _, rest = str(config.data.name).partition(":")
        data = Path(rest).stem if rest else kind
        name = f"{name}-{re.sub(r'[^A-Za-z0-9_.]+', '_', data)[:40]}"
    return Path("runs") / f"{name}-{config_hash(config)}"
