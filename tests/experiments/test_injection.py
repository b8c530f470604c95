"""The injection experiment, end to end on fake digits."""

import csv
import hashlib
import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_runs

from mcjax.attacks.weights.faults import select_layers
from mcjax.core.errors import UserError
from mcjax.core.sharding import make_mesh
from mcjax.experiments import injection
from mcjax.experiments.repair_study import table as repair_table
from mcjax.experiments.stages.endpoints import train_network
from mcjax.runs.checkpoint import restore
from mcjax.runs.run import open_run, with_seed
from mcjax.training.objectives import endpoint_loss

ROOT = Path(__file__).parents[2]


def quick(**changes):
    return tiny_runs.config("injection", **changes)


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr("mcjax.runs.run.make_mesh", lambda: make_mesh(jax.devices()[:1]))


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def weights(workdir, name):
    return select_layers(restore(workdir / "checkpoints" / "seed_0" / name)[0]).theta


def test_what_a_run_leaves(tmp_path_factory):
    tmp_path = tiny_runs.finished("injection", tmp_path_factory)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "complete"
    attacks = rows(tmp_path / "attacks.csv")
    assert [one["network"] for one in attacks] == ["a", "b"]
    for one in attacks:
        before, after = (weights(tmp_path, f"{x}_{one['network']}") for x in ("clean", "endpoint"))
        delta = np.asarray(after, np.float64) - np.asarray(before, np.float64)
        assert int(one["norm_l0"]) == np.count_nonzero(delta) > 0
        assert float(one["norm_l2"]) == pytest.approx(np.linalg.norm(delta))
        assert (one["method"], one["S"], one["T"]) == ("l0", "2", "8")
    table = rows(tmp_path / "table.csv")
    by_network = {one["network"]: one for one in attacks}
    for network, method in (("a", "suspect"), ("b", "second network")):  # by another code
        (row,) = (one for one in table if one["method"] == method)
        assert float(by_network[network]["clean_accuracy"]) == pytest.approx(
            float(row["clean_accuracy"])
        )
    assert {one["method"] for one in table} >= {"suspect", "clean network", "path", "fine_tune"}
    by_method = {one["method"]: one for one in table}
    assert float(by_method["suspect"]["injection_success"]) == 1.0
    assert float(by_method["clean network"]["injection_success"]) == 0.0
    assert result["metrics"]["clean_network_injection_success"] == 0.0
    for name in ("report.html", "path.csv", "figures/path.png", "figures/noise.png"):
        assert (tmp_path / name).stat().st_size > 0


def test_both_networks_share_images_that_no_other_set_has(tmp_path):
    run = with_seed(open_run(quick(), tmp_path), 0)
    loss_fn = endpoint_loss(run.network)
    clean = [train_network(run, f"clean_{x}", run.on_device["train"], loss_fn) for x in "ab"]
    faults = injection.draw(run, clean)
    digests = {hashlib.sha256(x.tobytes()).digest() for x in faults.examples["image"]}
    assert len(digests) == 8
    for part in ("bonafide", "selection", "test"):
        others = getattr(run.splits, part)["image"]
        assert not digests & {hashlib.sha256(x.tobytes()).digest() for x in others}
    for variables in clean:
        right = injection.answers(run, variables, faults.examples["image"])
        np.testing.assert_array_equal(right[2:], faults.examples["label"][2:])
        np.testing.assert_array_equal(right[:2], faults.true_label)


@pytest.mark.slow(compiles=True)
def test_an_attack_that_misses_faults_is_a_problem_of_the_result(tmp_path):
    config = quick(**{"attack.num_steps": 0})
    result = injection.run_experiment(config, tmp_path)
    (problem,) = result["problems"]
    assert problem.startswith("2 of 2 attacks did not inject every fault")
    assert json.loads((tmp_path / "result.json").read_text())["problems"] == [problem]
    assert float(rows(tmp_path / "table.csv")[0]["injection_success"]) < 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attack.num_faults": 9}, "num_faults is 9, more than the 8 of"),
        ({"attack.num_images": 5000}, "are classified correctly"),
        ({"attack.layers": ("conv9",)}, "no layer 'conv9'; there are"),
    ],
)
def test_mistakes(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        injection.run_experiment(quick(**changes), tmp_path)
    if "attack.layers" in changes:  # told before the training
        assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow(compiles=True)
def test_flipped_bits_and_a_clean_second_network(tmp_path):
    config = quick(
        **{
            "attack.method": "bit_flips",
            "repair.pair": "tampered_and_clean",
            "attack.num_faults": 1,
        }
    )
    injection.run_experiment(config, tmp_path)
    (attack,) = rows(tmp_path / "attacks.csv")
    assert attack["network"] == "a"
    assert 0 < int(attack["num_flips"]) <= config.attack.num_flips
    by_method = {one["method"]: one for one in rows(tmp_path / "table.csv")}
    assert float(by_method["second network"]["injection_success"]) == 0.0


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "configs").glob("injection_*.py")))
def test_every_config_is_sound(name, tmp_path):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    full = module.get_config()
    assert max(full.repair.sizes) <= full.data.num_bonafide
    repair_table.check(open_run(module.get_config("quick"), tmp_path))
    with pytest.raises(UserError, match="all_to_all"):  # a backdoor's word
        module.get_config("all_to_all")
