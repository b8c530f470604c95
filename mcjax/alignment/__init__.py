"""Permutation alignment: matches the hidden channels of two networks before they are connected."""

from mcjax.alignment.dataflow import permutation_spec
from mcjax.alignment.matching import Matching, align, weight_matching
from mcjax.alignment.permutation import (
    PermutationSpec,
    identity,
    permute,
    random_permutations,
)

__all__ = [
    "Matching",
    "PermutationSpec",
    "align",
    "identity",
    "permutation_spec",
    "permute",
    "random_permutations",
    "weight_matching",
]
