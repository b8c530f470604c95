"""Where a suspect network comes from."""

import jax
import pytest

from mcjax import models
from mcjax.checkpoint import save
from mcjax.errors import UserError
from mcjax.network import from_linen
from mcjax.repair.load import load_suspect, load_variables
from mcjax.tree import digest

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
        (None, "add --arch"),
        ("cnn", "architecture cnn and .* differ"),
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
