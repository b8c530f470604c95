"""A study's cases: what a method sees, and that a run's stages compute what the library computes."""

import dataclasses
import hashlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import all_but

from mcjax.core.errors import UserError
from mcjax.core.sharding import make_mesh
from mcjax.core.tree import digest
from mcjax.evaluation.networks_as_path import Stacked
from mcjax.experiments.repair_study import rows, table
from mcjax.experiments.repair_study import searches as searches_module
from mcjax.experiments.repair_study import study as study_module
from mcjax.experiments.repair_study.judge import judge_networks
from mcjax.experiments.repair_study.rows import Repair, network_of, rows_of
from mcjax.experiments.repair_study.study import Study
from mcjax.experiments.repair_study.tampered import Tampered
from mcjax.repair.evidence import control as evidence_control
from mcjax.repair.evidence.verdict import has_control, targets
from mcjax.repair.methods import METHODS
from mcjax.repair.methods.method import Family
from mcjax.runs import config as base
from mcjax.runs.run import open_run
from mcjax.training.fit import fit

SIZES = (32, 16)


def hashes(image):
    return {hashlib.sha256(np.asarray(one).tobytes()).digest() for one in image}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", METHODS)
def test_no_method_sees_a_test_image(name, size, study):
    splits = study.run.splits
    case = study.case(name, size)
    bonafide = hashes(splits.bonafide["image"])
    assert hashes(case.bonafide["image"]) <= bonafide
    assert len(case.bonafide["label"]) == size
    assert hashes(case.images["image"]) == hashes(case.bonafide["image"])
    assert hashes(case.selection["image"]) == hashes(splits.selection["image"])
    assert not hashes(splits.test["image"]) & (bonafide | hashes(case.selection["image"]))


@pytest.mark.parametrize("knows_its_task", [True, False])
def test_the_first_search_has_a_control_and_the_next_only_the_suspects_classes(
    study, monkeypatch, knows_its_task
):
    controls, searches, real = [], [], searches_module.invert

    def recorded(*args, **options):
        searches.append(options)
        return real(*args, **options)

    monkeypatch.setattr(searches_module, "invert", recorded)
    monkeypatch.setattr(evidence_control, "usable", lambda *args: knows_its_task)
    # In memory alone: the stages on disk belong to the other tests.
    monkeypatch.setattr(searches_module, "stage", lambda run, name, like, compute: compute())

    def trained(run, name, key, training):
        controls.append(name)
        return fit(key, training)

    monkeypatch.setattr(searches_module, "train_stage", trained)
    study.memory.clear()
    found = study.evidence(16)
    num_controls = len(controls)
    kinds = [name.removeprefix("evidence_16_control_") for name in controls]
    assert kinds == (["path"] if knows_its_task else ["path", "away"])
    assert study.evidence(16) is found
    assert len(controls) == num_controls
    assert [one["control"].variables is not None for one in searches] == [knows_its_task] * len(
        searches
    )
    assert {one["classes"] for one in searches} == {None}
    assert all(has_control(one) == knows_its_task for one in found.values())
    searches.clear()
    study.case("taught_fine_tune", 16).invert_fn("anew", study.tampered.start)
    study.memory.clear()
    assert all(one["control"] is None for one in searches)
    assert all(one["classes"] == targets(found) for one in searches)
    assert searches


def test_a_search_within_a_finished_training_is_not_made_on_another_network(study, monkeypatch):
    monkeypatch.setattr(Study, "evidence", lambda study, size: {})
    classes = dict.fromkeys(study.options.evidence.forms, 0)
    monkeypatch.setattr(study_module, "targets", lambda found: classes)
    monkeypatch.setattr("mcjax.repair.methods.taught.num_rounds", lambda case: 2)
    study.memory.clear()
    message = "evidence_16_taught_fine_tune_1 is missing; delete .*taught_fine_tune_16 too"
    with pytest.raises(UserError, match=message):
        study.evidence_of("taught_line", 16)


def test_what_uses_no_images_draws_the_same_at_every_size(study):
    keys = {
        name: {str(study.case(name, size).key_fn(name)) for size in SIZES}
        for name in ("noise", "path")
    }
    assert [len(keys[name]) for name in ("noise", "path")] == [1, 2]


@pytest.mark.parametrize("name", all_but(["path", "fine_tune"], ["path", "fine_tune", "i_bau"]))
def test_a_stage_computes_what_the_library_computes(name, study, monkeypatch):
    found, _ = study.repaired(name, 16)
    alone = dataclasses.replace(study.case(name, 16), fit_fn=fit)
    assert digest(METHODS[name].run(alone)) == digest(found)
    again = dataclasses.replace(METHODS[name], run=lambda case: pytest.fail("computed again"))
    monkeypatch.setitem(METHODS, name, again)
    assert digest(study.repaired(name, 16)[0]) == digest(found)


@pytest.mark.parametrize("name", ["line", "fine_tune"])
def test_a_methods_network_is_that_of_its_first_row(name, study):
    network = network_of(study, name, 16)
    (again,) = judge_networks(study, f"{name} again", [network])["test_loss"]
    assert again == pytest.approx(rows_of(study, name, 16)[0].values["test_loss"], rel=1e-5)


def test_a_familys_network_is_the_chosen_one(study, monkeypatch):
    networks = [{"params": jnp.full(3, v)} for v in (1.0, 2.0, 3.0)]
    family = Family("threshold", (0.0, 0.1, 0.2), Stacked.of(networks))
    monkeypatch.setattr(Study, "repaired", lambda self, name, size: (family, 0.0))
    monkeypatch.setattr(rows, "rows_of", lambda *args: [Repair("anp", {}, setting=0.1)])
    np.testing.assert_array_equal(network_of(study, "anp", 16)["params"], [2, 2, 2])


def test_draws_are_no_network(study):
    assert network_of(study, "noise", 16) is None


def test_a_free_end_begins_at_the_suspect_and_is_no_suspect(study):
    case = study.case("path", 16)
    assert not case.end_is_free
    assert study.suspects("path") == (0, -1)
    config = study.run.config
    with config.unlocked():
        config.repair.pair = "suspect_alone"
        for name, free in (("path", True), ("taught_path", True), ("taught_line", False)):
            assert study.end_is_free(name) == free
            assert study.suspects(name) == (0,)
        case = study.case("path", 16)
        assert case.end_is_free
        assert case.second_fn() is study.tampered.start
        curve = METHODS["line"].run(study.case("path", 16))
        assert study.points("path", curve, 16).end_stats is None
        config.repair.pair = "both_tampered"


def test_rows_of_a_path(study):
    chosen, low, middle, best = rows_of(study, "path", 32)
    assert [chosen.method, best.method] == ["path", "path at the oracle's t"]
    assert [low.t, middle.t] == [0.0, 0.5]  # of three points, those nearest to 0.1 and 0.5
    t = list(chosen.path["t"])
    assert chosen.t == (0.0 if chosen.choice.index is None else t[chosen.choice.index])
    for row in (chosen, low, middle, best):
        for column, value in row.values.items():
            assert value == chosen.path[column][t.index(row.t)]


@pytest.mark.slow(compiles=True)
def test_methods_without_images_run_once_unless_their_end_is_made_from_images(study):
    def sizes(one, name):
        return [size for size, repair in table.repairs(one) if repair.method.startswith(name)]

    study.run.config.repair.methods = ("path", "line")
    assert set(sizes(study, "line")) == {0}
    assert set(sizes(study, "path")) == set(SIZES)
    made = dataclasses.replace(study, tampered=dataclasses.replace(study.tampered, end=None))
    assert set(sizes(made, "line")) == set(SIZES)
    with made.run.config.unlocked():
        made.run.config.repair.pair = "suspect_and_unaligned"
        assert set(sizes(made, "line")) == {0}
        made.run.config.repair.pair = "both_tampered"


class Forbidden(Mapping):
    """Images that no method may look at."""

    def __getitem__(self, name):
        raise AssertionError(f"a method asked for {name!r} of images that it must not see")

    def __iter__(self):
        raise AssertionError("a method went through images that it must not see")

    def __len__(self):
        raise AssertionError("a method counted images that it must not see")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A study of a network that every method can repair, whose test and stamped images raise."""
    config = base.quick(base.backdoor())
    config.model.options = {"width": 2, "hidden": 4}
    config.run.cpu_convolution = False
    config.repair.sizes = (16,)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcjax.runs.run.make_mesh", lambda: make_mesh(jax.devices()[:1]))
        run = open_run(config, tmp_path_factory.mktemp("guarded"))
    start, end = (
        {"batch_stats": {}, **run.network.init(run.key(name))} for name in ("suspect", "second")
    )
    splits = dataclasses.replace(run.splits, test=Forbidden())
    run = dataclasses.replace(run, splits=splits)
    return Study(run, Tampered("attack_success_rate", Forbidden(), start, end, (0, -1), {}))


@pytest.mark.parametrize("name", all_but(("path", "fine_tune", "clp"), METHODS))
def test_no_method_asks_for_a_test_image_or_a_trigger(name, guarded):
    """Neither while the study makes its case, nor while it runs, nor in what it returns."""
    found, _ = guarded.repaired(name, 16)
    case = guarded.case(name, 16)
    if METHODS[name].kind == "family":
        assert len(found.values) > 1
        found = found.networks(0)
    assert jax.tree.leaves(found)
    held = [getattr(case, field.name) for field in dataclasses.fields(case)]
    assert not any(isinstance(leaf, Forbidden) for leaf in jax.tree.leaves(held))
    with pytest.raises(AssertionError, match="must not see"):
        guarded.judged_by  # noqa: B018  # what judges the methods does look at them


def test_a_family_is_trained_once_and_made_again(guarded, monkeypatch):
    found, seconds = guarded.repaired("anp", 16)
    monkeypatch.setattr(
        searches_module, "train_stage", lambda *_, **__: pytest.fail("trained again")
    )
    again, kept = guarded.repaired("anp", 16)
    assert digest(again.networks) == digest(found.networks)
    assert kept == seconds > 0


ACCURACY = np.array([0.9, 0.89, 0.89, 0.5])
SUCCESS = np.array([1.0, 0.2, 0.6, 0.0])


def table_of_a_family(study, monkeypatch, *, suspect, seconds=2.0):
    """The rows of a family of four whose measures are given."""

    def judge(study, name, networks, places):
        return {
            "selection_accuracy": ACCURACY,
            "test_accuracy": ACCURACY - 0.01,
            "attack_success_rate": SUCCESS,
        }

    monkeypatch.setattr(rows, "judge", judge)
    monkeypatch.setattr(rows, "suspect_accuracy", lambda study: suspect)
    family = Family("strength", (0.0, 0.1, 0.2, 0.3), None)
    return rows.of_family(study, "mine", 16, family, seconds)


@pytest.mark.parametrize(
    ("seconds", "of_each", "of_all"), [(2.0, [2.0] * 4, 2.0), ([1.0, 2.0, 3.0, 4.0], None, 10.0)]
)
def test_rows_of_a_family(seconds, of_each, of_all, study, monkeypatch):
    found = table_of_a_family(study, monkeypatch, suspect=0.9, seconds=seconds)
    chosen, *each, best = found
    assert [chosen.method, best.method] == ["mine", "mine at the oracle's strength"]
    assert [row.method for row in each] == [f"mine at strength = {v}" for v in ("0", 0.1, 0.2, 0.3)]
    assert (chosen.setting, chosen.acceptable, chosen.seconds) == (0.2, True, of_all)
    # Each value by its own accuracy: the last is 0.8 where 0.88 is asked for.
    assert [row.acceptable for row in each] == [True, True, True, False]
    assert [row.seconds for row in each] == (of_each or seconds)
    assert best.acceptable is None
    assert best.setting == 0.1  # lowest success among the first three
    assert chosen.values["attack_success_rate"] == 0.6


def test_rows_of_a_family_without_an_accurate_network(study, monkeypatch):
    chosen, *_, best = table_of_a_family(study, monkeypatch, suspect=0.99)
    # One standard error of the most accurate, with these few images, reaches to the third.
    assert (chosen.setting, chosen.acceptable) == (0.2, False)
    assert best.setting == 0.1


@pytest.mark.parametrize(("accuracy", "acceptable"), [(0.88, True), (0.87, False)])
def test_a_single_network_is_acceptable_within_the_tolerance(
    accuracy, acceptable, study, monkeypatch
):
    found = {"selection_accuracy": [accuracy], "attack_success_rate": [0.5]}
    monkeypatch.setattr(rows, "judge_networks", lambda study, name, networks: found)
    monkeypatch.setattr(rows, "suspect_accuracy", lambda study: 0.9)
    repair = rows.one(study, "fine_tune", 16, {"params": {}}, 1.0)
    assert study.options.tolerance == 0.02
    assert repair.acceptable is acceptable


def test_the_table_has_a_column_of_settings_if_a_family_is_asked_for(study, monkeypatch):
    chosen, *_ = table_of_a_family(study, monkeypatch, suspect=0.9)
    study.run.config.repair.methods = ("path", "clp")
    line = table.row(study, 16, chosen)
    assert (line["setting"], line["acceptable"], line["t"]) == (0.2, 1, "")
    study.run.config.repair.methods = ("path", "fine_tune")
    assert "setting" not in table.row(study, 16, chosen)
