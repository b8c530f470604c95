"""AutoAttack: an ensemble of attacks, each on the images that withstand the earlier ones."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mcjax.attacks.checks import (
    check_choice,
    check_count,
    check_examples,
    check_logits,
    check_sizes,
)
from mcjax.attacks.images.active_examples import of_active
from mcjax.attacks.images.apgd import apgd_round
from mcjax.attacks.images.apgd_targeted import CLASSES_OF_THE_RATIO, targeted_round
from mcjax.attacks.images.attack_losses import log_odds
from mcjax.attacks.images.auto_pgd_search import image_keys
from mcjax.attacks.images.balls import BALLS
from mcjax.attacks.images.fab import fab_round
from mcjax.attacks.images.randomised import mean_answer, randomised_round
from mcjax.attacks.images.square import square_round
from mcjax.core.errors import UserError
from mcjax.core.keys import check_key, stream
from mcjax.core.tree import as_partial

STANDARD = ("apgd_ce", "apgd_targeted", "fab", "square")
RAND = ("apgd_ce", "apgd_dlr")
VERSIONS = {"standard": STANDARD, "rand": RAND}
MOST_TARGETS = {"linf": 9, "l2": 9, "l1": 5}  # of apgd_targeted; fab has 9
STARTS = {"linf": 1, "l2": 1, "l1": 5}  # of apgd_ce under "standard"
SMALLEST_BUCKET = 32
COMPARED = 32  # images that the check for randomised outputs evaluates twice


class AutoAttackState(NamedTuple):
    """What `autoattack` has found so far; any prefix of its rounds can be saved and resumed.

    Attributes:
        images: Adversarial images where found, else the originals, [B, H, W, C].
        fooled_by: 0: misclassified without an attack; k: by the k-th attack; -1: not yet. int [B].
        zero_gradient: Whether the gradient of the loss is zero at the original image, bool [B].
        num_done: Finished rounds (one target or one start of one attack).
        num_rounds: All rounds.
    """

    images: np.ndarray
    fooled_by: np.ndarray
    zero_gradient: np.ndarray
    num_done: int
    num_rounds: int


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["images", "fooled_by", "zero_gradient"],
    meta_fields=["attacks", "notes"],
)
@dataclasses.dataclass(frozen=True)
class AutoAttackResult:
    """The result of `autoattack`.

    Attributes:
        images: Adversarial images where an attack succeeded, else the originals, [B, H, W, C].
        fooled_by: 0: misclassified without an attack; k: by `attacks[k - 1]`; -1: by none. int [B].
        zero_gradient: Whether the image is correct and the gradient of the loss (log odds) is exactly
            zero there: such images withstand gradient attacks for a wrong reason. bool [B].
        attacks: Names of the attacks, in order.
        notes: What was different from the standard, e.g. with few classes.
    """

    images: jax.Array
    fooled_by: jax.Array
    zero_gradient: jax.Array
    attacks: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def robust(self) -> jax.Array:
        """Whether an image is correct and withstands every attack, bool [B]."""
        return self.fooled_by == -1

    @property
    def accuracy(self) -> float:
        """Fraction of images that are correct without an attack."""
        return float((np.asarray(self.fooled_by) != 0).mean())

    @property
    def robust_accuracy(self) -> float:
        """Fraction of images that withstand every attack."""
        return float(np.asarray(self.robust).mean())

    @property
    def by_attack(self) -> dict[str, int]:
        """Number of images that each attack fooled first."""
        counts = np.bincount(np.asarray(self.fooled_by) + 1, minlength=len(self.attacks) + 2)
        return {name: int(counts[i + 2]) for i, name in enumerate(self.attacks)}

    @property
    def zero_gradient_share(self) -> float:
        """Fraction of the correct images whose gradient is zero."""
        return float(self.zero_gradient.sum() / max(1, int((self.fooled_by != 0).sum())))


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The settings, static in compiled programs."""

    norm: str
    version: str
    attacks: tuple[str, ...]
    num_steps: int
    num_queries: int
    num_draws: int
    num_classes: int

    def num_rounds(self, attack: str) -> int:
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


def autoattack(
    key: jax.Array,
    logits_fn: Callable[..., jax.Array],
    x: jax.Array,
    y: jax.Array,
    *,
    eps: float = 8 / 255,
    norm: str = "linf",
    version: str = "standard",
    attacks: Sequence[str] | None = None,
    num_steps: int = 100,
    num_queries: int = 5000,
    num_draws: int = 20,
    batch_size: int = 512,
    state: AutoAttackState | None = None,
    progress_fn: Callable[[AutoAttackState], Any] | None = None,
) -> AutoAttackResult:
    """Robust accuracy under an ensemble of attacks; an image is robust if it withstands all of them.

    "standard": `apgd` on the cross-entropy, `apgd_targeted`, `fab` towards targets, `square`. "rand", for
    randomised networks: `apgd` on the mean cross-entropy and on the mean DLR over num_draws draws per
    step; an answer is the class of the largest mean probability. Each attack starts from the
    original images, and attacks only those that are still correct. With the defaults this is the ensemble of the
    papers: in linf and l2 one start and nine targets, in l1 five starts and five targets (FAB: nine).

    With fewer than ten classes all other classes are targets. With two or three, the targeted DLR is
    not defined: `apgd_targeted` maximises z_t - z_y. With two, the DLR is not defined either:
    "rand" maximises max_j z_j - z_y. `result.notes` says so.

    An image's random numbers depend on the key and on its index in x, not on other images. Inside `jax.jit`
    the ensemble is one program; else survivors are gathered between attacks, and there are few
    programs, for 1, 1/4, 1/16, ... of batch_size images. Wrap a network with weights as
    `jax.tree_util.Partial(apply, variables)`, so that other weights need no new programs.

    Args:
        key: Key of all random numbers.
        logits_fn: `logits_fn(x) -> logits [b, classes]` for any number b of images; an example's
            logits must not depend on other examples (evaluation mode). For "rand": `logits_fn(key,
            x)`, whose randomness depends on the key only.
        x: Images, [B, H, W, C], in [0, 1].
        y: Labels, [B].
        eps: Radius of the ball, in units of the images.
        norm: "linf", "l2" or "l1".
        version: "standard" or "rand".
        attacks: Some of the version's attacks, in order. Default: all.
        num_steps: Steps of APGD per start and of FAB per target.
        num_queries: Queries of Square.
        num_draws: Draws per step under "rand".
        batch_size: Most images per program.
        state: Resume from a state that progress_fn was given, with the same other arguments.
        progress_fn: Called with an `AutoAttackState` after each round.

    Returns:
        An `AutoAttackResult`.

    Raises:
        UserError: norm, version or an attack is unknown; eps is not a single number of at least 0; a
            number is less than 1; there are no images, or they are outside [0, 1]; labels are not
            valid classes; labels or logits have the wrong shape; state is of other images or
            attacks.

    Example:
        >>> x = jnp.array([[0.9, 0.1], [0.6, 0.4], [0.5, 0.6]]).reshape(3, 1, 1, 2)
        >>> logits_fn = lambda x: x[:, 0, 0, :]
        >>> found = autoattack(jax.random.key(0), logits_fn, x, jnp.zeros(3, int), eps=0.2, num_queries=50)
        >>> found.robust.tolist(), found.by_attack["apgd_ce"], round(found.accuracy, 2)
        ([True, False, False], 1, 0.67)

    Source: Croce & Hein 2020, section 5; l1: Croce & Hein 2021, section 6.
    """
    check_choice("version", version, list(VERSIONS))
    check_choice("norm", norm, list(BALLS))
    names = VERSIONS[version] if attacks is None else tuple(attacks)
    for name in names:
        check_choice("attack", name, VERSIONS[version])
    if not names or len(set(names)) < len(names):
        raise UserError(f"attacks is {list(names)}; name at least one attack, each once")
    check_sizes(eps=eps)
    for what, value in (
        ("num_steps", num_steps), ("num_queries", num_queries),
        ("num_draws", num_draws), ("batch_size", batch_size),
    ):  # fmt: skip
        check_count(what, value)
    logits_fn = as_partial(logits_fn)
    key = check_key(key)
    one = _with_key(logits_fn, key) if version == "rand" else logits_fn
    num_classes = check_examples(one, x, y)
    plan = _Plan(norm, version, names, num_steps, num_queries, num_draws, num_classes)
    notes = _notes(plan)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((key, logits_fn, x, y))):
        if state is not None or progress_fn is not None:
            raise UserError(
                "state and progress_fn do not work inside jax.jit; leave them out there"
            )
        images, fooled_by, zero = _in_one_program(plan, key, logits_fn, x, y, eps)
        return AutoAttackResult(images, fooled_by, zero, names, notes)
    if version == "standard":
        _warn_if_random(logits_fn, x)
    runner = _Runner(plan, key, logits_fn, x, y, eps, batch_size)
    found = runner.first() if state is None else _checked(state, x, plan)
    while found.num_done < found.num_rounds:
        found = runner.after_a_round(found)
        if progress_fn is not None:
            progress_fn(found)
    return AutoAttackResult(
        jnp.asarray(found.images), jnp.asarray(found.fooled_by), jnp.asarray(found.zero_gradient),
        names, notes,
    )  # fmt: skip


def _notes(plan: _Plan) -> tuple[str, ...]:
    """What few classes change."""
    n, notes = plan.num_classes, []
    if "apgd_targeted" in plan.attacks and n < CLASSES_OF_THE_RATIO:
        notes.append(
            f"{n} classes: apgd_targeted maximises z_t - z_y, because the targeted DLR needs 4"
        )
    if "apgd_dlr" in plan.attacks and n < 3:
        notes.append(f"{n} classes: apgd_dlr maximises max_j z_j - z_y, because the DLR needs 3")
    if n <= MOST_TARGETS[plan.norm] and {"apgd_targeted", "fab"} & set(plan.attacks):
        notes.append(f"{n} classes: {n - 1} target{'s' if n > 2 else ''} per image")
    return tuple(notes)


def _checked(state: AutoAttackState, x: jax.Array, plan: _Plan) -> AutoAttackState:
    images, fooled_by, zero = (np.array(v) for v in state[:3])
    state = AutoAttackState(images, fooled_by, zero, int(state.num_done), int(state.num_rounds))
    if state.images.shape != x.shape or len(state.fooled_by) != len(x):
        raise UserError(
            f"state is of images {list(state.images.shape)}, but x has shape {list(x.shape)}; "
            "give the state of the same images"
        )
    if state.num_rounds != len(plan.rounds) or not 0 <= state.num_done <= state.num_rounds:
        raise UserError(
            f"state has {state.num_rounds} rounds, but these settings need {len(plan.rounds)}; "
            "resume with the same version, norm, attacks and network"
        )
    return state


def _warn_if_random(logits_fn: Callable[..., jax.Array], x: jax.Array) -> None:
    """Warns where two calls on the same images give different logits."""
    some = x[:COMPARED]
    a, b = (np.asarray(logits_fn(some), np.float64) for _ in range(2))
    if not np.allclose(a, b, rtol=1e-3, atol=1e-3 * (np.abs(a).mean() + 1e-30), equal_nan=True):
        warnings.warn(
            "logits_fn gave different logits for the same images in two calls; a randomised network "
            'needs version="rand" and logits_fn(key, x)',
            UserWarning,
            stacklevel=3,
        )


def _with_key(logits_fn: Callable[..., jax.Array], key: jax.Array) -> jax.tree_util.Partial:
    return jax.tree_util.Partial(_call_with_key, logits_fn, key)


def _call_with_key(logits_fn: Any, key: jax.Array, x: jax.Array) -> jax.Array:
    return logits_fn(key, x)


def _round(
    plan: _Plan,
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


def _clean(
    plan: _Plan, key: jax.Array, logits_fn: Any, x: jax.Array, y: jax.Array, active: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Whether images are correct, and whether they are and the gradient of the log odds is zero."""
    if plan.version == "rand":
        answer_fn = jax.tree_util.Partial(
            _mean_answer, logits_fn, stream(key, "clean"), plan.num_draws
        )
    else:
        answer_fn = logits_fn

    def objective(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = check_logits(answer_fn(x), len(x))
        return log_odds(logits, y).sum(), logits.argmax(-1) == y

    def rows(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        gradient, correct = jax.grad(objective, has_aux=True)(x, y)
        return correct, correct & (gradient == 0).all((1, 2, 3))

    return of_active(rows, active, x, y)


def _mean_answer(logits_fn: Any, key: jax.Array, num_draws: int, x: jax.Array) -> jax.Array:
    return mean_answer(key, logits_fn, x, num_draws)


_jitted_round = jax.jit(_round, static_argnames=("plan", "attack"))
_jitted_clean = jax.jit(_clean, static_argnames=("plan",))


def _in_one_program(
    plan: _Plan, key: jax.Array, logits_fn: Any, x: jax.Array, y: jax.Array, eps: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All rounds as one traced program: images, fooled_by, zero_gradient."""
    index = jnp.arange(len(x))
    correct, zero = _clean(plan, key, logits_fn, x, y, jnp.ones(len(x), bool))
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
            new, fooled = _round(
                plan, attack, which, key, index, logits_fn, x, y, eps, fooled_by == -1
            )
            images = jnp.where(fooled[:, None, None, None], new, images)
            return images, jnp.where(fooled, number, fooled_by)

        images, fooled_by = lax.fori_loop(0, plan.num_rounds(attack), one, (images, fooled_by))
    return lax.stop_gradient(images), fooled_by, zero


class _Runner:
    """Runs rounds on the survivors, gathered into pieces of a few sizes."""

    def __init__(
        self,
        plan: _Plan,
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
            correct, no_gradient = _jitted_clean(
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
            new, fooled = _jitted_round(
                self.plan, self.plan.attacks[number], which, self.key, index, self.logits_fn,
                self.x[index], self.y[index], self.eps, active,
            )  # fmt: skip
            hit = np.asarray(fooled)[: len(rows)]
            images[rows[hit]] = np.asarray(new)[: len(rows)][hit]
            fooled_by[rows[hit]] = number + 1
        return state._replace(images=images, fooled_by=fooled_by, num_done=state.num_done + 1)

    def pieces(self, survivors: np.ndarray) -> Any:
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
