"""D3: its loss by hand, where it starts, and the norm that it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_case
from slow import SLOW

from mcjax.models.network import from_apply
from mcjax.repair.methods import d3

KEY = jax.random.key(1)


def test_the_start_is_uniform_with_the_suspects_norm():
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(200, 50)), jnp.float32)
    new = np.asarray(d3.distant_start(KEY, kernel), np.float64)
    norm = np.linalg.norm(kernel)
    assert np.linalg.norm(new) == pytest.approx(norm, rel=1e-5)
    # Uniform in [-a, a] has norm a sqrt(n / 3).
    limit = norm / np.sqrt(new.size / 3)
    assert np.abs(new).max() == pytest.approx(limit, rel=0.01)
    np.testing.assert_allclose(
        np.quantile(new / limit, [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=0.03
    )


def test_the_loss_by_hand():
    """Logits are x w: two images, of which one is below the floor."""

    def apply(variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["fc"]["kernel"]

    x, y = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0])
    w, w0 = np.array([[4.0, 0.0], [1.0, 2.0]]), np.array([[1.0, 0.0], [1.0, -2.0]])
    losses = np.log(np.exp(x @ w).sum(1)) - (x @ w)[:, 0]  # 0.018 and 1.31
    expected = 0.5 * np.maximum(losses - 0.1, 0).mean() - np.linalg.norm(w - w0)
    loss_fn = d3.distance_loss(from_apply(apply), "fc", weight=0.5, eps=0.1)
    batch = {"image": jnp.float32(x).reshape(2, 1, 1, 2), "label": jnp.asarray(y)}
    params = {"fc": {"kernel": jnp.float32(w)}}
    loss, (_, metrics) = loss_fn(KEY, jnp.int32(0), params, {}, jnp.float32(w0), batch)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(metrics.cross_entropy) == pytest.approx(losses.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("model", "options", "layer"),
    [
        ("cnn", {"width": 2}, "fc2"),
        ("cnn", {"width": 2, "batch_norm": True}, "fc2"),
        pytest.param("resnet8", {"width": 2}, "fc", marks=SLOW),
        pytest.param("mlp", {"hidden": (4,) * 10}, "fc11", marks=SLOW),
    ],
)
def test_the_last_layer_keeps_its_norm_and_moves(model, options, layer):
    case = tiny_case.case(model, num_steps=5, options={"learning_rate.d3": 0.5}, **options)
    assert d3.last_layer(case.network, case.suspect, case.images["image"]) == layer
    found = d3.run(case)
    new, old = (np.asarray(v["params"][layer]["kernel"]) for v in (found, case.suspect))
    assert np.linalg.norm(new) == pytest.approx(np.linalg.norm(old), rel=1e-5)
    cosine = (new * old).sum() / np.linalg.norm(old) ** 2
    assert cosine < 0.5  # far from the suspect's, where it did not start
