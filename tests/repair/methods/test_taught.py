"""The taught methods beside the plain ones, and what they take from the evidence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_case

from mcjax.repair.evidence import verdict
from mcjax.repair.methods import METHODS, fine_tune, path, taught, taught_fine_tune, taught_path
from mcjax.repair.methods.method import Plan

PLAIN = {"taught.fit": "labels", "taught.unlearn": ()}


def case(num_steps, **options):
    one = tiny_case.case(num_steps=num_steps, options=options)
    # One key for all methods, so that they can be compared.
    return dataclasses.replace(one, key_fn=lambda name: tiny_case.KEY)


@pytest.mark.parametrize(
    ("plain", "method"), [(fine_tune, taught_fine_tune), (path, taught_path)], ids=["net", "path"]
)
def test_without_teacher_and_triggers_they_are_the_plain_methods(plain, method):
    rates = {f"learning_rate.taught_{name}": 0.1 for name in ("fine_tune", "path")}
    rates |= {f"learning_rate.{name}": 0.1 for name in ("fine_tune", "path")}
    one, two = plain.run(case(3, **rates)), method.run(case(3, **PLAIN, **rates))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


EVIDENT, NOT_EVIDENT = -99.0, 99.0
"""Thresholds."""


@pytest.mark.parametrize(
    ("unlearned", "threshold"),
    [(("patch", "smooth"), EVIDENT), (("patch", "smooth"), NOT_EVIDENT), ((), EVIDENT)],
)
def test_statistics_are_of_clean_images_where_the_training_saw_stamped_ones(
    unlearned, threshold, monkeypatch
):
    monkeypatch.setattr(verdict, "threshold", lambda form, one: threshold)
    options = {"taught.unlearn": unlearned, "taught.rounds": 2}
    one = tiny_case.case(num_steps=8, options=options, width=2, batch_norm=True)
    evidence, again, trainings = one.evidence_fn(), [], []

    def inverted(name, variables):
        again.append(variables)
        return evidence

    def fit_fn(key, training, *args):
        trainings.append(tiny_case.fit(key, training, *args))
        return trainings[-1]

    # A study repeats few images; the statistics count each once.
    repeated = jax.tree.map(lambda v: jnp.concatenate([v, v[:5]]), one.images)
    one = dataclasses.replace(
        one, evidence_fn=lambda: evidence, invert_fn=inverted, fit_fn=fit_fn, images=repeated
    )
    repaired = taught_fine_tune.run(one)
    assert len(again) == (1 if unlearned and threshold == EVIDENT else 0)
    for trained, got in zip(trainings, [*again, repaired], strict=True):
        jax.tree.map(np.testing.assert_array_equal, got["params"], trained["params"])
        _, expected = one.network.apply_train(
            tiny_case.KEY, {**trained, "batch_stats": zeros(trained)}, one.bonafide["image"] / 255.0
        )
        of_clean = jax.tree.map(lambda v: v / 0.1, expected)  # the momentum is 0.9
        same = jax.tree.map(
            lambda a, b: np.allclose(a, b, rtol=1e-4, atol=1e-6), got["batch_stats"], of_clean
        )
        assert all(jax.tree.leaves(same)) == bool(unlearned)


def test_state_that_cannot_be_recomputed_stays_as_it_was_trained():
    one = tiny_case.case(width=2, batch_norm=True)

    def squared(key, variables, x):
        return x, jax.tree.map(lambda s: s**2 + x.mean(), variables["batch_stats"])

    network = one.network._replace(apply_train=squared)
    one = dataclasses.replace(one, network=network)
    assert taught_fine_tune.on_clean_images(one, one.suspect) is one.suspect


def zeros(variables):
    return jax.tree.map(jnp.zeros_like, variables["batch_stats"])


def recorded(one, threshold, monkeypatch):
    """What the rounds of a case were given, and the networks on which triggers were inverted anew."""
    monkeypatch.setattr(verdict, "threshold", lambda form, one, value=threshold: value)
    rounds, again = [], []
    evidence = one.evidence_fn()

    def inverted(name, variables):
        again.append((name, variables))
        return jax.tree.map(lambda v: v + len(again), evidence)

    one = dataclasses.replace(one, evidence_fn=lambda: evidence, invert_fn=inverted)

    def train(trained, beside, budget, part):
        rounds.append((trained, beside, budget.num_steps, part))
        return trained + 1

    last = taught.teach(one, "m", 0, train_fn=train, network_fn=lambda trained: f"after {trained}")
    assert last == len(rounds)
    return one, evidence, rounds, again


def test_with_evidence_each_round_unlearns_what_the_last_one_left(monkeypatch):
    options = {"taught.unlearn": ("patch", "smooth"), "taught.rounds": 2}
    one, evidence, rounds, again = recorded(case(12, **options), -99.0, monkeypatch)
    assert again == [("m_1", "after 1")]
    assert [(r[2], r[3]) for r in rounds] == [
        (3, "round_0"),
        (3, "round_1"),
    ]  # 12 / 2 gradients / 2
    target = verdict.targets(evidence)
    for form in ("patch", "smooth"):
        own = jax.tree.map(lambda v, k=target[form]: v[0][k], evidence[form].triggers)
        first, second = (
            [jax.tree.map(lambda v, j=j: v[j], r[1]["triggers"][form]) for j in (0, 1)]
            for r in rounds
        )
        for got, added in ((first[0], 0), (first[1], 0), (second[0], 0), (second[1], 1)):
            jax.tree.map(
                lambda a, b, n=added: np.testing.assert_allclose(a, b + n, rtol=1e-6), got, own
            )
    assert rounds[0][1]["suspect"] is one.suspect
    assert set(rounds[0][1]["triggers"]) == {"patch", "smooth"}


def test_without_evidence_there_is_one_round_of_all_forms(monkeypatch):
    options = {"taught.unlearn": ("patch", "smooth"), "taught.rounds": 2}
    _, _, rounds, again = recorded(case(12, **options), 99.0, monkeypatch)
    assert [(r[2], r[3]) for r in rounds] == [(6, "")]
    assert set(rounds[0][1]["triggers"]) == {"patch", "smooth"}
    assert not again


def test_only_suspicious_forms_are_unlearned(monkeypatch):
    one = case(4, **{"taught.unlearn": ("patch", "smooth")})
    for wanted in (("patch",), ("smooth",), ("patch", "smooth")):
        monkeypatch.setattr(taught, "suspicious_forms", lambda _, w=wanted: w)
        assert taught.unlearned(one) == wanted


def test_only_forms_that_were_looked_for_are_unlearned(monkeypatch):
    monkeypatch.setattr(verdict, "threshold", lambda form, one: 99.0)
    assert taught.unlearned(case(4, **{"taught.unlearn": ("warp", "patch")})) == ("patch",)
    one = case(4, **{"taught.unlearn": ("warp",)})
    assert taught.unlearned(one) == ()
    monkeypatch.setattr(verdict, "threshold", lambda form, one: -99.0)
    assert taught.num_rounds(one) == 1


def test_triggers_are_inverted_only_if_they_are_unlearned():
    def evidence():
        raise AssertionError("not asked for")

    one = dataclasses.replace(case(4, **PLAIN), evidence_fn=evidence)
    assert taught.unlearned(one) == ()
    taught_fine_tune.run(one)


def test_the_middle_of_the_path_has_its_own_statistics():
    one = tiny_case.case(model="cnn", width=2, batch_norm=True)
    curve = path.run(one)
    network = taught_path.middle(one, curve)
    params = curve(0.5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), network["params"], params
    )
    ends = jax.tree.leaves(one.suspect["batch_stats"])
    assert any(
        not np.allclose(a, b)
        for a, b in zip(jax.tree.leaves(network["batch_stats"]), ends, strict=True)
    )


def test_the_line_leads_to_the_network_that_was_taught():
    assert METHODS["taught_line"].end == "taught_fine_tune"
    one = case(4)
    curve = METHODS["taught_line"].run(one)
    expected = jax.tree.map(
        lambda a, b: (a + b) / 2, one.suspect["params"], one.second_fn()["params"]
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), curve(0.5), expected)


def test_answers_are_learned_only_if_there_is_evidence(monkeypatch):
    one = case(4, **{"taught.fit": "auto"})
    for threshold, fit in ((-99.0, "answers"), (99.0, "labels")):
        monkeypatch.setattr(verdict, "threshold", lambda form, one, value=threshold: value)
        assert taught.fit_of(one) == fit
    assert taught.fit_of(case(4, **{"taught.fit": "labels"})) == "labels"


@pytest.mark.parametrize("unlearn", [("patch",), ("smooth",)])
def test_unlearning_changes_what_is_trained(unlearn):
    with_triggers = taught_fine_tune.run(case(4, **{"taught.unlearn": unlearn}))
    without = taught_fine_tune.run(case(4, **{"taught.unlearn": ()}))
    pairs = zip(jax.tree.leaves(with_triggers), jax.tree.leaves(without), strict=True)
    assert any(not np.allclose(a, b, atol=1e-7) for a, b in pairs)


def test_the_work_is_that_of_as_many_gradients():
    plan = Plan(tiny_case.OPTIONS, (50, 100), (40, 40), 4, 6, 3)
    (own,) = taught.work("taught_path", curve=True)(plan)
    (plain,) = path.METHOD.work(plan)
    assert own.num_steps == plain.num_steps / 2
    assert own.passes == 2 * plain.passes + 1
    untaught = plan._replace(options={**plan.options, "taught.unlearn": ()})
    (own,) = taught.work("taught_path", curve=True)(untaught)
    assert own.num_steps == plain.num_steps
    assert own.passes == plain.passes + 1


@pytest.mark.parametrize("name", ["path", "taught_path"])
def test_a_free_end_is_trained_from_the_suspect_on(name):
    one = case(4, **PLAIN)
    one = dataclasses.replace(one, second_fn=lambda: one.suspect, end_is_free=True)
    curve = METHODS[name].run(one)
    jax.tree.map(np.testing.assert_array_equal, curve.start, one.suspect["params"])
    for part in (curve.bends[0], curve.end):
        pairs = zip(jax.tree.leaves(part), jax.tree.leaves(curve.start), strict=True)
        assert any(not np.array_equal(a, b) for a, b in pairs)
