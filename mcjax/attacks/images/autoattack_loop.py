"""The loop over AutoAttack's rounds: on the images that withstand the earlier rounds."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcjax.attacks.images.autoattack_rounds import Plan, attack_round, clean_answers
from mcjax.attacks.images.autoattack_state import AutoAttackState

SMALLEST_BUCKET = 32

_attack_round = jax.jit(attack_round, static_argnames=("plan", "attack"))
_clean_answers = jax.jit(clean_answers, static_argnames=("plan",))


def in_one_program(
    plan: Plan, key: jax.Array, logits_fn: Any, x: jax.Array, y: jax.Array, eps: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All rounds as one traced program: images, fooled_by, zero_gradient."""
    index = jnp.arange(len(x))
    correct, zero = clean_answers(plan, key, logits_fn, x, y, jnp.ones(len(x), bool))
    fooled_by = jnp.where(correct, -1, 0)
    images = x
    for number, attack in enumerate(plan.attacks, 1):

        def one(
            which: jax.Array,
            found: tuple[jax.Array, jax.Array],
            attack: str = attack,
            number: int = number,
        ) -> tuple[jax.Array, jax.Array]:
            images, fooled_by = found
            new, fooled = attack_round(
                plan, attack, which, key, index, logits_fn, x, y, eps, fooled_by == -1
            )
            images = jnp.where(fooled[:, None, None, None], new, images)
            return images, jnp.where(fooled, number, fooled_by)

        images, fooled_by = lax.fori_loop(0, plan.num_rounds(attack), one, (images, fooled_by))
    return lax.stop_gradient(images), fooled_by, zero


class Runner:
    """Runs rounds on the survivors, gathered into pieces of a few sizes."""

    def __init__(
        self,
        plan: Plan,
        key: jax.Array,
        logits_fn: Any,
        x: jax.Array,
        y: jax.Array,
        eps: Any,
        batch_size: int,
    ):
        self.plan, self.key, self.logits_fn, self.eps = plan, key, logits_fn, eps
        self.x, self.y, self.batch_size = np.asarray(x), np.asarray(y), min(batch_size, len(y))

    def first(self) -> AutoAttackState:
        """The state before the first round."""
        fooled_by = np.full(len(self.y), -1, np.int32)
        zero = np.zeros(len(self.y), bool)
        for rows, index, active in self.pieces(np.arange(len(self.y))):
            correct, no_gradient = _clean_answers(
                self.plan, self.key, self.logits_fn, self.x[index], self.y[index], active
            )
            fooled_by[rows] = np.where(correct, -1, 0)[: len(rows)]
            zero[rows] = np.asarray(no_gradient)[: len(rows)]
        return AutoAttackState(self.x.copy(), fooled_by, zero, 0, len(self.plan.rounds))

    def after_a_round(self, state: AutoAttackState) -> AutoAttackState:
        """The state after the next round."""
        number, which = self.plan.rounds[state.num_done]
        images, fooled_by = state.images.copy(), state.fooled_by.copy()
        for rows, index, active in self.pieces(np.flatnonzero(fooled_by == -1)):
            new, fooled = _attack_round(
                self.plan, self.plan.attacks[number], which, self.key, index, self.logits_fn,
                self.x[index], self.y[index], self.eps, active,
            )  # fmt: skip
            hit = np.asarray(fooled)[: len(rows)]
            images[rows[hit]] = np.asarray(new)[: len(rows)][hit]
            fooled_by[rows[hit]] = number + 1
        return state._replace(images=images, fooled_by=fooled_by, num_done=state.num_done + 1)

    def pieces(self, survivors: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Splits images into (their indices, the same padded to a bucket, which of these are not padding)."""
        for start in range(0, len(survivors), self.batch_size):
            rows = survivors[start : start + self.batch_size]
            size = bucket(len(rows), self.batch_size)
            index = np.pad(rows, (0, size - len(rows)), mode="edge")
            yield rows, index, np.arange(size) < len(rows)


def bucket(count: int, most: int) -> int:
    """The least of most, most / 4, most / 16, ..., but at least 32, that holds count images.

    Example:
        >>> [bucket(n, 512) for n in (1, 33, 129, 512)], bucket(3, 10)
        ([32, 128, 512, 512], 10)
    """
    size = most
    while size // 4 >= max(count, SMALLEST_BUCKET):
        size //= 4
    return size
