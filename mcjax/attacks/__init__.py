"""Attacks on images (pgd, fgsm, apgd), on training sets (`poisoning`) and on weights (`weights`)."""

import sys

from mcjax.attacks.images import apgd as _apgd
from mcjax.attacks.images import pgd as _pgd
from mcjax.attacks.images.apgd import apgd
from mcjax.attacks.images.pgd import fgsm, pgd

__all__ = ["apgd", "fgsm", "pgd"]

# The modules' former paths, which the functions' names would hide (see mcjax.core.moved).
sys.modules[f"{__name__}.apgd"], sys.modules[f"{__name__}.pgd"] = _apgd, _pgd
