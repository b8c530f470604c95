"""result.json: written last, so its presence says that a run is complete."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mcjax.core.files import as_path
from mcjax.runs.config import config_hash

FILES = ("report.html", "table.csv", "config.json")  # besides result.json, of every experiment


def sealed(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result with the checksum of its contents, so that a change of it is noticed.

    Example:
        >>> sealed({"status": "complete"})["checksum"]
        'beddebacb141'
    """
    return {**result, "checksum": _checksum(result)}


def is_sealed(result: Mapping[str, Any]) -> bool:
    """Whether a result has the checksum of its contents."""
    own = {name: value for name, value in result.items() if name != "checksum"}
    return result.get("checksum") == _checksum(own)


def complete(config: ConfigDict, workdir: str | Path) -> dict[str, Any] | None:
    """The result of a run that has nothing left to do; None where something is, or may be.

    Nothing is computed and no data are read, so a complete run called again takes no longer than its
    imports. The user's own data (`npz:FILE`) may have changed, so these are always read.

    Args:
        config: The validated config.
        workdir: The run's directory.
    """
    folder = as_path(workdir)
    try:
        result = json.loads((folder / "result.json").read_text())
        whole = is_sealed(result) and result["status"] == "complete"
        same = result["config_hash"] == config_hash(config)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not (whole and same) or config.data.name.startswith("npz:"):
        return None
    return result if all((folder / name).exists() for name in FILES) else None


def _checksum(result: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()[:12]
