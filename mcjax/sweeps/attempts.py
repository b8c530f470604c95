"""The attempts of a job. Each has its own folder, which no other attempt writes to.

    jobs/JOB_ID/attempts/0001/    attempt.json, log.txt, alive, and the files of mcjax.train

An attempt that resumes another starts with a copy of the other's folder. No JAX is imported here, so
that a worker starts fast and stays small.
"""

import contextlib
import fcntl
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mcjax.core.atomic_files import put_json
from mcjax.runs.records import Damaged, is_attempt, read_object

HEARTBEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 60.0
OWN_FILES = ("attempt.json", "log.txt", "alive", "result.json")  # not copied to a later attempt
UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a checkpoint while it is written


def folders(job_dir: Path) -> list[Path]:
    """The folders of a job's attempts, oldest first."""
    try:
        names = [name for name in os.listdir(job_dir / "attempts") if is_attempt(name)]
    except OSError:
        return []
    return [job_dir / "attempts" / name for name in sorted(names, key=int)]


def begin(job_dir: Path) -> Path:
    """Creates the next attempt's folder; no two callers get the same one, on any host."""
    (job_dir / "attempts").mkdir(parents=True, exist_ok=True)
    while True:
        before = folders(job_dir)
        number = int(before[-1].name) + 1 if before else 1
        folder = job_dir / "attempts" / f"{number:04d}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def write(folder: Path, record: dict[str, Any]) -> None:
    """Writes attempt.json."""
    put_json(folder / "attempt.json", record)


def read(folder: Path) -> dict[str, Any]:
    """attempt.json; {} if it does not exist yet."""
    return read_json(folder / "attempt.json") or {}


def exit_code(folder: Path) -> int | None:
    """The exit code in attempt.json; None while the attempt runs, or if its worker was killed."""
    code = read(folder).get("exit_code")
    return code if isinstance(code, int) else None


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if it cannot be read (`read_object` says why)."""
    try:
        return read_object(path)
    except Damaged:
        return None


def code_of(folder: Path) -> dict[str, Any]:
    """The version of mcjax that an attempt ran with; {} if its config.json does not say."""
    run = read_json(folder / "config.json") or {}
    packages, revision = run.get("packages", {}), run.get("git_revision")
    version = packages.get("mcjax") if isinstance(packages, dict) else None
    code = {"version": version, "git_revision": revision}
    good = run and all(value is None or isinstance(value, str) for value in code.values())
    return code if good else {}


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[Path]:
    """Marks an attempt as alive, by a file lock that the kernel releases when the process ends.

    Yields:
        The locked file. Touch it every HEARTBEAT_SECONDS: other hosts look at its time.
    """
    path = folder / "alive"
    with path.open("w") as file:
        with contextlib.suppress(OSError):  # a file system without locks; the file's time remains
            fcntl.flock(file, fcntl.LOCK_EX)
        file.write(socket.gethostname())
        file.flush()
        yield path


def alive(folder: Path) -> bool:
    """Whether an attempt's worker is running: by its lock on this host, by its heartbeat on others."""
    here = alive_here(folder)
    if here is not None:
        return here
    try:
        return time.time() - (folder / "alive").stat().st_mtime < DEAD_AFTER_SECONDS
    except OSError:
        return False


def alive_here(folder: Path) -> bool | None:
    """Whether an attempt's worker is running on this host; None if its lock does not tell."""
    path = folder / "alive"
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            if file.read(4096) != socket.gethostname().encode():
                return None
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:
                return None
            return False
    except OSError:
        return False


def take_over(folder: Path, config_hash: str | None = None) -> str | None:
    """Copies the newest earlier attempt that has checkpoints into a new attempt.

    Checkpoints never change once written, so they are hard-linked where the file system can. The
    earlier attempt may still be running: if a checkpoint vanishes during the copy, the copy starts
    again.

    Args:
        folder: The new attempt's folder.
        config_hash: The job's hash; attempts whose config.json names another hash are skipped.

    Returns:
        The earlier attempt's name, or None.
    """
    earlier = [f for f in folders(folder.parent.parent) if int(f.name) < int(folder.name)]
    for old in reversed(earlier):
        if not (old / "checkpoints").is_dir():
            continue
        config = read_json(old / "config.json") or {}
        if config_hash is not None and config.get("hash", config_hash) != config_hash:
            continue
        for _ in range(5):
            with contextlib.suppress(FileNotFoundError, shutil.Error):
                _copy(old, folder)
                return old.name
            time.sleep(0.2)
    return None


def _copy(old: Path, new: Path) -> None:
    def leave_out(_: str, names: list[str]) -> set[str]:
        return {n for n in names if UNFINISHED in n or (n.startswith(".") and n.endswith(".tmp"))}

    for child in old.iterdir():
        if child.name in (*OWN_FILES, "checkpoints") or leave_out("", [child.name]):
            continue
        if child.is_dir():
            shutil.copytree(child, new / child.name, ignore=leave_out, dirs_exist_ok=True)
        elif child.is_file():
            shutil.copy2(child, new / child.name)
    # Under a temporary name first: a folder called checkpoints is always a complete copy.
    part = new / ".checkpoints"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(old / "checkpoints", part, ignore=leave_out, copy_function=_link)
    part.rename(new / "checkpoints")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def progress(folder: Path) -> dict[str, Any]:
    """Which checkpoints an attempt has.

    Returns:
        {"finished": names of networks and curves, "partial": {stage: step}}.
    """
    root = folder / "checkpoints"
    finished: list[str] = []
    partial: dict[str, int] = {}
    # The attempt may be running; os.walk skips folders that vanish.
    for path, inside, files in os.walk(root):
        inside[:] = sorted(name for name in inside if UNFINISHED not in name)
        if "_CHECKPOINT_METADATA" not in files:
            continue
        inside.clear()
        name = Path(path).relative_to(root)
        if name.parts[:1] != (".partial",):
            finished.append(str(name))
        elif re.fullmatch("[0-9]{1,18}", name.name):
            partial[str(Path(*name.parts[1:-1]))] = int(name.name)
    return {"finished": finished, "partial": partial}
