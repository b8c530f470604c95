"""Experiments by name: a new one is a file with `run_experiment` and a line here."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mcjax.core.errors import UserError

EXPERIMENTS = {
    "backdoor": "mcjax.experiments.backdoor",
    "connect": "mcjax.experiments.connect",
    "evasion": "mcjax.experiments.evasion",
    "injection": "mcjax.experiments.injection",
}


def get(name: str) -> Callable[[ConfigDict, str | Path], dict[str, Any]]:
    """The function `run_experiment(config, workdir)` of an experiment.

    Raises:
        UserError: There is no experiment of that name.

    Example:
        >>> get("connect").__name__
        'run_experiment'
    """
    if name not in EXPERIMENTS:
        raise UserError(f"unknown config.experiment {name!r}; use one of {', '.join(EXPERIMENTS)}")
    return importlib.import_module(EXPERIMENTS[name]).run_experiment
