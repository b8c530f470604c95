"""A cache for verified arrays that are slow to read from their original files."""

import contextlib
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def default_dir() -> Path:
    """$XDG_CACHE_HOME/mcjax, or ~/.cache/mcjax.

    Returns:
        The folder, which may not exist.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcjax"


def key(name: str, checksums: Iterable[str], files: Iterable[Path]) -> str:
    """Makes the key of a cache entry from its inputs.

    Args:
        name: Data set name.
        checksums: Published checksums that were verified.
        files: The original files; their size and modification time are part of the key, so a
            replaced file is verified again.

    Returns:
        The entry's file name without suffix.
    """
    digest = hashlib.sha256(" ".join(checksums).encode())
    for path in sorted(files):
        stat = path.stat()
        digest.update(f" {path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode())
    return f"{name}-{digest.hexdigest()[:32]}"


def read(folder: Path, key: str) -> dict[str, np.ndarray] | None:
    """Reads an entry.

    Args:
        folder: The cache.
        key: From `key`.

    Returns:
        The arrays, or None if there is no such entry or it is damaged.
    """
    try:
        # Opened here because np.load does not close a damaged file.
        with (folder / f"{key}.npz").open("rb") as file, np.load(file, allow_pickle=False) as npz:
            arrays = {name: npz[name] for name in npz.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    stored = arrays.pop("sha256", None)
    return arrays if stored is not None and str(stored) == _digest(arrays) else None


def write(folder: Path, key: str, arrays: dict[str, np.ndarray]) -> None:
    """Writes an entry atomically; does nothing if the folder is not writable.

    Args:
        folder: The cache; created if it does not exist.
        key: From `key`.
        arrays: The arrays to store.
    """
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, sha256=np.array(_digest(arrays)), **arrays)  # type: ignore[arg-type]
        os.replace(temporary, folder / f"{key}.npz")
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.data)
    return digest.hexdigest()
