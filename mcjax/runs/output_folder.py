"""The output folder of a command: a new one, or one that is complete for the same arguments."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mcjax.core.bucket import local
from mcjax.core.errors import UserError, listed
from mcjax.core.files import write
from mcjax.runs.seal import is_sealed, sealed

RESULT = "result.json"
COMPLETE = "complete"
"""The status of a result that lacks nothing."""


def new_folder(
    path: str | os.PathLike, name: str, question: Mapping[str, Any] | None = None
) -> Path:
    """An output folder that does not exist yet, or is empty.

    Args:
        path: The folder.
        name: What messages call it.
        question: The result of `asked`; the message says how it differs from the folder's.

    Raises:
        UserError: It holds something, or can't be made.
    """
    folder = local(path).absolute()
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        others = _differing(_read(folder) or {}, question or {})
        made = f" (it has the results of other {listed(others)})" if others else ""
        raise UserError(f"{folder} exists{made}; give a new {name}, nothing is overwritten")
    try:  # checked before what takes long
        folder.mkdir(parents=True, exist_ok=True)
        folder.rmdir()
    except OSError as error:
        raise UserError(f"can't make {folder}: {error.strerror}; give another {name}") from None
    return folder


def asked(arguments: Mapping[str, Any], files: Iterable[str | None] = ()) -> dict[str, Any]:
    """What a command is asked: its arguments, and the state of the files that they name.

    Args:
        arguments: JSON values by name.
        files: Files and folders; of those that exist, names, sizes and times of change count.

    Example:
        >>> asked({"seed": 0}, ["no such file"])
        {'arguments': {'seed': 0}, 'files': {'no such file': ''}}
    """
    states = {file: _state(local(file)) for file in files if file}
    return json.loads(json.dumps({"arguments": dict(arguments), "files": states}))


def answered(folder: Path, question: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result in a folder, if it is complete and answers the same question.

    Args:
        folder: The output folder.
        question: The result of `asked`.

    Returns:
        The contents of result.json; None if the question is another one, or a file is missing or
        damaged.
    """
    result = _read(folder)
    if result is None or result.get("asked") != question:
        return None
    return result if all((folder / name).exists() for name in result["written"]) else None


def finish(
    folder: Path, result: Mapping[str, Any], question: Mapping[str, Any] | None = None
) -> None:
    """Writes result.json, after all other files.

    Args:
        folder: The output folder.
        result: JSON values by name.
        question: The result of `asked`, for a later `answered`.

    Raises:
        UserError: It can't be written.
    """
    more = {"asked": question, "written": sorted(os.listdir(folder))} if question else {}
    whole = json.loads(json.dumps({**result, **more}))  # as the file will have it
    write(folder / RESULT, json.dumps(sealed(whole), indent=2) + "\n")


def _read(folder: Path) -> dict[str, Any] | None:
    """A result that `finish` wrote."""
    try:
        result = json.loads((folder / RESULT).read_text())
        return result if is_sealed(result) else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _differing(result: Mapping[str, Any], question: Mapping[str, Any]) -> list[str]:
    """The arguments that differ, and the files that have changed since; [] if that is not known."""
    found = []
    if "asked" in result and question:
        before, now = result["asked"]["arguments"], question["arguments"]
        found += [f"--{name}" for name in now if before.get(name) != now[name]]
        before, now = result["asked"]["files"], question["files"]
        found += [f"contents of {name}" for name in now if before.get(name, now[name]) != now[name]]
    return found


def _state(path: Path) -> str:
    """A digest of the names, sizes and times of change of a file, of a folder's or of a pattern's files."""
    found = []
    for file in _files(path):
        try:
            about = file.stat()
        except OSError:  # there is no such file: the command will say so
            continue
        found.append((str(file), about.st_size, about.st_mtime_ns))
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:12] if found else ""


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.rglob("*"))
    try:
        return [path] if path.exists() else sorted(path.parent.glob(path.name))
    except (OSError, ValueError):  # no name and no pattern of files
        return []
