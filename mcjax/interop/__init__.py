"""Conversion of networks from and to PyTorch; see `mcjax.interop.torch` and `from_torch`."""

from typing import Any

__all__ = ["from_torch"]


def __getattr__(name: str) -> Any:
    """Imports `from_torch` on first use."""
    if name == "from_torch":
        from mcjax.interop.exported.load import from_torch

        return from_torch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
