"""Whether a run is complete, from its files alone: result.json is written last."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mcjax.core.files import as_path
from mcjax.runs.config import config_hash
from mcjax.runs.seal import is_sealed

FILES = ("report.html", "table.csv", "config.json")  # besides result.json, of every experiment


def complete(config: ConfigDict, workdir: str | Path) -> dict[str, Any] | None:
    """The result of a run that is complete; None if it is not, or may not be.

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
