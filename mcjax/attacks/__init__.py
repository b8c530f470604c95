"""Attacks: on images (pgd, fgsm, apgd) and, in their own modules, on data and weights."""

from mcjax.attacks.apgd import apgd
from mcjax.attacks.pgd import fgsm, pgd

__all__ = ["apgd", "fgsm", "pgd"]
