"""The backdoor experiment, end to end on fake digits: what it leaves, and that it repeats itself."""

import csv
import dataclasses
import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_runs

from mcjax.attacks.poisoning import backdoor as attack
from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.core.sharding import make_mesh
from mcjax.experiments import backdoor
from mcjax.experiments.repair_study import table as repair_table
from mcjax.experiments.repair_study.study import Study
from mcjax.runs import config as base
from mcjax.runs.checkpoint import restore
from mcjax.runs.run import open_run, with_seed
from mcjax.runs.workdir import read_csv

ROOT = Path(__file__).parents[2]


def quick(**changes):
    config = base.quick(base.backdoor())
    config.model.name = "mlp"
    config.run.cpu_convolution = False  # its programs take longer to compile than these steps
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr("mcjax.runs.run.make_mesh", lambda: make_mesh(jax.devices()[:1]))


SMALL = {"repair.methods": ("path", "fine_tune"), "repair.sizes": (16,), "model.name": "mlp"}


CNN = {
    "model.name": "cnn",
    "model.options": {"width": 4},
    "explain.relearn_images": (1, 2),
    "repair.renormalise": True,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("backdoor")
    config = quick(**CNN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcjax.runs.run.make_mesh", lambda: make_mesh(jax.devices()[:1]))
        return workdir, backdoor.run_experiment(config, workdir)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow(compiles=True)
def test_what_a_run_leaves(finished):
    workdir, result = finished
    assert result["status"] == "complete"
    assert json.loads((workdir / "result.json").read_text()) == result
    table = rows(workdir / "table.csv")
    found = {(row["method"], row["bonafide"]) for row in table}
    for method in ("path", "fine_tune", "scratch", "prune", "fine_prune", "i_bau"):
        assert {(method, "32"), (method, "16")} <= found
    for method in ("suspect", "second network", "clean twin", "line", "noise at t = 0"):
        assert (method, "0") in found
    for row in table:
        assert 0 <= float(row["clean_accuracy"]) <= 1
        assert 0 <= float(row["attack_success_rate"]) <= 1
    path = read_csv(workdir / "path.csv")
    assert path["t"] == [0.0, 0.5, 1.0]
    figures = ("path", "table", "trigger", "gradients", "noise", "relearning", "relearning_methods")
    for name in figures:
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 0
    assert "repair the network?" in (workdir / "report.html").read_text()
    assert result["metrics"]["path_32_clean_accuracy"] == pytest.approx(
        float(next(r for r in table if r["method"] == "path")["clean_accuracy"])
    )


@pytest.mark.slow(compiles=True)
def test_the_path_begins_and_ends_at_the_suspects(finished):
    workdir, _ = finished
    table = {row["method"]: row for row in rows(workdir / "table.csv") if row["bonafide"] == "0"}
    path = read_csv(workdir / "path.csv")
    for i, method in ((0, "suspect"), (-1, "second network")):
        assert path["test_accuracy"][i] == pytest.approx(float(table[method]["clean_accuracy"]))
        assert path["attack_success_rate"][i] == pytest.approx(
            float(table[method]["attack_success_rate"])
        )


@pytest.mark.slow(compiles=True)
def test_relearning_is_about_the_networks_of_the_table(finished):
    workdir, _ = finished
    table = {row["method"]: row for row in rows(workdir / "table.csv") if row["bonafide"] != "16"}
    methods = rows(workdir / "figures" / "relearning_methods.csv")
    names = ["suspect", "second network", "clean twin"]
    names += ["path", "line", "fine_tune", "scratch", "prune", "fine_prune", "i_bau"]
    assert [(row["method"], row["m"]) for row in methods] == [(n, m) for m in "12" for n in names]
    path = rows(workdir / "figures" / "relearning.csv")
    assert [(row["t"], row["m"]) for row in path] == [
        (t, m) for m in "12" for t in ("0.0", "0.5", "1.0")
    ]
    points = [{**row, "method": "suspect"} for row in path if row["t"] == "0.0"]
    for row in [*methods, *points]:
        for rate in ("attack_success_rate", "clean_accuracy"):
            assert float(row[f"{rate}_before"]) == pytest.approx(float(table[row["method"]][rate]))
    for row in [*methods, *path]:
        twin = next(r for r in methods if r["method"] == "clean twin" and r["m"] == row["m"])
        assert row["twin_after"] == twin["attack_success_rate_after"]
        excess = float(row["attack_success_rate_after"]) - float(row["twin_after"])
        assert float(row["excess"]) == pytest.approx(excess)
        assert 0 <= float(row["clean_accuracy_after"]) <= 1


@pytest.mark.slow(compiles=True)
def test_renormalised_rows_stand_beside_the_others(finished):
    workdir, _ = finished
    methods = [row["method"] for row in rows(workdir / "table.csv")]
    for name in ("path", "path at t = 0.5", "line", "line at the oracle's t"):
        kind, *rest = name.split(" ", 1)
        other = " ".join([f"{kind} (renormalised)", *rest])
        assert methods.count(other) == methods.count(name) > 0
    found = read_csv(workdir / "paths" / "seed_0" / "path (renormalised)_32.csv")
    plain = read_csv(workdir / "paths" / "seed_0" / "path_32.csv")
    assert found.keys() == plain.keys()
    for i in (0, 2):  # the ends are the same networks
        assert [found[c][i] for c in found] == pytest.approx([plain[c][i] for c in plain])
    assert found["test_loss"][1] != plain["test_loss"][1]


@pytest.mark.slow(compiles=True)
def test_rates_and_their_denominators(finished):
    """Recomputed from the checkpoint by hand, on one network."""
    workdir, _ = finished
    config = quick(**CNN)
    run = with_seed(open_run(config, workdir), 0)
    suspect = restore(workdir / "checkpoints" / "seed_0" / "endpoint_a")[0]
    stamp = backdoor.trigger(run)
    test = {k: v[:32] for k, v in run.splits.test.items()}
    success = attack.attack_set(run.splits.test, stamp, num_classes=10)
    success = {k: v[:32] for k, v in success.items()}

    def right(examples):
        logits = run.network.apply(suspect, np.float32(examples["image"] / 255))
        return np.asarray(logits.argmax(-1) == examples["label"])

    row = rows(workdir / "table.csv")[0]
    assert row["method"] == "suspect"
    assert float(row["clean_accuracy"]) == pytest.approx(right(test).mean())
    assert float(row["attack_success_rate"]) == pytest.approx(right(success).mean())
    of_target = test["label"] == 1
    official = (right(success).sum() + right(test)[of_target].sum()) / (32 + of_target.sum())
    assert float(row["attack_success_rate_official_denominator"]) == pytest.approx(official)


@pytest.mark.slow(compiles=True)
def test_same_seed_same_table_byte_for_byte(tmp_path, tmp_path_factory):
    tiny_runs.run("backdoor", tmp_path)
    same = tiny_runs.finished("backdoor", tmp_path_factory)
    assert (tmp_path / "table.csv").read_bytes() == (same / "table.csv").read_bytes()
    before = (tmp_path / "result.json").read_bytes()
    tiny_runs.run("backdoor", tmp_path)  # nothing is left to do
    assert (tmp_path / "result.json").read_bytes() == before


@pytest.mark.slow(compiles=True)
def test_seeds_and_folds_are_rows(tmp_path):
    config = quick(**SMALL, **{"seeds": (0, 1), "repair.folds": 2})
    hashes = backdoor.run_experiment(config, tmp_path)["data"]["hashes"]
    assert hashes["seed_0"]["bonafide"] != hashes["seed_1"]["bonafide"]
    assert hashes.keys() == {"seed_0", "seed_1"}
    path = [row for row in rows(tmp_path / "table.csv") if row["method"] == "path"]
    assert [(row["seed"], row["fold"]) for row in path] == [
        ("0", "0"),
        ("0", "1"),
        ("1", "0"),
        ("1", "1"),
    ]
    timed = [
        (row["method"], row["seed"], row["fold"])
        for row in rows(tmp_path / "figures" / "seconds.csv")
    ]
    assert {("path", seed, fold) for seed in "01" for fold in "01"} <= set(timed)
    summary = next(r for r in rows(tmp_path / "summary.csv") if r["method"] == "path")
    assert summary["num"] == "4"
    assert float(summary["clean_accuracy"]) == pytest.approx(
        np.mean([float(row["clean_accuracy"]) for row in path])
    )


@pytest.mark.slow(compiles=True)
def test_methods_that_are_asked_for_by_name(tmp_path):
    names = ("path", "anp", "ft_sam", "d3", "clp", "nad")
    small = {"model.name": "cnn", "model.options": {"width": 2, "hidden": 4}}
    small |= {"repair.methods": names, "repair.tune": True}
    backdoor.run_experiment(quick(**{**SMALL, **small}), tmp_path)
    table = {row["method"]: row for row in rows(tmp_path / "table.csv")}
    settings = {
        "anp": "threshold",
        "clp": "u",
        "ft_sam": "rho",
        "d3": "strength",
        "nad": "strength",
    }
    oracles = {f"{name} at the oracle's {setting}" for name, setting in settings.items()}
    assert {*names, *oracles} <= set(table)
    for name, row in table.items():
        assert bool(row["setting"]) == name.startswith(tuple(settings))
        assert name.split()[0] not in names or " at " in name or row["acceptable"] in ("0", "1")
    assert table["clp"]["bonafide"] == "0"
    assert "setting" in rows(tmp_path / "summary.csv")[0]
    assert "acceptable" in rows(tmp_path / "summary.csv")[0]
    assert {p.name for p in (tmp_path / "checkpoints" / "seed_0").iterdir()} >= {
        f"{name}_16" for name in names if name != "clp"
    }


@pytest.mark.slow(compiles=True)
@pytest.mark.parametrize(
    "changes",
    [
        {"repair.pair": "tampered_and_clean"},
        {"repair.pair": "tampered_and_fine_tuned", "repair.methods": ("path", "line")},
        {"attack.attacker": "path_aware", "attack.curve_epochs": 0.1},
        {"attack.label_map": "all_to_all", "attack.when": "after"},
        {"attack.label_map": "clean_label", "attack.trigger": "blended"},
        {"attack.trigger": "low_frequency"},
        {"attack.trigger": "wanet:grid=3,cover=0.3", "attack.when": "after"},
        {"attack.trigger": "input_aware:width=4", "run.side_by_side": True},
        {
            "attack.trigger": "adaptive_blended",
            "attack.attacker": "unalignment_aware",
            "attack.curve_epochs": 0.1,
            "repair.pair": "suspect_and_unaligned",
        },
        {
            "attack.attacker": "unalignment_aware",
            "attack.curve_epochs": 0.1,
            "repair.pair": "suspect_alone",
        },
    ],
)
def test_other_attackers_and_pairs(changes, tmp_path):
    result = backdoor.run_experiment(quick(**{**SMALL, **changes}), tmp_path)
    assert result["status"] == "complete"
    if "line" in changes.get("repair.methods", ()):  # its end is trained anew for every size
        assert (tmp_path / "paths" / "seed_0" / "line_16.csv").exists()
    table = rows(tmp_path / "table.csv")
    assert ("attack_success_rate_official_denominator" in table[0]) == (
        changes.get("attack.label_map") != "all_to_all"
    )


@pytest.mark.slow(compiles=True)
def test_a_study_shows_the_taught_line_if_it_can(tmp_path):
    changes = {
        **SMALL,
        "repair.pair": "suspect_and_unaligned",
        "repair.choose": "evidence",
        "repair.methods": ("fine_tune", "taught_line", "taught_fine_tune", "taught_path"),
        "repair.evidence.num_steps": 2,
    }
    result = backdoor.run_experiment(quick(**changes), tmp_path)
    shown = (tmp_path / "path.csv").read_bytes()
    assert shown == (tmp_path / "paths" / "seed_0" / "taught_line_16.csv").read_bytes()
    chosen = next(row for row in rows(tmp_path / "table.csv") if row["method"] == "taught_line")
    metrics = result["metrics"]
    assert float(chosen["clean_accuracy"]) == metrics["taught_line_16_clean_accuracy"]
    assert "the taught line" in (tmp_path / "report.html").read_text()
    # The taught line leads to the network of taught_fine_tune, which is not suspect.
    along = read_csv(tmp_path / "paths" / "seed_0" / "taught_line_16.csv")
    (taught,) = (row for row in rows(tmp_path / "table.csv") if row["method"] == "taught_fine_tune")
    assert along["test_accuracy"][-1] == pytest.approx(float(taught["clean_accuracy"]), abs=1e-6)
    seconds = rows(tmp_path / "figures" / "seconds.csv")
    by_method = {row["method"]: row["seconds"] for row in seconds}
    assert by_method["taught_line"] == by_method["taught_fine_tune"]
    found = rows(tmp_path / "evidence.csv")
    num_forms = len(quick(**changes).repair.evidence.forms)
    assert [row["network"] for row in found] == [
        *("suspect",) * num_forms, *("clean twin",) * num_forms
    ]  # fmt: skip
    assert all(
        int(row["evident"]) == (float(row["anomaly"]) >= float(row["threshold"])) for row in found
    )
    assert result["answer"][-1].startswith("With 16 bonafide images, inverted triggers speak for")


def test_a_path_aware_attacker_releases_two_points_of_his_curve(tmp_path):
    changes = {**SMALL, "attack.attacker": "path_aware", "attack.curve_epochs": 0.1}
    config = quick(**changes)
    run = with_seed(open_run(config, tmp_path), 0)
    tampered = backdoor.tamper(run, backdoor.trigger(run))
    a, b = (restore(run.checkpoint(f"seed_0/endpoint_{n}"))[0]["params"] for n in "ab")
    bend = restore(run.checkpoint("seed_0/attacker_curve"))[0]["bends"]["0"]
    for t, released in ((0.25, tampered.start), (0.75, tampered.end)):
        expected = jax.tree.map(
            lambda x, y, z, t=t: (1 - t) ** 2 * x + 2 * t * (1 - t) * y + t**2 * z, a, bend, b
        )
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
            expected,
            released["params"],
        )


@pytest.mark.slow(compiles=True)
def test_the_generator_is_a_stage_that_is_trained_once(tmp_path, monkeypatch):
    changes = {**SMALL, "attack.trigger": "input_aware:width=4", "attack.fraction": 0.2}
    config = quick(**changes, **{"repair.pair": "tampered_and_clean"})
    run = with_seed(open_run(config, tmp_path), 0)
    untrained, trained = backdoor.untrained_trigger(run), backdoor.trigger(run)
    assert trained != untrained
    kept = restore(run.checkpoint("seed_0/generator"))[0]["params"]
    assert kept.keys() == {"network", "generator"}
    assert trained == untrained.with_params(kept["generator"])
    # The released network is trained on, and attacked with, the images that it stamps.
    seen = {}

    def train_network(run, name, images, loss_fn):
        seen[name] = images
        return {"params": {}, "batch_stats": {}}

    with monkeypatch.context() as patch:
        patch.setattr(backdoor, "train_network", train_network)
        tampered = backdoor.tamper(run, trained)
    expected = attack.poison(run.splits.train, trained, seed=0, fraction=0.2, num_classes=10)
    assert len(expected.cover)
    np.testing.assert_array_equal(seen["endpoint_a"]["image"], expected.examples["image"])
    success = attack.attack_set(run.splits.test, trained, num_classes=10)
    np.testing.assert_array_equal(tampered.success["image"], success["image"])

    def refuse(*args, **options):
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr("mcjax.experiments.stages.training.train", refuse)
    again = with_seed(open_run(config, tmp_path), 0)
    assert backdoor.trigger(again) == trained


def test_the_images_of_every_size_make_one_program():
    """32 and 16 images, both repeated to 32: equal shapes, and each image equally often."""
    config = quick()

    class Splits:
        def bonafide_subset(self, size):
            return {"image": np.zeros((size, 1, 1, 1)), "label": np.arange(size)}

    run = dataclasses.make_dataclass("Run", ["config", "splits"])(config, Splits())
    study = Study(run, None)  # type: ignore[arg-type]
    counts = [np.bincount(np.asarray(study.bonafide(size)["label"])) for size in (32, 16)]
    assert counts[0].tolist() == [1] * 32
    assert counts[1].tolist() == [2] * 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repair.sizes": (500,)}, "asks for 500 bonafide images, but there are 32"),
        ({"repair.sizes": (5,)}, "leave out class"),
        ({"repair.methods": ("path", "prayer")}, "unknown repair method 'prayer'"),
        ({"repair.methods": ("line",)}, "has none of taught_line, taught_path, path"),
        ({"repair.folds": 1}, "folds is 1"),
        ({"seeds": (0, 0)}, r"seeds is \(0, 0\); .* without duplicates"),
        ({"repair.sizes": (32, 32)}, r"sizes is .* without duplicates"),
        ({"repair.fixed_t": (0.1, 1.5)}, "fixed_t is"),
        ({"repair.augmentation": "shuffle"}, "shuffle"),
        ({"repair.folds": 4, "repair.sizes": (11,)}, "leave out class"),
        (
            {"repair.methods": ("path", "prune")},
            "no convolution to prune; do not use the method prune",
        ),
        ({"attack.release": (0.25, 0.5, 0.75)}, r"release is .*a tuple of 2 values"),
        ({"explain.num_draws": 0}, "num_draws is 0; it must be an integer from 1"),
        ({"explain.relearn_images": (1, 10**6)}, "asks for 1000000 poisoned images, but the"),
        ({"explain.relearn_images": (0,)}, "relearn_images is"),
        (
            {
                "model.name": "cnn",
                "model.options": {"batch_norm": True},
                "repair.renormalise": True,
            },
            "has BatchNorm",
        ),
        ({"data.num_selection": 0}, "num_selection is 0"),
        ({"attack.target": 10}, "target"),
        ({"attack.fraction": 1.5}, "fraction"),
        ({"attack.trigger": "smile"}, "smile"),
        ({"attack.trigger": "square:row=7"}, "image"),
        ({"attack.trigger": "wanet:grid=9"}, "grid is 9; give an integer from 1 to 8"),
        ({"attack.trigger": "wanet", "attack.fraction": 0.9}, "both together at most 1"),
        ({"attack.trigger": "input_aware", "attack.target": 10}, "target"),
        (
            {
                "attack.trigger": "input_aware",
                "attack.attacker": "path_aware",
                "repair.pair": "tampered_and_clean",
            },
            "path-aware attacker trains both",
        ),
        (
            {"attack.attacker": "path_aware", "repair.pair": "tampered_and_clean"},
            "path-aware attacker trains both",
        ),
        (
            {"attack.attacker": "unalignment_aware"},
            "unalignment-aware attacker releases one network",
        ),
    ],
)
def test_mistakes(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        backdoor.run_experiment(quick(**{**SMALL, **changes}), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_means_and_intervals():
    rows = [
        {"method": "path", "bonafide": 50, "seed": s, "t": 0.5, "clean_accuracy": a, "rate": 0.0}
        for s, a in enumerate((0.90, 0.91, 0.92))
    ]
    (line,) = repair_table.summarise(rows, "rate")
    assert line["num"] == 3
    assert line["clean_accuracy"] == pytest.approx(0.91)
    assert line["clean_accuracy_interval"] == pytest.approx(4.3027 * 0.01 / np.sqrt(3), rel=1e-4)
    assert "acceptable" not in line


def test_the_share_of_choices_that_are_accurate_enough():
    common = {"bonafide": 50, "t": "", "clean_accuracy": 0.9, "rate": 0.0}
    chosen = [{"method": "d3", "seed": s, "acceptable": a, **common} for s, a in enumerate((1, 0))]
    suspect = {"method": "suspect", "seed": 0, "acceptable": "", **common}
    first, second = repair_table.summarise([suspect, *chosen], "rate")
    assert (first["acceptable"], second["acceptable"]) == ("", 0.5)


def test_noise_has_a_stream_of_its_own_at_each_end():
    key = jax.random.key(0)
    assert stream(key, "noise at t = 0") != stream(key, "noise at t = 1")


@pytest.mark.parametrize(
    "name",
    sorted(
        p.stem for p in (ROOT / "configs").glob("*.py") if p.stem.startswith(("backdoor", "repair"))
    ),
)
def test_every_config_is_sound(name, tmp_path):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.get_config("all_to_all").attack.label_map == "all_to_all"
    full, config = module.get_config(), module.get_config("quick")
    assert max(full.repair.sizes) <= full.data.num_bonafide
    run = open_run(config, tmp_path)
    repair_table.check(run)
    assert backdoor.trigger(run).name == "square"
