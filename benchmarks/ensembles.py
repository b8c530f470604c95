"""Attacks on ensembles that average probabilities: on these directly, and on `ensemble_logits`.

    python -m benchmarks.ensembles [--seeds 3] [--images 200] [--attacks pgd fab]

Per seed, three MLPs are trained on digits and their logits multiplied by each factor. Prints the ensemble's robust
accuracy at eps 0.1 under each attack of 40 steps (Square: 1000 queries), mean over seeds, and under all together.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mcjax
from mcjax import data, models
from mcjax.attacks.images.ensemble_logits import ensemble_logits, log_mean_softmax
from mcjax.training.ensemble import member_logits

EPS = 0.1
FACTORS = (1.0, 30.0, 100.0, 300.0, 1e4)
LOGITS = {"mean probabilities": log_mean_softmax, "ensemble_logits": ensemble_logits}
ATTACKS: dict[str, Callable[..., jax.Array]] = {
    "pgd": partial(mcjax.pgd, eps=EPS, step_size=EPS / 8, num_steps=40),
    "apgd": partial(mcjax.apgd, eps=EPS, num_steps=40),
    "apgd_targeted": partial(mcjax.apgd_targeted, eps=EPS, num_steps=40),
    "fab": partial(mcjax.fab, eps=EPS, num_steps=40),
    "square": partial(mcjax.square, eps=EPS, num_queries=1000),
}


def main() -> None:
    """Trains, attacks and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=[*ATTACKS])
    options = parser.parse_args()
    digits = data.load("digits")
    network = mcjax.from_linen(models.create("mlp", num_classes=10), digits.image_shape)
    x, y = (jnp.asarray(digits.test[k][: options.images]) for k in ("image", "label"))

    def ensemble(seed: int) -> Any:
        keys = jax.random.split(jax.random.key(seed), 3)
        each = [mcjax.train_network(key, network, digits.train, num_steps=200) for key in keys]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    def logits(form: Callable[..., jax.Array], factor: float, members: Any, x: jax.Array):
        return form(factor * member_logits(network.apply, members, x))

    ensembles = [ensemble(seed) for seed in range(options.seeds)]
    print(f"{len(x)} images, factors {', '.join(f'{factor:,.0f}' for factor in FACTORS)}")
    robust_to_all = np.ones((len(FACTORS), options.seeds, len(x)), bool)
    for name in options.attacks:
        for of, form in LOGITS.items():
            attacked = partial(logits, form)  # one object, hence one program

            def robust(factor: float, members: Any, name=name, attacked=attacked) -> jax.Array:
                logits_fn = jax.tree_util.Partial(attacked, factor, members)
                x_adv = ATTACKS[name](jax.random.key(0), logits_fn, x, y)
                return logits(log_mean_softmax, factor, members, x_adv).argmax(-1) == y

            found = np.array([[robust(factor, m) for m in ensembles] for factor in FACTORS])
            robust_to_all &= found
            print(row(f"{name}, {of}", found), flush=True)
    print(row("all of these", robust_to_all))


def row(title: str, robust: np.ndarray) -> str:
    """A row of the table: the share of robust images per factor."""
    return f"| {title} | {' | '.join(f'{share:.2f}' for share in robust.mean((1, 2)))} |"


if __name__ == "__main__":
    main()
