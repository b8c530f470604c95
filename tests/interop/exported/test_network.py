"""An exported program as a network: PyTorch's numbers for any batch, shared programs, curves, attacks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import SLOW

import mcjax
from mcjax import alignment
from mcjax.core.errors import UserError
from mcjax.curves.batch_stats import CurveWithStats, recompute
from mcjax.interop.exported.call import rescaled
from mcjax.interop.exported.load import from_torch, load_exported, save_exported, to_torch

torch = pytest.importorskip("torch")


def images(number, seed=0, shape=(8, 8, 3)):
    return np.random.default_rng(seed).uniform(size=(number, *shape)).astype(np.float32)


def in_torch(net, x):
    with torch.no_grad():
        return net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()


@pytest.fixture(scope="session")
def loaded(exported):
    return load_exported(exported)


@pytest.mark.parametrize("number", [1, 2, 7])
def test_any_batch(loaded, net, number):
    x = images(number)
    logits = loaded.network.apply(loaded.variables, x)
    np.testing.assert_allclose(logits, in_torch(net, x), rtol=1e-5, atol=1e-5)


def test_description(loaded):
    network = loaded.network
    assert (network.num_classes, network.has_batch_stats) == (5, True)
    assert network.piecewise_linear
    assert loaded.variables["params"]["stem"]["0"]["weight"].shape == (8, 3, 3, 3)
    assert set(loaded.variables["batch_stats"]) == {"stem", "norm"}
    assert list(network.layer_outputs(loaded.variables, images(2))) == ["stem/0", "conv", "head"]
    start = network.init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, start) == jax.tree.map(jnp.shape, loaded.variables)
    assert np.isfinite(network.apply(start, images(2))).all()


def test_training_mode(loaded, net):
    """Statistics are PyTorch's; dropout draws anew for each key."""
    x = images(6)
    net.train()
    before = {name: b.clone() for name, b in net.named_buffers()}
    net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    expected = {name: b.clone().numpy() for name, b in net.named_buffers()}
    for name, b in net.named_buffers():
        b.copy_(before[name])
    net.eval()
    first, stats = loaded.network.apply_train(jax.random.key(0), loaded.variables, x)
    for name in ("stem.1", "norm"):
        own = stats["stem"]["1"] if name == "stem.1" else stats["norm"]
        for s in ("running_mean", "running_var"):
            np.testing.assert_allclose(own[s], expected[f"{name}.{s}"], rtol=1e-5, atol=1e-6)
    again, _ = loaded.network.apply_train(jax.random.key(0), loaded.variables, x)
    other, _ = loaded.network.apply_train(jax.random.key(1), loaded.variables, x)
    assert (first == again).all()
    assert (first != other).any()


def test_equal_networks_share_programs(loaded, exported, export_fn, net, tmp_path):
    save_exported(tmp_path / "w.pt2", jax.tree.map(lambda w: w + 1, loaded.variables), loaded)
    assert load_exported(tmp_path / "w.pt2").network == loaded.network
    mean = net.mean.clone()
    net.mean += 0.1
    try:
        assert load_exported(export_fn(net)).network != loaded.network
    finally:
        net.mean.copy_(mean)


def test_written_file_runs_in_pytorch(loaded, tmp_path):
    variables = jax.tree.map(lambda w: w * 1.25, loaded.variables)
    save_exported(tmp_path / "out.pt2", variables, loaded)
    x = images(2)
    logits = in_torch(torch.export.load(tmp_path / "out.pt2").module(), x)
    np.testing.assert_allclose(loaded.network.apply(variables, x), logits, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="differ"):
        save_exported(tmp_path / "two.pt2", {"params": {}}, loaded)


def test_dynamic_shapes(loaded, net, export_fn):
    other = load_exported(export_fn(net, dynamic_shapes=({0: torch.export.Dim("batch")},)))
    x = images(5)
    np.testing.assert_allclose(
        other.network.apply(other.variables, x), in_torch(net, x), rtol=1e-5, atol=1e-5
    )


def test_example_of_one_image(net, export_fn):
    other = load_exported(export_fn(net, (1, 3, 8, 8)))
    x = images(4)
    np.testing.assert_allclose(
        other.network.apply(other.variables, x), in_torch(net, x), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("number", [pytest.param(1, marks=SLOW), 2])
def test_attention_in_any_batch(number, export_fn):
    """Sequence first, heads beside images in one axis, a class token that is expanded."""

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Conv2d(3, 8, 4, 4)
            self.token = torch.nn.Parameter(torch.randn(1, 1, 8))
            self.attention = torch.nn.MultiheadAttention(8, 2)
            self.head = torch.nn.Linear(8, 5)

        def forward(self, x):
            x = self.embed(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1).transpose(0, 1)
            return self.head(self.attention(x, x, x, need_weights=False)[0][0])

    net = Attention().eval()
    other = load_exported(export_fn(net, (number, 3, 8, 8)))
    for size in (1, 2, 3):
        np.testing.assert_allclose(
            other.network.apply(other.variables, images(size)),
            in_torch(net, images(size)),
            rtol=1e-5,
            atol=1e-5,
        )


def test_changes_in_place_reach_views(export_fn):
    class InPlace(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(48, 5)

        def forward(self, x):
            mask = x.new_zeros((4, 4))
            mask[1:3, :2] = 2.0
            y = x + mask
            y[:, 0].mul_(3)
            z = y.flatten(1)
            z += 1
            return self.head(z) + y.sum((1, 2, 3))[:, None]

    net = InPlace().eval()
    other = load_exported(export_fn(net, (2, 3, 4, 4)))
    x = images(2, shape=(4, 4, 3))
    np.testing.assert_allclose(
        other.network.apply(other.variables, x), in_torch(net, x), rtol=1e-5, atol=1e-4
    )


def test_reshapes_of_a_batch():
    assert rescaled((6, 3, 8), (2, 3, 8), (2, 24), 2) == ((6, 24), 1)
    assert rescaled((18, 8), (6, 8), (2, 3, 8), 2) == ((6, 3, 8), 1)
    assert rescaled((5, 6, 8), (5, 2, 8), (10, 8), 2) == ((30, 8), 5)
    assert rescaled((30, 8), (10, 8), (5, 2, 8), 2, inner=5) == ((5, 6, 8), 1)
    assert rescaled((5, 6, 8), (5, 1, 8), (5, 8), 1) == ((30, 8), 5)
    assert rescaled((5, 6, 8), (5, 1, 8), (5, 2, 4), 1) == ((5, 12, 4), 1)
    with pytest.raises(ValueError, match="dynamic_shapes"):
        rescaled((6, 3), (2, 3), (3, 2), 2)


def test_statistics_along_a_curve(loaded):
    other = jax.tree.map(lambda w: w * 1.1, loaded.variables)
    curve = mcjax.Bezier.connect(loaded.variables["params"], other["params"])
    x = images(8)
    points = CurveWithStats(
        curve,
        loaded.variables["batch_stats"],
        other["batch_stats"],
        x,
        loaded.network.apply_train,
    )
    middle = jax.jit(points)(0.5)
    own = recompute(
        lambda s, x: loaded.network.apply_train(
            jax.random.key(0), {"params": middle["params"], "batch_stats": s}, x
        )[1],
        loaded.variables["batch_stats"],
        x,
        batch_size=8,
    )
    np.testing.assert_allclose(
        middle["batch_stats"]["norm"]["running_var"], own["norm"]["running_var"], rtol=1e-4
    )
    # The first layer's statistics are those of its convolution's outputs.
    outputs = loaded.network.layer_outputs(middle, x)["stem/0"]
    np.testing.assert_allclose(
        middle["batch_stats"]["stem"]["1"]["running_mean"], outputs.mean((0, 1, 2)), atol=1e-4
    )

    def metric_fn(variables, batch):
        return {
            "accuracy": loaded.network.apply(variables, batch["image"]).argmax(-1) == batch["label"]
        }

    batch = {"image": x, "label": np.arange(8) % 5}
    table = mcjax.evaluate_path(metric_fn, points, np.array([0.0, 0.5, 1.0]), [batch])
    assert table["accuracy"].shape == (3,)


def test_permutations(loaded):
    spec = alignment.permutation_spec(loaded.network.apply, loaded.variables, (8, 8, 3))
    # The residual's channels; between the last pooling and the head they are a part of its inputs.
    assert spec.sizes == (8,)
    assert len(spec.members(0)) == 14 - 2
    x = images(2)
    copy = alignment.unaligned_copy(
        jax.random.key(0), spec, loaded.network.apply, loaded.variables, by="weights"
    )
    assert not np.allclose(
        copy["params"]["conv"]["weight"], loaded.variables["params"]["conv"]["weight"]
    )
    logits = loaded.network.apply(loaded.variables, x)
    np.testing.assert_allclose(loaded.network.apply(copy, x), logits, rtol=1e-4, atol=1e-4)
    back = alignment.align(jax.random.key(1), spec, loaded.variables, copy)
    for one, other in zip(*map(jax.tree.leaves, (back, loaded.variables)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow(compiles=True)
def test_attack_and_hessian(loaded):
    x, y = jnp.asarray(images(3)), jnp.array([0, 1, 2])

    def logits_fn(x):
        return loaded.network.apply(loaded.variables, x)

    def loss(x):
        return -jax.nn.log_softmax(logits_fn(x))[jnp.arange(3), y].sum()

    attacked = mcjax.pgd(jax.random.key(0), logits_fn, x, y, eps=0.1, step_size=0.05, num_steps=3)
    assert loss(attacked) > loss(x)
    found = mcjax.input_hessian_eigenvalue(logits_fn, x, y, method="power")
    whole = jax.hessian(lambda v: loss(x.at[0].set(v.reshape(8, 8, 3))))(x[0].ravel())
    np.testing.assert_allclose(
        found.eigenvalue[0], np.linalg.eigvalsh(whole)[-1], rtol=2e-2, atol=1e-4
    )


def test_images_of_another_shape(loaded):
    with pytest.raises(UserError, match="channels last"):
        loaded.network.apply(loaded.variables, jnp.zeros((2, 3, 8, 8)))
    with pytest.raises(UserError, match="8x8 pixels and 3 channels"):
        loaded.network.apply(loaded.variables, jnp.zeros((2, 9, 8, 3)))


def test_from_module(net):
    network, variables = from_torch(net, torch.rand(3, 3, 8, 8))
    x = images(3)
    np.testing.assert_allclose(network.apply(variables, x), in_torch(net, x), rtol=1e-5, atol=1e-5)
    assert not net.training


class Normalize:
    """torchvision's, as far as it is read."""

    __module__ = "torchvision.transforms.transforms"

    def __init__(self, mean, std):
        self.mean, self.std = mean, std


@pytest.mark.parametrize("mean", [(0.1, 0.2, 0.3), (0.2,)])
def test_the_normalisation_of_a_transform_is_part_of_the_network(exported, net, mean):
    std = tuple(0.5 + m for m in mean)
    network, variables = from_torch(exported, transform=Normalize(mean, std), check=False)
    x = images(3)
    scaled = (x - np.float32(mean)) / np.float32(std)
    np.testing.assert_allclose(
        network.apply(variables, x), in_torch(net, scaled), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(UserError, match="for 2 channels, but images have 3"):
        from_torch(exported, transform=Normalize((0.5, 0.5), (1, 1)), check=False)


def test_back_into_the_module(loaded, net):
    changed = jax.tree.map(lambda w: 1.5 * w, loaded.variables)
    made = to_torch(changed, net)
    x = images(3)
    expected = loaded.network.apply(changed, x)
    np.testing.assert_allclose(in_torch(made, x), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(made.state_dict()["mean"], net.mean)
    assert not made.training
    np.testing.assert_allclose(made.head.bias.detach(), 1.5 * net.head.bias.detach())
    with pytest.raises(UserError, match="not those of this module"):
        to_torch(changed, torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"not a torch.nn.Module"):
        to_torch(changed, loaded.network)
