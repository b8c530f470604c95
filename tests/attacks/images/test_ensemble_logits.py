"""Attacks on the mean probabilities of several networks, however confident these are."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.attacks import apgd, apgd_targeted, autoattack, fab, pgd, square
from mcjax.attacks.images.attack_losses import log_odds
from mcjax.attacks.images.ensemble_logits import ensemble_logits, log_mean_softmax
from mcjax.core.errors import UserError

EPS = 0.06
FACTORS = (1e-3, 300.0, 1e4)
Z = jax.random.normal(jax.random.key(0), (3, 200, 5))
Y = jnp.arange(200) % 5


def of_log_odds(f):
    """The log odds of f's answers, and their gradient."""
    return jax.jit(jax.value_and_grad(lambda z: log_odds(f(z), Y).sum()))


def test_it_is_exact_where_the_members_are_not_confident():
    np.testing.assert_array_equal(ensemble_logits(Z), log_mean_softmax(Z))
    for found, expected in zip(
        of_log_odds(ensemble_logits)(Z), of_log_odds(log_mean_softmax)(Z), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_answers_are_the_ensembles_at_every_factor():
    for factor in (1e-3, 1.0, 5.0, 30.0, 1e4):
        expected = log_mean_softmax(factor * Z).argmax(-1)
        np.testing.assert_array_equal(ensemble_logits(factor * Z).argmax(-1), expected)
    # Softened, member 0 outvotes the other two.
    z = jnp.array([[[90.0, 0.0]], [[0.0, 0.1]], [[0.0, 0.1]]])
    assert log_mean_softmax(100 * z).argmax() == ensemble_logits(100 * z).argmax() == 1


def test_a_factor_on_confident_logits_does_not_change_the_direction():
    gradient_fn = jax.jit(
        jax.grad(lambda z: (ensemble_logits(z) @ jnp.array([1, -1, 0, 0, 0])).sum())
    )
    one, other = (factor * gradient_fn(factor * Z) for factor in (1e3, 1e4))
    assert (one != 0).any((0, 2)).all()
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def linear(w, x):
    return jnp.einsum("bi,tik->tbk", x.reshape(len(x), -1) - 0.5, w)


def attacked(w, x):
    return ensemble_logits(linear(w, x))


@pytest.fixture(scope="module")
def three():
    """Three linear networks of two classes, and images that all of them classify as their label."""
    w = jax.random.normal(jax.random.key(0), (3, 12, 2))
    x = 0.5 + 0.15 * jax.random.normal(jax.random.key(1), (400, 2, 2, 3)).clip(-2, 2)
    answers = linear(w, x).argmax(-1)
    same = np.asarray((answers == answers[:1]).all(0))
    return w, x[same][:64], answers[0][same][:64]


def both_turned(a, b, x, y):
    """Whether one perturbation turns both linear networks; exact, by duality.

    A delta with |delta| <= eps, a . delta > p and b . delta > q exists if and only if
    eps |s a + (1 - s) b|_1 > s p + (1 - s) q for every s in [0, 1].
    """
    towards = [np.outer(1 - 2 * y, w[:, 1] - w[:, 0]) for w in (a, b)]
    needed = [-(t * (x - 0.5)).sum(1) for t in towards]
    s = np.linspace(0, 1, 301)[:, None]
    reach = EPS * np.abs(s[..., None] * towards[0] + (1 - s[..., None]) * towards[1]).sum(-1)
    return (reach > s * needed[0] + (1 - s) * needed[1]).all(0)


@pytest.fixture(scope="module")
def possible(three):
    """Which images any attack can fool, at the smallest factor and under a vote."""
    w, x, y = (np.asarray(one, np.float64) for one in three)
    x, mean = x.reshape(len(x), -1), w.mean(0)
    pairs = itertools.combinations(w, 2)
    vote = np.any([both_turned(a, b, x, y) for a, b in pairs], axis=0)
    assert 0.3 < vote.mean() < 0.9
    return both_turned(mean, mean, x, y), vote


OPTIONS = {"eps": EPS, "num_steps": 40}
ATTACKS = {
    "pgd": lambda *args: pgd(*args, EPS, EPS / 8, 40),
    "apgd": lambda *args: apgd(*args, **OPTIONS),
    "apgd_targeted": lambda *args: apgd_targeted(*args, **OPTIONS),
    "fab": lambda *args: fab(*args, **OPTIONS),
    "square": lambda *args: square(*args, eps=EPS, num_queries=300),
    "autoattack": lambda *args: autoattack(*args, **OPTIONS, num_queries=300).images,
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow(compiles=True) if n == "autoattack" else ())
        for n in ATTACKS
    ],
)
def test_every_attack_finds_nearly_what_can_be_fooled_at_every_factor(name, three, possible):
    """The smallest factor averages logits; from about 30 on, the same members vote: another classifier."""
    w, x, y = three

    @jax.jit
    def fooled(w):
        logits_fn = jax.tree_util.Partial(attacked, w)
        images = ATTACKS[name](jax.random.key(2), logits_fn, x, y)
        return log_mean_softmax(linear(w, images)).argmax(-1) != y

    least, *votes = (np.asarray(fooled(factor * w)) for factor in FACTORS)
    assert (least != possible[0]).sum() <= 1
    for found in votes:
        assert not found[~possible[1]].any()
        assert found[possible[1]].mean() > 0.8
        # Of about 40; which step of FAB stops is a matter of rounding, and of XLA's optimisation.
        assert abs(found.sum() - votes[-1].sum()) <= 2


def test_stacked_logits_are_refused_with_advice(three):
    w, x, y = three
    with pytest.raises(UserError, match=r"return \[64, classes\], for an ensemble by mcjax"):
        pgd(jax.random.key(0), jax.tree_util.Partial(linear, w), x, y, EPS)
