"""Declaring jobs: a base config and overrides of it, checked before anything runs.

A sweep is a Python file with `get_sweep()`:

    from launch.jobs import Sweep, grid

    def get_sweep():
        return Sweep("../backdoor_digits.py", grid({"seed": range(3), "attack.target": (1, 7)}))

or a list of such sweeps, where data sets or attacks need different base configs.
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
from mcjax.core.bucket import local
from mcjax.core.errors import UserError
from mcjax.runs.config import config_hash, flat, validate

LONGEST_SLUG = 80


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a sweep file declares.

    Args:
        base: A config, or the file it comes from, `FILE` or `FILE:quick`, seen from the sweep file.
        overrides: A dict a job: {"seed": 1, "curve.num_bends": 2}.
    """

    base: ConfigDict | str | Path
    overrides: Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of `mcjax.train`; a record.

    Args:
        id: A readable slug of the overrides, and the config's hash.
        overrides: What sets it apart from the base config.
        config_hash: Equal for configs that give equal results.
        config: Every field by its dotted name.
    """

    id: str
    overrides: Mapping[str, Any]
    config_hash: str
    config: Mapping[str, Any]


def grid(axes: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """The overrides of every combination, the last axis fastest.

    Args:
        axes: The values of each field, by its dotted name.

    Returns:
        A dict a job.

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
        Its jobs, in its order.

    Raises:
        UserError: The file is missing, raises or declares nothing; a field is unknown or its value
            impossible; two jobs are the same.
    """
    file = local(path).absolute()
    declared = _call(file, "get_sweep")
    sweeps = list(declared) if isinstance(declared, list | tuple) else [declared]
    if not all(isinstance(one, Sweep) for one in sweeps):
        raise UserError(
            f"get_sweep() of {file} returned {type(declared).__name__}; "
            "return a launch.jobs.Sweep or a list of them"
        )
    jobs = [job for one in sweeps for job in _declare(one, file.parent)]
    if not jobs:
        raise UserError(f"{file} declares no jobs; give its Sweep at least one dict of overrides")
    first: dict[str, int] = {}
    for i, job in enumerate(jobs):
        if job.id in first:
            raise UserError(
                f"jobs {first[job.id]} and {i} of {file} are the same, {job.id}; "
                "leave one out, or let an override tell them apart"
            )
        first[job.id] = i
    return jobs


def _call(file: Path, function: str, *args: str) -> Any:
    """Runs a function of a user's own program, which may raise anything."""
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
        raise UserError(f"{where}: {type(error).__name__}: {message}; mend the file") from None


def _module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_declared_by_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} is no Python file; configs/sweeps/ has examples")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _base(base: ConfigDict | str | Path, folder: Path) -> ConfigDict:
    if isinstance(base, ConfigDict):
        return base
    name, _, argument = str(base).partition(":")
    config = _call(folder / name, "get_config", *([argument] if argument else []))
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() of {folder / name} returned no ConfigDict")
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
                hint = f"did you mean {close[0]!r}?" if close else "--help of mcjax.train lists all"
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
    """What JSON can hold: a NumPy scalar's own number, tuples for lists."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    return tuple(_plain(v) for v in value) if isinstance(value, list | tuple | range) else value


def slug(overrides: Mapping[str, Any]) -> str:
    """A name for people, of letters that every file system takes.

    Example:
        >>> slug({"seed": 1, "repair.sizes": (400, 200), "data.name": "fake:digits"})
        'seed_1-sizes_400_200-name_fake_digits'
    """
    parts = []
    for name, value in overrides.items():
        text = f"{name.rsplit('.', 1)[-1]}_{value}"
        parts.append(re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_"))
    return "-".join(parts)[:LONGEST_SLUG].rstrip("-_.") or "base"
