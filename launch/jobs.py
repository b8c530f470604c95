"""The former place of `Sweep` and `grid`, which users' sweep files import."""

from mcjax.sweeps.declare import Sweep, grid

__all__ = ["Sweep", "grid"]
