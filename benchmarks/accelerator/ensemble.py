"""AutoAttack as a whole on this device: all four attacks in turn, on small trained networks."""

import tempfile
from collections.abc import Iterator, Set
from pathlib import Path

import jax
import numpy as np

from benchmarks.accelerator.record import Row
from benchmarks.autoattack import EPS, NETWORKS, loaded, prepare, timed
from mcjax import autoattack
from mcjax.attacks.images.autoattack_result import AutoAttackResult


def rows(_: str, done: Set[str], tiny: bool) -> Iterator[Row]:
    """Seconds of `mcjax.autoattack` on 500 images of digits, linf, for the networks of `benchmarks.autoattack`.

    Args:
        _: Not used.
        done: Names of rows to leave out.
        tiny: One network, few images, APGD alone.

    Yields:
        "correct" and "robust", numbers of images; "seconds" of the second call and "first_call".
    """
    for network in NETWORKS[:1] if tiny else NETWORKS:
        if network in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.npz"
            prepare(file, "digits", network, 16 if tiny else 500, 20 if tiny else 600)
            logits_fn, x, y = loaded(file, network)
        attacks = {"attacks": ("apgd_ce",)} if tiny else {}

        def run(
            network: str = network, of: tuple = (logits_fn, x, y), attacks: dict = attacks
        ) -> AutoAttackResult:
            eps = EPS["digits"][network]["linf"]
            return autoattack(jax.random.key(0), *of, eps=eps, norm="linf", **attacks)

        first, _result = timed(run)
        again, result = timed(run)
        yield {
            "name": network,
            "images": len(x),
            "correct": round(result.accuracy * len(x)),
            "robust": int(np.sum(result.robust)),
            "seconds": again["seconds"],
            "first_call": first["seconds"],
        }
