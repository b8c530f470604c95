"""The whole experiment, every config of it, killed and taken up again."""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mcjax import experiments
from mcjax.core.errors import UserError
from mcjax.core.sharding import make_mesh
from mcjax.core.tree import digest
from mcjax.experiments import connect
from mcjax.experiments.stages.path import path_stage
from mcjax.runs import config as base
from mcjax.runs.checkpoint import restore
from mcjax.runs.run import open_run
from mcjax.runs.workdir import read_csv

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.py")
    if not path.stem.startswith(("backdoor", "evasion", "injection", "repair"))
)


def load_config(name, arg="quick"):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


@pytest.mark.parametrize(("worst", "word"), [(0.875, "Yes"), (0.75, "No")])
def test_the_question_is_answered(worst, word):
    barriers = dict.fromkeys(("curve_test_loss_barrier", "line_test_loss_barrier"), 0.0)
    ends = {"start_test_accuracy": 0.95, "end_test_accuracy": 0.89}
    paths = {"curve_worst_test_accuracy": worst, "line_worst_test_accuracy": 0.5}
    first, *_ = connect.answer({**barriers, **ends, **paths}, guessing=0.1)
    assert first.startswith(f"{word}: the curve loses at most {0.89 - worst:.4f} of test accuracy")
    assert first.endswith("The straight line loses 0.3900.")


@pytest.mark.parametrize(("accuracy", "clear"), [(0.18, False), (0.2, True)])
def test_networks_that_guess_are_no_example(accuracy, clear):
    names = ("curve_test_loss_barrier", "line_test_loss_barrier")
    metrics = dict.fromkeys(names, 0.0) | {"start_test_accuracy": 0.9}
    metrics |= dict.fromkeys(("curve_worst_test_accuracy", "line_worst_test_accuracy"), accuracy)
    # A tenth of the way from 0.1 to no error is 0.19.
    first, *_ = connect.answer({**metrics, "end_test_accuracy": accuracy}, guessing=0.1)
    assert first.startswith("Yes: " if clear else "Unclear: the worse network is hardly better")


def test_guessing_is_the_commonest_label():
    run = SimpleNamespace(splits=SimpleNamespace(test={"label": np.array([2, 2, 0, 1, 2])}))
    assert connect.guessing(run) == 0.6


def quick(**changes):
    config = base.quick(base.connect())
    config.model.name = "mlp"
    config.run.cpu_convolution = False  # its programs take longer to compile than these steps
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, connect.run_experiment(quick(), workdir)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_sound(name, tmp_path):
    open_run(load_config(name), tmp_path)


# The networks of the large images take up to a minute to compile; two configs differ by their data only.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.slow(compiles=True)
            if name.startswith(("resnet", "vgg", "fashion", "digits"))
            else (),
        )
        for name in CONFIGS
        if name not in ("vgg_cifar", "resnet_svhn")
    ],
)
def test_every_config_runs_end_to_end(name, tmp_path, monkeypatch):
    monkeypatch.setattr("mcjax.runs.run.make_mesh", lambda: make_mesh(jax.devices()[:1]))
    config = load_config(name)
    # One step of each training: the networks are the configs' own, and some are large.
    config.endpoint.num_epochs = config.curve.num_epochs = 1e-9
    config.endpoint.batch_size = config.curve.batch_size = 2
    config.run.cpu_convolution = False  # its programs take longer to compile than one step
    config.evaluation.num_points = 2
    config.evaluation.train_images = config.evaluation.test_images = 4
    config.evaluation.batch_size = 4
    config.evaluation.plane_points = 0
    config.evaluation.batch_stats_images = config.evaluation.batch_stats_batch_size = 4
    result = connect.run_experiment(config, tmp_path)
    assert result["status"] == "complete"
    table = read_csv(tmp_path / "path.csv")
    assert table["t"] == [0.0, 1.0]
    assert np.isfinite(table["test_loss"]).all()


def test_what_a_run_leaves(finished):
    workdir, result = finished
    for name in (
        "config.json",
        "metrics.jsonl",
        "path.csv",
        "table.csv",
        "report.html",
        "result.json",
    ):
        assert (workdir / name).stat().st_size > 0, name
    for name in ("path.png", "plane.png", "line.csv", "plane.csv"):
        assert (workdir / "figures" / name).stat().st_size > 0, name
    assert json.loads((workdir / "result.json").read_text()) == result
    assert result["metrics"]["curve_worst_test_accuracy"] == min(
        read_csv(workdir / "path.csv")["test_accuracy"]
    )
    page = (workdir / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1  # the plane
    assert page.count('<figure class="chart"') == 1  # the path
    assert "http" not in page.replace("http-equiv", "")  # self-contained
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if r["stage"] == "curve"] == sorted(
        {r["step"] for r in rows if r["stage"] == "curve"}
    )


def test_path_csv_is_the_accuracy_of_the_networks_in_the_checkpoints(finished):
    workdir, _ = finished
    run = open_run(quick(), workdir)
    test = {k: v[:32] for k, v in run.splits.test.items()}  # as many as :quick evaluates
    table = read_csv(workdir / "path.csv")
    for name, row in (("endpoint_a", 0), ("endpoint_b", -1)):
        variables, _ = restore(run.checkpoint(name))
        logits = run.network.apply(variables, test["image"].astype(np.float32))
        accuracy = (np.asarray(logits).argmax(1) == test["label"]).mean()
        np.testing.assert_allclose(table["test_accuracy"][row], accuracy, rtol=1e-6)


def test_a_finished_run_is_not_run_again(finished):
    workdir, result = finished
    before = {p: p.stat().st_mtime_ns for p in (workdir / "checkpoints").rglob("*")}
    again = connect.run_experiment(quick(), workdir)
    assert again == result
    assert {p: p.stat().st_mtime_ns for p in (workdir / "checkpoints").rglob("*")} == before


def test_same_seed_same_bytes_and_another_seed_others(finished, tmp_path):
    workdir, _ = finished
    connect.run_experiment(quick(), tmp_path / "same")
    connect.run_experiment(quick(seed=1), tmp_path / "other")
    assert fingerprint(tmp_path / "same") == fingerprint(workdir)
    assert fingerprint(tmp_path / "other") != fingerprint(workdir)


def fingerprint(workdir):
    networks = {
        name: digest(restore(workdir / "checkpoints" / name)[0])
        for name in ("endpoint_a", "endpoint_b", "curve")
    }
    tables = {
        name: (workdir / name).read_bytes()
        for name in ("path.csv", "table.csv", "figures/line.csv", "figures/plane.csv")
    }
    return networks | tables


@pytest.mark.slow(compiles=True)
def test_killed_at_any_moment_it_ends_bit_equal(tmp_path):
    """SIGKILL in the middle of each stage in turn, each time started again."""
    arguments = ["--config", "configs/digits.py:quick", "--config.run.checkpoint_seconds=0.001"]
    arguments += ["--config.evaluation.num_points=9", "--config.model.name=resnet8"]
    command = [sys.executable, "-m", "mcjax.train", *arguments, "--workdir"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run(
        [*command, str(whole)], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    partial = cut / "checkpoints" / ".partial"
    moments = (
        lambda: any((partial / "endpoint_a").glob("[0-9]*")),
        lambda: any((partial / "curve").glob("[0-9]*")),
        lambda: (cut / "checkpoints" / ".walks" / "path.npz").exists(),
    )
    for reached in moments:
        process = subprocess.Popen(
            [*command, str(cut)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 120
        while not reached() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (cut / "result.json").exists()
    last = subprocess.run(
        [*command, str(cut)], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    assert "resumes at point" in last.stderr
    assert fingerprint(cut) == fingerprint(whole)
    rows = [json.loads(line) for line in (cut / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert rows == expected


def test_one_and_eight_devices_agree(finished):
    workdir, _ = finished
    run = open_run(quick(), workdir)
    a, b, curve, _ = connect.trained(run)
    ts = np.linspace(0, 1, 5)
    tables = []
    for n in (1, 8):
        few = dataclasses.replace(run, mesh=make_mesh(jax.devices()[:n]))
        tables.append(
            path_stage(few, f"devices_{n}", connect.with_stats(few, curve, a, b), ts, few.evaluated)
        )
    for column, values in tables[0].items():
        np.testing.assert_allclose(values, tables[1][column], rtol=1e-5, atol=1e-6)


def test_loss_that_is_not_a_number_stops_the_run(tmp_path):
    with pytest.raises(UserError, match=r"endpoint_a: the loss became .*lower the learning rate"):
        connect.run_experiment(
            quick(**{"model.name": "cnn", "endpoint.learning_rate": 1e3}), tmp_path
        )
    assert not (tmp_path / "result.json").exists()


def test_damaged_checkpoint_in_the_workdir(tmp_path):
    config = quick(**{"evaluation.plane_points": 0})
    connect.run_experiment(config, tmp_path)
    for path in (tmp_path / "checkpoints" / "curve").rglob("d/*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"curve is damaged"):
        connect.run_experiment(config, tmp_path)


@pytest.mark.slow(compiles=True)
def test_options_of_the_curve(tmp_path, monkeypatch):
    """Stratified t, polygonal chain, random bends, freed ends, bonafide images, BatchNorm."""
    monkeypatch.setattr("mcjax.runs.run.make_mesh", lambda: make_mesh(jax.devices()[:1]))
    config = quick(
        **{
            "model.name": "cnn",
            "model.options": {"width": 4, "batch_norm": True},
            "curve.kind": "polychain",
            "curve.num_epochs": 2.0,  # bonafide images are few; more than one t is needed
            "curve.num_bends": 2,
            "curve.init": "random",
            "curve.num_strata": 4,
            "curve.fix_end": False,
            "curve.images": "bonafide",
            "data.num_bonafide": 20,
            "data.augmentation": "crop",
            "evaluation.batch_stats": "bonafide",
        }
    )
    result = connect.run_experiment(config, tmp_path)
    assert result["data"]["num_images"]["bonafide"] == 20
    assert result["batch_stats"] == "bonafide"
    start, end = (restore(tmp_path / "checkpoints" / f"endpoint_{n}")[0]["params"] for n in "ab")
    curve, _ = restore(tmp_path / "checkpoints" / "curve")
    assert digest(curve["start"]) == digest(start)
    assert digest(curve["end"]) != digest(end)


@pytest.mark.slow(compiles=True)
def test_a_run_in_bfloat16_differs_little(finished, tmp_path):
    workdir, _ = finished
    result = connect.run_experiment(quick(**{"model.bfloat16": True}), tmp_path)
    assert result["status"] == "complete"
    ours, exact = (read_csv(d / "path.csv")["test_loss"] for d in (tmp_path, workdir))
    assert ours != exact
    np.testing.assert_allclose(ours, exact, rtol=0.05)
    variables, _ = restore(tmp_path / "checkpoints" / "endpoint_a")
    assert {v.dtype for v in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("experiment", ["connect", "injection", "evasion"])
def test_a_config_of_another_experiment_is_refused_before_training(experiment, tmp_path):
    with pytest.raises(UserError, match=f"is backdoor, but this is {experiment}; give a config of"):
        experiments.get(experiment)(base.quick(base.backdoor()), tmp_path)
    assert not list(tmp_path.iterdir())
