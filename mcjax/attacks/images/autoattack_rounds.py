"""The rounds of AutoAttack: which attacks a version has, their targets and starts, and one round of one."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mcjax.attacks.images.active_examples import of_active
from mcjax.attacks.images.apgd import apgd_round
from mcjax.attacks.images.apgd_targeted import CLASSES_OF_THE_RATIO, targeted_round
from mcjax.attacks.images.auto_pgd_search import image_keys
from mcjax.attacks.images.fab import fab_round
from mcjax.attacks.images.randomised import mean_answer, randomised_round
from mcjax.attacks.images.square import square_round
from mcjax.attacks.images.zero_gradient import correct_and_flat
from mcjax.core.keys import stream

STANDARD = ("apgd_ce", "apgd_targeted", "fab", "square")
RAND = ("apgd_ce", "apgd_dlr")
VERSIONS = {"standard": STANDARD, "rand": RAND}
MOST_TARGETS = {"linf": 9, "l2": 9, "l1": 5}  # of apgd_targeted; fab has 9
STARTS = {"linf": 1, "l2": 1, "l1": 5}  # of apgd_ce under "standard"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The settings of `autoattack`, static in compiled programs."""

    norm: str
    version: str
    attacks: tuple[str, ...]
    num_steps: int
    num_queries: int
    num_draws: int
    num_classes: int

    def num_rounds(self, attack: str) -> int:
        """The number of targets or starts of an attack."""
        most = self.num_classes - 1
        if attack == "apgd_targeted":
            return min(MOST_TARGETS[self.norm], most)
        if attack == "fab":
            return min(9, most)
        return STARTS[self.norm] if attack == "apgd_ce" and self.version == "standard" else 1

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """(attack, target or start) of every round."""
        return [(i, j) for i, a in enumerate(self.attacks) for j in range(self.num_rounds(a))]

    @property
    def notes(self) -> tuple[str, ...]:
        """What few classes change, in sentences."""
        n, notes = self.num_classes, []
        if "apgd_targeted" in self.attacks and n < CLASSES_OF_THE_RATIO:
            notes.append(
                f"{n} classes: apgd_targeted maximises z_t - z_y, because the targeted DLR needs 4"
            )
        if "apgd_dlr" in self.attacks and n < 3:
            notes.append(
                f"{n} classes: apgd_dlr maximises max_j z_j - z_y, because the DLR needs 3"
            )
        if n <= MOST_TARGETS[self.norm] and {"apgd_targeted", "fab"} & set(self.attacks):
            notes.append(f"{n} classes: {n - 1} target{'s' if n > 2 else ''} per image")
        return tuple(notes)


def attack_round(
    plan: Plan,
    attack: str,
    which: jax.typing.ArrayLike,
    key: jax.Array,
    index: jax.Array,
    logits_fn: Any,
    x: jax.Array,
    y: jax.Array,
    eps: Any,
    active: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """One round of one attack on the active images; returns images and whether they are fooled now."""
    key = stream(key, attack, which)
    keys = image_keys(key, index)
    eps = jnp.asarray(eps, x.dtype)
    steps: dict[str, Any] = {"norm": plan.norm, "num_steps": plan.num_steps}
    if plan.version == "rand":
        enough = attack == "apgd_ce" or plan.num_classes >= 3
        loss = {"apgd_ce": "cross_entropy", "apgd_dlr": "dlr" if enough else "margin"}[attack]
        return randomised_round(
            keys, key, logits_fn, x, y, eps, active, **steps, num_draws=plan.num_draws, loss=loss
        )
    if attack == "apgd_ce":
        return apgd_round(keys, logits_fn, x, y, eps, active, **steps, loss="cross_entropy")
    if attack == "apgd_targeted":
        return targeted_round(keys, logits_fn, x, y, eps, active, which, **steps)
    if attack == "fab":
        return fab_round(logits_fn, x, y, eps, active, which, **steps)
    return square_round(
        keys, logits_fn, x, y, eps, active, norm=plan.norm, num_queries=plan.num_queries
    )


def clean_answers(
    plan: Plan, key: jax.Array, logits_fn: Any, x: jax.Array, y: jax.Array, active: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`correct_and_flat` of the active images; of the mean answer if the network is randomised."""
    if plan.version == "rand":
        answer_fn = jax.tree_util.Partial(
            _mean_answer, logits_fn, stream(key, "clean"), plan.num_draws
        )
    else:
        answer_fn = logits_fn

    def rows(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        return correct_and_flat(answer_fn, x, y)

    return of_active(rows, active, x, y)


def _mean_answer(logits_fn: Any, key: jax.Array, num_draws: int, x: jax.Array) -> jax.Array:
    return mean_answer(key, logits_fn, x, num_draws)
