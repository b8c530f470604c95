"""The config of a declared job: `python -m mcjax.train --config launch/job_config.py:JOB.json`."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict


def get_config(path: str) -> ConfigDict:
    """Makes a config from the flat fields that job.json holds.

    Args:
        path: The file.

    Returns:
        A config with the job's hash.
    """
    config = ConfigDict({"model": {"options": {}}})  # flat fields can't tell of an empty part
    for name, value in json.loads(Path(path).read_text())["config"].items():
        *parts, last = name.split(".")
        node = config
        for part in parts:
            if part not in node:
                node[part] = ConfigDict()
            node = node[part]
        node[last] = _tuples(value)
    return config


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
