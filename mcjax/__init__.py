"""Mode connectivity and adversarial robustness in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

from mcjax.core import interrupt, moved

interrupt.quiet_while_importing()
moved.install()

if TYPE_CHECKING:
    from mcjax.attacks import apgd, apgd_targeted, autoattack, fab, fgsm, pgd, square
    from mcjax.core.errors import UserError
    from mcjax.curvature import input_hessian_eigenvalue, weight_hessian_eigenvalue
    from mcjax.curves import Bezier, PolyChain
    from mcjax.curves.batch_stats import CurveWithStats
    from mcjax.data.splits import split
    from mcjax.evaluation.path import evaluate_path
    from mcjax.evaluation.robustness_report import robustness_report
    from mcjax.interop.exported.load import from_torch, to_torch
    from mcjax.models.network import from_linen
    from mcjax.repair.model import repair_model
    from mcjax.repair.options import RepairOptions
    from mcjax.repair.search import find_evidence
    from mcjax.report.plot import plot, plot_images
    from mcjax.report.repaired_page import save_repaired
    from mcjax.training.connect import connect
    from mcjax.training.losses import classification_metrics
    from mcjax.training.network import train_network

__all__ = [
    "Bezier",
    "CurveWithStats",
    "PolyChain",
    "RepairOptions",
    "UserError",
    "__version__",
    "apgd",
    "apgd_targeted",
    "autoattack",
    "classification_metrics",
    "connect",
    "evaluate_path",
    "fab",
    "fgsm",
    "find_evidence",
    "from_linen",
    "from_torch",
    "input_hessian_eigenvalue",
    "pgd",
    "plot",
    "plot_images",
    "repair_model",
    "robustness_report",
    "save_repaired",
    "split",
    "square",
    "to_torch",
    "train_network",
    "weight_hessian_eigenvalue",
]

_HOME = {
    "Bezier": "mcjax.curves",
    "CurveWithStats": "mcjax.curves.batch_stats",
    "PolyChain": "mcjax.curves",
    "RepairOptions": "mcjax.repair.options",
    "UserError": "mcjax.core.errors",
    "apgd": "mcjax.attacks",
    "apgd_targeted": "mcjax.attacks",
    "autoattack": "mcjax.attacks",
    "classification_metrics": "mcjax.training.losses",
    "connect": "mcjax.training.connect",
    "evaluate_path": "mcjax.evaluation.path",
    "fab": "mcjax.attacks",
    "fgsm": "mcjax.attacks",
    "find_evidence": "mcjax.repair.search",
    "from_linen": "mcjax.models.network",
    "from_torch": "mcjax.interop.exported.load",
    "input_hessian_eigenvalue": "mcjax.curvature",
    "pgd": "mcjax.attacks",
    "plot": "mcjax.report.plot",
    "plot_images": "mcjax.report.plot",
    "repair_model": "mcjax.repair.model",
    "robustness_report": "mcjax.evaluation.robustness_report",
    "save_repaired": "mcjax.report.repaired_page",
    "split": "mcjax.data.splits",
    "square": "mcjax.attacks",
    "to_torch": "mcjax.interop.exported.load",
    "train_network": "mcjax.training.network",
    "weight_hessian_eigenvalue": "mcjax.curvature",
}


def __getattr__(name: str) -> Any:
    """Imports a public name or a submodule on first use, because importing JAX is slow."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("mcjax")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
