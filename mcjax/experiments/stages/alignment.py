"""Alignment of the second of two networks with the first, as a stage."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import optax

from mcjax import alignment
from mcjax.alignment import PermutationSpec
from mcjax.alignment.permutation import Permutations
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.data.batches import to_unit
from mcjax.runs.run import Run
from mcjax.runs.stage import Found, stage

NUM_IMAGES, BATCH = 1000, 250
"""Images that activations are compared on, and how many at a time."""


def aligned(run: Run, name: str, start: PyTree, end: PyTree) -> PyTree:
    """The second of two networks, aligned with the first as `config.curve.align` says.

    Args:
        run: The run, or a seed's part of it.
        name: The stage: the name of its checkpoint (the permutations) and of its key.
        start: The first network's variables.
        end: The second's.

    Returns:
        The second network: unchanged ("none"), or with its hidden channels in another order. The
        order's weights are nearest to the first network's ("weights") or farthest from them
        ("away"); or its channels compute what is most alike ("activations") or least alike
        ("activations_away"). It is the same function in any order.
    """
    by = run.config.curve.align
    if by == "none":
        return end
    spec = alignment.permutation_spec(run.network.apply, start, run.dataset.image_shape)
    away = by.endswith("away")

    def by_activations() -> Found:
        permutations = alignment.activation_matching(
            spec, run.network.apply, start, end, some_images(run), away=away
        )
        return kept_form(permutations), {}

    def by_weights() -> Found:
        matching = alignment.weight_matching(run.key(name), spec, start, end, away=away)
        products = matching.inner_products
        lengths = [float(optax.tree.norm(one["params"])) for one in (start, end)]
        before, after = (products[i] / math.prod(lengths) for i in (0, -1))
        say(
            f"{name}: cosine of the two networks' weights from {before:.3f} to {after:.3f} in "
            f"{len(products) - 1} sweeps"
        )
        return kept_form(matching.permutations), {"inner_products": list(products)}

    compute = by_activations if by.startswith("activations") else by_weights
    kept, _ = stage(run, name, kept_form(alignment.identity(spec)), compute)
    return reordered(spec, kept, end)


def unaligned(run: Run, name: str, suspect: PyTree) -> PyTree:
    """The un-aligned copy of a network, as `config.repair.unalign` says.

    Args:
        run: The run, or a seed's part of it.
        name: The stage: the name of its checkpoint (the permutations) and of its key.
        suspect: The network's variables.

    Returns:
        The same function with its hidden channels in another order.

    Raises:
        UserError: The network has no channels that can be permuted.
    """
    spec = alignment.permutation_spec(run.network.apply, suspect, run.dataset.image_shape)

    def compute() -> Found:
        permutations = alignment.away_permutations(
            run.key(name),
            spec,
            run.network.apply,
            suspect,
            by=run.config.repair.unalign,
            images=some_images(run),
        )
        return kept_form(permutations), {}

    kept, _ = stage(run, name, kept_form(alignment.identity(spec)), compute)
    return reordered(spec, kept, suspect)


def kept_form(permutations: Permutations) -> dict[str, Any]:
    """Permutations as a checkpoint keeps them."""
    return {str(i): p for i, p in enumerate(permutations)}


def reordered(spec: PermutationSpec, kept: Mapping[str, Any], variables: PyTree) -> PyTree:
    """A network in the order of permutations from a checkpoint."""
    return alignment.permute(spec, tuple(kept[str(i)] for i in range(len(kept))), variables)


def some_images(run: Run) -> Iterator[jax.Array]:
    """Clean images to compare activations on: bonafide images, or training images without them."""
    examples = run.splits.bonafide if run.config.data.num_bonafide else run.splits.train
    images = examples["image"][:NUM_IMAGES]
    for i in range(0, len(images), BATCH):
        yield to_unit(images[i : i + BATCH])
