"""Options of a repair that no training could have are refused before anything is computed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.core.errors import UserError
from mcjax.core.keys import check_key
from mcjax.repair import inputs, model, stages
from mcjax.repair.model import repair_model
from mcjax.repair.options import RepairOptions, check_ends

NAN, INF = float("nan"), float("inf")
WHOLE, NUMBER, FLAG = "an integer from", "a number in ", "True or False"
KEYS = jax.random.split(jax.random.key(0))
IMAGES = np.tile(np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1), (10, 1, 1, 1))
BONAFIDE = {"image": IMAGES, "label": np.tile(np.arange(4), 10)}


def linear(w, x):
    return x.reshape(len(x), -1) @ w


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch):
    def computed(*args, **kwargs):
        raise AssertionError("something was computed")

    monkeypatch.setattr(model, "check_suspect", computed)
    for name in ("kept_fit", "control_network", "evaluate_path"):
        monkeypatch.setattr(stages, name, computed)
    monkeypatch.setattr(inputs, "digest", computed)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        *(("tolerance", v, NUMBER) for v in (-0.1, 1.5, NAN, INF, "a", None, True)),
        *(("num_points", v, WHOLE) for v in (1, 2.5, 3.0, NAN, "a", None, True, 10**9)),
        *(("num_steps", v, WHOLE) for v in (0, -1, 1.5, 2.0, NAN, "a", None, True, 10**10)),
        *(("batch_size", v, WHOLE) for v in (0, -3, 1.5, NAN, "a", None, True, 10**12)),
        *(("num_bends", v, WHOLE) for v in (-1, 1.0, NAN, "1", None, True, 101)),
        *(("learning_rate", v, NUMBER) for v in (-1, NAN, INF, "a", None, True, 1e30, 10**400)),
        *(("fine_tune_learning_rate", v, NUMBER) for v in (0, -1, NAN, INF, "a", None, True)),
        *(("momentum", v, NUMBER) for v in (-1, 1.0, 2, NAN, INF, "0.9", None, True)),
        *(("weight_decay", v, NUMBER) for v in (-1, NAN, INF, "a", None, True, 1e30)),
        *(("second_is_clean", v, FLAG) for v in (1, "yes", None)),
        *(("verbose", v, FLAG) for v in (1, "no", None)),
        *(
            ("end", v, "one of taught, free, unaligned, fine_tuned")
            for v in ("none", None, ["free"])
        ),
        *(("unalign", v, "one of weights, activations, random") for v in ("none", None)),
        *(("kind", v, "one of bezier, polychain") for v in ("spline", None, ["bezier"])),
        *(("align", v, "one of none, weights") for v in ("yes", None, ["none"])),
        *(("augmentation", v, "one of none, flip_crop,") for v in ("mixup", None, ["none"], 3)),
        *(("key", v, "a single key") for v in (0, None, "a", KEYS, jnp.zeros(2), np.array(["a"]))),
        ("key", jnp.zeros(3, jnp.uint32), "a single key"),
        ("key", jnp.zeros((2, 2), jnp.uint32), "a single key"),
        *(("apply_fn", v, "a function apply_fn(variables, x)") for v in (None, 3, "x")),
    ],
    ids=lambda v: repr(v)[:20],
)
def test_one_line_names_the_option(name, value, allowed):
    """Whatever else is wrong: the options come first."""
    options = {"key": jax.random.key(0), "apply_fn": linear, "suspect": {}, "bonafide": {}}
    with pytest.raises(UserError) as error:
        repair_model(**{**options, name: value})
    message = str(error.value)
    assert re.match(f"{name} is .*; it must be {re.escape(allowed)}", message)
    assert "\n" not in message
    assert len(message) < 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"unalign": "random"},
            "unalign is 'random', how the suspect's copy is permuted, but end is",
        ),
        (
            {"align": "weights"},
            "align is 'weights', but there is no second network to permute; give second",
        ),
        (
            {"num_bends": 2},
            "num_bends is 2, but the path is the straight line to the taught suspect",
        ),
        (
            {"kind": "polychain"},
            "kind is 'polychain', but the path is the straight line .*end='free'",
        ),
        (
            {"end": "unaligned", "second": {}},
            "end is 'unaligned', but the path leads to the second",
        ),
    ],
)
def test_options_that_exclude_each_other(changes, message):
    options = {"key": jax.random.key(0), "apply_fn": linear, "suspect": {}, "bonafide": {}}
    with pytest.raises(UserError, match=message):
        repair_model(**options, **changes)


def test_a_path_to_a_second_network_may_have_any_bends():
    options = RepairOptions(num_bends=2, kind="polychain")
    check_ends(options, has_second=True, second_is_clean=False)
    check_ends(RepairOptions(num_bends=0), has_second=False, second_is_clean=False)  # a line


@pytest.mark.parametrize(
    ("given", "end_is_free", "rate"), [(0.0, True, 0.01), (0.0, False, 0.05), (0.3, True, 0.3)]
)
def test_the_usual_learning_rate_depends_on_the_far_end(given, end_is_free, rate):
    found = RepairOptions(learning_rate=given).of_methods(0.02, end_is_free=end_is_free)
    assert found["learning_rate.taught_path"] == rate
    assert found["learning_rate.taught_fine_tune"] == (given or 0.01)


@pytest.mark.parametrize("which", ["suspect", "second"])
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, " is {}; it must be a tree of arrays"),
        ([None], " is [None]; it must be a tree of arrays"),
        ("x", ": it is 'x'; give arrays of numbers"),
        ({"w": np.array(["a"])}, ": w is array(['a'], dtype='<U1'); give arrays of numbers"),
        ({"w": [object]}, ": w/0 is <class 'object'>; give arrays of numbers"),
        ({"w": jnp.eye(4, dtype=int)}, ": w is int32; parameters must be real numbers"),
        (np.eye(4, dtype=complex), ": it is complex64; parameters must be real numbers"),
        (NAN * jnp.eye(4), ": it holds NaN or infinity; give a sound network"),
        ({"w": INF * np.ones(4, np.float16)}, ": w holds NaN or infinity; give a sound network"),
    ],
    ids=lambda v: repr(v)[:20],
)
def test_variables_between_which_there_is_no_path(which, variables, message):
    trees = {"suspect": jnp.eye(4), "second": None, which: variables}
    with pytest.raises(UserError, match="^" + re.escape(which + message)) as error:
        repair_model(jax.random.key(0), linear, bonafide=BONAFIDE, **trees)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["bonafide", "selection"])
def test_lists_of_different_lengths_are_no_images(part):
    images = {"bonafide": BONAFIDE, part: {"image": [[1], [1, 2]], "label": [1, 2]}}
    with pytest.raises(UserError, match=f"{part} images or labels are not an array") as error:
        repair_model(jax.random.key(0), linear, jnp.eye(4), **images)
    assert "\n" not in str(error.value)


def test_a_key_of_the_older_kind_is_the_same_key():
    assert check_key(jax.random.PRNGKey(3)) == jax.random.key(3)
    assert check_key(np.array([0, 3], np.uint32)) == jax.random.key(3)


def test_a_misspelt_option_is_named():
    with pytest.raises(TypeError, match="no option 'tolerence'; did you mean tolerance"):
        repair_model(jax.random.key(0), linear, {}, {}, tolerence=0.1)
