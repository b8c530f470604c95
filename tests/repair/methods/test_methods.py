"""Every method as a record: what it returns, and that nothing leaks into it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.core.tree import by_name, check_same_structure, digest
from mcjax.curves import Curve
from mcjax.models.network import from_linen
from mcjax.models.small import CNN
from mcjax.repair import methods
from mcjax.repair.methods import METHODS
from mcjax.repair.methods.method import Case, Method, Plan, num_repeats, trained
from mcjax.runs import config as base
from mcjax.training.curve import CurveOptions
from mcjax.training.fit import Budget, fit

KEY = jax.random.key(0)
SHAPE = (8, 8, 1)
OPTIONS = {
    name.removeprefix("repair."): value
    for name, value in base.flat(base.quick(base.backdoor())).items()
    if name.startswith("repair.")
}


def images(number, seed):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (number, *SHAPE), np.uint8),
        "label": np.arange(number, dtype=np.int32) % 3,
    }


@pytest.fixture(scope="module")
def case():
    network = from_linen(CNN(num_classes=3, width=2), SHAPE)
    suspect, second = (
        {"batch_stats": {}, **network.init(stream(KEY, name))} for name in ("suspect", "second")
    )
    bonafide = images(12, 0)
    return Case(
        network=network,
        suspect=suspect,
        second_fn=lambda: second,
        images=jax.tree.map(jnp.asarray, bonafide),
        bonafide=bonafide,
        selection=images(6, 1),
        budget=Budget(num_steps=2, batch_size=4),
        curve=CurveOptions(),
        options=OPTIONS,
        key_fn=lambda name: stream(KEY, name),
        fit_fn=fit,
        model_name="cnn",
    )


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_returns(name, case):
    method = METHODS[name]
    before = digest(case.suspect)
    found = method.run(case)
    assert digest(case.suspect) == before  # left as it was
    if method.kind == "network":
        check_same_structure(case.suspect["params"], found["params"], ("suspect", name))
        assert digest(found["params"]) != digest(case.suspect["params"])
        assert all(np.isfinite(leaf).all() for leaf in by_name(found).values())
    elif method.kind == "path":
        assert isinstance(found, Curve)
        assert digest(found(0.0)) == digest(case.suspect["params"])
        assert digest(found(1.0)) == digest(case.second_fn()["params"])
    else:
        assert [draws.number for draws in found] == [OPTIONS["num_draws"]] * 2
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


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_uses_no_images_says_so(name, case):
    """Its result is the same with other images; that of all others is not."""
    others = images(12, 2)
    other = dataclasses.replace(
        case, images=jax.tree.map(jnp.asarray, others), bonafide=others, selection=images(6, 3)
    )
    method = METHODS[name]
    a, b = method.run(case), method.run(other)
    if method.kind == "draws":
        a, b = ([draws.points(0) for draws in found] for found in (a, b))
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


def test_a_name_without_a_learning_rate(case):
    with pytest.raises(UserError, match=r"'prayer' has no learning rate; give the name"):
        case.train("prayer", {}, {}, None)


def test_an_unknown_method():
    with pytest.raises(UserError, match=r"unknown repair method 'prayer'; use path, line"):
        methods.get("prayer")


def test_the_work_of_a_training():
    plan = Plan({}, (50, 100), (10, 20), 64, 150, 61)
    (work,) = trained("path", curve=True)(plan)
    assert (work.num_steps, work.images, work.spread) == (30, 64, "batch")
    assert work.weight_passes > next(iter(trained("scratch")(plan))).weight_passes


def test_images_are_repeated_to_one_length():
    assert [num_repeats(n, (400, 200, 50)) for n in (400, 200, 50)] == [1, 2, 8]
    assert [num_repeats(n, (300, 200)) for n in (300, 200)] == [2, 3]
    assert num_repeats(7, (7, 11, 13, 17)) == 1  # no common multiple in reach
