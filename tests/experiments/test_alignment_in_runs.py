"""`config.curve.align = "weights"` in every experiment: the same networks, joined in another order."""

import csv

import jax
import numpy as np
import pytest
import tiny_runs

from mcjax.cli.evaluate import evaluate
from mcjax.core.sharding import make_mesh
from mcjax.experiments import connect
from mcjax.repair.model import repair_model
from mcjax.runs import config as base
from mcjax.runs.checkpoint import restore
from mcjax.runs.workdir import read_csv


def quick(config, **changes):
    config = base.quick(config)
    config.update_from_flattened_dict({"curve.align": "weights", **changes})
    return config


def product(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(float(np.vdot(x, y)) for x, y in pairs)


def same_numbers(a, b):
    """Whether two trees hold the same numbers, leaf for leaf, in any order."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(np.sort(x, axis=None), np.sort(y, axis=None)) for x, y in pairs)


@pytest.fixture(autouse=True, scope="module")
def one_device():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcjax.runs.run.make_mesh", lambda: make_mesh(jax.devices()[:1]))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A network with BatchNorm, whose statistics have to move along."""
    workdirs = {}
    for align in ("none", "weights"):
        workdirs[align] = tmp_path_factory.mktemp(align)
        config = base.connect()
        config.model.options.update(batch_norm=True, width=4)
        config.run.cpu_convolution = False
        changes = {"curve.align": align, "evaluation.plane_points": 0}
        connect.run_experiment(quick(config, **changes), workdirs[align])
    return workdirs


@pytest.mark.slow(compiles=True)
def test_the_curve_ends_at_the_second_network_permuted(finished):
    end = restore(finished["weights"] / "checkpoints" / "curve")[0]["end"]
    a, b = (
        restore(finished["weights"] / "checkpoints" / name)[0]["params"]
        for name in connect.ENDPOINTS
    )
    assert same_numbers(end, b)
    assert product(a, end) > product(a, b)
    assert not (finished["none"] / "checkpoints" / "alignment").exists()


@pytest.mark.slow(compiles=True)
def test_the_ends_of_the_path_are_as_good_as_without(finished):
    for rows in ("path.csv", "figures/line.csv"):
        aligned, plain = (read_csv(finished[k] / rows) for k in ("weights", "none"))
        for i in (0, -1):
            for column in ("test_loss", "test_accuracy", "train_loss"):
                assert float(aligned[column][i]) == pytest.approx(float(plain[column][i]), rel=1e-4)
        assert float(aligned["test_loss"][1]) != float(plain["test_loss"][1])


@pytest.mark.slow(compiles=True)
def test_another_look_at_the_path_sees_the_aligned_one(finished):
    folder = evaluate(finished["weights"], 3)
    again, before = read_csv(folder / "path.csv"), read_csv(finished["weights"] / "path.csv")
    for column, values in before.items():
        np.testing.assert_array_equal(again[column], values)


@pytest.mark.slow(compiles=True)
def test_the_permutations_are_kept_with_what_they_gained(finished):
    kept, metadata = restore(finished["weights"] / "checkpoints" / "alignment")
    assert all(sorted(p) == list(range(len(p))) for p in kept.values())
    products = metadata["inner_products"]
    assert products[-1] > products[0]


@pytest.mark.slow(compiles=True)
def test_evasion(tmp_path_factory):
    folder = tiny_runs.finished("evasion", tmp_path_factory) / "checkpoints" / "seed_0"
    permutations = restore(folder / "regular-adversarial-alignment")[0]
    assert any((p != np.arange(len(p))).any() for p in permutations.values())
    assert (folder / "regular-adversarial-path").exists()


@pytest.mark.slow(compiles=True)
def test_backdoor(tmp_path_factory):
    tmp_path = tiny_runs.finished("backdoor", tmp_path_factory)
    assert (tmp_path / "checkpoints" / "seed_0" / "alignment").exists()
    path = read_csv(tmp_path / "paths" / "seed_0" / "path_16.csv")
    second = second_network(tmp_path / "table.csv")
    assert float(path["test_accuracy"][-1]) == pytest.approx(second["clean_accuracy"], abs=0.04)
    assert float(path["attack_success_rate"][-1]) == pytest.approx(
        second["attack_success_rate"], abs=0.04
    )


def second_network(table):
    with open(table, newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["method"] == "second network")
    return {name: float(row[name]) for name in ("clean_accuracy", "attack_success_rate")}


@pytest.mark.slow(compiles=True)
def test_a_repair_joins_the_second_network_in_the_suspects_order():
    """A second network that is the suspect permuted comes back as the suspect: nothing moves."""
    random = np.random.default_rng(0)

    def apply_fn(w, x):
        return jax.nn.relu(x.reshape(len(x), -1) @ w["in"]) @ w["out"]

    suspect = {"in": random.normal(size=(4, 8)), "out": random.normal(size=(8, 2))}
    suspect = jax.tree.map(np.float32, suspect)
    order = random.permutation(8)
    second = {"in": suspect["in"][:, order], "out": suspect["out"][order]}
    x = random.random((40, 2, 2, 1)).astype(np.float32)
    bonafide = {"image": x, "label": np.array(apply_fn(suspect, x).argmax(-1))}
    key = jax.random.key(0)
    settings = {"num_steps": 2, "num_points": 3, "tolerance": 1.0}
    plain = repair_model(key, apply_fn, suspect, bonafide, second, **settings)
    aligned = repair_model(key, apply_fn, suspect, bonafide, second, align="weights", **settings)
    jax.tree.map(np.testing.assert_array_equal, aligned.curve.end, suspect)
    jax.tree.map(np.testing.assert_array_equal, plain.curve.end, second)
    assert aligned.report["moved"] < plain.report["moved"]
