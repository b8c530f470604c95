"""`python -m mcjax.interop.torch`."""

import json

import in_process
import jax
import numpy as np
import pytest

from mcjax import models
from mcjax.cli.own_network import own_network
from mcjax.core.errors import UserError
from mcjax.interop.files import fresh, read_state_dict, write_state_dict
from mcjax.interop.load import load_network
from mcjax.models.network import from_linen
from mcjax.runs.checkpoint import restore, save

SHAPE = (8, 8, 3)


def run(arguments, folder):
    return in_process.run("mcjax.interop.torch", *arguments.format(d=folder).split())


def run_apart(arguments, folder):
    # Unbuffered output would hide that what is said before an error gets lost.
    words = arguments.format(d=folder).split()
    return in_process.apart("mcjax.interop.torch", *words, env={"PYTHONUNBUFFERED": ""})


@pytest.fixture
def net(random_net, tmp_path):
    """A file of a small BackdoorBench network, as safetensors."""
    torch_net, _, _ = random_net("preactresnet", {"blocks": (1, 1), "width": 2}, SHAPE)
    tensors = {key: w.numpy() for key, w in torch_net.state_dict().items()}
    write_state_dict(tmp_path / "net.safetensors", fresh(tensors))
    return tmp_path


def test_check_of_a_network(net):
    done = run("check {d}/net.safetensors --image_shape 8x8x3 --normalise cifar10", net)
    assert done.returncode == 0, done.stderr
    assert (
        "architecture: preactresnet:blocks=1x1,width=2, with the names of Backdoor" in done.stdout
    )
    assert "logits: the largest difference from PyTorch's is" in done.stdout
    assert done.stdout.endswith("mcjax computes what PyTorch computes, to 1e-05\n")


def test_check_lists_the_tensors_that_do_not_match(net):
    state = read_state_dict(net / "net.safetensors")
    del state.tensors["layer2.0.bn2.bias"]
    state.tensors["extra"] = np.zeros(1, np.float32)
    write_state_dict(net / "other.safetensors", state)
    done = run_apart(
        "check {d}/other.safetensors --arch preactresnet:blocks=1x1,width=2 --image_shape 8x8x3",
        net,
    )
    assert done.returncode == 2
    assert done.stdout.splitlines()[1:] == ["missing: layer2.0.bn2.bias", "not known: extra"]
    assert done.stderr.count("\n") == 1
    assert "it lacks layer2.0.bn2.bias; it has extra" in done.stderr


def test_there_and_back_by_way_of_a_checkpoint(net):
    for step in ("{d}/net.safetensors {d}/folder", "{d}/folder {d}/back.safetensors"):
        done = run(f"convert {step} --image_shape 8x8x3", net)
        assert done.returncode == 0, done.stderr
    assert restore(net / "folder")[1]["arch"] == "preactresnet:blocks=1x1,width=2"
    before, after = (
        read_state_dict(net / f"{name}.safetensors").tensors for name in ("net", "back")
    )
    assert before.keys() == after.keys()
    for name, w in before.items():
        assert w.tobytes() == after[name].tobytes()
    again = run("convert {d}/net.safetensors {d}/back.safetensors", net)
    assert again.returncode == 2
    assert "nothing is overwritten" in again.stderr


def test_a_checkpoint_in_a_run_is_known(tmp_path):
    options = {"hidden": (5,)}
    network = from_linen(models.create("mlp", num_classes=3, **options), SHAPE)
    config = {"config": {"model": {"name": "mlp", "options": options}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    folder = tmp_path / "checkpoints" / "endpoint_a"
    save(folder, network.init(jax.random.key(0)), image_shape=list(SHAPE))
    save(tmp_path / "checkpoints" / "curve", {"bends": {"w": 1.0}})
    done = run(f"convert {folder} {{d}}/net.safetensors", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        load_network(tmp_path / "net.safetensors", image_shape=SHAPE).form.arch == "mlp:hidden=5x"
    )
    curve = run("convert {d}/checkpoints/curve {d}/curve.safetensors", tmp_path)
    assert curve.returncode == 2
    assert "holds no network" in curve.stderr


def test_check_says_the_size_that_it_assumes(net):
    done = run("check {d}/net.safetensors", net)
    assert "images: assumed to be 32x32x3; use --image_shape for another size" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "give `check FILE` or `convert FROM TO`"),
        ("check {d}/net.safetensors --image_shape 8x8", "give HEIGHTxWIDTHxCHANNELS"),
        (
            "check {d}/net.safetensors --image_shape 8x8x3 --normalise sepia",
            "normalisation 'sepia'",
        ),
    ],
)
def test_mistakes(arguments, message, net):
    done = run(arguments, net)
    assert done.returncode == 2
    assert done.stderr.startswith("python -m mcjax.interop.torch: error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_normalisation_is_checked_and_kept_by_convert(net):
    done = run("convert {d}/net.safetensors {d}/out --image_shape 8x8x3 --normalise nonsense", net)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "normalisation 'nonsense'; give cifar10" in done.stderr
    assert not (net / "out").exists()
    arguments = "--image_shape 8x8x3 --normalise 0.5,0.5,0.5/0.25,0.25,0.25"
    done = run("convert {d}/net.safetensors {d}/kept " + arguments, net)
    assert done.returncode == 0, done.stderr
    done = run("convert {d}/kept {d}/back.safetensors", net)
    assert done.returncode == 0, done.stderr
    assert "images are (image - [0.5, 0.5, 0.5]) / [0.25" in done.stdout
    assert "recorded in the file" in done.stdout
    loaded = load_network(net / "back.safetensors", image_shape=SHAPE)
    x = np.random.default_rng(0).random((2, *SHAPE), np.float32)
    plain = load_network(net / "net.safetensors", image_shape=SHAPE)
    np.testing.assert_allclose(
        loaded.network.apply(loaded.variables, x),
        plain.network.apply(plain.variables, (x - 0.5) / 0.25),
        rtol=1e-5,
        atol=1e-5,
    )


OWN = """
from flax import linen

class Own(linen.Module):
    features: int = 3

    @linen.compact
    def __call__(self, x, train=False):
        return linen.Dense(self.features)(x.reshape(len(x), -1))

def other():
    return Own(4)

number = 3
"""


@pytest.fixture
def own(tmp_path):
    tensors = {"a.weight": np.zeros((3, 192), np.float32), "a.bias": np.zeros(3, np.float32)}
    write_state_dict(tmp_path / "own.safetensors", fresh(tensors))
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def test_check_drafts_the_table_of_a_file_that_fits_nothing(own):
    done = run("check {d}/own.safetensors --image_shape 8x8x3", own)
    assert done.returncode == 2
    assert "\n  a.weight [3, 192] float32\n" in done.stdout
    assert 'Row("a.weight", "params/?/kernel", DENSE),  # [3, 192]; flat(' in done.stdout
    assert "--network FILE.py:NAME" in done.stderr


def test_check_drafts_the_table_for_a_network_of_ones_own(own):
    done = run("check {d}/own.safetensors --image_shape 8x8x3 --network {d}/own.py:Own", own)
    assert done.returncode == 0, done.stderr
    assert 'Row("a.weight", "params/Dense_0/kernel", flat(8, 8, 3)),  # [3, 192], by' in done.stdout
    assert "the table is complete" in done.stdout
    other = run("check {d}/own.safetensors --image_shape 8x8x3 --network {d}/own.py:other", own)
    assert other.returncode == 2
    assert "2 of 2 tensors and 2 leaves of the network are open" in other.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own.py", "give FILE.py:NAME"),
        ("none.py:Own", "give FILE.py:NAME"),
        ("own.py:Nothing", "has no Nothing"),
        ("own.py:number", "number of .* is 3"),
        ("broken.py:Own", r"can't be run \(ZeroDivisionError"),
    ],
)
def test_mistakes_in_networks_of_ones_own(name, message, own):
    (own / "broken.py").write_text("1 / 0")
    with pytest.raises(UserError, match=message) as error:
        own_network(f"{own / name}", SHAPE)
    assert "\n" not in str(error.value)
