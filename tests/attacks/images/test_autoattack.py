"""The ensemble: what is robust on linear networks, its laws, state, few classes, randomised networks."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import SLOW

import mcjax
from mcjax.attacks.images.autoattack import autoattack
from mcjax.attacks.images.autoattack_loop import bucket
from mcjax.attacks.images.autoattack_rounds import STANDARD
from mcjax.attacks.images.autoattack_state import AutoAttackState
from mcjax.attacks.images.randomised import mean_answer
from mcjax.core.errors import UserError

W = jax.random.normal(jax.random.key(0), (20, 5))
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
QUICK = {"num_steps": 20, "num_queries": 100}


def apply(w, x):
    return x.reshape(len(x), -1) @ w


def wavy(w, x):
    """Attacks differ in what they find on it."""
    return jnp.sin(5 * x.reshape(len(x), -1) @ w) @ w[:5]


def network(w=W, fn=apply):
    return jax.tree_util.Partial(fn, w)


def images(n=40, *, fn=apply, wrong=3):
    """Near the middle of the box; the first few are misclassified."""
    x = 0.5 + 0.1 * jax.random.normal(jax.random.key(2), (n, 2, 2, 5)).clip(-2, 2)
    y = fn(W, x).argmax(1)
    return x, y.at[:wrong].add(1) % 5


def distances(x, y, norm):
    z, w = np.asarray(apply(W, x), np.float64), np.asarray(W, np.float64)
    far = [
        [(z[i, y[i]] - z[i, t]) / np.linalg.norm(w[:, y[i]] - w[:, t], DUAL[norm])
         for t in range(5) if t != y[i]]
        for i in range(len(x))
    ]  # fmt: skip
    return np.min(far, axis=1)


def test_it_is_a_public_name():
    assert mcjax.autoattack is autoattack
    assert {"autoattack", "apgd_targeted", "fab", "square"} <= set(mcjax.__all__)


@pytest.mark.accelerator
@pytest.mark.parametrize(
    "norm",
    ["linf", *(pytest.param(n, marks=pytest.mark.slow(compiles=True)) for n in ("l2", "l1"))],
)
def test_robust_is_what_is_farther_than_eps_on_a_linear_network(norm):
    x, y = images()
    exact = distances(x, np.asarray(y), norm)
    eps = float(np.median(exact))
    found = autoattack(jax.random.key(0), network(), x, y, eps=eps, norm=norm, **QUICK)
    robust = np.asarray(found.robust)
    assert robust[exact > eps].all()
    assert not robust[exact < 0.99 * eps].any()
    assert found.accuracy == pytest.approx(37 / 40)
    assert found.robust_accuracy == pytest.approx(robust.mean())
    assert sum(found.by_attack.values()) == 37 - robust.sum()
    assert list(found.by_attack) == list(STANDARD)
    size = np.linalg.norm(
        np.asarray(found.images - x, np.float64).reshape(40, -1), ORDER[norm], axis=1
    )
    assert (size <= eps + 1e-6).all()
    fooled = np.asarray(apply(W, found.images).argmax(1) != y)
    np.testing.assert_array_equal(fooled, ~robust)
    np.testing.assert_array_equal(found.images[robust], x[robust])


@pytest.mark.slow(compiles=True)
def test_state_progress_batches_and_one_program_agree():
    """Saved after any round and resumed, in pieces, and inside jit: the same images are robust."""
    x, y = images(70, fn=wavy)
    options = {
        "eps": 0.008, "num_steps": 5, "num_queries": 8,
        "attacks": ("square", "apgd_ce", "apgd_targeted", "fab"),
    }  # fmt: skip
    f = network(fn=wavy)
    states = []
    whole = autoattack(jax.random.key(0), f, x, y, progress_fn=states.append, **options)
    assert len({k for k, v in whole.by_attack.items() if v}) >= 2  # not all by the first
    assert 0 < whole.robust.sum() < 70
    assert [s.num_done for s in states] == list(range(1, len(states) + 1))
    assert states[-1].num_done == states[-1].num_rounds == 1 + 1 + 4 + 4
    for state in (states[0], states[4]):
        saved = AutoAttackState(*(np.array(v) for v in state))  # as a file would give it back
        again = autoattack(jax.random.key(0), f, x, y, state=saved, **options)
        np.testing.assert_array_equal(again.images, whole.images)
        np.testing.assert_array_equal(again.fooled_by, whole.fooled_by)
    pieces = autoattack(jax.random.key(0), f, x, y, batch_size=32, **options)
    inside = jax.jit(lambda f, x, y: autoattack(jax.random.key(0), f, x, y, **options))(f, x, y)
    for other in (pieces, inside):
        np.testing.assert_array_equal(other.fooled_by, whole.fooled_by)
        np.testing.assert_allclose(other.images, whole.images, atol=1e-5)
    other_key = autoattack(jax.random.key(1), f, x, y, **options)
    assert (other_key.images != whole.images).any()


def test_other_weights_need_no_new_program():
    x, y = images(8)
    tracings = []

    def counted(w, x):
        tracings.append(len(x))
        return apply(w, x)

    options = {"eps": 0.02, "attacks": ("apgd_ce",), "num_steps": 3}
    autoattack(jax.random.key(0), network(fn=counted), x, y, **options)
    first = len(tracings)
    autoattack(jax.random.key(0), network(2 * W, fn=counted), x, y, **options)
    assert len(tracings) - first <= 2  # the two calls that look for randomness


def test_one_image_and_nothing_to_attack():
    x, y = images(1, wrong=0)
    one = autoattack(jax.random.key(0), network(), x, y, eps=1.0, **QUICK)
    assert not one.robust.any()
    wrong = autoattack(jax.random.key(0), network(), x, (y + 1) % 5, eps=1.0, **QUICK)
    assert wrong.fooled_by.tolist() == [0]
    assert wrong.zero_gradient_share == 0
    np.testing.assert_array_equal(wrong.images, x)


@pytest.mark.slow(compiles=True)
def test_a_factor_on_the_logits_changes_nothing():
    x, y = images(wrong=0)
    options = {"eps": 0.03, "num_steps": 10, "num_queries": 50}
    found = [
        autoattack(jax.random.key(0), network(factor * W), x, y, **options).robust.tolist()
        for factor in (1.0, 1e-3, 1e4)
    ]
    assert found[0] == found[1] == found[2]
    assert 0 < sum(found[0]) < len(x)


def test_images_with_zero_gradient_are_reported():
    """A network whose logits are flat around some of the images."""
    x, y = images(wrong=2)

    def steps(w, x):
        z = apply(w, x)
        rounded = jnp.round(z)  # its gradient is zero
        return jnp.where((x[:, 0, 0, 0] > 0.5)[:, None], rounded, z)

    y = steps(W, x).argmax(1).at[:2].add(1) % 5
    flat = np.asarray(x[:, 0, 0, 0] > 0.5)
    found = autoattack(
        jax.random.key(0), network(fn=steps), x, y, eps=0.01, attacks=("square",), num_queries=9
    )
    np.testing.assert_array_equal(found.zero_gradient, flat & (np.arange(40) >= 2))
    assert found.zero_gradient_share == pytest.approx(flat[2:].mean())


@pytest.mark.parametrize(
    "num_classes", [2, *(pytest.param(n, marks=pytest.mark.slow(compiles=True)) for n in (3, 4))]
)
def test_few_classes_are_said(num_classes):
    x, _ = images(12)
    w = W[:, :num_classes]
    y = apply(w, x).argmax(1)
    found = autoattack(
        jax.random.key(0), network(w), x, y, eps=0.05, attacks=("apgd_targeted", "fab"), num_steps=5
    )
    text = " ".join(found.notes)
    assert ("apgd_targeted maximises z_t - z_y" in text) == (num_classes < 4)
    assert f"{num_classes} classes: {num_classes - 1} target" in text
    ten = autoattack(
        jax.random.key(0),
        network(jnp.tile(W, 2)),
        x,
        jnp.zeros(12, int),
        attacks=("fab",),
        num_steps=1,
    )
    assert ten.notes == ()


def noisy(w, key, x):
    """Answers by a random one of two weights."""
    return apply(jnp.where(jax.random.bernoulli(key), w[0], w[1]), x)


@pytest.mark.parametrize("num_classes", [pytest.param(2, marks=SLOW), pytest.param(5, marks=SLOW)])
def test_rand_attacks_the_mean_over_draws(num_classes):
    x, _ = images(24)
    w = jnp.stack([W, W + 0.3 * jnp.roll(W, 1, 1)])[..., :num_classes]
    f = jax.tree_util.Partial(noisy, w)
    y = mean_answer(jax.random.key(9), f, x, 200).argmax(1)
    eps = 0.12 if num_classes == 2 else 0.02
    options = {"version": "rand", "num_steps": 5, "num_draws": 20}
    found = autoattack(jax.random.key(0), f, x, y, eps=eps, **options)
    assert list(found.by_attack) == ["apgd_ce", "apgd_dlr"]
    assert 0 < found.robust.sum() < 24
    fooled = np.asarray(~found.robust)
    expected = mean_answer(jax.random.key(8), f, found.images, 500).argmax(1) != y
    assert (np.asarray(expected) == fooled).mean() >= 0.8  # but for those close to a tie
    none = autoattack(jax.random.key(0), f, x, y, eps=0.0, **options)
    assert none.robust.mean() >= found.robust.mean()
    assert any("DLR needs 3" in note for note in found.notes) == (num_classes == 2)


def test_the_mean_answer_is_that_of_the_probabilities():
    x, _ = images(4)
    w = jnp.stack([W, -W])
    found = mean_answer(jax.random.key(0), jax.tree_util.Partial(noisy, w), x, 4000)
    expected = (jax.nn.softmax(apply(W, x)) + jax.nn.softmax(apply(-W, x))) / 2
    np.testing.assert_allclose(jnp.exp(found), expected, atol=0.03)


def test_standard_warns_of_a_randomised_network():
    x, y = images(4)
    generator = np.random.default_rng(0)

    def random_network(x):
        return apply(W, x) + generator.normal(size=(len(x), 5)).astype(np.float32)

    options = {"attacks": ("apgd_ce",), "num_steps": 1}
    with pytest.warns(UserWarning, match=r'different logits .* version="rand"'):
        autoattack(jax.random.key(0), random_network, x, y, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autoattack(jax.random.key(0), network(), x, y, **options)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"norm": "l7"}, "unknown norm 'l7'; use one of linf, l2, l1"),
        ({"version": "plus"}, "unknown version"),
        ({"attacks": ("pgd",)}, "unknown attack 'pgd'"),
        ({"attacks": ("apgd_dlr",)}, "unknown attack 'apgd_dlr'"),
        ({"attacks": ()}, "name at least one attack"),
        ({"attacks": ("fab", "fab")}, "each once"),
        ({"eps": -0.1}, "eps is -0.1"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"eps": jnp.full(40, 0.1)}, r"eps has shape \[40\]; give a single number for all images"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_queries": 2.5}, "num_queries is 2.5; give an integer"),
        ({"num_draws": 0}, "num_draws"),
        ({"batch_size": 0}, "batch_size"),
        (
            {"state": AutoAttackState(np.zeros((3, 2, 2, 5)), np.zeros(3), np.zeros(3), 0, 10)},
            r"state is of images \[3, 2, 2, 5\], but x has shape \[40, 2, 2, 5\]",
        ),
        (
            {"state": AutoAttackState(np.zeros((40, 2, 2, 5)), np.zeros(40), np.zeros(40), 0, 7)},
            "state has 7 rounds, but these settings need 10",
        ),
    ],
)
def test_mistakes(bad, match):
    x, y = images()
    with pytest.raises(UserError, match=match):
        autoattack(jax.random.key(0), network(), x, y, **bad)


def test_mistakes_in_arrays():
    x, y = images()
    key, f = jax.random.key(0), network()
    with pytest.raises(UserError, match=r"labels are int32 \[40, 1\]; give 40 integers"):
        autoattack(key, f, x, y[:, None])
    for wrong in (5, -1):
        with pytest.raises(UserError, match=r"labels lie in .* 5 classes; give 0 to 4"):
            autoattack(key, f, x, y.at[2].set(wrong))
    with pytest.raises(UserError, match="images lie in"):
        autoattack(key, f, 255 * x, y)
    with pytest.raises(UserError, match="give at least one image"):
        autoattack(key, f, x[:0], y[:0])
    with pytest.raises(UserError, match="key is 0; it must be a single key"):
        autoattack(0, f, x, y)
    with pytest.raises(UserError, match=r"returned shape \[40, 2, 2, 5\]"):
        autoattack(key, lambda x: x, x, y)
    with pytest.raises(UserError, match="state and progress_fn do not work inside"):
        jax.jit(lambda x: autoattack(key, f, x, y, progress_fn=print).robust)(x)


def test_buckets():
    assert [bucket(n, 512) for n in (1, 32, 33, 128, 129)] == [32, 32, 128, 128, 512]
    assert bucket(5, 7) == 7
    for most in (1, 31, 200, 512, 1000):
        for count in (1, most // 2 + 1, most):
            assert count <= bucket(count, most) <= most
