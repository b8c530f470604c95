"""Curves in weight space, and what is known of their shape."""

from mcjax.curves.curve import KINDS, MOST_BENDS, Bezier, Curve, PolyChain

__all__ = ["KINDS", "MOST_BENDS", "Bezier", "Curve", "PolyChain"]
