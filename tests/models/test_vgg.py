import jax
import jax.numpy as jnp
import pytest

from mcjax import models
from mcjax.core.errors import UserError
from mcjax.models.network import from_linen

CHANNELS = {
    16: (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
    19: (64, 64, 128, 128, *[256] * 4, *[512] * 8),
}
WIDE_CHANNELS = (160, 160, 320, 320, *[640] * 9)


def init_shapes(name, **options):
    module = models.create(name, num_classes=10, **options)
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros([1, 32, 32, 3]))


def expected_count(channels, hidden, batch_norm=False):
    inputs = (3, *channels[:-1])
    convolutions = sum((9 * i + 1) * o for i, o in zip(inputs, channels, strict=True))
    dense = (channels[-1] + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * 10
    return convolutions + dense + batch_norm * 2 * sum(channels)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vgg16", expected_count(CHANNELS[16], 512)),
        ("vgg16", 15_245_130),
        ("vgg19", expected_count(CHANNELS[19], 512)),
        ("vgg16_bn", expected_count(CHANNELS[16], 512, batch_norm=True)),
        ("vgg19_bn", expected_count(CHANNELS[19], 512, batch_norm=True)),
        ("vgg16_wide", expected_count(WIDE_CHANNELS, 1280)),
    ],
)
def test_parameter_count(name, expected):
    params = init_shapes(name)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize("width", [1, 16])
def test_a_narrow_network_has_as_many_layers(width):
    narrow = tuple(channels * width // 64 for channels in CHANNELS[16])
    params = init_shapes("vgg16", width=width)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected_count(narrow, 8 * width)


def test_the_wide_network_has_a_width_of_its_own():
    with pytest.raises(UserError, match="wide=True has a width of its own; remove width"):
        models.create("vgg16_wide", num_classes=10, width=8)


def test_vgg16_has_the_tensors_of_the_published_code():
    params = init_shapes("vgg16")["params"]
    convolutions = [name for name in params if name.startswith("conv")]
    assert len(jax.tree.leaves([params[name] for name in convolutions])) == 26
    assert len(jax.tree.leaves(params)) == 32


def test_wide_dense_layers():
    params = init_shapes("vgg16_wide")["params"]
    shapes = [params[name]["kernel"].shape for name in ("fc1", "fc2", "fc3")]
    assert shapes == [(640, 1280), (1280, 1280), (1280, 10)]


@pytest.mark.parametrize(("name", "convolutions"), [("vgg16_bn", 13), ("vgg19_bn", 16)])
def test_every_convolution_is_followed_by_its_normalisation(name, convolutions):
    module, variables = models.create(name, num_classes=10), init_shapes(name)
    forward = jax.make_jaxpr(module.apply)(variables, jnp.zeros([1, 32, 32, 3]))
    primitives = [equation.primitive.name for equation in forward.eqns]
    order = [p for p in primitives if p in ("conv_general_dilated", "rsqrt")]
    assert order == ["conv_general_dilated", "rsqrt"] * convolutions

    assert len(variables["batch_stats"]) == convolutions
    for bn, stats in variables["batch_stats"].items():
        bias = variables["params"][bn.replace("bn", "conv")]["bias"]
        assert stats["mean"].shape == stats["var"].shape == bias.shape


@pytest.mark.parametrize(("name", "deep"), [("vgg16_bn", "cnc"), ("vgg19_bn", "cncn")])
def test_the_published_code_runs_the_first_half_of_a_block(name, deep):
    """Of c1 n1 c2 n2 the first two; of three convolutions c n c; of four c n c n."""
    module = models.create(name, num_classes=10, published=True)
    x = jnp.zeros([1, 32, 32, 3])
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    equations = jax.make_jaxpr(module.apply)(variables, x).eqns
    kinds = {"conv_general_dilated": "c", "rsqrt": "n"}
    order = "".join(kinds.get(equation.primitive.name, "") for equation in equations)
    assert order == "cn" * 2 + deep * 3


def test_drops_out_only_in_training():
    network = from_linen(models.create("vgg16", num_classes=10, dropout_rate=0.5), (8, 8, 1))
    variables = jax.eval_shape(network.init, jax.random.key(0))
    x = jnp.zeros([2, 8, 8, 1])
    train = jax.make_jaxpr(network.apply_train)(jax.random.key(0), variables, x)
    assert str(train).count("name=_bernoulli") == 2  # before each hidden dense layer
    assert "random_bits" not in str(jax.make_jaxpr(network.apply)(variables, x))
