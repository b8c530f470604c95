"""A run's working directory: opening it safely, and writing into it atomically."""

import contextlib
import csv
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from mcjax.config import config_hash, hashed_fields
from mcjax.errors import UserError

PACKAGES = ("mcjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "chex")


def open_workdir(path: str | Path, config: ConfigDict) -> Path:
    """Makes the directory, or takes up the run that stands in it, if it is of this config.

    Args:
        path: The directory; made with its parents.
        config: The run's config; written as config.json.

    Returns:
        The absolute path.

    Raises:
        UserError: It can't be written to, or holds a run of another config.
    """
    workdir = Path(path).expanduser().absolute()
    old = read_config(workdir) if (workdir / "config.json").exists() else None
    changed_config = old is not None and old.get("hash") != config_hash(config)
    if changed_config and not (workdir / "checkpoints").exists():
        old = None  # a run that ended in a mistake before anything was computed
    elif old is not None and changed_config:
        before, now = old.get("hashed", {}), hashed_fields(config)
        changed = [k for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
        what = ", ".join(f"{k}: {before.get(k)} there, {now.get(k)} now" for k in changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"{workdir} holds a run of another config ({what}{more}); give another --workdir"
        )
    if old is None:
        record = {
            "hash": config_hash(config),
            "hashed": hashed_fields(config),
            "config": json.loads(config.to_json()),
            **provenance(),
        }
        write(workdir / "config.json", json.dumps(record, indent=2) + "\n")
    return workdir


def read_config(workdir: Path) -> dict[str, Any]:
    """config.json of a run.

    Raises:
        UserError: There is none, or it is not JSON.
    """
    path = workdir / "config.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"{workdir} is no run: it has no config.json; give a run's --workdir"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read ({error}); delete the folder and run again"
        ) from None


def provenance() -> dict[str, Any]:
    """Where a run was computed: git revision, versions, device kind and count."""
    devices = jax.devices()
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    return {
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "packages": versions,
        "device_kind": devices[0].device_kind,
        "num_devices": len(devices),
        "num_cpus": os.cpu_count(),
        "command": sys.argv,
    }


def _git_revision() -> str | None:
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def write(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all: to a temporary name, then renamed.

    Raises:
        UserError: The directory can't be written to, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: OSError | str) -> UserError:
    """The error of a failed write, with what to do about it."""
    reason = error.strerror or str(error) if isinstance(error, OSError) else error
    return UserError(
        f"can't write {path}: {reason}; make room or give another --workdir, "
        "and run the same command again: what is computed stays"
    )


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a table; floats keep every digit, so that equal numbers are equal bytes."""
    columns = list(columns)
    lines = [",".join(columns)]
    lines += [",".join(_cell(row.get(column, "")) for column in columns) for row in rows]
    write(path, "\n".join(lines) + "\n")


def _cell(value: Any) -> str:
    return repr(float(value)) if isinstance(value, float) else str(value)


def read_csv(path: Path) -> dict[str, list[float]]:
    """A table of numbers by column.

    Raises:
        UserError: It can't be read.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in rows[0]}
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise UserError(
            f"{path} can't be read ({error}); delete it and run the same command again"
        ) from None
