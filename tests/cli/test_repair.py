"""`python -m mcjax.repair`."""

import json

import in_process
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import models
from mcjax.cli import data_flags
from mcjax.core.tree import digest
from mcjax.models.network import from_linen
from mcjax.repair.evidence.control import THRESHOLDS
from mcjax.runs.checkpoint import restore, save
from mcjax.runs.seal import sealed
from mcjax.runs.workdir import read_csv

X = np.tile(np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1), (10, 1, 1, 1))
QUICK = "--num_steps 1 --learning_rate 1e-9 --num_points 3 --forms patch"


def repair(arguments, folder):
    return in_process.run("mcjax.repair", *arguments.format(d=folder).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A perfect network of four classes, a scaled one, one whose labels are turned, and images."""
    folder = tmp_path_factory.mktemp("suspect")
    network = from_linen(models.create("mlp", num_classes=4, hidden=(4,)), (2, 2, 1))
    zeros = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(0)))["params"]

    def diagonal(scale, shift):
        fc1 = {**zeros["fc1"], "kernel": scale * jnp.eye(4)}
        fc2 = {**zeros["fc2"], "kernel": jnp.roll(jnp.eye(4), shift, axis=1)}
        return {"params": {"fc1": fc1, "fc2": fc2}}

    for name, variables in {
        "suspect": diagonal(9.0, 0),
        "other": diagonal(5.0, 0),
        "turned": diagonal(9.0, 1),
    }.items():
        save(folder / name, variables, arch="mlp:hidden=4x")
    np.savez(folder / "clean.npz", image=X, label=np.tile(np.arange(4), 10))
    np.savez(folder / "bytes.npz", image=(255 * X).astype(np.float32), label=np.zeros(40, int))
    return folder


def test_a_repair(folder):
    done = repair(
        "--model {d}/suspect --second {d}/other --data {d}/clean.npz --out {d}/out " + QUICK, folder
    )
    assert done.returncode == 0, done.stderr
    repaired, metadata = restore(folder / "out" / "repaired")
    assert metadata["t"] == 0.5
    np.testing.assert_allclose(
        repaired["params"]["fc1"]["kernel"], 7 * np.eye(4), rtol=1e-5, atol=1e-9
    )
    assert read_csv(folder / "out" / "path.csv")["selection_accuracy"] == [1.0, 1.0, 1.0]
    assert "does not promise" in (folder / "out" / "report.html").read_text()
    assert json.loads((folder / "out" / "result.json").read_text())["metrics"]["t"] == 0.5
    lines = [line for line in done.stderr.splitlines() if line[1:3] == "/4"]
    told = done.stderr.splitlines()[-1].partition(f"results in {folder / 'out'}: ")[2].split(", ")
    assert told == sorted(file.name for file in (folder / "out").iterdir())
    assert [line.partition(":")[0] for line in lines] == [
        "1/4 evidence",
        "2/4 second network",
        "3/4 path",
        "4/4 choice",
    ]
    words = f"--model {folder}/suspect --data {folder}/clean.npz --out {folder}/out".split()
    again = in_process.apart("mcjax.repair", *words)
    assert again.returncode == 2
    assert again.stderr.startswith("python -m mcjax.repair: error: ")
    assert again.stderr.count("\n") == 1
    assert "exists (it has the results of other --second, " in again.stderr
    assert "nothing is overwritten" in again.stderr


def no_work(monkeypatch):
    """From here on a command that reads images fails."""

    def read(path):
        raise AssertionError("something was read")

    monkeypatch.setattr(data_flags, "read", read)


@pytest.mark.parametrize("work", ["repair.stages.evaluate_path", "cli.repair.say_results"])
def test_an_interrupted_repair_goes_on_after_its_last_finished_step(work, folder, monkeypatch):
    """Before anything is written, and when all but the result is."""
    monkeypatch.setitem(THRESHOLDS, "path", -99.0)  # evidence, and so a second round
    words = (
        "--model {d}/suspect --data {d}/clean.npz --num_steps 8 --forms patch,warp --num_points 3"
    )
    words += " --inversion_steps 2 --control_steps 4 --out {d}/"
    stopped, whole = (folder / f"{name}_{work}" for name in ("stopped", "whole"))

    def interrupted(*args, **options):
        if work == "cli.repair.say_results":
            (stopped / "result.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"mcjax.{work}", interrupted)
        patch.setattr("mcjax.runs.kept.Kept.forget", lambda self: None)
        done = repair(words + stopped.name, folder)
    assert done.returncode == 130
    assert done.stderr.endswith("interrupted; run the same command to resume\n")
    (steps,) = folder.glob(f"{stopped.name}.unfinished/*")
    names = {step.name for step in steps.iterdir()}
    rounds = {"taught_fine_tune_round_0", "taught_fine_tune_round_1"}
    again = {"evidence_of_taught_fine_tune_1_patch", "evidence_of_taught_fine_tune_1_warp"}
    assert names == {"control_path", "evidence_patch", "evidence_warp", *rounds, *again}
    with monkeypatch.context() as patch:
        patch.setattr("mcjax.repair.keep.fit_with_progress", None)
        done = repair(words + stopped.name, folder)
    assert done.returncode == 0, done.stderr
    told = [line.partition(":")[0] for line in done.stderr.splitlines() if "kept from" in line]
    assert {name.replace(" ", "_") for name in told} == names
    assert not steps.parent.exists()
    steps.mkdir(parents=True)  # as if it had been interrupted just before they were forgotten
    assert "already complete" in repair(words + stopped.name, folder).stderr
    assert not steps.parent.exists()
    alone = repair(words + whole.name, folder)
    assert "kept from" not in alone.stderr
    assert (stopped / "path.csv").read_bytes() == (whole / "path.csv").read_bytes()
    assert digest(restore(stopped / "repaired")[0]) == digest(restore(whole / "repaired")[0])


def test_evidence_only_trains_nothing_and_the_same_command_again_is_a_no_op(folder, monkeypatch):
    words = "--model {d}/suspect --data {d}/clean.npz --out {d}/evidence --forms patch"
    words += " --inversion_steps 2 --control_steps 0 --evidence_only"
    with monkeypatch.context() as patch:
        patch.setattr("mcjax.training.fit.train", None)
        done = repair(words, folder)
    assert done.returncode == 0, done.stderr
    assert "No evidence of a backdoor was found" in done.stderr
    assert "This network has none (control_steps is 0)" in done.stderr
    out = folder / "evidence"
    assert sorted(p.name for p in out.iterdir()) == [
        "report.html",
        "result.json",
        "triggers.pdf",
        "triggers.png",
    ]
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "complete"
    assert result["metrics"]["accuracy"] == 1.0
    assert result["metrics"]["num_images"] == 40
    assert "Does the network have a backdoor?" in (out / "report.html").read_text()
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    with monkeypatch.context() as patch:
        no_work(patch)
        # Options that the search does not have make no other question.
        again = repair(f"{words} --num_steps 7 --tolerance 0.5", folder)
    assert again.returncode == 0, again.stderr
    *answer, last = again.stderr.splitlines()
    assert last.startswith(f"already complete: {out}/report.html (computed in ")
    assert answer == result["answer"]
    assert answer == done.stderr.splitlines()[-len(answer) - 1 : -1]
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before
    earlier = {k: v for k, v in result.items() if k not in ("answer", "checksum")}
    (out / "result.json").write_text(json.dumps(sealed(earlier)))  # of a version without it
    assert repair(words, folder).stderr.startswith("already complete")
    other = repair(words + " --seed 1", folder)
    assert other.returncode == 2
    assert "exists (it has the results of other --seed); give a new --out" in other.stderr
    (out / "triggers.png").unlink()
    assert "exists; give a new --out" in repair(words, folder).stderr


@pytest.mark.slow(compiles=True)
def test_a_repair_of_a_pytorch_file_leaves_another(folder):
    torch = pytest.importorskip("torch")
    for name in ("suspect", "other"):
        params = restore(folder / name)[0]["params"]
        state = {}
        for layer in ("fc1", "fc2"):
            state[f"module.{layer}.weight"] = torch.tensor(params[layer]["kernel"].T)
            state[f"module.{layer}.bias"] = torch.tensor(params[layer]["bias"])
        torch.save({"state_dict": state, "epoch": 3}, folder / f"{name}.pt")
    done = repair(
        "--model {d}/suspect.pt --second {d}/other.pt --arch mlp:hidden=4x --data {d}/clean.npz "
        "--normalise mnist --out {d}/torch_out " + QUICK,
        folder,
    )
    assert done.returncode == 0, done.stderr
    held = torch.load(folder / "torch_out" / "repaired.pt", weights_only=True)
    assert held["epoch"] == 3
    weight = held["state_dict"]["module.fc1.weight"]
    np.testing.assert_allclose(weight.numpy(), 7 * np.eye(4), rtol=1e-5, atol=1e-9)
    settings = json.loads((folder / "torch_out" / "result.json").read_text())["settings"]
    assert settings["normalise"] == "mnist"


def test_no_acceptable_point(folder, monkeypatch):
    before = digest(restore(folder / "suspect")[0])
    words = "--model {d}/suspect --second {d}/turned --second_is_clean --data {d}/clean.npz "
    words += "--out {d}/none " + QUICK
    done = repair(words, folder)
    assert done.returncode == 3, done.stderr
    assert "no point of the path has accuracy 0.9800" in done.stderr
    assert not (folder / "none" / "repaired").exists()
    assert (folder / "none" / "report.html").exists()
    assert digest(restore(folder / "suspect")[0]) == before
    no_work(monkeypatch)
    again = repair(words, folder)
    assert again.returncode == 3
    assert again.stderr.splitlines()[-1] == done.stderr.splitlines()[-1]
    assert "nothing was repaired" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data {d}/clean.npz --out {d}/x", "--model is missing"),
        ("--model {d}/nope --data {d}/clean.npz --out {d}/x", "there is no checkpoint"),
        ("--model {d}/nope.safetensors --data {d}/clean.npz --out {d}/x", "no such file"),
        ("--model {d}/suspect --data {d}/nope.npz --out {d}/x", "no such file"),
        ("--model {d}/suspect --data {d}/bytes.npz --out {d}/x", "outside [0, 1]"),
        ("--model {d}/suspect --data {d}/clean.npz --out {d}/x --onnx", "needs a .pt2 file"),
        (
            "--model {d}/suspect --second {d}/other --data {d}/clean.npz --out {d}/x --evidence_only",
            "--evidence_only repairs nothing; leave out --second",
        ),
        (
            "--model {d}/suspect --data {d}/clean.npz --out {d}/x --evidence_only --end=none",
            "end is 'none'; it must be one of taught, free, unaligned, fine_tuned",
        ),
        (
            "--model {d}/suspect --second {d}/other --data {d}/clean.npz --out {d}/x --end=unaligned",
            "the path leads to the second network",
        ),
        (
            "--model {d}/suspect --data {d}/clean.npz --out {d}/x --align=weights",
            "no second network",
        ),
        ("--model {d}/suspect --data {d}/clean.npz --out {d}/x --crop 2", "leave out sizes"),
        ("--model {d}/suspect --data {d} --out {d}/x --shorter_side 0", "give pixels, such as 256"),
        ("--model {d}/suspect --data hf:x --out {d}/x", "give hf:NAME@SPLIT"),
        ("--model {d}/suspect --arch cnn --data {d}/clean.npz --out {d}/x", "give the arch"),
        ("--model {d}/suspect --data {d}/clean.npz --out {d}/clean.npz/x", "can't make"),
        (
            "--model {d}/suspect --second {d}/suspect --data {d}/clean.npz --out {d}/x",
            "is the suspect itself",
        ),
    ],
)
def test_mistakes(arguments, message, folder):
    done = repair(arguments, folder)
    assert done.returncode == 2
    assert done.stderr.startswith("python -m mcjax.repair: error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr or "lie in [0, 255]" in done.stderr
    assert not (folder / "x").exists()


@pytest.mark.parametrize("names", ["abcd", "0123", ("1", "10", "2", "x")])
def test_the_numbers_of_classes_are_said_once(names, tmp_path, folder):
    """Also of names that are numbers."""
    image = pytest.importorskip("PIL.Image")
    for i, name in enumerate(names):
        (tmp_path / "images" / name).mkdir(parents=True)
        image.fromarray(np.full((3, 3), i, np.uint8)).save(tmp_path / "images" / name / "1.png")
    done = repair(f"--model {{d}}/suspect --data {tmp_path}/images --out {tmp_path}/x", folder)
    assert done.returncode == 2  # other images than the network's
    words = ", ".join(f"{i} = {name}" for i, name in enumerate(names))
    assert done.stderr.count("classes of") == 1
    assert f"images (label = name): {words}; the network must number them so\n" in done.stderr


@pytest.mark.slow(compiles=True)
def test_a_folder_of_images(folder):
    from PIL import Image

    for i, x in enumerate(X):
        (folder / "images" / "abcd"[i % 4]).mkdir(parents=True, exist_ok=True)
        pixels = (255 * x[..., 0]).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / "abcd"[i % 4] / f"{i:02}.png")
    done = repair(
        "--model {d}/suspect --second {d}/other --data {d}/images --out {d}/pictures " + QUICK,
        folder,
    )
    assert done.returncode == 0, done.stderr
    assert "0 = a, 1 = b, 2 = c, 3 = d" in done.stderr
    assert read_csv(folder / "pictures" / "path.csv")["selection_accuracy"] == [1.0, 1.0, 1.0]
    done = repair(
        "--model {d}/suspect --data {d}/images --out {d}/x --shorter_side 4 --crop 5,4", folder
    )
    assert "4x4 pixels is smaller than the crop of 5x4" in done.stderr
    (folder / "images" / "a" / "00.png").write_bytes(b"")
    done = repair("--model {d}/suspect --data {d}/images --out {d}/x", folder)
    assert done.returncode == 2
    assert "a/00.png (" in done.stderr
