import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import models
from mcjax.models.network import from_linen


def init_shapes(**options):
    module = models.create("preresnet", num_classes=10, **options)
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros([1, 32, 32, 3]))


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def basic_count(n):
    first = 9 * 3 * 16
    stages = 0
    inputs = 16
    for features in (16, 32, 64):
        for _ in range(n):
            stages += 2 * inputs + 9 * inputs * features + 2 * features + 9 * features**2
            stages += inputs * features if inputs != features else 0
            inputs = features
    return first + stages + 2 * 64 + 65 * 10


@pytest.mark.parametrize("depth", [8, 20, 26, 56, 110])
def test_parameter_count_of_basic_blocks(depth):
    assert count(init_shapes(depth=depth)) == basic_count((depth - 2) // 6)


@pytest.mark.parametrize(
    ("depth", "millions"),  # as He et al. print them; two digits
    [(20, 0.27), (56, 0.85), (110, 1.7), (164, 1.7)],
)
def test_parameter_count_as_published(depth, millions):
    assert count(init_shapes(depth=depth)) / 1e6 == pytest.approx(millions, rel=0.03)


def test_resnet26_has_the_79_tensors_of_the_published_code():
    assert len(jax.tree.leaves(init_shapes(depth=26)["params"])) == 79


def test_shortcut_changes_shape_without_bias_or_normalisation():
    variables = init_shapes(depth=26)
    shortcuts = {
        name: jax.tree.map(lambda leaf: leaf.shape, block["shortcut"])
        for name, block in variables["params"].items()
        if "shortcut" in block
    }
    assert shortcuts == {
        "layer2_0": {"kernel": (1, 1, 16, 32)},
        "layer3_0": {"kernel": (1, 1, 32, 64)},
    }
    assert all("shortcut" not in block for block in variables["batch_stats"].values())


@pytest.mark.parametrize(("depth", "block", "blocks"), [(164, "auto", 18), (110, "bottleneck", 12)])
def test_bottleneck(depth, block, blocks):
    params = init_shapes(depth=depth, block=block)["params"]
    assert sum(name.startswith("layer") for name in params) == 3 * blocks
    assert params["layer1_0"]["shortcut"]["kernel"].shape == (1, 1, 16, 64)
    assert params["layer3_1"]["conv1"]["kernel"].shape == (1, 1, 256, 64)
    assert params["layer3_1"]["conv2"]["kernel"].shape == (3, 3, 64, 64)
    assert params["layer3_1"]["conv3"]["kernel"].shape == (1, 1, 64, 256)
    assert params["fc"]["kernel"].shape == (256, 10)


def test_width_scales_every_stage():
    params = init_shapes(depth=8, width=5)["params"]
    features = [params[f"layer{stage}_0"]["conv2"]["kernel"].shape[-1] for stage in (1, 2, 3)]
    assert features == [5, 10, 20]


def test_two_blocks_against_torch():
    """The smallest network, in evaluation mode, against PyTorch's functions of its weights."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    module = models.create("preresnet", num_classes=4, depth=8, width=3)
    # An odd size: stride 2 shows the padding.
    x = np.random.default_rng(0).uniform(size=(2, 9, 9, 2)).astype(np.float32)
    variables = from_linen(module, (9, 9, 2)).init(jax.random.key(1))
    variables = jax.tree.map(lambda w: np.array(w) + 0.1, variables)  # no ones and zeros
    params, stats = variables["params"], variables["batch_stats"]

    def conv(h, layer, stride=1):
        kernel = torch.tensor(layer["kernel"].transpose(3, 2, 0, 1))
        return f.conv2d(h, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def norm_relu(h, layer, stat):
        mean, var = torch.tensor(stat["mean"]), torch.tensor(stat["var"])
        scale, bias = torch.tensor(layer["scale"]), torch.tensor(layer["bias"])
        return f.relu(f.batch_norm(h, mean, var, scale, bias))

    h = conv(torch.tensor(x.transpose(0, 3, 1, 2)), params["conv1"])
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        block, stat = params[f"layer{stage}_0"], stats[f"layer{stage}_0"]
        y = conv(norm_relu(h, block["bn1"], stat["bn1"]), block["conv1"], stride)
        y = conv(norm_relu(y, block["bn2"], stat["bn2"]), block["conv2"])
        h = y + (conv(h, block["shortcut"], stride) if "shortcut" in block else h)
    h = norm_relu(h, params["bn"], stats["bn"]).mean((2, 3))
    expected = h @ torch.tensor(params["fc"]["kernel"]) + torch.tensor(params["fc"]["bias"])
    logits = jax.jit(module.apply)(variables, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
