"""The attempts of a job: each has a folder of its own, which no other attempt writes to.

    jobs/JOB_ID/attempts/0001/    attempt.json, log.txt, alive, and what mcjax.train leaves

An attempt that goes on where another stopped begins with a copy of the other's folder. Nothing here
imports JAX: a worker should start at once and stay small.
"""

import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEARTBEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 60.0
OWN_FILES = ("attempt.json", "log.txt", "alive", "result.json")  # not handed on
LARGEST_JSON = 2**24  # bytes
UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a checkpoint that is being written


def folders(job_dir: Path) -> list[Path]:
    """The folders of a job's attempts, oldest first."""
    try:
        names = os.listdir(job_dir / "attempts")
    except OSError:
        return []
    names = [name for name in names if re.fullmatch("[0-9]{1,9}", name)]
    return [job_dir / "attempts" / name for name in sorted(names, key=int)]


def begin(job_dir: Path) -> Path:
    """Makes the next attempt's folder; no two callers get the same, on whatever host they are."""
    (job_dir / "attempts").mkdir(parents=True, exist_ok=True)
    while True:
        before = folders(job_dir)
        number = int(before[-1].name) + 1 if before else 1
        folder = job_dir / "attempts" / f"{number:04d}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def read(folder: Path) -> dict[str, Any]:
    """attempt.json, {} where it is not there yet."""
    return read_json(folder / "attempt.json") or {}


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file's object; None where there is none that can be read.

    Results are read by `mcjax.report.records`, which says why; a worker knows no mcjax.
    """
    try:
        about = path.stat()  # a pipe would be waited for
        if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST_JSON:
            return None
        value = json.loads(path.read_bytes().decode())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def code_of(folder: Path) -> dict[str, Any]:
    """The version of mcjax that an attempt ran with, {} where it does not say."""
    run = read_json(folder / "config.json") or {}
    packages, revision = run.get("packages", {}), run.get("git_revision")
    version = packages.get("mcjax") if isinstance(packages, dict) else None
    code = {"version": version, "git_revision": revision}
    good = run and all(value is None or isinstance(value, str) for value in code.values())
    return code if good else {}


def set_aside(result: Path) -> Path:
    """Gives a published file that is no result of its job another name, beside it.

    Returns:
        That name's path.
    """
    for number in itertools.count(1):
        target = result.with_name(f"{result.stem}.damaged-{number}{result.suffix}")
        if not os.path.lexists(target):
            result.rename(target)
            return target
    raise AssertionError


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    with temporary.open("w") as file:
        file.write(json.dumps(value, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[Path]:
    """Marks an attempt as alive: by a lock that the kernel takes back from a dead process.

    Yields:
        The file whose time other hosts look at; touch it every HEARTBEAT_SECONDS.
    """
    path = folder / "alive"
    with path.open("w") as file:
        with contextlib.suppress(OSError):  # a file system without locks: the file's time is left
            fcntl.flock(file, fcntl.LOCK_EX)
        file.write(socket.gethostname())
        file.flush()
        yield path


def alive(folder: Path) -> bool:
    """Whether an attempt's worker is at work: on this host its lock tells, else its heartbeat."""
    path = folder / "alive"
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            if file.read(4096) == socket.gethostname().encode():
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
                except OSError:
                    pass
                else:
                    return False
        return time.time() - path.stat().st_mtime < DEAD_AFTER_SECONDS
    except OSError:
        return False


def take_over(folder: Path, config_hash: str | None = None) -> str | None:
    """Gives a new attempt what the newest earlier one with checkpoints has left.

    Files are copied; checkpoints, which nobody writes to once they are there, are linked where the
    file system can. The earlier attempt may still be at work: a checkpoint that vanishes under the
    copy is a reason to begin the copy again.

    Args:
        folder: The new attempt's.
        config_hash: The job's; an attempt whose config.json names another one is left alone.

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
    # Under another name first: a folder called checkpoints is a whole copy.
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
    """What an attempt's checkpoints hold.

    Returns:
        {"finished": names of networks and curves, "partial": {stage: step}}.
    """
    root = folder / "checkpoints"
    finished: list[str] = []
    partial: dict[str, int] = {}
    # os.walk passes over what vanishes meanwhile: the attempt may be at work.
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
