"""AutoAttack: an ensemble of attacks, each on the images that withstand the earlier ones."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.attacks.checks import (
    check_choice,
    check_count,
    check_examples,
    check_radius,
    check_sizes,
)
from mcjax.attacks.images.autoattack_loop import Runner, in_one_program
from mcjax.attacks.images.autoattack_result import AutoAttackResult
from mcjax.attacks.images.autoattack_rounds import VERSIONS, Plan
from mcjax.attacks.images.autoattack_state import AutoAttackState, resumed
from mcjax.attacks.images.balls import BALLS
from mcjax.core.errors import UserError
from mcjax.core.keys import check_key
from mcjax.core.tree import as_partial

COMPARED = 32  # images that the check for randomised outputs evaluates twice


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
    check_radius(eps, norm, jnp.shape(x))
    plan = Plan(norm, version, names, num_steps, num_queries, num_draws, num_classes)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((key, logits_fn, x, y))):
        if state is not None or progress_fn is not None:
            raise UserError(
                "state and progress_fn do not work inside jax.jit; leave them out there"
            )
        images, fooled_by, zero = in_one_program(plan, key, logits_fn, x, y, eps)
        return AutoAttackResult(images, fooled_by, zero, names, plan.notes)
    if version == "standard":
        _warn_if_random(logits_fn, x)
    runner = Runner(plan, key, logits_fn, x, y, eps, batch_size)
    found = runner.first() if state is None else resumed(state, x.shape, len(plan.rounds))
    while found.num_done < found.num_rounds:
        found = runner.after_a_round(found)
        if progress_fn is not None:
            progress_fn(found)
    return AutoAttackResult(
        jnp.asarray(found.images), jnp.asarray(found.fooled_by), jnp.asarray(found.zero_gradient),
        names, plan.notes,
    )  # fmt: skip


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
