"""Every method as a record: what it returns, and that nothing leaks into it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_case
from slow import all_but

from mcjax.core.errors import UserError
from mcjax.core.tree import by_name, check_same_structure, digest
from mcjax.curves import Curve
from mcjax.repair import methods
from mcjax.repair.methods import METHODS
from mcjax.repair.methods.method import Method, Plan, num_repeats, trained
from mcjax.runs import config as base


@pytest.fixture(scope="module")
def case():
    return tiny_case.case()


# These have files of their own, and take the longest.
LONG = ("i_bau", "nad", "taught_path", "tsc")


@pytest.mark.parametrize("name", all_but(set(METHODS) - set(LONG), METHODS))
def test_what_a_method_returns(name, case):
    method = METHODS[name]
    before = digest(case.suspect)
    found = method.run(case)
    assert digest(case.suspect) == before  # left as it was
    if method.kind == "network":
        check_same_structure(case.suspect["params"], found["params"], ("suspect", name))
        assert digest(found["params"]) != digest(case.suspect["params"])
        assert all(np.isfinite(leaf).all() for leaf in by_name(found).values())
    elif method.kind == "family":
        assert method.num_networks(tiny_case.PLAN) == len(found.values)
        assert len(set(found.values)) == len(found.values)
        for i in (0, len(found.values) - 1):
            check_same_structure(case.suspect, found.networks(i), ("suspect", name))
            assert digest(found.networks(i)["batch_stats"]) == digest(case.suspect["batch_stats"])
        gentle, strong = (zeros(found.networks(i)) for i in (0, len(found.values) - 1))
        assert gentle <= strong
    elif method.kind == "path":
        assert isinstance(found, Curve)
        assert digest(found(0.0)) == digest(case.suspect["params"])
        assert digest(found(1.0)) == digest(case.second_fn()["params"])
    else:
        assert [draws.number for draws in found] == [tiny_case.OPTIONS["num_draws"]] * 2
        assert digest(found[0].points(0)) != digest(found[1].points(0))
        for draws, center, other in zip(
            found,
            (case.suspect, case.second_fn()),
            (case.second_fn(), case.suspect),
            strict=True,
        ):
            assert digest(draws.center) == digest(center)
            assert digest(draws.points.center) == digest(center["params"])
            assert digest(draws.points.other) == digest(other["params"])
    again = method.run(case)
    if method.kind == "network":  # seeds reproduce byte for byte
        assert digest(again) == digest(found)
    elif method.kind == "family":
        assert digest(again.networks) == digest(found.networks)


def zeros(variables):
    return sum(int((leaf == 0).sum()) for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_uses_no_images_says_so(name, case):
    """Its result is the same with other images; that of all others is not."""
    others = tiny_case.images(12, 2)
    other = dataclasses.replace(
        case,
        images=jax.tree.map(jnp.asarray, others),
        bonafide=others,
        selection=tiny_case.images(6, 3),
    )
    method = METHODS[name]
    a, b = method.run(case), method.run(other)
    if method.kind == "draws":
        a, b = ([draws.points(0) for draws in found] for found in (a, b))
    elif method.kind == "family":
        a, b = a.networks, b.networks
    assert (digest(a) == digest(b)) == (not method.uses_images)


@pytest.mark.parametrize("name", METHODS)
def test_fields_of_the_config_are_the_records(name):
    method, config = METHODS[name], base.flat(base.backdoor())
    if method.learning_rate is not None:
        assert config[f"repair.learning_rate.{name}"] == method.learning_rate
    else:
        assert f"repair.learning_rate.{name}" not in config
    for field, setting in method.settings.items():
        default = setting.default
        assert config[f"repair.{field}"] == (
            list(default) if isinstance(default, tuple) else default
        )


def test_a_method_of_ones_own_brings_its_fields(monkeypatch):
    monkeypatch.setitem(METHODS, "mine", Method(run=lambda case: None, learning_rate=0.25))
    config = base.backdoor()
    assert config.repair.learning_rate.mine == 0.25
    base.validate(config)
    assert methods.get("mine").trains is False


def test_the_default_methods_are_registered_and_leave_the_newer_ones_out():
    newer = {"anp", "ft_sam", "d3", "clp", "nad", "tsc"}
    newer |= {"taught_path", "taught_line", "taught_fine_tune"}
    assert set(methods.DEFAULT) == set(METHODS) - newer
    assert tuple(base.backdoor().repair.methods) == methods.DEFAULT


@pytest.mark.parametrize("name", ["ft_sam", "anp", "d3", "nad", "tsc", "taught_fine_tune"])
def test_every_training_takes_its_share_of_the_budget(name, case):
    """The gradients of all steps together are those of fine-tuning."""
    steps = []

    def fit_fn(key, training):
        steps.append(training.budget.num_steps)
        return {"params": training.params, "batch_stats": training.batch_stats}

    budget = dataclasses.replace(case.budget, num_steps=12)
    METHODS[name].run(dataclasses.replace(case, fit_fn=fit_fn, budget=budget))
    gradients = {"ft_sam": 2, "anp": 3, "taught_fine_tune": 2}.get(name, 1)
    assert sum(steps) * gradients == 12
    assert len(steps) == {"nad": 2, "tsc": 2}.get(name, 1)
    plan = tiny_case.PLAN._replace(num_steps=(12, 12))
    assert sum(work.num_steps for work in METHODS[name].work(plan)) == 2 * sum(steps)


@pytest.mark.parametrize("name", ["prune", "anp", "d3", "clp", "nad"])
def test_a_network_without_what_a_method_needs_is_refused(name):
    with pytest.raises(UserError, match=f"do not use the method {name}"):
        METHODS[name].check({"params": {"layer": {"weights": jnp.ones((2, 2, 2))}}})


def test_a_name_without_a_learning_rate(case):
    with pytest.raises(UserError, match=r"'prayer' has no learning rate; give the name"):
        case.train("prayer", {}, {}, None)


def test_an_unknown_method():
    with pytest.raises(UserError, match=r"unknown repair method 'prayer'; choose from path, line"):
        methods.get("prayer")
    with pytest.raises(UserError, match="did you mean taught_path"):
        methods.get("tought_path")


def test_the_work_of_a_training():
    plan = Plan({}, (50, 100), (10, 20), 64, 150, 61)
    (work,) = trained("path", curve=True)(plan)
    assert (work.num_steps, work.images, work.spread) == (30, 64, "batch")
    assert work.weight_passes > next(iter(trained("scratch")(plan))).weight_passes


def test_images_are_repeated_to_one_length():
    assert [num_repeats(n, (400, 200, 50)) for n in (400, 200, 50)] == [1, 2, 8]
    assert [num_repeats(n, (300, 200)) for n in (300, 200)] == [2, 3]
    assert num_repeats(7, (7, 11, 13, 17)) == 1  # no common multiple in reach
