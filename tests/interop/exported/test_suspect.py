"""A .pt2 file as a suspect: read with its second network, written as .pt2 and as a state dict."""

import sys

import in_process
import jax
import numpy as np
import pytest

from mcjax.core.errors import UserError
from mcjax.interop.exported.load import load_exported, save_exported
from mcjax.interop.exported.onnx import check_packages, write_onnx
from mcjax.interop.files import read_state_dict
from mcjax.runs import suspect as suspects

torch = pytest.importorskip("torch")
SHAPE = (8, 8, 3)


@pytest.fixture
def suspect(exported, monkeypatch):
    monkeypatch.setattr(suspects, "check_against_torch", lambda loaded: None)  # tested elsewhere
    return suspects.load_suspect(exported, None, SHAPE)


def test_repaired_files(suspect, net, tmp_path):
    changed = jax.tree.map(lambda w: w * 1.5, suspect.variables)
    written = suspects.save_like(suspect, tmp_path / "out", changed, t=0.5)
    assert written.name == "repaired.pt2"
    state = read_state_dict(written.with_suffix(".safetensors")).tensors
    assert state.keys() == net.state_dict().keys()
    np.testing.assert_array_equal(state["head.bias"], 1.5 * net.head.bias.detach().numpy())
    again = load_exported(written)
    for one, other in zip(*map(jax.tree.leaves, (again.variables, changed)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_second_networks(suspect, exported, net, export_fn, tmp_path):
    """Another export of the module, or a state dict with its names."""
    changed = jax.tree.map(lambda w: w + 1, suspect.variables)
    for name in ("second.pt2", "second.safetensors", "second.pt"):
        save_exported(tmp_path / name, changed, suspect.file)
        second = suspects.load_variables(tmp_path / name, suspect)
        for one, other in zip(*map(jax.tree.leaves, (second, changed)), strict=True):
            np.testing.assert_array_equal(one, other)
    state = net.state_dict()
    del state["head.bias"]
    torch.save(state, tmp_path / "lacks.pt")
    with pytest.raises(UserError, match=r"lacks head.bias"):
        suspects.load_variables(tmp_path / "lacks.pt", suspect)
    other = export_fn(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)))
    with pytest.raises(UserError, match="different modules"):
        suspects.load_variables(other, suspect)
    with pytest.raises(UserError, match=r"not a .pt2 file or a state dict"):
        suspects.load_variables(tmp_path, suspect)


def test_arguments(suspect, exported):
    with pytest.raises(UserError, match="leave out arch"):
        suspects.load_suspect(exported, "cnn", SHAPE)
    with pytest.raises(UserError, match=r"images are 9x8x3, but .* exported for 8x8x3"):
        suspects.load_suspect(exported, None, (9, 8, 3))
    normalised = suspects.load_suspect(exported, None, SHAPE, "0.5,0.5,0.5/0.2,0.2,0.2")
    x = np.full((2, *SHAPE), 0.5, np.float32)
    np.testing.assert_allclose(
        normalised.network.apply(normalised.variables, x),
        suspect.network.apply(suspect.variables, 0 * x),
        rtol=1e-5,
        atol=1e-5,
    )


def test_as_onnx(suspect, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    written = suspects.save_like(suspect, tmp_path, suspect.variables, t=0.5)
    write_onnx(tmp_path / "repaired.onnx", written)
    session = runtime.InferenceSession(tmp_path / "repaired.onnx")
    x = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
    name = session.get_inputs()[0].name
    (logits,) = session.run(None, {name: np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
    expected = suspect.network.apply(suspect.variables, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_onnx_without_the_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r'needs onnxscript; pip install "mcjax\[onnx\]"'):
        check_packages()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (12, np.arange(12) % 6, "labels lie in [0, 5], but the network has 5 classes"),
        (0, np.zeros(0, int), "images have shape (0, 8, 8, 3)"),
        (12, np.zeros(12, int), "there is no bonafide image of classes 1, 2, 3, 4"),
        (12, np.arange(12)[:, None] % 5, "label has shape (12, 1)"),
    ],
    ids=["out of range", "none", "one class", "two axes"],
)
def test_images_and_labels_are_checked_before_the_comparison(
    exported, monkeypatch, tmp_path, images, labels, message
):
    def compared(loaded):
        raise AssertionError("compared with PyTorch")

    monkeypatch.setattr(suspects, "check_against_torch", compared)
    np.savez(tmp_path / "my.npz", image=np.zeros((images, *SHAPE), np.uint8), label=labels)
    words = f"--data {tmp_path}/my.npz --out {tmp_path}/out"
    commands = [("mcjax.repair", f"--model {exported}")]
    if "bonafide" not in message:  # one class is enough to look along a path
        suspect = suspects.load_suspect(exported, None, SHAPE)
        changed = jax.tree.map(lambda w: w + 1, suspect.variables)
        save_exported(tmp_path / "other.safetensors", changed, suspect.file)
        commands.append(
            ("mcjax.path", f"--start {exported} --end {tmp_path / 'other.safetensors'}")
        )
    for command, networks in commands:
        done = in_process.run(command, *f"{networks} {words}".split())
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_comparison_names_both_files_of_a_path(suspect, monkeypatch, capsys):
    monkeypatch.setattr(suspects, "check_against_torch", lambda loaded: "logits 1e-07")
    suspects.compare_with_torch(suspect, suspect.path.with_name("other.pt2"))
    _, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{suspect.path}: computes what PyTorch computes (")
    assert line.endswith("other.pt2 runs in the same program")
