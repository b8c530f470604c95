"""Networks and curves out of PyTorch files: logits equal PyTorch's, files come back bit for bit."""

import numpy as np
import pytest
from slow import SLOW

from mcjax.core.errors import UserError
from mcjax.core.tree import digest
from mcjax.interop import layouts
from mcjax.interop.files import fresh, read_state_dict, write_state_dict
from mcjax.interop.load import (
    export_network,
    load_curve,
    load_network,
    save_curve,
    save_network,
)
from mcjax.interop.parity import parity
from mcjax.runs.checkpoint import save

torch = pytest.importorskip("torch")
from mcjax.interop import reference  # noqa: E402

SMALL = (8, 8, 3)
NETWORKS = [
    ("vgg16", {"width": 4}, SMALL, None, "vgg16:width=4"),
    ("vgg16", {}, SMALL, None, "vgg16"),
    pytest.param("vgg16", {"width": 160}, SMALL, None, "vgg16:width=160", marks=SLOW),
    ("vgg16_bn", {"width": 4}, SMALL, None, "vgg16_bn:width=4"),
    (
        "vgg19_bn",
        {"width": 4, "published": True},
        SMALL,
        None,
        "vgg19_bn:width=4,published=True",
    ),
    ("convfc", {}, (32, 32, 3), None, "convfc"),
    ("convfc", {}, (28, 20, 1), None, "convfc"),
    ("preresnet", {"depth": 8, "width": 4}, (9, 9, 3), None, "resnet8:width=4"),
    (
        "preresnet",
        {"depth": 11, "width": 2, "block": "bottleneck"},
        SMALL,
        None,
        "preresnet:depth=11,width=2,block=bottleneck",
    ),
    ("wide_resnet", {"depth": 10, "width": 1}, SMALL, None, "wide_resnet:depth=10,width=1"),
    ("preactresnet18", {"width": 4}, (16, 16, 3), None, "preactresnet18:width=4"),
    ("resnet18", {"width": 4}, (33, 33, 3), "torchvision", "resnet18:width=4"),
    (
        "resnet18",
        {"width": 4, "stem": "cifar"},
        (16, 16, 3),
        "pytorch-cifar",
        "resnet18:width=4,stem=cifar",
    ),
    (
        "vgg_torchvision",
        {"depth": 11, "width": 2, "hidden": 8},
        (70, 32, 3),
        None,
        "vgg_torchvision:depth=11,width=2,hidden=8",
    ),
    (
        "vgg_torchvision",
        {"depth": 11, "width": 2, "hidden": 8, "batch_norm": True},
        (32, 32, 3),
        None,
        "vgg_torchvision:depth=11,batch_norm=True,width=2,hidden=8",
    ),
    ("mlp", {"hidden": (8, 5)}, (4, 5, 3), None, "mlp:hidden=8x5"),
    (
        "cnn",
        {"width": 2, "hidden": 6, "batch_norm": True},
        (17, 9, 3),
        None,
        "cnn:width=2,hidden=6,batch_norm=True",
    ),
]


REPEATED = (
    "vgg16_bn:width=4",
    "vgg19_bn:width=4,published=True",
    "resnet18:width=4,stem=cifar",
    "preactresnet18:width=4",
)


@pytest.mark.parametrize(
    ("name", "options", "shape", "code", "arch"),
    [
        # Of these families another one is quick.
        pytest.param(*case, marks=SLOW) if case[-1] in REPEATED else case
        for case in NETWORKS
    ],
)
def test_logits_are_pytorchs_and_the_file_comes_back(
    name, options, shape, code, arch, random_net, tmp_path
):
    net, _, _ = random_net(name, options, shape, code=code)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    loaded = load_network(tmp_path / "net.pt", image_shape=shape)
    assert loaded.form.arch == arch
    difference = parity(net, loaded.network, loaded.variables, shape, num_images=3)
    assert difference.scale > 1e-3
    assert difference.relative < 1e-5
    save_network(tmp_path / "back.pt", loaded.variables, loaded)
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert list(back) == list(net.state_dict())
    for key, w in net.state_dict().items():
        assert back[key].dtype == w.dtype
        assert torch.equal(back[key], w), key


def test_inputs_in_another_order_would_be_seen(random_net, tmp_path):
    """The parity test's power: a dense layer that is only transposed gives other logits."""
    net, _, _ = random_net("convfc", {}, (32, 32, 3))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    loaded = load_network(tmp_path / "net.pt")
    w = net.state_dict()["fc_part.0.weight"].numpy()
    loaded.variables["params"]["fc1"]["kernel"] = w.T.copy()
    assert parity(net, loaded.network, loaded.variables, (32, 32, 3)).relative > 1e-2


def test_a_normalised_network_is_that_of_normalised_images(random_net, tmp_path):
    net, _, _ = random_net("preactresnet", {"width": 2, "blocks": (1, 1)}, SMALL)
    held = {"model_name": "preactresnet18", "model": net.state_dict(), "index": np.arange(3)}
    torch.save(held, tmp_path / "attack_result.pt")
    loaded = load_network(tmp_path / "attack_result.pt", image_shape=SMALL, normalisation="cifar10")
    scale = ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))
    compare = (net, loaded.network, loaded.variables, SMALL)
    assert parity(*compare, normalisation=scale).relative < 1e-5
    assert parity(*compare).relative > 1e-2


def test_half_precision_and_dataparallel(random_net, tmp_path):
    net, _, _ = random_net("preresnet", {"depth": 8, "width": 2}, SMALL)
    halves = {
        f"module.{key}": w.half() if w.is_floating_point() else w
        for key, w in net.state_dict().items()
    }
    torch.save({"state_dict": halves}, tmp_path / "net.pth")
    loaded = load_network(tmp_path / "net.pth", image_shape=SMALL)
    assert any("float16" in note for note in loaded.notes)
    reference.load(net, {k.removeprefix("module."): w.numpy() for k, w in halves.items()})
    assert parity(net, loaded.network, loaded.variables, SMALL).relative < 1e-5
    save_network(tmp_path / "new.pth", loaded.variables, loaded)
    again = torch.load(tmp_path / "new.pth", weights_only=True)["state_dict"]
    assert list(again) == list(halves)
    assert again["module.fc.weight"].dtype == torch.float32


def curve_file(path, random_net, name, options, shape, kind, num_points=3):
    """A CurveNet's checkpoint."""
    tensors = {}
    for j in range(num_points):
        net, layout, module = random_net(name, options, shape, curve=True, seed=j)
        for key, w in net.state_dict().items():
            shared = "running" in key or "num_batches" in key
            if not shared or j == 0:
                tensors[f"net.{key}" if shared else f"net.{key}_{j}"] = w
    tensors["coeff_layer.range"] = torch.arange(float(num_points))
    if kind == "bezier":
        tensors["coeff_layer.binom"] = torch.tensor([1.0, 2.0, 1.0])
        tensors["coeff_layer.rev_range"] = torch.arange(num_points - 1.0, -1, -1)
    torch.save({"epoch": 9, "model_state": tensors, "optimizer_state": {"state": {}}}, path)
    return tensors, reference.build(module, layout, shape)


@pytest.mark.parametrize(
    ("name", "options", "shape", "kind", "num_points"),
    [
        ("vgg16", {"width": 2}, SMALL, "bezier", 3),
        ("preresnet", {"depth": 8, "width": 2}, SMALL, "bezier", 3),
        pytest.param("wide_resnet", {"depth": 10, "width": 1}, SMALL, "polychain", 3, marks=SLOW),
        ("convfc", {}, (16, 16, 3), "polychain", 4),
    ],
)
def test_curves(name, options, shape, kind, num_points, random_net, tmp_path):
    path = tmp_path / "checkpoint-9.pt"
    tensors, net = curve_file(path, random_net, name, options, shape, kind, num_points)
    loaded = load_curve(path, image_shape=shape)
    assert type(loaded.curve).__name__.lower() == kind
    assert len(loaded.curve.points) == num_points
    arrays = {key: w.numpy() for key, w in tensors.items()}
    stats = {"batch_stats": loaded.batch_stats} if loaded.batch_stats else {}
    assert bool(stats) == (name not in ("vgg16", "convfc"))
    for t in (0.0, 0.3, 1.0):
        at_t = reference.load(net, reference.tensors_at(arrays, t, kind))
        variables = {"params": loaded.curve(t), **stats}
        assert parity(at_t, loaded.network, variables, shape, num_images=2).relative < 1e-5
    save_curve(tmp_path / "back.pt", loaded.curve, loaded.batch_stats, loaded)
    back = torch.load(tmp_path / "back.pt", weights_only=True)["model_state"]
    assert list(back) == list(tensors)
    assert all(torch.equal(back[key], w) for key, w in tensors.items())


def test_the_references_curve_by_hand():
    tensors = {f"net.fc.bias_{j}": np.array([float(v)]) for j, v in enumerate((1, 5, 2))}
    at = {
        kind: reference.tensors_at(tensors, 0.25, kind)["fc.bias"][0]
        for kind in ("bezier", "polychain")
    }
    assert at["bezier"] == pytest.approx(0.5625 * 1 + 0.375 * 5 + 0.0625 * 2)
    assert at["polychain"] == pytest.approx(0.5 * 1 + 0.5 * 5)


@pytest.fixture
def resnet8(random_net, tmp_path):
    net, _, _ = random_net("preresnet", {"depth": 8, "width": 2}, SMALL)
    return net.state_dict(), tmp_path / "net.pt"


@pytest.mark.parametrize(
    ("change", "arch", "message"),
    [
        (
            lambda s: s.pop("layer2.0.bn1.weight"),
            "resnet8:width=2",
            "it lacks layer2.0.bn1.weight;",
        ),
        (lambda s: s.pop("layer2.0.bn1.weight"), None, "fits no architecture"),
        (
            lambda s: s.update(head=torch.ones(1)),
            "resnet8:width=2",
            r"it has head \[1\], which the net",
        ),
        (
            lambda s: s.update({"fc.bias": torch.ones(3)}),
            "resnet8:width=2",
            "differ at params/fc/b",
        ),
        (
            lambda s: s.update({"fc.weight": torch.ones(7)}),
            "resnet8:width=2",
            "has no resnet8 with",
        ),
        (lambda s: None, "preresnet20:width=2", "it lacks layer1.1.bn1"),
        (
            lambda s: None,
            "resnet8",
            r"differ at batch_stats/bn/mean: float32\[64\] and float32\[8\]",
        ),
        (lambda s: None, "vgg16", "has no vgg16 with the names of dnn-mode-connectivity; its tens"),
        (lambda s: None, "resnet18", "it lacks bn1"),
        (lambda s: None, "nothing", "unknown network"),
    ],
)
def test_tensors_that_do_not_fit(change, arch, message, resnet8):
    state, path = resnet8
    change(state)
    torch.save(state, path)
    with pytest.raises(UserError, match=message) as error:
        load_network(path, arch, image_shape=SMALL)
    assert "\n" not in str(error.value)


def test_the_published_vggs_are_not_read_otherwise_than_they_were_run(random_net, tmp_path):
    for published in (True, False):
        net, _, _ = random_net("vgg16_bn", {"published": published}, SMALL)
        torch.save(net.state_dict(), tmp_path / f"{published}.pt")
    with pytest.raises(UserError, match="half of its BatchNorm layers were never run"):
        load_network(tmp_path / "True.pt", "vgg16_bn", image_shape=SMALL)
    with pytest.raises(UserError, match="remove published=True"):
        load_network(tmp_path / "False.pt", "vgg16_bn:published=True", image_shape=SMALL)


def test_a_curve_is_no_network_and_a_network_no_curve(random_net, resnet8, tmp_path):
    path = tmp_path / "curve.pt"
    tensors, _ = curve_file(
        path, random_net, "preresnet", {"depth": 8, "width": 2}, SMALL, "bezier"
    )
    with pytest.raises(UserError, match="holds a curve"):
        load_network(path, image_shape=SMALL)
    state, plain = resnet8
    torch.save(state, plain)
    with pytest.raises(UserError, match="holds no curve"):
        load_curve(plain, image_shape=SMALL)
    named = {key: w for key, w in tensors.items() if not key.startswith("coeff_layer")}
    torch.save(named, path)
    with pytest.raises(UserError, match="what kind of curve"):
        load_curve(path, image_shape=SMALL)
    assert len(load_curve(path, image_shape=SMALL, kind="bezier").curve.bends) == 1
    del named["net.fc.weight_1"]
    torch.save(named, path)
    with pytest.raises(UserError, match="point 1 lacks"):
        load_curve(path, image_shape=SMALL, kind="bezier")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("code", ["torchvision", "pytorch-cifar"])
def test_mcjaxs_own_networks_go_out(suffix, code, random_net, tmp_path):
    options = {"width": 2, "blocks": (1, 1), "stem": "cifar"}
    net, _, module = random_net("resnet", options, SMALL, code=code)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    loaded = load_network(tmp_path / "net.pt", image_shape=SMALL)
    target = tmp_path / f"out{suffix}"
    export_network(target, loaded.variables, loaded.form.arch, SMALL, code=code)
    tensors = read_state_dict(target).tensors
    assert set(tensors) == set(net.state_dict())
    strict = reference.build(module, loaded.form.layout, SMALL)
    reference.load(strict, tensors)
    assert digest(load_network(target, image_shape=SMALL).variables) == digest(loaded.variables)
    save(tmp_path / "folder", loaded.variables)  # an ordinary checkpoint of mcjax


def test_exports_that_do_not_fit(random_net, tmp_path):
    net, _, _ = random_net("mlp", {"hidden": (3,)}, SMALL)
    write_state_dict(
        tmp_path / "net.pt", fresh({k: w.numpy() for k, w in net.state_dict().items()})
    )
    loaded = load_network(tmp_path / "net.pt", image_shape=SMALL)
    for arch, code, message in (
        ("mlp:hidden=4x", None, "differ at params/fc1"),
        ("cnn", None, "differ"),
        ("resnet18", None, "do not fit resnet18"),
        ("mlp:hidden=3x", "torchvision", "unknown code 'torchvision' for mlp; use one of mcjax"),
    ):
        with pytest.raises(UserError, match=message):
            export_network(tmp_path / "x.pt", loaded.variables, arch, SMALL, code=code)
    with pytest.raises(UserError, match="differ"):
        save_network(tmp_path / "x.pt", {"params": {}}, loaded)


def test_every_layout_tells_its_own_networks_from_the_others():
    codes = [(lay.code, lay.family, lay.curve) for lay in layouts.LAYOUTS]
    assert len(codes) == len(set(codes))
