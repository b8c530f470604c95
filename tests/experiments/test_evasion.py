"""The evasion experiment, end to end on fake digits."""

import csv
import importlib.util
import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_runs

from mcjax.core.errors import UserError
from mcjax.core.sharding import make_mesh
from mcjax.experiments import evasion
from mcjax.runs.checkpoint import restore
from mcjax.runs.run import open_run
from mcjax.runs.workdir import read_csv

ROOT = Path(__file__).parents[2]


def quick(**changes):
    return tiny_runs.config("evasion", **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tiny_runs.finished("evasion", tmp_path_factory)
    return workdir, json.loads((workdir / "result.json").read_text())


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_a_run_leaves(finished):
    workdir, result = finished
    assert result["status"] == "complete"
    table = rows(workdir / "table.csv")
    assert [row["path"] for row in table] == [
        "regular-adversarial",
        "regular-adversarial (robust path)",
    ]
    path = read_csv(workdir / "path.csv")
    assert path["t"] == [0.0, 0.5, 1.0]
    for column in ("robust_loss", "robust_accuracy", "input_hessian_eigenvalue", "alignment"):
        assert np.isfinite(path[column]).all()
    assert max(path["eigenvalue_residual"]) < 1e-3
    assert min(path["input_hessian_eigenvalue"]) >= 0
    assert path["zero_gradient"] == [0.0, 0.0, 0.0]
    for name in ("regular-adversarial", "regular-adversarial_(robust_path)", "transfer"):
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 0


@pytest.mark.slow(compiles=True)
def test_autoattack_along_the_paths(tmp_path):
    workdir = tmp_path
    tiny_runs.run("evasion", workdir, **{"autoattack.num_points": 3})
    result = json.loads((workdir / "result.json").read_text())
    found = read_csv(workdir / "paths" / "seed_0" / "regular-adversarial autoattack.csv")
    assert found["t"] == [0.0, 0.5, 1.0]
    stronger = ["accuracy", "after_apgd_ce", "after_apgd_targeted", "after_fab", "after_square"]
    for a, b in itertools.pairwise(stronger):
        assert (np.array(found[b]) <= np.array(found[a])).all()
    assert found["after_square"] == found["autoattack_accuracy"]
    table = rows(workdir / "table.csv")
    for row in table:
        error = 1 - np.array(
            read_csv(workdir / "paths" / "seed_0" / f"{row['path']} autoattack.csv")[
                "autoattack_accuracy"
            ]
        )
        expected = max(0, error.max() - max(error[0], error[-1]))
        assert float(row["autoattack_error_barrier"]) == pytest.approx(expected, abs=1e-6)
        assert float(row["middle_autoattack_accuracy"]) == pytest.approx(1 - error[1])
    assert "regular-adversarial autoattack_error_barrier" in result["metrics"]
    assert (workdir / "figures" / "regular-adversarial_autoattack.png").stat().st_size > 0
    assert "barrier of the error under AutoAttack" in (workdir / "report.html").read_text()


def test_both_paths_join_the_same_networks(finished):
    workdir, _ = finished
    plain, robust = (
        read_csv(workdir / "paths" / "seed_0" / f"regular-adversarial{name}.csv")
        for name in ("", " (robust path)")
    )
    for i in (0, -1):
        assert plain["robust_loss"][i] == pytest.approx(robust["robust_loss"][i], rel=1e-5)
    a, b = (
        restore(workdir / "checkpoints" / "seed_0" / f"regular-adversarial{name}-path")[0]
        for name in ("", "-robust")
    )
    differ = jax.tree.map(lambda x, y: bool((x != y).any()), a, b)
    assert any(jax.tree.leaves(differ))


def test_attacked_accuracy_is_at_most_the_clean_one(finished):
    workdir, _ = finished
    path = read_csv(workdir / "path.csv")
    transfer = json.loads(
        (workdir / "figures" / "seed_0" / "regular-adversarial transfer.json").read_text()
    )
    matrix = np.array(transfer["matrix"])
    assert matrix.shape == (2, 2)
    assert (
        transfer["ensemble"]["ensemble_robust_accuracy"]
        <= transfer["ensemble"]["ensemble_accuracy"]
    )
    assert (np.array(path["robust_loss"]) > 0).all()


@pytest.mark.slow(compiles=True)
@pytest.mark.parametrize("method", ["fgsm", "trades"])
def test_other_ways_to_train_an_adversarial_network(method, tmp_path, monkeypatch):
    monkeypatch.setattr("mcjax.runs.run.make_mesh", lambda: make_mesh(jax.devices()[:1]))
    config = quick(**{"adversarial.method": method, "robust_path.pairs": (), "curve.align": "none"})
    assert evasion.run_experiment(config, tmp_path)["status"] == "complete"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": ("regular-wild",)}, "unknown pair 'regular-wild'"),
        ({"pairs": ()}, r"pairs is \(\); it must be"),
        ({"evaluation.num_points": 2}, "need at least 3 points"),
        ({"autoattack.num_points": 2}, "a barrier needs at least 3 points"),
        ({"attack.eps": -0.1}, "attack.eps is -0.1"),
        ({"attack.norm": "l7"}, "attack.norm"),
        ({"adversarial.method": "prayer"}, "adversarial.method"),
    ],
)
def test_mistakes(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        evasion.run_experiment(quick(**changes), tmp_path)


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "configs").glob("evasion_*.py")))
def test_every_config_is_sound(name, tmp_path):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    evasion.check(open_run(module.get_config("quick"), tmp_path))


def test_numbers_that_are_not_finite_are_named():
    values = np.ones((3, 8))
    evasion.check_finite("path: loss", values, np.array([0, 0.5, 1]), 4)
    values[1, 5:7] = np.nan
    with pytest.raises(
        UserError, match=r"path: loss .* t = 0.5, test image 5 \(batch 1 of 4 .* 2 of 24"
    ):
        evasion.check_finite("path: loss", values, np.array([0, 0.5, 1]), 4)
