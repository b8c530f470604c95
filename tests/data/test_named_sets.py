"""torchvision:NAME:FOLDER@SPLIT and hf:NAME@SPLIT, with stand-ins for the packages."""

import sys
import types

import numpy as np
import pytest
from image_files import COLOURS
from test_objects import Rows, Vision

from mcjax.core.errors import UserError
from mcjax.data.examples import read_examples


class Splits(Vision):
    def __init__(self, root, split="train", transform=None):
        if split not in ("train", "test"):
            raise ValueError(f"Unknown value '{split}' for argument split.")
        if root == "empty":
            raise RuntimeError("Dataset not found or corrupted.\nYou can use download=True")
        super().__init__(images=COLOURS[:2] if split == "test" else COLOURS)


class Halves(Vision):
    def __init__(self, root, train=True):
        super().__init__(images=COLOURS if train else COLOURS[:3])


class Whole(Vision):
    def __init__(self, root):
        super().__init__()


@pytest.fixture
def torchvision(monkeypatch):
    datasets = types.ModuleType("torchvision.datasets")
    datasets.SVHN, datasets.MNIST, datasets.Whole = Splits, Halves, Whole
    datasets.__all__ = ("SVHN", "MNIST", "Whole")
    package = types.ModuleType("torchvision")
    package.datasets = datasets
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


@pytest.mark.usefixtures("torchvision")
def test_a_split_of_torchvision():
    for name, number in (
        ("SVHN:d@test", 2),
        ("MNIST:d@test", 3),
        ("MNIST:d@train", 6),
        ("Whole:d", 6),
    ):
        assert len(read_examples(f"torchvision:{name}").examples["label"]) == number


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SVHM:d@test", "has no SVHM to read from a folder; did you mean SVHN"),
        ("__all__:d", "has no __all__"),
        ("SVHN:d", "add the split"),
        ("SVHN:d@extra", "Unknown value 'extra' .*; give another split"),
        ("SVHN:empty@test", r"corrupted. You can use download=True\); download it there first"),
        ("MNIST:d@val", "splits are train and test"),
        ("Whole:d@test", "leave out @test"),
        ("SVHN", "give torchvision:NAME:FOLDER@SPLIT"),
    ],
)
def test_names_that_are_none(name, message):
    with pytest.raises(UserError, match=message) as refused:
        read_examples(f"torchvision:{name}")
    assert "\n" not in str(refused.value)


def test_of_hugging_face(monkeypatch):
    asked = []

    def load_dataset(name, config, split):
        asked.append((name, config, split))
        if name == "nope":
            raise ConnectionError("no\nnetwork")
        return Rows()

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    found = read_examples("hf:user/set:small@test[:5%]")
    np.testing.assert_array_equal(found.examples["image"], COLOURS)
    assert asked == [("user/set", "small", "test[:5%]")]
    with pytest.raises(UserError, match=r"can't load it \(no network\)"):
        read_examples("hf:nope@test")
    with pytest.raises(UserError, match="give hf:NAME@SPLIT"):
        read_examples("hf:user/set")


@pytest.mark.parametrize(
    ("name", "package"), [("hf:x@test", "datasets"), ("torchvision:X:d", "torchvision")]
)
def test_without_the_package(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"needs {package}; pip install"):
        read_examples(name)
