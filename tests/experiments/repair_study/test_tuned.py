"""What a study tunes: the values that are tried, the one that the rule chooses, and those that diverge."""

import dataclasses

import jax
import pytest

from mcjax.core.errors import Diverged
from mcjax.core.tree import digest
from mcjax.experiments.repair_study import rows
from mcjax.experiments.repair_study import study as study_module
from mcjax.experiments.repair_study import tuned as tuned_module
from mcjax.experiments.repair_study.judge import judge_networks
from mcjax.experiments.repair_study.rows import network_of, rows_of
from mcjax.experiments.repair_study.study import Study
from mcjax.experiments.repair_study.tuned import is_tuned, tuned
from mcjax.repair.methods import METHODS
from mcjax.repair.rule import strongest


def test_what_is_one_training_is_tuned_where_the_config_says_so(study):
    config = study.run.config.copy_and_resolve_references()
    config.repair.tune = True
    other = Study(dataclasses.replace(study.run, config=config), study.tampered)
    assert {name for name in METHODS if is_tuned(other, name)} == {
        *("fine_tune", "prune", "fine_prune", "i_bau", "ft_sam", "d3", "nad")
    }
    assert not any(is_tuned(study, name) for name in METHODS)


@pytest.fixture
def of_one(study, monkeypatch):
    """The same study, tuned; another config would be another run, in another folder."""
    monkeypatch.setattr(rows, "is_tuned", lambda study, name: name == "fine_tune")
    study.memory.clear()
    yield study
    study.memory.clear()


def test_the_rule_chooses_the_strength_of_one_training(of_one, monkeypatch):
    values = METHODS["fine_tune"].tuning.values
    names = [f"fine_tune at strength = {value:g}" for value in values]
    found = {row.method: row for row in rows_of(of_one, "fine_tune", 16)}
    assert list(found) == ["fine_tune", *names, "fine_tune at the oracle's strength"]
    assert [found[name].setting for name in names] == list(values)
    # The config's own strength is the method as it is without the choice.
    with monkeypatch.context() as patch:
        patch.setattr(rows, "is_tuned", lambda study, name: False)
        (own,) = rows_of(of_one, "fine_tune", 16)
    assert found["fine_tune at strength = 1"].values == pytest.approx(own.values, rel=1e-5)
    kept = {path.name for path in (of_one.run.workdir / "checkpoints").glob("fine_tune_16*")}
    others = {f"fine_tune_16_strength_{value:g}" for value in values if value != 1}
    assert kept == {"fine_tune_16", *others}
    losses = [found[name].values["test_loss"] for name in names]
    assert len(set(losses)) == len(values)
    accuracy = [found[name].values["selection_accuracy"] for name in names]
    suspect = rows.suspect_accuracy(of_one)
    pick = strongest(
        accuracy,
        suspect_accuracy=suspect,
        num_images=len(of_one.run.splits.selection["label"]),
        tolerance=of_one.options.tolerance,
    )
    assert found["fine_tune"].setting == values[pick.index]
    assert found["fine_tune"].acceptable == pick.acceptable
    network = network_of(of_one, "fine_tune", 16)
    (again,) = judge_networks(of_one, "the chosen strength", [network])["test_loss"]
    assert again == pytest.approx(losses[pick.index], rel=1e-5)


def test_a_strength_that_was_trained_is_not_trained_again(of_one, monkeypatch):
    family, _ = tuned(of_one, "fine_tune", 16)
    of_one.memory.clear()
    again = dataclasses.replace(METHODS["fine_tune"], run=lambda case: pytest.fail("trained again"))
    monkeypatch.setitem(METHODS, "fine_tune", again)
    assert digest(tuned(of_one, "fine_tune", 16)[0].networks) == digest(family.networks)


@pytest.fixture
def fails_from(of_one, monkeypatch):
    """Makes fine-tuning diverge from a learning rate on; gives the list of the rates it was run with."""
    real, rates = METHODS["fine_tune"].run, []

    def fails(rate):
        def run(case):
            rates.append(case.options["learning_rate.fine_tune"])
            if rates[-1] >= rate:
                raise Diverged("the loss is nan")
            return real(case)

        patched = dataclasses.replace(METHODS["fine_tune"], run=run)
        monkeypatch.setitem(METHODS, "fine_tune", patched)
        monkeypatch.setattr(study_module, "stage", lambda run, name, like, compute: compute())
        return rates

    return fails


def test_a_strength_that_diverges_is_left_out(of_one, fails_from):
    rate = METHODS["fine_tune"].learning_rate
    rates = fails_from(4 * rate)
    family, seconds = tuned(of_one, "fine_tune", 16)
    assert family.values == (0.5, 1.0, 2.0)
    assert len(seconds) == len(jax.tree.leaves(family.networks)[0]) == 3
    assert tuned(of_one, "fine_tune", 16)[0] is family  # and is not tried again
    assert rates == [rate, rate, 2 * rate, 4 * rate]


def test_if_all_strengths_diverge_the_method_does(of_one, fails_from):
    fails_from(0)
    with pytest.raises(Diverged, match="the loss is nan"):
        tuned(of_one, "fine_tune", 16)


def test_several_processes_cannot_leave_one_out_together(of_one, fails_from, monkeypatch):
    fails_from(4 * METHODS["fine_tune"].learning_rate)
    monkeypatch.setattr(tuned_module, "several", lambda: True)
    with pytest.raises(Diverged, match="the loss is nan"):
        tuned(of_one, "fine_tune", 16)


def test_a_path_has_nothing_to_tune(study):
    with pytest.raises(ValueError, match="path has nothing to tune"):
        tuned(study, "path", 16)
