"""Permutation alignment: matches the hidden channels of two networks before they are connected."""

from mcjax.alignment.activations import activation_matching
from mcjax.alignment.away import away_permutations, unaligned_copy
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
    "activation_matching",
    "align",
    "away_permutations",
    "identity",
    "permutation_spec",
    "permute",
    "random_permutations",
    "unaligned_copy",
    "weight_matching",
]
