"""Where a suspect network comes from."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from mcjax import models
from mcjax.core.errors import UserError
from mcjax.core.tree import digest
from mcjax.models.network import from_linen
from mcjax.runs.checkpoint import save
from mcjax.runs.suspect import load_suspect, load_variables, save_like

SHAPE = (8, 8, 1)


@pytest.fixture
def saved(tmp_path):
    variables = from_linen(models.create("mlp", num_classes=3, hidden=(5,)), SHAPE).init(
        jax.random.key(0)
    )
    save(tmp_path / "net", variables)
    return tmp_path / "net", variables


def test_a_checkpoint_and_its_architecture(saved):
    path, variables = saved
    suspect = load_suspect(path, "mlp:hidden=5x", SHAPE)
    assert digest(suspect.variables) == digest(variables)
    assert suspect.network.num_classes == 3
    assert digest(load_variables(path, suspect)) == digest(variables)


def test_a_checkpoint_that_names_its_architecture(tmp_path):
    variables = from_linen(models.create("resnet8", num_classes=4), SHAPE).init(jax.random.key(0))
    save(tmp_path / "net", variables, arch="resnet8")
    assert load_suspect(tmp_path / "net", None, SHAPE).network.has_batch_stats


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (None, "give arch, one of"),
        ("cnn", "architecture cnn for images of .* and .* differ"),
        ("mlp:hidden", "has no value"),
        ("nothing", "unknown network"),
    ],
)
def test_mistakes(saved, arch, message):
    with pytest.raises(UserError, match=message):
        load_suspect(saved[0], arch, SHAPE)


def test_no_network_in_the_folder(tmp_path):
    save(tmp_path / "net", {"bends": {"w": 1.0}})
    with pytest.raises(UserError, match="holds no network"):
        load_suspect(tmp_path / "net", "mlp", SHAPE)
    with pytest.raises(UserError, match="there is no checkpoint"):
        load_suspect(tmp_path / "other", "mlp", SHAPE)


def test_images_of_another_shape_than_the_network_was_trained_on(tmp_path):
    # A network that ends in a mean over the image takes any size without complaint.
    variables = from_linen(models.create("resnet8", num_classes=4), SHAPE).init(jax.random.key(0))
    save(tmp_path / "net", variables, arch="resnet8", image_shape=SHAPE)
    assert load_suspect(tmp_path / "net", None, SHAPE).arch == "resnet8"
    with pytest.raises(UserError, match=r"images are 9x9x1, but .*net was trained on 8x8x1"):
        load_suspect(tmp_path / "net", None, (9, 9, 1))


@pytest.fixture
def tensors():
    """The state dict of an mlp, [out, in]; images of one channel, so pixels are in one order."""
    rng = np.random.default_rng(0)
    shapes = {"fc1.weight": (5, 64), "fc1.bias": (5,), "fc2.weight": (3, 5), "fc2.bias": (3,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_file_of_tensors_and_one_like_it(tmp_path, tensors):
    safetensors.numpy.save_file(tensors, tmp_path / "net.safetensors")
    suspect = load_suspect(tmp_path / "net.safetensors", None, SHAPE)
    assert suspect.arch == "mlp:hidden=5x"
    x = np.random.default_rng(1).uniform(size=(2, *SHAPE)).astype(np.float32)
    hidden = np.maximum(x.reshape(2, -1) @ tensors["fc1.weight"].T + tensors["fc1.bias"], 0)
    expected = hidden @ tensors["fc2.weight"].T + tensors["fc2.bias"]
    logits = suspect.network.apply(suspect.variables, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert digest(load_variables(tmp_path / "net.safetensors", suspect)) == digest(
        suspect.variables
    )
    doubled = jax.tree.map(lambda w: 2 * w, suspect.variables)
    written = save_like(suspect, tmp_path / "new", doubled, t=0.5)
    assert written == tmp_path / "new" / "repaired.safetensors"
    again = safetensors.numpy.load_file(written)
    for name, w in tensors.items():
        np.testing.assert_array_equal(again[name], 2 * w)


def test_a_normalised_network_keeps_its_normalisation(tmp_path, saved):
    path, variables = saved
    plain = load_suspect(path, "mlp:hidden=5x", SHAPE)
    scaled = load_suspect(path, "mlp:hidden=5x", SHAPE, "mnist")
    x = np.random.default_rng(1).uniform(size=(2, *SHAPE)).astype(np.float32)
    expected = plain.network.apply(variables, (x - 0.5) / 0.5)
    np.testing.assert_allclose(scaled.network.apply(variables, x), expected, rtol=1e-6)
    written = save_like(scaled, tmp_path / "new", variables, t=0.5)
    assert load_suspect(written, None, SHAPE).normalise == "mnist"


def test_files_of_tensors_that_do_not_fit(tmp_path, tensors):
    safetensors.numpy.save_file(tensors, tmp_path / "net.safetensors")
    with pytest.raises(UserError, match=r"does not fit flat 7x7x1; give .* images' shape"):
        load_suspect(tmp_path / "net.safetensors", "mlp:hidden=5x", (7, 7, 1))
    with pytest.raises(UserError, match="no such file"):
        load_suspect(tmp_path / "other.safetensors", None, SHAPE)


def test_a_second_network_is_read_as_the_same_file_would_be_as_the_first(tmp_path):
    variables = from_linen(models.create("mlp", num_classes=3, hidden=(5,)), SHAPE).init(
        jax.random.key(0)
    )
    base = {"arch": "mlp:hidden=5x", "image_shape": list(SHAPE)}
    others = {
        "plain": base,
        "scaled": {**base, "normalise": "0.5/0.05"},
        "same": {**base, "normalise": "0.50/0.050"},
        "size": {**base, "image_shape": [4, 16, 1]},
        "arch": {**base, "arch": "mlp:hidden=5x5"},
        "silent": {},
    }
    for name, metadata in others.items():
        save(tmp_path / name, variables, **metadata)
    plain = load_suspect(tmp_path / "plain", None, SHAPE)
    scaled = load_suspect(tmp_path / "scaled", None, SHAPE)
    for suspect, second, message in (
        (plain, "scaled", "normalised by 0.5/0.05, .*plain by nothing"),
        (scaled, "plain", "normalised by nothing, .*scaled by 0.5/0.05"),
        (scaled, "silent", "normalised by nothing, .*scaled by 0.5/0.05"),
        (plain, "size", "images of 4x16x1, .*plain on 8x8x1"),
        (plain, "arch", "architecture mlp:hidden=5x5, .* has mlp:hidden=5x"),
    ):
        with pytest.raises(UserError, match=message):
            load_variables(tmp_path / second, suspect)
    assert digest(load_variables(tmp_path / "same", scaled)) == digest(variables)
    assert digest(load_variables(tmp_path / "silent", plain)) == digest(variables)
    # What the user says of a checkpoint that says nothing is said of both.
    told = load_suspect(tmp_path / "silent", "mlp:hidden=5x", SHAPE, "0.5/0.05")
    load_variables(tmp_path / "silent", told)
    with pytest.raises(UserError, match=r"normalised by 0\.5/0\.05"):
        load_variables(
            tmp_path / "scaled", load_suspect(tmp_path / "plain", None, SHAPE, "0.4/0.1")
        )
