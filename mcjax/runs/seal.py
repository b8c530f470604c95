"""The checksum of a result, which tells a changed file from a written one."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


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


def _checksum(result: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()[:12]
