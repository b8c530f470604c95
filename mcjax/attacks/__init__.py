"""Attacks on images (pgd, fgsm, apgd); attacks on data and weights are in submodules."""

from mcjax.attacks.apgd import apgd
from mcjax.attacks.pgd import fgsm, pgd

__all__ = ["apgd", "fgsm", "pgd"]
