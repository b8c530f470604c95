"""Mode connectivity and adversarial robustness in JAX."""

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
