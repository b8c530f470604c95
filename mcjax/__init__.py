"""Mode connectivity and adversarial robustness in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

from mcjax import interrupt

interrupt.quiet_while_importing()

if TYPE_CHECKING:
    from mcjax.attacks import apgd, fgsm, pgd
    from mcjax.curvature import input_hessian_eigenvalue, weight_hessian_eigenvalue
    from mcjax.curves import Bezier, PolyChain
    from mcjax.path import evaluate_path
    from mcjax.repair.model import repair_model

__all__ = [
    "Bezier",
    "PolyChain",
    "apgd",
    "evaluate_path",
    "fgsm",
    "input_hessian_eigenvalue",
    "pgd",
    "repair_model",
    "weight_hessian_eigenvalue",
]

_HOME = {
    "Bezier": "mcjax.curves",
    "PolyChain": "mcjax.curves",
    "apgd": "mcjax.attacks",
    "evaluate_path": "mcjax.path",
    "fgsm": "mcjax.attacks",
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
