"""Mode connectivity and adversarial robustness in JAX."""

from mcjax.attacks import pgd
from mcjax.curves import Bezier, PolyChain
from mcjax.path import evaluate_path

__all__ = ["Bezier", "PolyChain", "evaluate_path", "pgd"]
