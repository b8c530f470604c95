"""Why mcjax's APGD in l1 fools more images than the published code's: which entries a step moves.

    python -m benchmarks.sparse_steps [--num_images 500] [--networks adversarial] [--seeds 3]

A step moves the best point's support divided by 1.5. mcjax rounds down, so that the steps can become single entries, and skips
entries that the box does not let move. The published code rounds up, and moves the largest entries of the gradient
whether the box blocks them or not. This attacks the networks of `benchmarks.autoattack` with either difference
taken away, and prints how many images withstand, means over the seeds.
"""

import argparse
import contextlib
from collections.abc import Iterator
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.autoattack import EPS, NETWORKS, digits_network
from mcjax import autoattack, cpu_convolution
from mcjax.attacks.images import balls, sparse_search

VARIANTS = {
    "as in mcjax": (False, False),
    "rounded up": (True, False),
    "blocked entries too": (False, True),
    "both, as published": (True, True),
}
ATTACKS = ("apgd_ce", "apgd_targeted")


def main() -> None:
    """Prints a row per network and attack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_images", type=int, default=500)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    cpu_convolution.enable()
    print(f"| network | attack | {' | '.join(VARIANTS)} |")
    print("|---|---|" + "---|" * len(VARIANTS))
    for network in args.networks:
        logits_fn, x, y = digits_network(network, args.num_images)
        for attack in ATTACKS:
            means = []
            for variant in VARIANTS.values():
                jax.clear_caches()
                with steps(*variant):
                    counts = [
                        autoattack(
                            jax.random.key(seed), logits_fn, x, y,
                            eps=EPS["digits"][network]["l1"], norm="l1", attacks=(attack,),
                        ).robust.sum()
                        for seed in range(args.seeds)
                    ]  # fmt: skip
                means.append(f"{np.mean(counts):.1f}")
            print(f"| {network} | {attack} | {' | '.join(means)} |", flush=True)


@contextlib.contextmanager
def steps(up: bool, blocked: bool) -> Iterator[None]:
    """Makes the steps in l1 as the published code does.

    Args:
        up: Round the number of entries up.
        blocked: Count entries that the box blocks among the largest.
    """

    def num_entries(support: jax.Array) -> jax.Array:
        # Rounding errors must not make 3 / 1.5 three.
        entries = jnp.ceil(support / sparse_search.SPARSER - 1e-4)
        return jnp.maximum(entries.astype(jnp.int32), 1)

    def size(gradient: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.abs(gradient).reshape(len(x), -1)

    with contextlib.ExitStack() as changed:
        if up:
            changed.enter_context(mock.patch.object(sparse_search, "num_entries", num_entries))
        if blocked:
            changed.enter_context(mock.patch.object(balls, "free_size", size))
        yield


if __name__ == "__main__":
    main()
