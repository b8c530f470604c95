"""Module paths that pages and scripts used before the rooms: each imports the module that it became."""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "mcjax.batch_stats": "mcjax.curves.batch_stats",
    "mcjax.checkpoint": "mcjax.runs.checkpoint",
    "mcjax.config": "mcjax.runs.config",
    "mcjax.correlation": "mcjax.evaluation.correlation",
    "mcjax.ensemble": "mcjax.training.ensemble",
    "mcjax.errors": "mcjax.core.errors",
    "mcjax.geometry": "mcjax.curves.geometry",
    "mcjax.keys": "mcjax.core.keys",
    "mcjax.losses": "mcjax.training.losses",
    "mcjax.network": "mcjax.models.network",
    "mcjax.objectives": "mcjax.training.objectives",
    "mcjax.path": "mcjax.evaluation.path",
    "mcjax.plane": "mcjax.curves.plane",
    "mcjax.repair.load": "mcjax.runs.suspect",
    "mcjax.robust_metrics": "mcjax.evaluation.robust_metrics",
    "mcjax.robust_objectives": "mcjax.training.robust_objectives",
}


class Finder(MetaPathFinder):
    """Finds the modules of `MOVED` under their old paths."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module of an old path; None for all others."""
        return ModuleSpec(name, Alias()) if name in MOVED else None


class Alias(Loader):
    """Puts the module itself, not a copy, under its old path."""

    def exec_module(self, module: ModuleType) -> None:
        """Imports the module that the path stands for."""
        sys.modules[module.__name__] = importlib.import_module(MOVED[module.__name__])


def install() -> None:
    """Makes the old paths importable."""
    sys.meta_path.append(Finder())
