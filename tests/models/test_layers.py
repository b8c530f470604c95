import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.models.layers import Dense, conv, he_normal_fan_out, torch_uniform


def normal(*shape):
    # NumPy's, here and in the other tests: XLA takes half a second to compile a random shape.
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_he_normal_fan_out_has_variance_two_over_area_times_outputs():
    kernel = he_normal_fan_out(jax.random.key(0), (3, 3, 64, 128))
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (3 * 3 * 128)), rel=0.01)
    assert np.max(np.abs(kernel)) > 4 * np.std(kernel)  # not truncated


def test_torch_uniform_fills_its_bounds():
    weights = torch_uniform(25)(jax.random.key(0), (25, 400))
    assert np.min(weights) == pytest.approx(-0.2, abs=1e-3)
    assert np.max(weights) == pytest.approx(0.2, abs=1e-3)


def test_dense_is_affine_and_its_bias_knows_fan_in():
    x = normal(3, 100)
    y, variables = Dense(50).init_with_output(jax.random.key(1), x)
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    expected = x @ np.asarray(kernel) + np.asarray(bias)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert 0.08 < np.max(np.abs(bias)) <= 0.1


@pytest.mark.parametrize(
    ("side", "kernel_size", "stride"), [(7, 1, 2), (8, 1, 2), (7, 3, 2), (8, 3, 2), (7, 5, 1)]
)
def test_conv_pads_as_torch(side, kernel_size, stride):
    torch = pytest.importorskip("torch")
    x, kernel, bias = normal(2, side, side, 3), normal(kernel_size, kernel_size, 3, 4), normal(4)
    layer = conv(4, kernel_size, stride=stride)
    y = layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    expected = torch.nn.functional.conv2d(
        torch.tensor(x.transpose(0, 3, 1, 2)),
        torch.tensor(kernel.transpose(3, 2, 0, 1)),
        torch.tensor(bias),
        stride=stride,
        padding=kernel_size // 2,
    )
    np.testing.assert_allclose(y, expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_conv_without_bias_has_no_bias():
    layer = conv(4, 3, use_bias=False)
    variables = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros([1, 4, 4, 3]))
    assert set(variables["params"]) == {"kernel"}
