"""The curve between two networks as its training finds it, from the config's `curve`."""

import jax

from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.curves import KINDS, Curve
from mcjax.runs.run import Run


def joined(run: Run, key: jax.Array, start: PyTree, end: PyTree) -> Curve:
    """The untrained curve between two networks.

    Args:
        run: The run, or a seed's part of it.
        key: The curve's, of which bends that start at random have streams.
        start: The first network's variables.
        end: The second's.

    Returns:
        A curve whose bends lie on the straight line, or are new networks where `curve.init` is
        "random".
    """
    options = run.config.curve

    def random_bend(j: int) -> PyTree:
        return run.network.init(stream(key, "init", j))["params"]

    return KINDS[options.kind].connect(
        start["params"],
        end["params"],
        options.num_bends,
        init_fn=random_bend if options.init == "random" else None,
    )
