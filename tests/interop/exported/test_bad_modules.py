"""Modules that cannot be a network of mcjax: one line each, with the line of the module."""

import warnings

import numpy as np
import pytest

import mcjax
from mcjax.core.errors import UserError
from mcjax.interop.exported import check
from mcjax.interop.exported.load import from_torch, load_exported
from mcjax.interop.exported.operators import OPERATORS, kinds
from mcjax.interop.exported.values import Value

torch = pytest.importorskip("torch")


class Odd(torch.nn.Module):
    """A module with one linear layer and the given forward pass."""

    def __init__(self, forward_fn, shape=(4, 3)):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(shape))
        self.forward_fn = forward_fn

    def forward(self, x):
        return self.forward_fn(x.flatten(1) @ self.weight, x)


@pytest.mark.parametrize(
    ("forward_fn", "words"),
    [
        (lambda y, x: torch.fft.fft(y).abs(), "complex"),
        (
            lambda y, x: torch.special.i0(y),
            r"aten.special_i0.default \(test_bad_modules.py, line \d+",
        ),
        (lambda y, x: (y, y + 1), "2 outputs"),
        (lambda y, x: y[:, :, None], r"returns shape \[2, 3, 1\]"),
        (lambda y, x: y.double(), "float64"),
        (lambda y, x: torch.nn.functional.dropout(y, 0.5), "training mode"),
    ],
    ids=["complex", "missing", "outputs", "shape", "double", "dropout"],
)
def test_programs(forward_fn, words, export_fn):
    with pytest.raises(UserError, match=words) as found:
        load_exported(export_fn(Odd(forward_fn), (2, 1, 2, 2)))
    assert len(str(found.value).splitlines()) == 1


def test_control_flow(export_fn):
    def branch(y, x):
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (y,))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own
        path = export_fn(Odd(branch), (2, 1, 2, 2))
    with pytest.raises(UserError, match="control flow"):
        load_exported(path)


def test_branch_on_values():
    net = Odd(lambda y, x: y if x.sum() > 0 else -y)
    with pytest.raises(UserError, match=r"torch.export can't record"):
        from_torch(net, np.ones((2, 1, 2, 2), np.float32))


def test_several_inputs(tmp_path):
    class Two(torch.nn.Module):
        def forward(self, x, y):
            return (x + y).flatten(1)

    path = tmp_path / "two.pt2"
    example = torch.rand(2, 1, 2, 2)
    torch.export.save(torch.export.export(Two(), (example, example)), path)
    with pytest.raises(UserError, match="2 inputs"):
        load_exported(path)


def test_example_of_another_rank(export_fn):
    with pytest.raises(UserError, match=r"example has shape \[2, 4\]"):
        load_exported(export_fn(Odd(lambda y, x: y), (2, 4)))


def test_module_in_training_mode(net, tmp_path):
    path = tmp_path / "train.pt2"
    net.train()
    try:
        torch.export.save(torch.export.export(net, (torch.rand(2, 3, 8, 8),)), path)
    finally:
        net.eval()
    with pytest.raises(UserError, match=r"training mode.*module.eval\(\)"):
        load_exported(path)


def test_double_precision():
    net = Odd(lambda y, x: y).double()
    with pytest.raises(UserError, match="give float32"):
        from_torch(net, np.ones((2, 1, 2, 2)))


@pytest.mark.parametrize(
    ("source", "example", "words"),
    [
        (3, None, "not a torch.nn.Module"),
        ("none.pt2", None, "no such file"),
        ("a.pt2", np.zeros(1), "leave out example_images"),
        ("none.pt", np.zeros(1), r"none.pt does not exist; load the module in PyTorch and give "),
        (
            __file__,
            None,
            r"py is not a program of torch.export; .* mcjax.repair --model /.* --arch",
        ),
    ],
)
def test_arguments(source, example, words):
    with pytest.raises(UserError, match=words):
        mcjax.from_torch(source, example)
    with pytest.raises(UserError, match="needs example_images"):
        mcjax.from_torch(torch.nn.Linear(2, 2))


def test_images_that_the_module_fails_on():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten())
    with pytest.raises(
        UserError, match=r"\[2, 8, 8, 3\] .*\); PyTorch's modules take \[B, C, H, W"
    ):
        from_torch(net, np.ones((2, 8, 8, 3), np.float32))
    with pytest.raises(UserError, match=r"\[2, 1, 8, 8\] .*\); give images of the shape that"):
        from_torch(net, np.ones((2, 1, 8, 8), np.float32))


def test_the_check_finds_a_wrong_operator(exported, monkeypatch):
    """The check compares what mcjax computes with PyTorch's operators."""
    loaded = load_exported(exported)
    assert check.compare(loaded.program, loaded.variables).equal
    wrong = kinds.elementwise(lambda x: x * (x > 0.01))
    monkeypatch.setitem(OPERATORS, "aten.relu", wrong)
    found = check.compare(loaded.program, loaded.variables)
    assert not found.equal
    assert found.logits > 1e-5
    with pytest.raises(UserError, match="computes other numbers than PyTorch"):
        check.check_against_torch(loaded)


def test_the_check_finds_wrong_statistics(exported, monkeypatch):
    loaded = load_exported(exported)
    right = OPERATORS["aten.batch_norm"]

    def wrong(call, arguments):
        y, mean, var = right(call, arguments)
        return y, mean, Value(1.01 * var.array)

    monkeypatch.setitem(OPERATORS, "aten.batch_norm", wrong)
    found = check.compare(loaded.program, loaded.variables)
    assert found.statistics > 1e-3
    assert found.train_logits < 1e-5
