"""APGD against the paper's algorithm as a plain loop, and against the published PyTorch code."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow import SLOW

from mcjax.attacks.images.apgd import apgd
from mcjax.attacks.images.attack_losses import LABEL_LOSSES
from mcjax.attacks.images.auto_pgd_search import checkpoints
from mcjax.attacks.images.balls import BALLS
from mcjax.attacks.images.pgd import pgd
from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.training.losses import cross_entropy

W = jax.random.normal(jax.random.key(0), (12, 8))
U = jax.random.normal(jax.random.key(1), (8, 4))


def network(x):
    return jnp.sin(2 * x.reshape(len(x), -1) @ W) @ U


def images(n=12):
    x = jax.random.uniform(jax.random.key(2), (n, 2, 3, 2))
    return x, network(x).argmax(1)


def plain_apgd(key, x, y, eps, norm, num_steps, loss):
    """Croce & Hein 2020, algorithm 1, one image at a time, in Python; early success not looked at.

    Returns x_max, f_max, and how often each image halved its step.
    """
    ball, ends = BALLS[norm], {0, *checkpoints(num_steps).tolist()}
    start = (x + ball.start(stream(key, "start", 0), x, eps)).clip(0, 1)
    value_and_grad = jax.jit(jax.value_and_grad(lambda x, y: LABEL_LOSSES[loss](network(x), y)[0]))
    best, highest, halvings = [], [], []
    for i in range(len(x)):
        own, label = x[i : i + 1], y[i : i + 1]
        project = functools.partial(ball.project, own, eps=eps)
        z = [start[i : i + 1]]  # x^(0), x^(1), ...
        f, g = value_and_grad(z[0], label)
        values, x_max, f_max, g_max = [float(f)], z[0], float(f), g
        eta, etas, maxima, last, halved = 2 * eps, [2 * eps], [float(f)], 0, 0
        rises = 0
        for k in range(num_steps):
            ascent = project(z[-1] + eta * ball.direction(g, z[-1]))
            if k == 0:
                new = project(ascent)
            else:
                new = project(z[-1] + 0.75 * (ascent - z[-1]) + 0.25 * (z[-1] - z[-2]))
            f, g = value_and_grad(new, label)
            rises += float(f) > values[-1]
            z.append(new)
            values.append(float(f))
            if values[-1] > f_max:
                x_max, f_max, g_max = new, values[-1], g
            if k + 1 in ends:
                first = rises < 0.75 * (k + 1 - last)
                second = len(etas) > 0 and etas[-1] == eta and maxima[-1] == f_max
                etas.append(eta)
                maxima.append(f_max)
                if first or second:
                    eta, halved = eta / 2, halved + 1
                    z.append(x_max)  # z[-2] stays x^(k)
                    values.append(f_max)
                    g = g_max
                last, rises = k + 1, 0
        best.append(x_max)
        highest.append(f_max)
        halvings.append(halved)
    return jnp.concatenate(best), np.array(highest), halvings


@pytest.mark.parametrize(
    ("norm", "loss"), [("linf", "cross_entropy"), pytest.param("l2", "dlr", marks=SLOW)]
)
def test_against_the_algorithm_as_a_plain_loop(norm, loss):
    x, y = images()
    eps = {"linf": 0.05, "l2": 0.12}[norm]  # too small to succeed on all
    key = jax.random.key(3)
    _, f_max, halvings = plain_apgd(key, x, y, eps, norm, 30, loss)
    ours = apgd(key, network, x, y, eps=eps, norm=norm, num_steps=30, loss=loss, early_stop=False)
    f = LABEL_LOSSES[loss](network(ours), y)
    unfooled = np.asarray(network(ours).argmax(1) == y)
    assert unfooled.sum() >= 3
    assert len(set(halvings)) > 1  # step sizes differ between the images
    # Where nothing was misclassified, the result is x_max; elsewhere it may be another iterate.
    np.testing.assert_allclose(f[unfooled], f_max[unfooled], rtol=3e-3, atol=1e-4)
    if loss == "cross_entropy":  # DLR jumps behind the boundary: there rounding decides the way
        assert (f <= f_max + 3e-3).all()


@pytest.mark.parametrize("num_steps", [1, 2, 5, 10, 100, 1000])
def test_checkpoints(num_steps):
    ends = checkpoints(num_steps)
    assert (np.diff(ends) > 0).all()
    assert ends[0] >= 1
    assert ends[-1] <= num_steps


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(["linf", "l2"]), st.floats(0, 1), st.integers(0, 99))
def test_never_leaves_ball_or_box(norm, eps, seed):
    x, y = images()
    x_adv = apgd(jax.random.key(seed), network, x, y, eps=eps, norm=norm, num_steps=10)
    order = {"linf": np.inf, "l2": 2}[norm]
    size = np.linalg.norm(np.asarray(x_adv - x).reshape(len(x), -1), order, axis=1)
    assert (size <= eps + 1e-5).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


def test_early_stop_changes_no_success_and_goes_on_to_higher_losses_without():
    x, y = images(60)
    options = {"eps": 0.08, "num_steps": 20, "num_restarts": 2}
    stopped, full = (
        apgd(jax.random.key(0), network, x, y, early_stop=e, **options) for e in (True, False)
    )
    fooled = network(stopped).argmax(1) != y
    np.testing.assert_array_equal(fooled, network(full).argmax(1) != y)
    assert 0 < fooled.sum() < 60
    assert cross_entropy(network(full), y).mean() > cross_entropy(network(stopped), y).mean()


def test_at_least_as_strong_as_pgd_and_more_restarts_never_weaker():
    x, y = images(60)

    def accuracy(x_adv):
        return (network(x_adv).argmax(1) == y).mean()

    key, eps = jax.random.key(0), 0.08
    once, often = (
        accuracy(apgd(key, network, x, y, eps=eps, num_steps=20, num_restarts=n)) for n in (1, 4)
    )
    assert often <= once <= accuracy(pgd(key, network, x, y, eps, eps / 4, 20)) + 0.04
    assert once < 0.97


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"norm": "l7"}, "norm"),
        ({"loss": "margin"}, "loss"),
        ({"eps": -0.1}, "eps"),
        ({"eps": jnp.full(12, 0.1)}, r"eps has shape \[12\]; give a single number"),
        ({"num_steps": 2.5}, "num_steps is 2.5; give an integer"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_restarts": 0}, "num_restarts"),
    ],
)
def test_mistakes(bad, match):
    x, y = images()
    with pytest.raises(UserError, match=match):
        apgd(jax.random.key(0), network, x, y, **{"eps": 0.1, **bad})


@functools.cache
def trained():
    """A small ReLU network trained on the digits, as numpy weights, with the images it did not see."""
    import optax
    import sklearn.datasets

    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x, y = jnp.float32(x / 16).reshape(-1, 8, 8, 1), jnp.asarray(y)
    keys = jax.random.split(jax.random.key(0))
    w = [
        jax.random.normal(k, s) / np.sqrt(s[0] / 2)
        for k, s in zip(keys, [(64, 48), (48, 10)], strict=True)
    ]

    def logits(w, x):
        return jax.nn.relu(x.reshape(len(x), -1) @ w[0]) @ w[1]

    optimizer = optax.adam(3e-3)

    @jax.jit
    def train(w):
        def step(_, carry):
            w, state = carry
            grads = jax.grad(lambda w: cross_entropy(logits(w, x[:797]), y[:797]).mean())(w)
            updates, state = optimizer.update(grads, state)
            return optax.apply_updates(w, updates), state

        return jax.lax.fori_loop(0, 150, step, (w, optimizer.init(w)))[0]

    w = train(w)
    return functools.partial(logits, w), [np.asarray(v) for v in w], x[797:], y[797:]


def published_attack():
    """APGDAttack of the auto-attack code, under either name of its package."""
    pytest.importorskip("torch")
    for name in ("autoattack", "pyautoattack"):
        try:
            return __import__(f"{name}.autopgd_base", fromlist=["APGDAttack"]).APGDAttack
        except ImportError:
            continue
    return pytest.skip("neither autoattack nor pyautoattack is installed")


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.12), ("l2", 0.7)])
@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
def test_robust_accuracy_is_that_of_the_published_code(norm, eps, loss):
    """Means of three seeds: those of one code differ by up to a point among themselves."""
    attack = published_attack()
    import torch

    logits_fn, w, x, y = trained()
    a, b = (torch.tensor(v) for v in w)
    x_torch = torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)
    y_torch = torch.tensor(np.asarray(y)).long()

    def theirs(x):
        return torch.relu(x.flatten(1) @ a) @ b

    ours, published = [], []
    for seed in range(3):
        x_adv = apgd(jax.random.key(seed), logits_fn, x, y, eps=eps, norm=norm, loss=loss)
        ours.append((logits_fn(x_adv).argmax(1) == y).mean())
        run = attack(
            theirs, n_iter=100, norm=norm.capitalize(), eps=eps, seed=seed,
            loss={"cross_entropy": "ce", "dlr": "dlr"}[loss],
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of theirs, on gradients that are zero
            z = theirs(run.perturb(x_torch, y_torch))
        published.append(float((z.argmax(1) == y_torch).float().mean()))
    print(f"{norm} {eps} {loss}: ours {np.mean(ours):.4f}, published {np.mean(published):.4f}")
    assert 0.05 < np.mean(published) < 0.95
    assert abs(np.mean(ours) - np.mean(published)) <= 0.005
