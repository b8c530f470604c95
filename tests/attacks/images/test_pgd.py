"""PGD against steps worked by hand, and its laws."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow import all_but

from mcjax.attacks import apgd_targeted, autoattack, fab, square
from mcjax.attacks.images.apgd import apgd
from mcjax.attacks.images.attack_losses import LABEL_LOSSES, kl, margin
from mcjax.attacks.images.pgd import fgsm, pgd
from mcjax.core.errors import UserError
from mcjax.training.losses import cross_entropy

W = jax.random.normal(jax.random.key(0), (12, 3))


def linear(x):
    return x.reshape(len(x), -1) @ W


def two_layers(x):
    return jnp.tanh(4 * x.reshape(len(x), -1) @ W) @ W[:3]


def images(n=5, seed=1):
    return jax.random.uniform(jax.random.key(seed), (n, 2, 3, 2)), jnp.arange(n) % 3


@pytest.mark.accelerator
def test_two_steps_by_hand_on_a_linear_model():
    """For two classes the gradient's sign is that of w_other - w_own, whatever the step."""
    w = np.float32([[1.0, -1.0], [0.0, 2.0], [0.5, -0.5], [0.0, 0.0]])
    x = jnp.float32([0.5, 0.5, 0.95, 0.5]).reshape(1, 1, 2, 2)
    y = jnp.array([1])
    x_adv = pgd(
        jax.random.key(0), lambda x: x.reshape(1, 4) @ w, x, y,
        eps=0.15, step_size=0.1, num_steps=2, random_start=False,
    )  # fmt: skip
    # signs of w[:, 0] - w[:, 1]: +, -, +, 0; two steps of 0.1 end at eps; 0.95 meets the box.
    np.testing.assert_allclose(x_adv.ravel(), [0.65, 0.35, 1.0, 0.5], rtol=1e-6)


@pytest.mark.accelerator
def test_l2_step_by_hand():
    w = np.float32([[0.0, 3.0], [0.0, 4.0]])
    x = jnp.full((1, 1, 1, 2), 0.5)
    x_adv = pgd(
        jax.random.key(0), lambda x: x.reshape(1, 2) @ w, x, jnp.array([0]),
        eps=0.2, step_size=0.5, num_steps=1, norm="l2", random_start=False,
    )  # fmt: skip
    np.testing.assert_allclose(x_adv.ravel(), [0.5 + 0.2 * 0.6, 0.5 + 0.2 * 0.8], rtol=1e-6)


def size_of(delta, norm):
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    return np.linalg.norm(np.asarray(delta, np.float64).reshape(len(delta), -1), order, axis=1)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["linf", "l2", "l1"]),
    st.floats(0, 1),
    st.floats(0, 2),
    st.integers(0, 5),
    st.booleans(),
    st.integers(0, 99),
)
def test_never_leaves_ball_or_box(norm, eps, step_size, num_steps, random_start, seed):
    x, y = images(seed=seed)
    x_adv = pgd(
        jax.random.key(seed), two_layers, x, y, eps, step_size, num_steps, norm, random_start
    )
    assert (size_of(x_adv - x, norm) <= eps + 1e-5).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


@pytest.mark.accelerator
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_more_steps_are_never_weaker_and_the_loss_rises(norm):
    x, y = images(50)
    losses = [
        cross_entropy(two_layers(pgd(jax.random.key(0), two_layers, x, y, 0.3, 0.1, n, norm)), y)
        for n in (0, 1, 5, 20)
    ]
    for weaker, stronger in itertools.pairwise(losses):
        assert (stronger >= weaker - 1e-6).all()
    assert losses[-1].mean() > losses[0].mean() + 0.05


@pytest.mark.accelerator
def test_same_key_same_images_other_key_others():
    x, y = images()
    a, b, c = (pgd(jax.random.key(k), two_layers, x, y, num_steps=1) for k in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_examples_do_not_influence_each_other():
    """Whatever happens to the others, even that they have no finite loss."""
    x, y = images(6)

    def broken(x):
        return two_layers(x).at[3:].set(jnp.nan)

    options = {"eps": 0.3, "step_size": 0.1, "random_start": False}
    for more in ({}, {"early_stop": True}, {"norm": "l1"}):
        a, b = (pgd(jax.random.key(0), f, x, y, **options, **more) for f in (two_layers, broken))
        np.testing.assert_array_equal(a[:3], b[:3])
        np.testing.assert_array_equal(b[3:], x[3:])  # and those stay as they are


@pytest.mark.accelerator
def test_under_vmap_over_networks():
    x, y = images()
    ws = jnp.stack([W, -W])

    def attack(w):
        return pgd(jax.random.key(0), lambda x: x.reshape(len(x), -1) @ w, x, y)

    together = jax.jit(jax.vmap(attack))(ws)
    for i, w in enumerate(ws):
        np.testing.assert_allclose(together[i], attack(w), atol=1e-6)


def test_l1_step_by_hand():
    """20 numbers, so one moves a step; when it meets the box, the next largest does."""
    w = np.zeros((20, 2), np.float32)
    w[3], w[7] = (0, 5), (4, 0)  # of label 0: number 3 goes up, number 7 goes down
    x = jnp.full((1, 2, 5, 2), 0.5)
    x_adv = pgd(
        jax.random.key(0), lambda x: x.reshape(1, 20) @ w, x, jnp.array([0]),
        eps=0.75, step_size=0.25, num_steps=3, norm="l1", random_start=False,
    )  # fmt: skip
    expected = np.full(20, 0.5)
    expected[3], expected[7] = 1.0, 0.25
    np.testing.assert_allclose(x_adv.ravel(), expected, atol=1e-6)


@pytest.mark.parametrize(("random_start", "step_size"), [(False, 0.1), (True, 0.125)])
def test_fgsm_is_one_step(random_start, step_size):
    x, y = images()
    key = jax.random.key(3)
    one = pgd(key, two_layers, x, y, 0.1, step_size, 1, random_start=random_start, keep_best=False)
    fast = fgsm(key, two_layers, x, y, 0.1, random_start=random_start)
    np.testing.assert_array_equal(fast, one)
    if not random_start:
        gradient = jax.grad(lambda x: cross_entropy(two_layers(x), y).sum())(x)
        np.testing.assert_allclose(fast, (x + 0.1 * jnp.sign(gradient)).clip(0, 1), atol=1e-7)


def test_each_loss_raises_its_own_objective_most():
    """On the same steps, the iterate kept is by the loss that was asked for."""
    x, y = images(30)
    objectives = {
        "cross_entropy": lambda z: cross_entropy(z, y),
        "margin": lambda z: margin(z, y),
        "dlr": lambda z: LABEL_LOSSES["dlr"](z, y),
        "kl": lambda z: kl(two_layers(x), z),
    }
    logits = {
        loss: two_layers(
            pgd(jax.random.key(0), two_layers, x, y, 0.2, 0.05, 20, loss=loss, num_restarts=3)
        )
        for loss in objectives
    }
    for loss, objective in objectives.items():
        own = objective(logits[loss]).mean()
        assert own > objective(two_layers(x)).mean()
        for other in objectives:
            assert own >= objective(logits[other]).mean() - 1e-3, (loss, other)


def test_restarts_never_lower_the_loss():
    x, y = images(40)

    def wavy(x):
        return jnp.sin(15 * x.reshape(len(x), -1)) @ W

    losses = [
        cross_entropy(wavy(pgd(jax.random.key(0), wavy, x, y, 0.4, 0.02, 5, num_restarts=n)), y)
        for n in (1, 4)
    ]
    assert (losses[1] >= losses[0] - 1e-6).all()
    assert losses[1].mean() > losses[0].mean() + 0.05


def test_restarts_without_a_random_start_begin_at_the_image():
    x, y = images(40)
    zero_steps = {"num_steps": 0, "random_start": False, "num_restarts": 3}
    start = pgd(jax.random.key(0), two_layers, x, y, 0.2, **zero_steps)
    loss, clean = cross_entropy(two_layers(start), y), cross_entropy(two_layers(x), y)
    assert (loss >= clean).all()
    assert (loss > clean).any()


def test_early_stop_returns_the_first_success():
    """Against a plain loop."""
    x, y = images(30)
    eps, step_size = 0.3, 0.02
    stopped = pgd(
        jax.random.key(0), two_layers, x, y, eps, step_size, 15, "linf", False, early_stop=True
    )
    gradient_fn = jax.grad(lambda x: cross_entropy(two_layers(x), y).sum())
    z, first, done = x, x, np.zeros(30, bool)
    for _ in range(16):
        success = np.asarray(two_layers(z).argmax(1) != y) & ~done
        first = jnp.where(success[:, None, None, None], z, first)
        done |= success
        z = (x + (z + step_size * jnp.sign(gradient_fn(z)) - x).clip(-eps, eps)).clip(0, 1)
    assert done.sum() > 5
    assert (np.asarray(two_layers(x).argmax(1) != y)).sum() < done.sum()
    np.testing.assert_allclose(stopped[done], first[done], atol=1e-6)


def test_early_stop_ends_the_loop():
    """What is misclassified from the start is not touched, however many steps are allowed."""
    x, _ = images(4)
    wrong = (linear(x).argmax(1) + 1) % 3
    x_adv = pgd(
        jax.random.key(0),
        linear,
        x,
        wrong,
        num_steps=2**31 - 2,
        random_start=False,
        early_stop=True,
    )
    np.testing.assert_array_equal(x_adv, x)


def test_its_result_is_a_constant_to_differentiation():
    """A loss on adversarial images has the gradient of the same loss on fixed images."""
    x, y = images()

    def loss(w, x_adv=None):
        def logits_fn(x):
            return jnp.tanh(x.reshape(len(x), -1) @ w)

        x_adv = pgd(jax.random.key(0), logits_fn, x, y, 0.1, 0.05, 3) if x_adv is None else x_adv
        return cross_entropy(logits_fn(x_adv), y).mean()

    x_adv = pgd(
        jax.random.key(0), lambda x: jnp.tanh(x.reshape(len(x), -1) @ W), x, y, 0.1, 0.05, 3
    )
    np.testing.assert_allclose(jax.grad(loss)(W), jax.grad(loss)(W, x_adv), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"norm": "l7"}, "norm"),
        ({"loss": "hinge"}, "loss"),
        ({"eps": -0.1}, "eps"),
        ({"eps": float("nan")}, "eps"),
        ({"eps": float("inf")}, "eps"),
        ({"eps": "8/255"}, "eps is '8/255'; give a number"),
        ({"eps": jnp.full(2, 0.1)}, r"eps has shape \[2\]; give a single number for all images"),
        ({"step_size": -1.0}, "step_size"),
        ({"num_steps": 2.5}, "num_steps is 2.5; give an integer"),
        ({"num_steps": -1}, "num_steps"),
        ({"num_restarts": 0}, "num_restarts"),
        ({"keep_best": False, "num_restarts": 2}, "keep_best"),
    ],
)
def test_mistakes(bad, match):
    x, y = images()
    with pytest.raises(UserError, match=match):
        pgd(jax.random.key(0), linear, x, y, **bad)


def test_mistakes_in_arrays():
    x, y = images()
    key = jax.random.key(0)
    for wrong in (x + 0.5, x - 0.5, x.at[0, 0, 0, 0].set(jnp.nan)):
        with pytest.raises(UserError, match=r"images lie in .*scale"):
            pgd(key, linear, wrong, y)
    with pytest.raises(UserError, match="floats"):
        pgd(key, linear, (255 * x).astype(jnp.uint8), y)
    with pytest.raises(UserError, match="images are bfloat16; give float32"):
        pgd(key, linear, x.astype(jnp.bfloat16), y)
    with pytest.raises(UserError, match=r"give 5 integers, shape \[5\]"):
        pgd(key, linear, x, y[:-1])
    with pytest.raises(UserError, match=r"labels are int32 \[5, 1\]"):
        pgd(key, linear, x, y[:, None])
    for wrong in (3, -1):
        with pytest.raises(UserError, match=r"labels lie in .* 3 classes; give 0 to 2"):
            pgd(key, linear, x, y.at[2].set(wrong))
    for empty in (x[:0], x[:, :0]):
        with pytest.raises(UserError, match="give at least one image"):
            pgd(key, linear, empty, y[: len(empty)])
    with pytest.raises(UserError, match=r"returned shape \[3\] for 5 images"):
        pgd(key, lambda x: linear(x)[0], x, y)
    with pytest.raises(UserError, match="at least 3"):
        pgd(key, lambda x: linear(x)[:, :2], x, jnp.zeros_like(y), loss="dlr")


ATTACKS = {
    "fgsm": lambda *a, **o: fgsm(*a, 0.1, **o),
    "pgd": lambda *a, **o: pgd(*a, 0.1, 0.025, 20, **o),
    "last iterate": lambda *a, **o: pgd(*a, 0.1, 0.025, 20, keep_best=False, **o),
    "apgd": lambda *a, **o: apgd(*a, eps=0.1, num_steps=20, **o),
    "apgd l1": lambda *a, **o: apgd(*a, eps=1.5, norm="l1", num_steps=20, **o),
    "apgd_targeted": lambda *a, **o: apgd_targeted(*a, eps=0.1, num_steps=20, num_targets=1, **o),
    "fab": lambda *a, **o: fab(*a, eps=0.1, num_steps=10, num_targets=1, **o),
    "square": lambda *a, **o: square(*a, eps=0.1, num_queries=100, **o),
}


@pytest.mark.accelerator
@pytest.mark.parametrize("name", all_but(("fgsm", "pgd", "apgd"), ATTACKS))
def test_a_positive_factor_on_the_logits_changes_no_robust_accuracy(name):
    """With two classes every step is the same; with ten the loss weighs the others differently."""
    w = jax.random.normal(jax.random.key(1), (48, 10))
    x = jax.random.uniform(jax.random.key(5), (200, 4, 4, 3))
    for num_classes, factors, tolerance in (
        (2, (1.0, 1e-3, 300.0, 1e4), 0.0),
        (10, (1.0, 20.0, 300.0, 1e4), 0.03),
    ):
        few = w[:, :num_classes]
        y = (x.reshape(len(x), -1) @ few).argmax(-1)
        found = []
        for factor in factors:
            network = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, factor * few)
            adversarial = ATTACKS[name](jax.random.key(0), network, x, y)
            found.append(float((network(adversarial).argmax(-1) == y).mean()))
        assert 0 < found[0] < 0.9
        assert max(found) - min(found) <= tolerance + 1e-6, (num_classes, found)


def test_kl_does_not_stall_where_softmax_saturates():
    w = jax.random.normal(jax.random.key(1), (48, 10))
    x = jax.random.uniform(jax.random.key(5), (200, 4, 4, 3))
    y = (x.reshape(len(x), -1) @ w).argmax(-1)
    robust = []
    for factor in (1.0, 1000.0):
        network = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, factor * w)
        adversarial = pgd(jax.random.key(0), network, x, y, 0.1, 0.025, 20, loss="kl")
        robust.append(float((network(adversarial).argmax(-1) == y).mean()))
    assert max(robust) < 0.6  # 0.96 where it stalls


@pytest.mark.accelerator
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_gradient_of_nan_moves_nothing(norm):
    """The gradient is 0/0 at an image of one grey, and infinite or NaN in parts of others."""

    def broken(x):
        h = x.reshape(len(x), -1)
        h = h - h.mean(-1, keepdims=True)
        return (h / jnp.maximum(jnp.linalg.norm(h, axis=-1, keepdims=True), 1e-6))[:, :4]

    x = jnp.full((2, 4, 4, 1), 0.5)
    for attack in (fgsm, functools.partial(pgd, random_start=False)):
        x_adv = attack(jax.random.key(0), broken, x, jnp.array([0, 1]), 0.03, norm=norm)
        np.testing.assert_array_equal(x_adv, x)

    def infinite(x):
        return jnp.sqrt(x.reshape(len(x), -1)[:, :2])  # slope inf at 0

    x = jnp.zeros((2, 1, 2, 1))
    x_adv = pgd(
        jax.random.key(0), infinite, x, jnp.array([0, 1]), 0.1, 0.1, 1, norm, random_start=False
    )
    assert np.isfinite(x_adv).all()
    np.testing.assert_array_equal(x_adv.argmax(2).ravel(), [1, 0])  # up the other class


@pytest.mark.parametrize("norm", all_but(["linf"], ["linf", "l2", "l1"]))
def test_float32_stays_float32_where_jax_has_64_bits(norm):
    with jax.enable_x64(True):
        x, y = images()
        x = jnp.asarray(x, jnp.float32)
        w = jnp.asarray(W, jnp.float64)  # even if the network answers in float64
        network = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, w)
        key = jax.random.key(0)
        found = [pgd(key, network, x, y, np.float64(0.1), 0.02, 5, norm)]
        found.append(apgd(key, network, x, y, eps=0.1, norm=norm, num_restarts=2))
        found.append(apgd_targeted(key, network, x, y, eps=0.1, norm=norm, num_steps=5))
        found.append(fab(key, network, x, y, eps=0.1, norm=norm, num_steps=5))
        found.append(square(key, network, x, y, eps=0.1, norm=norm, num_queries=10))
        for x_adv in found:
            assert x_adv.dtype == jnp.float32
            assert (size_of(x_adv - x, norm) <= 0.1 + 1e-6).all()


def test_robust_accuracy_is_that_of_an_eager_pytorch_loop():
    """The loop as attack libraries have it, on the same weights, from the images themselves."""
    torch = pytest.importorskip("torch")
    keys = jax.random.split(jax.random.key(0), 3)
    a, b = jax.random.normal(keys[0], (16, 12)) / 4, jax.random.normal(keys[1], (12, 5)) / 3
    x = jax.random.uniform(keys[2], (400, 4, 4, 1))

    def logits_fn(x):
        return jax.nn.relu((x.reshape(len(x), -1) - 0.5) @ a) @ b

    y = logits_fn(x).argmax(1)
    eps, step_size = 0.06, 0.02
    x_adv = pgd(jax.random.key(0), logits_fn, x, y, eps, step_size, 10, random_start=False)
    ours = float((logits_fn(x_adv).argmax(1) == y).mean())

    w, v = (torch.tensor(np.array(m)) for m in (a, b))
    clean, label = torch.tensor(np.array(x)), torch.tensor(np.array(y)).long()
    found, withstood = clean, torch.ones(len(clean), dtype=torch.bool)
    for _ in range(10):
        found = found.requires_grad_(True)
        z = torch.relu((found.flatten(1) - 0.5) @ w) @ v
        (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(z, label), found)
        found = (found + step_size * gradient.sign()).detach()
        found = torch.min(torch.max(found, clean - eps), clean + eps).clamp(0, 1)
        withstood &= (torch.relu((found.flatten(1) - 0.5) @ w) @ v).argmax(1) == label
    last = float(((torch.relu((found.flatten(1) - 0.5) @ w) @ v).argmax(1) == label).float().mean())
    assert 0.1 < last < 0.9
    # Ours keeps each image's best step, theirs the last.
    assert ours <= last
    assert ours == pytest.approx(float(withstood.float().mean()), abs=0.005)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 8.0), ("l2", 8.0), ("l1", 100.0)])
def test_radii_in_units_of_bytes_are_refused(norm, eps):
    x, y = jnp.full((1, 4, 4, 1), 0.5), jnp.array([0])
    logits_fn = lambda x: x[:, 0, :2, 0]  # noqa: E731
    attacks = (pgd, apgd, square, autoattack, fab)
    for attack in attacks:
        with pytest.raises(UserError, match=f"eps is {eps:g}, but images in .* apart in {norm}"):
            attack(jax.random.key(0), logits_fn, x, y, eps=eps, norm=norm)


def test_the_radius_of_the_whole_box_is_allowed():
    x, y = jnp.full((1, 4, 4, 1), 0.5), jnp.array([0])
    for norm, eps in (("linf", 1.0), ("l2", 4.0)):
        pgd(
            jax.random.key(0),
            lambda x: x[:, 0, :2, 0],
            x,
            y,
            eps=eps,
            step_size=0.1,
            num_steps=1,
            norm=norm,
        )
