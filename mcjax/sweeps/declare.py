"""Declares jobs: a base config and overrides of it, checked before anything runs.

A sweep is a Python file with `get_sweep()`:

    from mcjax.sweeps.declare import Sweep, grid

    def get_sweep():
        return Sweep("../backdoor_digits.py", grid({"seed": range(3), "attack.target": (1, 7)}))

It may return a list of sweeps, where data sets or attacks need different base configs.
"""

import dataclasses
import difflib
import importlib.util
import itertools
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from mcjax import experiments
from mcjax.bucket import local
from mcjax.config import config_hash, flat, validate
from mcjax.errors import UserError
from mcjax.sweeps.store import Job

LONGEST_SLUG = 80


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a sweep file declares.

    Args:
        base: A config, or its file as `FILE` or `FILE:quick`, relative to the sweep file.
        overrides: One dict per job: {"seed": 1, "curve.num_bends": 2}.
    """

    base: ConfigDict | str | Path
    overrides: Sequence[Mapping[str, Any]]


def grid(axes: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """The overrides of every combination of values; the last axis varies fastest.

    Args:
        axes: The values of each field, by its dotted name.

    Returns:
        One dict per job.

    Example:
        >>> grid({"seed": range(2), "curve.num_bends": (1, 3)})[1]
        {'seed': 0, 'curve.num_bends': 3}
    """
    for field, values in axes.items():
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise UserError(f"grid: {field} is {values!r}; give a list of its values")
    return [
        dict(zip(axes, values, strict=True))
        for values in itertools.product(*(list(v) for v in axes.values()))
    ]


def load(path: str | Path) -> list[Job]:
    """The jobs that a sweep file declares.

    Args:
        path: The file.

    Returns:
        The jobs, in the file's order.

    Raises:
        UserError: The file is missing, raises an error or declares no jobs; a field is unknown or has
            an invalid value; two jobs are the same.
    """
    file = local(path).absolute()
    declared = _call(file, "get_sweep")
    sweeps = list(declared) if isinstance(declared, list | tuple) else [declared]
    if not all(isinstance(one, Sweep) for one in sweeps):
        raise UserError(
            f"get_sweep() of {file} returned {type(declared).__name__}; "
            "return a Sweep or a list of them"
        )
    jobs = [job for one in sweeps for job in _declare(one, file.parent)]
    if not jobs:
        raise UserError(f"{file} declares no jobs; give its Sweep at least one dict of overrides")
    first: dict[str, int] = {}
    for i, job in enumerate(jobs):
        if job.id in first:
            raise UserError(
                f"jobs {first[job.id]} and {i} of {file} are the same, {job.id}; "
                "remove one of them, or change an override"
            )
        first[job.id] = i
    return jobs


def _call(file: Path, function: str, *args: str) -> Any:
    """Calls a function of a user's file, which may raise any error."""
    if not file.is_file():
        raise UserError(f"there is no file {file}; configs/sweeps/ has examples")
    try:
        module = _module(file)
        if not hasattr(module, function):
            raise UserError(f"{file} has no {function}(); configs/sweeps/ has examples")
        return getattr(module, function)(*args)
    except UserError:
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
        where = f"{file}, line {frames[-1].lineno}" if frames else str(file)
        message = " ".join(str(error).split())[:300]
        raise UserError(f"{where}: {type(error).__name__}: {message}; fix the file") from None


def _module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_declared_by_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} is not a Python file; configs/sweeps/ has examples")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _base(base: ConfigDict | str | Path, folder: Path) -> ConfigDict:
    if isinstance(base, ConfigDict):
        return base
    name, _, argument = str(base).partition(":")
    config = _call(folder / name, "get_config", *([argument] if argument else []))
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() of {folder / name} did not return a ConfigDict")
    return config


def _declare(sweep: Sweep, folder: Path) -> list[Job]:
    base = _base(sweep.base, folder).copy_and_resolve_references()
    base.lock()
    fields = flat(base)
    jobs = []
    for overrides in sweep.overrides:
        values = {name: _plain(value) for name, value in overrides.items()}
        for name in values:
            if name not in fields:
                close = difflib.get_close_matches(name, fields, n=1)
                hint = (
                    f"did you mean {close[0]!r}?"
                    if close
                    else "python -m mcjax.train --help lists them"
                )
                raise UserError(f"the base config has no field {name!r} to override; {hint}")
        config = base.copy_and_resolve_references()
        try:
            config.update_from_flattened_dict(values)
        except (TypeError, ValueError) as error:
            raise UserError(f"override {values}: {str(error).splitlines()[0]}") from None
        if config.experiment not in experiments.EXPERIMENTS:
            experiments.get(config.experiment)  # raises
        validate(config)
        digest = config_hash(config)
        jobs.append(Job(f"{slug(values)}-{digest}", values, digest, flat(config)))
    return jobs


def _plain(value: Any) -> Any:
    """A value that JSON can hold: NumPy scalars as Python numbers, lists as tuples."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    return tuple(_plain(v) for v in value) if isinstance(value, list | tuple | range) else value


def slug(overrides: Mapping[str, Any]) -> str:
    """A readable name, with characters that every file system allows.

    Example:
        >>> slug({"seed": 1, "repair.sizes": (400, 200), "data.name": "fake:digits"})
        'seed_1-sizes_400_200-name_fake_digits'
    """
    parts = []
    for name, value in overrides.items():
        text = f"{name.rsplit('.', 1)[-1]}_{value}"
        parts.append(re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_"))
    return "-".join(parts)[:LONGEST_SLUG].rstrip("-_.") or "base"
