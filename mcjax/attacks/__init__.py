"""Attacks on images (pgd, fgsm, apgd, ..., autoattack), on training sets (`poisoning`) and on weights (`weights`)."""

import sys

from mcjax.attacks.images import apgd as _apgd
from mcjax.attacks.images import pgd as _pgd
from mcjax.attacks.images.apgd import apgd
from mcjax.attacks.images.apgd_targeted import apgd_targeted
from mcjax.attacks.images.autoattack import autoattack
from mcjax.attacks.images.ensemble_logits import ensemble_logits
from mcjax.attacks.images.fab import fab
from mcjax.attacks.images.pgd import fgsm, pgd
from mcjax.attacks.images.square import square

__all__ = ["apgd", "apgd_targeted", "autoattack", "ensemble_logits", "fab", "fgsm", "pgd", "square"]

# The modules' former paths, which the functions' names would hide (see mcjax.core.moved).
sys.modules[f"{__name__}.apgd"], sys.modules[f"{__name__}.pgd"] = _apgd, _pgd
