"""Every field of every experiment has its check, which no value of any type gets past or breaks."""

import math
from fractions import Fraction
from pathlib import Path

import in_process
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from slow import all_but

from mcjax.core.errors import UserError
from mcjax.core.keys import check_seed
from mcjax.curves import MOST_BENDS, Bezier
from mcjax.data.splits import split
from mcjax.evaluation.correlation import correlation
from mcjax.runs import config as base
from mcjax.runs.run import open_run
from mcjax.runs.schema import SETTINGS

ROOT = Path(__file__).parents[2]
ALL = {
    (experiment, field)
    for experiment in SETTINGS
    for field in base._leaves(base.default(experiment))
}


def with_value(experiment, field, value):
    config = base.default(experiment)
    *parts, name = field.split(".")
    node = config
    for part in parts:
        node = node[part]
    node._fields[name] = value  # past ml_collections' own conversions
    return config


@pytest.mark.parametrize("experiment", SETTINGS)
def test_the_defaults_hold(experiment):
    base.validate(base.default(experiment))
    base.validate(base.quick(base.default(experiment)))


WRONG = [None, "", "x", b"x", (), ("x",), (1.5,), (None,), {}, object(), 1j, np.ones(3), [], "nan"]
NUMBERS = [math.nan, math.inf, -math.inf, -1, -0.5, 10**30, 1e300, -(10**400), 10**400, 0.1, True]


@pytest.mark.parametrize("experiment", all_but(["connect", "backdoor"], SETTINGS))
def test_wrong_types_and_numbers_are_refused_where_the_default_is_another_kind(experiment):
    """Nothing of another type than the default's passes, and no number that is not finite."""
    for field, default in base._leaves(base.default(experiment)).items():
        for value in (*WRONG, *NUMBERS):
            if isinstance(value, dict):  # would be a part of the config
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if isinstance(default, bool):
                right = isinstance(value, bool)
            elif isinstance(default, int | float):
                right = number and 0 <= value <= 10**9  # no NaN, no infinity
                right = right and (isinstance(value, int) or isinstance(default, float))
            elif isinstance(default, tuple):
                right = isinstance(value, tuple | list)
            else:
                right = isinstance(value, str)
            try:
                base.validate(with_value(experiment, field, value))
            except UserError as error:
                check_one_line(error)
            else:
                assert right, (field, value)


def check_one_line(error):
    assert str(error).startswith("config.")
    assert "\n" not in str(error)
    assert len(str(error)) < 600


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.sampled_from(
        [*WRONG[:6], *NUMBERS, 2**32, 2**31, 10**10, 1e-300, np.float32(1), np.int64(3)]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attack.curve_epochs", np.float32(1)),
        ("curve.num_bends", np.int64(3)),
        ("seeds", (np.int64(3),)),
        ("repair.fixed_t", (0.1, Fraction(1, 2))),
    ],
)
def test_numbers_that_no_json_file_can_hold(field, value):
    with pytest.raises(UserError, match=f"config.{field} is .*; give a Python") as error:
        base.validate(with_value("backdoor", field, value))
    check_one_line(error.value)


@settings(max_examples=1000, deadline=None)
@given(place=st.sampled_from(sorted(ALL)), value=anything)
def test_any_value_of_any_field_is_right_or_told_in_one_line(place, value):
    experiment, field = place
    config = with_value(experiment, field, value)
    try:
        base.validate(config)
    except UserError as error:
        check_one_line(error)
    else:
        found = base._leaves(config)[field]
        default = base._leaves(base.default(experiment))[field]
        if isinstance(default, bool) or isinstance(found, bool):
            assert isinstance(found, bool)
            assert isinstance(default, bool)
        if isinstance(default, int | float):
            assert math.isfinite(found)
        if isinstance(default, tuple):
            assert len(set(found)) == len(found)
        base.config_hash(config)  # it can be written down


@pytest.mark.parametrize(
    ("experiment", "field", "value"),
    [
        ("backdoor", "repair.methods", ("path", "path")),
        ("backdoor", "repair.fixed_t", (0.1, 0.1)),
        ("backdoor", "repair.sizes", (100, 100)),
        ("backdoor", "repair.sizes", (1.5,)),
        ("backdoor", "repair.sizes", ("x",)),
        ("backdoor", "repair.fixed_t", ("x",)),
        ("backdoor", "seeds", (1, 1)),
        ("backdoor", "seeds", (2**32,)),
        ("backdoor", "attack.release", (0.5, 0.5)),
        ("evasion", "pairs", ("regular-regular", "regular-regular")),
        ("connect", "seed", 2**32),
        ("connect", "seed", -1),
        ("connect", "seed", 0.5),
        ("connect", "evaluation.plane_points", 1),
        ("backdoor", "repair.prune_fraction", 1.5),
        ("backdoor", "repair.prune_fraction", math.nan),
        ("backdoor", "repair.i_bau.eps", math.nan),
        ("connect", "curve.num_bends", 300),
        ("connect", "endpoint.num_epochs", 1e300),
        ("connect", "curve.batch_size", 10**10),
        ("connect", "evaluation.num_points", 10**12),
        ("backdoor", "repair.folds", 1),
    ],
)
def test_what_was_found_late_or_never(experiment, field, value):
    with pytest.raises(UserError, match=rf"^config\.{field} is .*; it must be"):
        base.validate(with_value(experiment, field, value))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("path", "pathh"), "unknown repair method 'pathh'; did you mean path"),
        (("fine_tune",), r"config\.repair\.methods has none of taught_line"),
    ],
)
def test_methods_are_checked_before_the_data_is_loaded(names, message):
    with pytest.raises(UserError, match=message):
        base.validate(with_value("backdoor", "repair.methods", names))


def test_a_way_to_permute_needs_a_copy_to_permute():
    config = with_value("backdoor", "repair.unalign", "random")
    with pytest.raises(
        UserError, match=r"repair\.unalign is random, but config\.repair\.pair is both"
    ):
        base.validate(config)
    config.repair.pair = "suspect_and_unaligned"
    base.validate(config)


def test_a_line_needs_another_network():
    config = with_value("backdoor", "repair.pair", "suspect_alone")
    with pytest.raises(
        UserError, match=r"methods: line needs a second network, and config\.repair"
    ):
        base.validate(config)
    config.repair.methods = tuple(n for n in config.repair.methods if n not in ("line", "noise"))
    base.validate(config)


def test_a_config_of_another_experiment_is_named():
    config = base.connect()
    config.experiment = "backdoor"
    with pytest.raises(
        UserError, match=r"experiment is backdoor, but the config lacks attack\.attacker"
    ):
        base.validate(config)
    config = base.backdoor()
    config.experiment = "connect"
    with pytest.raises(UserError, match=r"but the config lacks|an unknown field"):
        base.validate(config)
    config = base.connect()
    config.curve.widht = 3
    with pytest.raises(UserError, match=r"has an unknown field, curve\.widht"):
        base.validate(config)
    with pytest.raises(UserError, match=r"config.experiment is None; it must be one of connect"):
        base.validate(ConfigDict())


def test_more_faults_than_images_are_told_before_the_training():
    with pytest.raises(
        UserError, match=r"num_faults is 600, more than the 500 of config.attack.num_images"
    ):
        base.validate(with_value("injection", "attack.num_faults", 600))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.options": {"width": 30_000}},
            "makes a network of .* parameters, whose training needs",
        ),
        ({"model.options": {"width": 10**30}}, "width is 1000000.*; it must be an integer"),
        ({"model.options": {"width": math.nan}}, "width is nan"),
        (
            {"endpoint.batch_size": 2**20},
            "batch_size is 1048576, but there are 800 training images",
        ),
        ({"data.augmentation": "wobble"}, "wobble"),
        ({"model.name": "cnm"}, "did you mean cnn"),
        ({"data.name": "digitz"}, "digitz"),
    ],
)
def test_what_needs_data_or_network_is_told_before_anything_is_written(changes, message, tmp_path):
    config = base.quick(base.connect())
    for field, value in changes.items():
        *parts, name = field.split(".")
        node = config
        for part in parts:
            node = node[part]
        node[name] = ConfigDict(value) if isinstance(value, dict) else value
    with pytest.raises(UserError, match=message) as caught:
        open_run(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64, 1.0, 0.5, None, "1", True, math.nan])
def test_seeds_that_would_repeat_others_or_are_none(seed):
    for fn in (
        check_seed,
        lambda s: correlation(np.arange(5.0), np.arange(5.0), seed=s),
        lambda s: split(None, seed=s, num_bonafide=0, num_selection=0),
    ):
        with pytest.raises(UserError, match=r"seed is .*; give an integer from 0 to 4294967295"):
            fn(seed)
    assert check_seed(np.int64(2**32 - 1)) == 2**32 - 1


@pytest.mark.parametrize("num_bends", [-1, 1.0, MOST_BENDS + 1, 300])
def test_bends_that_a_curve_can_not_have(num_bends):
    with pytest.raises(UserError, match=r"num_bends is .*; give an integer"):
        Bezier.connect({"w": np.zeros(1)}, {"w": np.ones(1)}, num_bends=num_bends)


@pytest.mark.slow(compiles=True)
def test_coefficients_of_the_most_bends_still_sum_to_one():
    a, b = ({"w": np.full(1, value, np.float32)} for value in (0, 1))
    curve = Bezier.connect(a, b, num_bends=MOST_BENDS)
    ts = np.linspace(0, 1, 201)
    coefficients = jax.vmap(curve.coefficients)(ts)
    np.testing.assert_allclose(coefficients.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(curve)(ts)["w"][:, 0], ts, atol=1e-5)


COMMAND_LINE = {
    "--config.repair.sizes=(1.5,)": "config.repair.sizes is (1.5,); it must be",
    "--config.repair.fixed_t=('x',)": "config.repair.fixed_t is ('x',); it must be",
    "--config.seed=4294967296": "config.seed is 4294967296; it must be",
    "--config.experiment=connect": "config.experiment is connect, but the config",
    "--config.repair.prune_fraction=nan": "config.repair.prune_fraction is nan; it must be",
    "--config.repair.methods=('path','path')": "without duplicates",
}


@pytest.mark.parametrize("flag", COMMAND_LINE)
def test_on_the_command_line_it_is_exit_code_2_and_one_line(flag, tmp_path):
    file = ROOT / "configs" / "backdoor_digits.py"
    done = in_process.run("mcjax.train", "--config", file, flag, cwd=tmp_path)
    assert done.returncode == 2
    assert COMMAND_LINE[flag] in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())  # nothing was begun
