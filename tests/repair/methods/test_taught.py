"""The taught methods beside the plain ones, and what they take from the evidence."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_case

from mcjax.repair.evidence import judge
from mcjax.repair.methods import fine_tune, path, taught, taught_fine_tune, taught_path
from mcjax.repair.methods.method import Plan

PLAIN = {"taught.fit": "labels", "taught.unlearn": ()}


def case(num_steps, **options):
    one = tiny_case.case(num_steps=num_steps, options=options)
    # One key for all methods, so that they can be compared.
    return dataclasses.replace(one, key_fn=lambda name: tiny_case.KEY)


@pytest.mark.parametrize(
    ("plain", "method"), [(fine_tune, taught_fine_tune), (path, taught_path)], ids=["net", "path"]
)
def test_without_teacher_and_triggers_they_are_the_plain_methods_of_half_the_steps(plain, method):
    one, two = plain.run(case(3)), method.run(case(6, **PLAIN))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_triggers_are_inverted_once_and_only_if_they_are_unlearned():
    asked = []

    def evidence():
        asked.append(1)
        return tiny_case.case().evidence_fn()

    for options, times in ((PLAIN, 0), ({"taught.unlearn": ("patch", "warp")}, 1)):
        asked.clear()
        one = dataclasses.replace(case(4, **options), evidence_fn=evidence)
        found = taught.taught_by(one)
        assert len(asked) == times
        assert list(found["triggers"]) == list(options["taught.unlearn"])
        assert found["suspect"] is one.suspect


def test_answers_are_learned_only_if_there_is_evidence(monkeypatch):
    one = case(4, **{"taught.fit": "auto"})
    for threshold, fit in ((-99.0, "distillation"), (99.0, "labels")):
        monkeypatch.setattr(judge, "THRESHOLD", threshold)
        assert taught.fit_of(one) == fit
    assert taught.fit_of(case(4, **{"taught.fit": "labels"})) == "labels"


@pytest.mark.parametrize("unlearn", [("patch",), ("warp", "smooth")])
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
