"""Faults injected into the weights: fault sneaking and bit flips."""
