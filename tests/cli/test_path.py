"""`python -m mcjax.path`."""

import csv
import json
import subprocess
import sys

import in_process
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import models
from mcjax.cli.path import attack_of
from mcjax.core.errors import UserError
from mcjax.curvature import input_hessian_eigenvalue
from mcjax.models.network import from_linen
from mcjax.runs.checkpoint import save

X = np.tile(np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1), (10, 1, 1, 1))
Y = np.tile(np.arange(4), 10)
NETWORK = from_linen(models.create("mlp", num_classes=4, hidden=(4,)), (2, 2, 1))


def diagonal(scale, shift):
    """Logits of `scale` for the pixel `shift` places on."""
    zeros = jax.tree.map(jnp.zeros_like, NETWORK.init(jax.random.key(0)))["params"]
    fc1 = {**zeros["fc1"], "kernel": scale * jnp.roll(jnp.eye(4), shift, axis=1)}
    fc2 = {**zeros["fc2"], "kernel": jnp.roll(jnp.eye(4), -shift, axis=1)}
    return {"params": {"fc1": fc1, "fc2": fc2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A perfect network, the same with its hidden channels turned, one of another width, images."""
    folder = tmp_path_factory.mktemp("path")
    for name, variables in {"a": diagonal(4.0, 0), "turned": diagonal(4.0, 1)}.items():
        save(folder / name, variables, arch="mlp:hidden=4x")
    wide = from_linen(models.create("mlp", num_classes=4, hidden=(8,)), (2, 2, 1))
    save(folder / "wide", wide.init(jax.random.key(0)), arch="mlp:hidden=8x")
    np.savez(folder / "clean.npz", image=X, label=Y)
    return folder


def look(folder, arguments, out="x"):
    words = f"--data {folder}/clean.npz --out {folder}/{out} " + arguments.format(d=folder)
    return in_process.run("mcjax.path", *words.split())


def rows(folder, path):
    with (folder / "path.csv").open() as file:
        found = [row for row in csv.DictReader(file) if row.pop("path") == path]
    return {name: np.array([float(row[name]) for row in found]) for name in found[0]}


def expected(t):
    """The straight line at t, computed here."""
    return jax.tree.map(lambda a, b: (1 - t) * a + t * b, diagonal(4.0, 0), diagonal(4.0, 1))


def cross_entropy(variables):
    logits = np.asarray(NETWORK.apply(variables, X[:4]))
    return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(4), np.arange(4)])


def test_the_line_the_curve_the_attack_and_the_eigenvalue(folder):
    done = look(
        folder,
        "--start {d}/a --end {d}/turned --num_points 3 --num_steps 150 --eps 1/10 --attack_steps 3 "
        "--eigenvalue --hessian_images 4",
        "all",
    )
    assert done.returncode == 0, done.stderr
    out = folder / "all"
    line, curve = rows(out, "line"), rows(out, "curve")
    for i, t in enumerate((0.0, 0.5, 1.0)):
        point = expected(t)
        np.testing.assert_allclose(line["loss"][i], cross_entropy(point), rtol=1e-4)
        np.testing.assert_allclose(line["train_loss"][i], cross_entropy(point), rtol=1e-4)
        top = input_hessian_eigenvalue(
            lambda x, point=point: NETWORK.apply(point, x), jnp.asarray(X[:4]), jnp.asarray(Y[:4])
        )
        assert abs(line["eigenvalue"][i] - top.eigenvalue.mean()) < 1e-3 * top.eigenvalue.mean()
    for column in line:
        np.testing.assert_allclose(
            line[column][[0, 2]], curve[column][[0, 2]], rtol=1e-4, atol=1e-5
        )
    assert curve["train_loss"][1] < line["train_loss"][1]
    assert (line["robust_loss"] > line["loss"]).all()
    assert not line["zero_gradient"].any()
    metrics = json.loads((out / "result.json").read_text())["metrics"]
    assert metrics["line_loss_barrier"] == pytest.approx(
        line["loss"][1] - line["loss"][[0, 2]].max()
    )
    assert metrics["num_held_out"] == metrics["num_attacked"] == 8
    assert metrics["num_hessian"] == 4
    assert metrics["distance_of_ends"] == pytest.approx((8 * 16 + 8) ** 0.5)
    page = (out / "report.html").read_text()
    assert "trained curve" in page
    assert "largest input-Hessian eigenvalue" in page
    assert (out / "path.png").read_bytes()[:4] == b"\x89PNG"


def test_the_line_alone_and_aligned(folder):
    done = look(
        folder,
        "--start {d}/a --end {d}/turned --num_points 3 --num_steps 0 --align weights",
        "line",
    )
    assert done.returncode == 0, done.stderr
    line = rows(folder / "line", "line")
    assert set(line) == {"t", "loss", "accuracy", "train_loss", "train_accuracy"}
    np.testing.assert_allclose(line["loss"], cross_entropy(diagonal(4.0, 0)), rtol=1e-4)
    with (folder / "line" / "path.csv").open() as file:
        assert {row["path"] for row in csv.DictReader(file)} == {"line"}
    metrics = json.loads((folder / "line" / "result.json").read_text())["metrics"]
    assert metrics["distance_of_ends"] == pytest.approx(0, abs=1e-3)
    assert metrics["num_attacked"] == 0
    words = "--start {d}/a --end {d}/turned --num_points 3 --num_steps 0 --align "
    again = look(folder, words + "weights", "line")
    assert (again.returncode, again.stderr) == (
        0,
        f"already complete: {folder}/line/report.html\n",
    )
    assert "results of other --align" in look(folder, words + "none", "line").stderr


@pytest.mark.slow(compiles=True)
def test_exported_programs(folder, tmp_path):
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(1, 4, 1), torch.nn.BatchNorm2d(4)
            self.head = torch.nn.Linear(16, 4)

        def forward(self, x):
            return self.head(self.norm(self.conv(x)).relu().flatten(1))

    for seed in (0, 1):
        torch.manual_seed(seed)
        program = torch.export.export(Net().eval(), (torch.rand(2, 1, 2, 2),))
        torch.export.save(program, tmp_path / f"{seed}.pt2")
    words = f"--start {tmp_path}/0.pt2 --end {tmp_path}/1.pt2 --num_points 3 --num_steps 2"
    done = look(folder, words, "exported")
    assert done.returncode == 0, done.stderr
    module = torch.export.load(tmp_path / "1.pt2").module()
    logits = module(torch.tensor(X[:2]).permute(0, 3, 1, 2))
    loss = torch.nn.functional.cross_entropy(
        torch.cat([logits, module(torch.tensor(X[2:4]).permute(0, 3, 1, 2))]), torch.tensor(Y[:4])
    )
    found = rows(folder / "exported", "curve")
    assert found["loss"][2] == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--end {d}/a", "--start is missing"),
        ("--start {d}/a --end {d}/a", "the same weights"),
        ("--start {d}/a --end {d}/nope", "there is no checkpoint"),
        ("--start {d}/a --end {d}/wide", "another"),
        ("--start {d}/a --end {d}/turned --num_points 1", "--num_points is 1"),
        ("--start {d}/a --end {d}/turned --align up", "--align is 'up'"),
        ("--start {d}/a --end {d}/turned --attack cw", "--attack is 'cw'"),
        ("--start {d}/a --end {d}/turned --eps 2", "--eps is '2'"),
        ("--start {d}/a --end {d}/turned --channels 2", "--channels is 2"),
        ("--start {d}/a --end {d}/turned --resize 2,2", "arrays, which are taken as they are"),
        ("--start {d}/a --end {d}/turned --out {d}", "nothing is overwritten"),
    ],
)
def test_mistakes(arguments, message, folder):
    done = look(folder, arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("python -m mcjax.path: error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (folder / "x").exists()


def test_robust_accuracy_by_another_attack(folder):
    words = "--start {d}/a --end {d}/turned --num_points 2 --num_steps 0 --attack apgd --eps 1"
    done = look(folder, words + " --attack_images 4", "apgd")
    assert done.returncode == 0, done.stderr
    # Dark pixels have no gradient behind the ReLU, so APGD darkens the bright one: all logits are
    # equal then, and of equal logits the first counts, which is right for one image of four.
    assert rows(folder / "apgd", "line")["robust_accuracy"].tolist() == [0.25, 0.25]
    settings = json.loads((folder / "apgd" / "result.json").read_text())["settings"]
    assert (settings["attack"], settings["attack_steps"]) == ("apgd", 100)


@pytest.mark.parametrize("eps", ["-1", "nan", "1/0", "eight", "inf"])
def test_radii_that_are_none(eps):
    with pytest.raises(UserError, match="give a radius from 0 to 1"):
        attack_of("pgd", eps)


def test_the_old_module_of_that_name():
    # Apart, because pytest imports this file for its doctests, past Python's own import.
    code = "import mcjax.path; from mcjax.evaluation import path; assert mcjax.path is path"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=in_process.ROOT)
