"""Eigenvalues against dense Hessians in float64, and against spectra that are made up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from slow import all_but

from mcjax import evaluate_path, input_hessian_eigenvalue, models, pgd, weight_hessian_eigenvalue
from mcjax.core.errors import UserError
from mcjax.core.sharding import make_mesh
from mcjax.curvature import quadratic_model, top_eigenvalue
from mcjax.curves import Bezier
from mcjax.models.network import from_linen
from mcjax.training.losses import cross_entropy

SHAPE = (3, 4, 1)
WEIGHTS = [0.8 * np.random.default_rng(i).normal(size=s) for i, s in enumerate([(12, 16), (16, 4)])]
ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "gelu": jax.nn.gelu}


@functools.cache
def network(activation, gain=1.0):
    def logits_fn(x):
        first, second = (jnp.asarray(w, x.dtype) for w in WEIGHTS)
        return gain * ACTIVATIONS[activation](x.reshape(len(x), -1) @ first) @ second

    return logits_fn


def images(n=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, *SHAPE)), np.arange(n) % 4


def dense_hessians(logits_fn, x, y):
    """Of the plain cross-entropy, in float64, [B, n, n]."""
    with jax.enable_x64(True):
        hessian = jax.hessian(
            lambda z, label: cross_entropy(logits_fn(z.reshape(1, *SHAPE)), label[None])[0]
        )
        flat = jnp.asarray(np.float64(x).reshape(len(x), -1))
        return np.asarray(jax.vmap(hessian)(flat, jnp.asarray(y)))


CASES = [(m, a) for a in ACTIVATIONS for m in ("power", "lanczos")] + [("exact", "relu")]


@pytest.mark.accelerator
@pytest.mark.parametrize(("method", "activation"), CASES)
def test_against_the_dense_hessian(method, activation):
    x, y = images()
    logits_fn = network(activation)
    hessians = dense_hessians(logits_fn, x, y)
    values = np.linalg.eigvalsh(hessians)
    top = input_hessian_eigenvalue(
        logits_fn, jnp.float32(x), jnp.asarray(y), method,
        piecewise_linear=activation == "relu", return_eigenvector=True,
    )  # fmt: skip
    np.testing.assert_allclose(top.eigenvalue, values[:, -1], rtol=1e-4)
    v = np.float64(top.eigenvector).reshape(len(x), -1)
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1, rtol=1e-5)
    residual = np.linalg.norm(
        np.einsum("bij,bj->bi", hessians, v) - values[:, -1:] * v, axis=1
    ) / np.abs(values[:, -1])
    np.testing.assert_allclose(top.residual, residual, atol=1e-4)
    assert (top.residual <= 1.001e-3).all()
    assert (np.asarray(top.num_iters) >= 1).all()


@pytest.mark.accelerator
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("method", all_but(["exact"], ["power", "lanczos", "exact"]))
def test_where_the_network_is_sure(method, right):
    """Eigenvalues below 1e-7, the rounding of softmax, whether the answer is the label or not."""
    x, _ = images(12)
    logits_fn = network("relu", 6.0)
    y = np.asarray(logits_fn(jnp.float32(x)).argmax(1))
    y = y if right else (y + 1) % 4
    expected = np.linalg.eigvalsh(dense_hessians(logits_fn, x, y))[:, -1]
    top = input_hessian_eigenvalue(
        logits_fn, jnp.float32(x), jnp.asarray(y), method, piecewise_linear=True
    )
    visible = expected > 1e-11  # what float64 and the plain loss can tell
    assert (expected[visible] < 1e-6).sum() >= 2
    np.testing.assert_allclose(np.asarray(top.eigenvalue)[visible], expected[visible], rtol=3e-4)


@pytest.mark.accelerator
@pytest.mark.parametrize("method", ["power", "lanczos", "exact"])
def test_finite_and_zero_where_the_hessian_underflows(method):
    """Gaps of 27 to 156 logits: the products of two classes' probabilities span all of float32."""
    offset = jnp.float32([-154, -147, -132, 0, -156, -27, -122, -149, -98, -85])
    w = jax.random.normal(jax.random.key(0), (64, 10))
    x = 0.05 * jax.random.uniform(jax.random.key(1), (50, 8, 8, 1))
    top = input_hessian_eigenvalue(
        lambda x: x.reshape(len(x), -1) @ w + offset[None], x, jnp.full(50, 3), method,
        piecewise_linear=True, return_eigenvector=True,
    )  # fmt: skip
    assert np.isfinite(top.eigenvalue).all()
    assert np.isfinite(top.eigenvector).all()
    # Two classes are left: lambda = p (1 - p) ||w_5 - w_3||^2.
    gap = np.float64(x.reshape(50, -1) @ (w[:, 3] - w[:, 5])) + 27
    expected = np.exp(-gap) * float(((w[:, 3] - w[:, 5]) ** 2).sum())
    np.testing.assert_allclose(top.eigenvalue, expected, rtol=1e-3)


@pytest.mark.parametrize("method", all_but(["lanczos"], ["power", "lanczos"]))
def test_sign_on_a_network_whose_largest_magnitude_is_negative(method):
    """Label 1 against a concave logit: its Hessian is p (1 - p) g g^T - p diag(scale)."""
    scale = jnp.concatenate([jnp.array([0.1]), jnp.linspace(4, 16, 11)])

    def logits_fn(x):
        d = x.reshape(len(x), -1) - 0.3
        z = d[:, 0] - (scale[None] * d**2).sum(1) / 2
        return jnp.stack([z, jnp.zeros_like(z)], 1)

    x = 0.3 + 0.05 * images(5)[0]
    y = np.ones(5, np.int32)
    values = np.linalg.eigvalsh(dense_hessians(lambda x: logits_fn(x), x, y))
    assert (values[:, 0] < -10 * values[:, -1]).all()
    assert (values[:, -1] > 0).all()
    top = input_hessian_eigenvalue(logits_fn, jnp.float32(x), y, method, max_iters=1000)
    np.testing.assert_allclose(top.eigenvalue, values[:, -1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["power", "lanczos"])
def test_spectra_of_every_kind(method):
    """The operators are dense matrices with known eigenvalues, all in one batch."""
    spectra = np.array([
        [5.0, 3.0, 1.0, 0.0, 0.0, -1.0],
        [2.0, 1.0, 0.5, 0.0, -1.0, -7.0],  # a negative one dominates
        [3.0, 1.0, 0.5, 0.0, -1.0, -3.0],  # as large as the positive one: no plain power iteration
        [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0],  # all negative
        [4.0, 4.0, 4.0, 0.0, 0.0, 0.0],  # a multiple one
        [1e-6, 4e-7, 0.0, 0.0, -1e-6, -2e-6],  # tiny
        [1e-2, 0.0, 0.0, 0.0, 0.0, -1.0],  # hidden behind a large negative one
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ])  # fmt: skip
    rng = np.random.default_rng(0)
    q = np.stack([np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in spectra])
    matrices = jnp.float32(np.einsum("bij,bj,bkj->bik", q, spectra, q))
    top = top_eigenvalue(
        lambda v: jnp.einsum("bij,bj->bi", matrices, v, precision="highest"),
        matrices[:, 0], key=jax.random.key(0), method=method, tolerance=1e-4, max_iters=2000,
    )  # fmt: skip
    # Relative to the whole spectrum: what float32 products can know.
    error = np.abs(top.eigenvalue - spectra[:, 0])
    assert (error <= 1e-5 * np.abs(spectra).max(1)).all(), top
    assert (np.asarray(top.residual)[:6] <= 1e-3).all()


@pytest.mark.parametrize("method", ["power", "lanczos"])
def test_negative_spectra_whose_first_settled_eigenvalue_is_not_the_lowest(method):
    """A shift by that one leaves the operator indefinite; the largest eigenvalue counts all the same."""
    values = -np.random.default_rng(0).uniform(0.1, 1, size=(2000, 2)).astype(np.float32)
    start = np.random.default_rng(1).normal(size=(2000, 2)).astype(np.float32)
    top = top_eigenvalue(
        lambda v: values * v,
        jnp.asarray(start),
        key=jax.random.key(0),
        method=method,
        max_iters=3000,
    )
    settled = np.asarray(top.residual) <= 1e-3
    assert settled.mean() > 0.95
    error = np.abs(np.asarray(top.eigenvalue) - values.max(1)) / np.abs(values.max(1))
    assert error[settled].max() < 0.01


def test_residual_tells_when_power_was_stopped_too_early():
    x, y = images()
    top = input_hessian_eigenvalue(network("tanh"), jnp.float32(x), y, max_iters=2)
    assert (top.residual > 1e-3).any()
    assert (top.num_iters == 2).all()


def test_lanczos_needs_no_more_vectors_than_the_rank():
    """A piecewise linear network of 4 classes has rank 3; one vector more finds the space exhausted."""
    x, y = images()
    top = input_hessian_eigenvalue(network("relu"), jnp.float32(x), y, "lanczos")
    assert (top.num_iters <= 6).all()


@pytest.mark.slow(compiles=True)
@pytest.mark.accelerator
def test_exact_on_convolutions_and_pools():
    net = from_linen(models.create("cnn", num_classes=5, width=4, hidden=16), (8, 8, 1))
    variables = net.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (5, 8, 8, 1))
    y = jnp.arange(5)

    def logits_fn(x):
        return 5 * net.apply(variables, x)

    exact, lanczos = (
        input_hessian_eigenvalue(logits_fn, x, y, m, piecewise_linear=net.piecewise_linear)
        for m in ("exact", "lanczos")
    )
    np.testing.assert_allclose(exact.eigenvalue, lanczos.eigenvalue, rtol=1e-4)
    assert (exact.residual < 1e-3).all()
    assert exact.eigenvector is None


def test_exact_is_refused_unless_promised_and_its_residual_tells_on_a_false_promise():
    x, y = images()
    for promise, word in ((None, "may not be"), (False, "is not")):
        with pytest.raises(UserError, match=word):
            input_hessian_eigenvalue(
                network("tanh"), jnp.float32(x), y, "exact", piecewise_linear=promise
            )
    forced = input_hessian_eigenvalue(
        network("tanh"), jnp.float32(x), y, "exact", piecewise_linear=True
    )
    assert (forced.residual > 0.01).any()


@pytest.mark.slow(compiles=True)
def test_legacy_against_the_published_loop():
    """Four batches of 3 images: a plain loop over batches, with the vector of the same key."""
    x, y = images(13)  # the last one fills no batch
    from mcjax.curvature.input_hessian import loss_gradient
    from mcjax.curvature.legacy import legacy_eigenvalue

    hessians = dense_hessians(network("tanh"), x, y) / 3
    v = np.float64(jax.random.normal(jax.random.key(1), (3, *SHAPE))).reshape(3, 12)
    v /= np.linalg.norm(v) + 1e-6
    estimates = []
    while len(estimates) < 2 or abs(estimates[-1] - estimates[-2]) >= 1e-3:
        total = sum(np.einsum("sij,sj->si", hessians[b : b + 3], v) for b in range(0, 12, 3))
        estimates.append((total * v).sum() / 4)
        v = total / (np.linalg.norm(total) + 1e-6)
    found = legacy_eigenvalue(
        jax.random.key(1), loss_gradient(network("tanh"), jnp.asarray(y)), jnp.float32(x),
        num_slots=3, max_iters=50, tolerance=1e-3,
    )  # fmt: skip
    assert len(estimates) > 2
    np.testing.assert_allclose(found.eigenvalue, estimates[-1], rtol=1e-4)
    assert found.num_iters == len(estimates)
    top = input_hessian_eigenvalue(network("tanh"), jnp.float32(x), jnp.asarray(y), "legacy")
    assert top.eigenvalue.shape == (13,)
    assert len(set(np.asarray(top.eigenvalue).tolist())) == 1


@pytest.mark.accelerator
@pytest.mark.parametrize("method", all_but(["power"], ["power", "lanczos"]))
def test_weight_hessian(method):
    x, y = images(20)
    params = {"a": jnp.float32(WEIGHTS[0][:, :3]), "b": jnp.float32(WEIGHTS[1][:3])}

    def loss_fn(params):
        dtype = params["a"].dtype
        flat = jnp.asarray(x, dtype).reshape(20, -1)
        return cross_entropy(jnp.tanh(flat @ params["a"]) @ params["b"], jnp.asarray(y)).mean()

    with jax.enable_x64(True):
        flat, unravel = ravel_pytree(jax.tree.map(lambda w: jnp.asarray(w, jnp.float64), params))
        values, vectors = np.linalg.eigh(jax.hessian(lambda w: loss_fn(unravel(w)))(flat))
    top = weight_hessian_eigenvalue(loss_fn, params, method, return_eigenvector=True)
    np.testing.assert_allclose(top.eigenvalue, values[-1], rtol=1e-4)
    assert jax.tree.structure(top.eigenvector) == jax.tree.structure(params)
    v = ravel_pytree(top.eigenvector)[0]
    np.testing.assert_allclose(np.abs(v @ vectors[:, -1]), 1, atol=1e-3)


def test_quadratic_model_term_by_term():
    x, y = images()
    logits_fn = network("tanh")
    delta = 0.1 * np.random.default_rng(5).normal(size=x.shape)
    hessians = dense_hessians(logits_fn, x, y)
    values, vectors = np.linalg.eigh(hessians)
    v = vectors[:, :, -1].reshape(x.shape)
    with jax.enable_x64(True):

        def f(x):
            return cross_entropy(logits_fn(jnp.asarray(x)), jnp.asarray(y))

        change = np.asarray(f(x + delta) - f(x))
        gradient = np.asarray(jax.grad(lambda x: f(x).sum())(jnp.asarray(x)))
    d = delta.reshape(len(x), -1)
    length = np.linalg.norm(d, axis=1)
    slope = (gradient * delta).sum((1, 2, 3))
    bend = np.einsum("bi,bij,bj->b", d, hessians, d) / 2
    model = quadratic_model(
        logits_fn, *(jnp.float32(a) for a in (x,)), y, jnp.float32(delta), jnp.float32(v)
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    close(model.perturbed_loss - model.clean_loss, change)
    close(model.gradient_term, slope)
    close(model.curvature_term, bend)
    close(model.error, change - slope - bend)
    close(model.alignment, np.abs((d * v.reshape(d.shape)).sum(1)) / length)
    close(model.eigenvalue_term, values[:, -1] * length**2 / 2)
    # Along the eigenvector itself the alignment is 1 and the two second-order terms agree.
    along = quadratic_model(logits_fn, jnp.float32(x), y, jnp.float32(0.1 * v), jnp.float32(v))
    close(along.alignment, np.ones(len(x)))
    close(along.curvature_term, along.eigenvalue_term)
    still = quadratic_model(logits_fn, jnp.float32(x), y, jnp.zeros(x.shape), jnp.float32(v))
    close(still.alignment, np.zeros(len(x)))


@pytest.mark.slow(compiles=True)
def test_along_a_path_on_one_and_on_eight_devices():
    """Attacks and eigenvalues differentiate with respect to images that every device holds."""
    net = from_linen(models.create("mlp", num_classes=4, hidden=(8,)), SHAPE)
    start, end = (net.init(jax.random.key(i)) for i in (0, 1))
    start, end = (jax.tree.map(lambda w: 3 * w, tree) for tree in (start, end))
    x, y = images(8)
    batch = {"image": jnp.float32(x), "label": jnp.asarray(y)}
    ts = jnp.linspace(0, 1, 9)

    def metric_fn(variables, batch):
        def logits_fn(x):
            return net.apply(variables, x)

        x, y = batch["image"], batch["label"]
        x_adv = pgd(jax.random.key(0), logits_fn, x, y, 0.1, 0.03, 5)
        logits = logits_fn(x_adv)
        return {
            "robust_loss": cross_entropy(logits, y),
            "robust_accuracy": (logits.argmax(-1) == y).astype(jnp.float32),
            "power": input_hessian_eigenvalue(logits_fn, x, y).eigenvalue,
            "exact": input_hessian_eigenvalue(
                logits_fn, x, y, "exact", piecewise_linear=True
            ).eigenvalue,
        }

    curve = Bezier.connect(start, end, num_bends=1)
    devices = jax.devices()
    assert len(devices) == 8
    one = evaluate_path(metric_fn, curve, ts, batch, mesh=make_mesh(devices[:1]))
    eight = evaluate_path(metric_fn, curve, ts, batch, mesh=make_mesh(devices))
    for name in one:
        np.testing.assert_allclose(one[name], eight[name], rtol=1e-5, err_msg=name)
    alone = {name: v.mean() for name, v in metric_fn(curve(ts[3]), batch).items()}
    for name, value in alone.items():
        np.testing.assert_allclose(eight[name][3], value, rtol=1e-4, err_msg=name)
    assert np.ptp(np.asarray(one["robust_loss"])) > 0.01


def test_mistakes():
    x, y = images()
    x = jnp.float32(x)
    for options, match in (
        ({"method": "qr"}, "unknown method 'qr'"),
        ({"max_iters": 0}, "max_iters is 0"),
        ({"tolerance": -1.0}, "tolerance"),
    ):
        with pytest.raises(UserError, match=match):
            input_hessian_eigenvalue(network("relu"), x, y, **options)
    with pytest.raises(UserError, match="images lie in"):
        input_hessian_eigenvalue(network("relu"), x + 1, y)
    for wrong in (4, -1):
        with pytest.raises(UserError, match="the network has 4 classes; give 0 to 3"):
            input_hessian_eigenvalue(network("relu"), x, np.full(6, wrong))
        with pytest.raises(UserError, match="the network has 4 classes; give 0 to 3"):
            quadratic_model(network("relu"), x, np.full(6, wrong), x, x)
    with pytest.raises(UserError, match=r"labels are int32 \[6, 1\]"):
        input_hessian_eigenvalue(network("relu"), x, y[:, None])
    with pytest.raises(UserError, match="returned shape"):
        input_hessian_eigenvalue(lambda x: x.sum((1, 2, 3)), x, y)
    with pytest.raises(UserError, match="unknown method 'exact'"):
        weight_hessian_eigenvalue(lambda w: w**2, 1.0, "exact")
    with pytest.raises(UserError, match="eigenvector has shape"):
        quadratic_model(network("relu"), x, y, x, x[0])
