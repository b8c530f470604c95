"""A run's working directory: opened safely and written atomically.

It is a folder or a location in a bucket (gs://BUCKET/PATH); `as_path` gives both the same interface.
The differences (renaming, appending, exclusive creation) are handled here and in `checkpoint` only.
With several processes, process 0 reads and writes, and the others receive the result.
"""

import contextlib
import csv
import io
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import jax
from ml_collections import ConfigDict

from mcjax import spec
from mcjax.bucket import in_bucket, local
from mcjax.config import config_hash, hashed_fields
from mcjax.csv_text import to_csv
from mcjax.errors import UserError
from mcjax.processes import once

PACKAGES = ("mcjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "chex")


def as_path(path: str | os.PathLike) -> Path:
    """The absolute path of a folder or a location in a bucket, with the interface of `pathlib.Path`.

    Raises:
        UserError: The kind of bucket is not supported, or its package is not installed.

    Example:
        >>> as_path("/runs/digits").name
        'digits'
    """
    text = os.fspath(path)
    if "://" not in text:
        return local(path).absolute()
    from etils import epath  # not needed for local runs

    try:
        place = epath.Path(text)
        place.exists()
    except ImportError:
        raise UserError(f"{text} needs one more package: pip install 'mcjax[gcs]'") from None
    except Exception as error:  # each bucket package raises its own types
        raise UserError(f"{text} can't be reached ({first_line(error)})") from None
    return cast(Path, place)


COMPUTED = ("checkpoints", "result.json", "paths", "path.csv", "table.csv")


def open_workdir(
    path: str | Path, config: ConfigDict, data: Mapping[str, str] | None = None
) -> Path:
    """Creates the directory, or resumes the run in it if its config is the same.

    Args:
        path: The directory; created with its parents.
        config: The run's config; written as config.json.
        data: Hashes of the parts of its data, also written to config.json.

    Returns:
        The absolute path.

    Raises:
        UserError: The directory is not writable, or it contains a run with a different config or
            different data, or results without a config.json.
    """
    workdir = as_path(path)
    once(lambda: _open(workdir, config, dict(data or {})))
    return workdir


def _open(workdir: Path, config: ConfigDict, data: dict[str, str]) -> None:
    computed = [name for name in COMPUTED if (workdir / name).exists()]
    old = read_config(workdir) if (workdir / "config.json").exists() else None
    if old is None and computed:
        raise UserError(
            f"{workdir} holds {computed[0]} but no config.json, so its run is unknown; delete the "
            "folder, or give another workdir"
        )
    kept = (old or {}).get("data", data)
    other_data = sorted(name for name in kept if kept[name] != data.get(name)) if data else []
    other_config = old is not None and old.get("hash") != config_hash(config)
    if (other_config or other_data) and not computed:
        old = None  # a run that failed before anything was computed
    elif old is not None and other_config:
        before, now = old.get("hashed", {}), hashed_fields(config)
        changed = [k for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
        what = ", ".join(f"{k}: {before.get(k)} there, {now.get(k)} now" for k in changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"{workdir} holds a run of another config ({what}{more}); give another workdir"
        )
    elif other_data:
        raise UserError(
            f"the data are not those that {workdir} began with ({', '.join(other_data)} differ); "
            "restore them, or give another workdir"
        )
    if old is not None and all(old.get(name) == value for name, value in code().items()):
        return
    record = {
        "hash": config_hash(config),
        "hashed": hashed_fields(config),
        "config": json.loads(config.to_json()),
        "data": data,
        **provenance(),
    }
    write(workdir / "config.json", json.dumps(record, indent=2) + "\n")


def read_config(workdir: Path) -> dict[str, Any]:
    """Reads a run's config.json.

    Raises:
        UserError: The file does not exist or is not valid.
    """
    return once(lambda: _read_config(workdir))


def _read_config(workdir: Path) -> dict[str, Any]:
    path = workdir / "config.json"
    try:
        record = json.loads(path.read_text())
        parts = {"hash": str, "hashed": dict, "config": dict, "data": dict}
        if (
            not isinstance(record, dict)
            or not record.keys() & {"hashed", "config"}
            or not all(isinstance(record.get(x, kind()), kind) for x, kind in parts.items())
        ):
            raise ValueError("it was not written by mcjax.train")
        return record
    except FileNotFoundError:
        raise UserError(
            f"{workdir} has no config.json, so it is not a run; give the workdir of a run"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} can't be read ({first_line(error)}); delete the folder and run again"
        ) from None


def arch_of_run(path: Path) -> str:
    """The architecture spec of the run that contains a checkpoint, or "" if there is none."""
    for folder in path.absolute().parents:
        if (folder / "config.json").exists():
            with contextlib.suppress(UserError, KeyError, TypeError):  # not written by mcjax
                model = read_config(folder)["config"]["model"]
                return spec.write(model["name"], model["options"])
    return ""


def provenance() -> dict[str, Any]:
    """Provenance of a run: git revision, versions, device kind and count."""
    devices = jax.devices()
    return {
        **code(),
        "python": platform.python_version(),
        "device_kind": devices[0].device_kind,
        "num_devices": len(devices),
        "num_processes": jax.process_count(),
        "num_cpus": os.cpu_count(),
        "command": sys.argv,
    }


def code() -> dict[str, Any]:
    """The git revision and package versions."""
    return {
        "git_revision": git_revision(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def version(name: str) -> str:
    """The version of a package, or "not installed as a package"."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed as a package"


def git_revision() -> str | None:
    """The git commit of this code, with -dirty if files are modified; None without git."""
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # fails if the repository is not mcjax's
        return git("describe", "--always", "--dirty", "--abbrev=40")
    except (OSError, subprocess.SubprocessError):
        return None


def write(path: Path, content: str | bytes) -> None:
    """Writes a file atomically: to a temporary name, then renamed.

    Raises:
        UserError: The directory is not writable, or the disk is full.
    """
    once(lambda: _put(path, content, replace=True))


def publish(path: Path, content: str | bytes) -> bool:
    """Like `write`, but only if the file does not exist; one of several writers succeeds.

    Returns:
        Whether this call wrote it.

    Raises:
        UserError: As `write`.
    """
    return once(lambda: _put(path, content, replace=False))


def _put(path: Path, content: str | bytes, *, replace: bool) -> bool:
    data = content.encode() if isinstance(content, str) else content
    try:
        return (_put_object if in_bucket(path) else _put_file)(path, data, replace=replace)
    except OSError as error:
        raise cannot_write(path, error) from None


def _put_file(path: Path, data: bytes, *, replace: bool) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
            return True
        try:
            os.link(temporary, path)  # unlike a rename, fails if the path exists
        except FileExistsError:
            return False
        except OSError:  # a file system without links, such as a mounted bucket
            return _create(path, data)
        return True
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _create(path: Path, data: bytes) -> bool:
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(data)
    except OSError:
        path.unlink(missing_ok=True)  # remove the partial file
        raise
    return True


def _put_object(path: Path, data: bytes, *, replace: bool) -> bool:
    """Objects are written atomically; "create" fails if the object exists."""
    import fsspec

    try:
        filesystem, name = fsspec.url_to_fs(os.fspath(path))
        filesystem.pipe_file(name, data, mode="overwrite" if replace else "create")
        return True
    except FileExistsError:
        return False
    except Exception as error:  # each bucket package raises its own types
        raise OSError(first_line(error)) from None


def delete(path: Path) -> None:
    """Deletes a folder and its contents, if it exists."""

    def remove() -> None:
        if in_bucket(path):
            with contextlib.suppress(Exception):
                cast(Any, path).rmtree(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)

    once(remove)


def first_line(error: Exception) -> str:
    """The first line of an error's message, at most 200 characters; its type if that is empty."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def cannot_write(path: Path, error: OSError | str) -> UserError:
    """The error to raise for a failed write."""
    reason = error.strerror or str(error) if isinstance(error, OSError) else error
    return UserError(
        f"can't write {path}: {reason}; make room or give another workdir, then run again: "
        "finished work is kept"
    )


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a CSV table; floats keep all digits, so equal values give equal bytes."""
    columns = list(columns)
    write(path, to_csv(columns, ([row.get(column, "") for column in columns] for row in rows)))


def read_csv(path: Path) -> dict[str, list[float]]:
    """Reads a CSV table of numbers, by column.

    Raises:
        UserError: The file can't be read.
    """
    try:
        names, *lines = csv.reader(io.StringIO(path.read_text(), newline=""), strict=True)
        if len(set(names)) < len(names):
            raise ValueError("duplicate column names")
        columns = zip(*[map(float, line) for line in lines if line], strict=True)
        return dict(zip(names, map(list, columns), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} can't be read ({error}); delete it and run the same command again"
        ) from None
