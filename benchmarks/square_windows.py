"""Why mcjax's Square fools more images than the published code's: how it draws its windows.

    python -m benchmarks.square_windows [--num_images 500] [--networks standard] [--norms linf l2]

The published code draws one window (in linf with one sign; here the signs are shared in l2, too) for all images of a batch, and never one that reaches the
last row or column. mcjax draws a window for each image, uniformly over all places. This attacks the networks of
`benchmarks.autoattack` with either difference taken away, and prints how many images withstand.
"""

import argparse
import contextlib
import importlib
from collections.abc import Iterator
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks.autoattack import EPS, NETWORKS, digits_network
from mcjax import autoattack, cpu_convolution

SQUARE = importlib.import_module("mcjax.attacks.images.square")  # not the function of this name
VARIANTS = {
    "as in mcjax": (False, False),
    "never the last row and column": (True, False),
    "the same for all images": (False, True),
    "both, as published": (True, True),
}


def main() -> None:
    """Prints a row per network and norm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_images", type=int, default=500)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--norms", nargs="+", default=["linf", "l2"])
    args = parser.parse_args()
    cpu_convolution.enable()
    print(f"| network | norm | {' | '.join(VARIANTS)} |")
    print("|---|---|" + "---|" * len(VARIANTS))
    for network in args.networks:
        logits_fn, x, y = digits_network(network, args.num_images)
        for norm in args.norms:
            counts = []
            for variant in VARIANTS.values():
                jax.clear_caches()
                with windows(*variant):
                    result = autoattack(
                        jax.random.key(0), logits_fn, x, y,
                        eps=EPS["digits"][network][norm], norm=norm, attacks=("square",),
                    )  # fmt: skip
                counts.append(str(int(result.robust.sum())))
            print(f"| {network} | {norm} | {' | '.join(counts)} |", flush=True)


@contextlib.contextmanager
def windows(inner: bool, shared: bool) -> Iterator[None]:
    """Draws Square's windows as the published code does.

    Args:
        inner: Never at the last row and column.
        shared: The same for all images.
    """

    def corner(
        key: jax.Array, height: int, width: int, size: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        u = jax.random.uniform(key, (2,))
        room = jnp.array([height, width], jnp.int32) - size
        top, left = (u * jnp.maximum(room, 1)).astype(jnp.int32)
        return top, left

    def stream(key: jax.Array, name: str, i: jax.Array) -> jax.Array:
        # The start, query 0, is drawn for each image.
        common = jax.random.fold_in(jax.random.key(1), i)
        return jax.lax.cond(i == 0, lambda: jax.random.fold_in(key, 0), lambda: common)

    with contextlib.ExitStack() as patches:
        if inner:
            patches.enter_context(mock.patch.object(SQUARE, "_corner", corner))
        if shared:
            patches.enter_context(mock.patch.object(SQUARE, "stream", stream))
        yield


if __name__ == "__main__":
    main()
