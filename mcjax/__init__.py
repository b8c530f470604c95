"""Mode connectivity and adversarial robustness in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

from mcjax.core import interrupt, moved

interrupt.quiet_while_importing()
moved.install()

if TYPE_CHECKING:
    from mcjax.attacks import apgd, fgsm, pgd
    from mcjax.core.errors import UserError
    from mcjax.curvature import input_hessian_eigenvalue, weight_hessian_eigenvalue
    from mcjax.curves import Bezier, PolyChain
    from mcjax.curves.batch_stats import CurveWithStats
    from mcjax.evaluation.path import evaluate_path
    from mcjax.models.network import from_linen
    from mcjax.repair.model import repair_model
    from mcjax.repair.options import RepairOptions

__all__ = [
    "Bezier",
    "CurveWithStats",
    "PolyChain",
    "RepairOptions",
    "UserError",
    "apgd",
    "evaluate_path",
    "fgsm",
    "from_linen",
    "input_hessian_eigenvalue",
    "pgd",
    "repair_model",
    "weight_hessian_eigenvalue",
]

_HOME = {
    "Bezier": "mcjax.curves",
    "CurveWithStats": "mcjax.curves.batch_stats",
    "PolyChain": "mcjax.curves",
    "RepairOptions": "mcjax.repair.options",
    "UserError": "mcjax.core.errors",
    "apgd": "mcjax.attacks",
    "evaluate_path": "mcjax.evaluation.path",
    "fgsm": "mcjax.attacks",
    "from_linen": "mcjax.models.network",
    "input_hessian_eigenvalue": "mcjax.curvature",
    "pgd": "mcjax.attacks",
    "repair_model": "mcjax.repair.model",
    "weight_hessian_eigenvalue": "mcjax.curvature",
}


def __getattr__(name: str) -> Any:
    """Imports a public name or a submodule on first use, because importing JAX is slow."""
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
