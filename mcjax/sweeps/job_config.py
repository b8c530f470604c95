"""The config of a declared job: `python -m mcjax.train --config mcjax/sweeps/job_config.py:JOB.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict


def get_config(path: str) -> ConfigDict:
    """The config in a job.json.

    Args:
        path: The file.

    Returns:
        A config with the job's hash.
    """
    return from_flat(json.loads(Path(path).read_text())["config"])


def from_flat(fields: Mapping[str, Any]) -> ConfigDict:
    """A config from its flat fields.

    Args:
        fields: Values by dotted name; lists become tuples.

    Example:
        >>> from_flat({"model.name": "vgg", "seed": 1}).to_dict()
        {'model': {'name': 'vgg', 'options': {}}, 'seed': 1}
    """
    config = ConfigDict({"model": {"options": {}}})  # flat fields cannot express an empty part
    for name, value in fields.items():
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
