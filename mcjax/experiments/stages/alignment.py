"""Alignment of the second of two networks with the first, as a stage."""

import math

import optax

from mcjax import alignment
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.runs.run import Run
from mcjax.runs.stage import Found, stage


def aligned(run: Run, name: str, start: PyTree, end: PyTree) -> PyTree:
    """The second of two networks, aligned with the first as `config.curve.align` says.

    Args:
        run: The run, or a seed's part of it.
        name: The stage: the name of its checkpoint (the permutations) and of its key.
        start: The first network's variables.
        end: The second's.

    Returns:
        The second network: unchanged ("none"), or with its hidden channels in the order whose weights
        are nearest to the first's ("weights"). Both are the same function.
    """
    if run.config.curve.align == "none":
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
