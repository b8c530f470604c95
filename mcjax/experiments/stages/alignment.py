"""Bringing the second of two networks near to the first before they are joined."""

import math

import optax

from mcjax import alignment
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.runs.run import Run
from mcjax.runs.stage import Found, stage


def aligned(run: Run, name: str, start: PyTree, end: PyTree) -> PyTree:
    """The second of two networks as it is joined to the first, by the config's `curve.align`.

    Args:
        run: The run, or a seed's part of it.
        name: The stage: where the permutations are kept, as a checkpoint, and their key.
        start: The first network's variables.
        end: The second's.

    Returns:
        The second network: as it is ("none"), or its hidden channels in the order in which the
        weights are nearest to the first's ("weights"), which is the same function.
    """
    if run.config.curve.get("align", "none") == "none":
        return end
    image_shape = run.dataset.image_shape
    spec = alignment.permutation_spec(run.network.apply, start, image_shape)
    like = {str(i): p for i, p in enumerate(alignment.identity(spec))}

    def compute() -> Found:
        matching = alignment.weight_matching(run.key(name), spec, start, end)
        products = matching.inner_products
        lengths = [float(optax.tree.norm(one["params"])) for one in (start, end)]
        before, after = (products[i] / math.prod(lengths) for i in (0, -1))
        say(
            f"{name}: cosine of the two networks' weights from {before:.3f} to {after:.3f} in "
            f"{len(products) - 1} sweeps"
        )
        permutations = {str(i): p for i, p in enumerate(matching.permutations)}
        return permutations, {"inner_products": list(products)}

    kept, _ = stage(run, name, like, compute)
    return alignment.permute(spec, tuple(kept[str(i)] for i in range(len(kept))), end)
