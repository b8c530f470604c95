"""Attacks: on images (pgd) and, in their own modules, on data and weights."""

from mcjax.attacks.pgd import pgd

__all__ = ["pgd"]
