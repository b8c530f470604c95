"""A run's working directory: opening it safely, and writing into it atomically.

It may be a folder or a place in a bucket (gs://BUCKET/PLACE), whose paths `as_path` makes alike; what
differs (renames, appending, "only if it is not there") is known here and in `checkpoint` alone.
Where several processes run, the first reads and writes, and the others hear how it went.
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
from mcjax.atomic import put_file
from mcjax.bucket import in_bucket, local
from mcjax.config import config_hash, hashed_fields
from mcjax.csv_text import to_csv
from mcjax.errors import UserError
from mcjax.processes import once

PACKAGES = ("mcjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "chex")


def as_path(path: str | os.PathLike) -> Path:
    """An absolute path of a folder, or of a place in a bucket; both are used as a `pathlib.Path`.

    Raises:
        UserError: A bucket of a kind that can't be read, or its package is not installed.

    Example:
        >>> as_path("/runs/digits").name
        'digits'
    """
    text = os.fspath(path)
    if "://" not in text:
        return local(path).absolute()
    from etils import epath  # a local run needs none of it

    try:
        place = epath.Path(text)
        place.exists()
    except ImportError:
        raise UserError(f"{text} needs one more package: pip install 'mcjax[gcs]'") from None
    except Exception as error:  # every bucket's package has errors of its own
        raise UserError(f"{text} can't be reached ({first_line(error)})") from None
    return cast(Path, place)


COMPUTED = ("checkpoints", "result.json", "paths", "path.csv", "table.csv")


def open_workdir(
    path: str | Path, config: ConfigDict, data: Mapping[str, str] | None = None
) -> Path:
    """Makes the directory, or takes up the run that stands in it, if it is of this config.

    Args:
        path: The directory; made with its parents.
        config: The run's config; written as config.json.
        data: Hashes of the parts of its data, kept there too.

    Returns:
        The absolute path.

    Raises:
        UserError: It can't be written to, or holds a run of another config or on other data, or
            results without the config.json that says whose they are.
    """
    workdir = as_path(path)
    once(lambda: _open(workdir, config, dict(data or {})))
    return workdir


def _open(workdir: Path, config: ConfigDict, data: dict[str, str]) -> None:
    computed = [name for name in COMPUTED if (workdir / name).exists()]
    old = read_config(workdir) if (workdir / "config.json").exists() else None
    if old is None and computed:
        raise UserError(
            f"{workdir} holds {computed[0]} but no config.json, so nobody knows of which run; "
            "delete the folder, or give another --workdir"
        )
    kept = (old or {}).get("data", data)
    other_data = sorted(name for name in kept if kept[name] != data.get(name)) if data else []
    other_config = old is not None and old.get("hash") != config_hash(config)
    if (other_config or other_data) and not computed:
        old = None  # a run that ended in a mistake before anything was computed
    elif old is not None and other_config:
        before, now = old.get("hashed", {}), hashed_fields(config)
        changed = [k for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
        what = ", ".join(f"{k}: {before.get(k)} there, {now.get(k)} now" for k in changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"{workdir} holds a run of another config ({what}{more}); give another --workdir"
        )
    elif other_data:
        raise UserError(
            f"the data are no longer those that {workdir} began with ({', '.join(other_data)} differ): "
            "bring those back, or give another --workdir"
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
    """config.json of a run.

    Raises:
        UserError: There is none, or it is not JSON.
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
            raise ValueError("it is not one that mcjax.train wrote")
        return record
    except FileNotFoundError:
        raise UserError(
            f"{workdir} is no run: it has no config.json; give a run's --workdir"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} can't be read ({first_line(error)}); delete the folder and run again"
        ) from None


def arch_of_run(path: Path) -> str:
    """The architecture, as --arch takes it, of the run that a checkpoint is in; "" if it is in none."""
    for folder in path.absolute().parents:
        if (folder / "config.json").exists():
            with contextlib.suppress(UserError, KeyError, TypeError):  # another program's
                model = read_config(folder)["config"]["model"]
                return spec.write(model["name"], model["options"])
    return ""


def provenance() -> dict[str, Any]:
    """Where a run was computed: git revision, versions, device kind and count."""
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
    """What computes: the git revision and the versions of the packages."""
    return {
        "git_revision": git_revision(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def version(name: str) -> str:
    """The version of an installed package, or words that say that it is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed as a package"


def git_revision() -> str | None:
    """The commit that this code stands at, with -dirty where files differ; None without git."""
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # else the repository is somebody else's
        return git("describe", "--always", "--dirty", "--abbrev=40")
    except (OSError, subprocess.SubprocessError):
        return None


def write(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all: to a temporary name, then renamed.

    Raises:
        UserError: The directory can't be written to, or the disk is full.
    """
    once(lambda: _put(path, content, replace=True))


def publish(path: Path, content: str | bytes) -> bool:
    """Writes a file as `write` does, but only if it is not there: of two writers one wins.

    Returns:
        Whether it was this call that wrote it.

    Raises:
        UserError: As `write`.
    """
    return once(lambda: _put(path, content, replace=False))


def _put(path: Path, content: str | bytes, *, replace: bool) -> bool:
    data = content.encode() if isinstance(content, str) else content
    try:
        return (_put_object if in_bucket(path) else put_file)(path, data, replace=replace)
    except OSError as error:
        raise cannot_write(path, error) from None


def _put_object(path: Path, data: bytes, *, replace: bool) -> bool:
    """An object appears when all of it is there; "create" leaves alone one that is there."""
    import fsspec

    try:
        filesystem, name = fsspec.url_to_fs(os.fspath(path))
        filesystem.pipe_file(name, data, mode="overwrite" if replace else "create")
        return True
    except FileExistsError:
        return False
    except Exception as error:  # every bucket's package has errors of its own
        raise OSError(first_line(error)) from None


def delete(path: Path) -> None:
    """Deletes a folder and all in it; none is no error."""

    def remove() -> None:
        if in_bucket(path):
            with contextlib.suppress(Exception):
                cast(Any, path).rmtree(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)

    once(remove)


def first_line(error: Exception) -> str:
    """What an error says, in one line of at most 200 characters; its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


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
    write(path, to_csv(columns, ([row.get(column, "") for column in columns] for row in rows)))


def read_csv(path: Path) -> dict[str, list[float]]:
    """A table of numbers by column.

    Raises:
        UserError: It can't be read.
    """
    try:
        names, *lines = csv.reader(io.StringIO(path.read_text(), newline=""), strict=True)
        if len(set(names)) < len(names):
            raise ValueError("two columns of one name")
        columns = zip(*[map(float, line) for line in lines if line], strict=True)
        return dict(zip(names, map(list, columns), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} can't be read ({error}); delete it and run the same command again"
        ) from None
