"""Every field that a user can get wrong is checked, and the hash is of results only."""

import pytest

from mcjax.core.errors import UserError
from mcjax.runs import config as base


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("curve.kind", "spline"),
        ("curve.num_bends", -1),
        ("curve.align", "sideways"),
        ("curve.images", "test"),
        ("evaluation.batch_stats", "test"),
        ("evaluation.num_points", 1),
        ("endpoint.num_epochs", 0.0),
        ("curve.batch_size", 0),
        ("data.protocol", "leaky"),
        ("run.log_every_steps", 0),
    ],
)
def test_bad_values_are_named(field, value):
    config = base.connect()
    part, name = field.split(".")
    config[part][name] = value
    with pytest.raises(UserError, match=f"config.{field} is {value!r}; it must be"):
        base.validate(config)


def test_bonafide_images_must_be_set_aside():
    config = base.connect()
    config.curve.images = "bonafide"
    with pytest.raises(UserError, match="num_bonafide is 0"):
        base.validate(config)
    config.data.num_bonafide = 100
    base.validate(config)


def test_hash_is_of_what_changes_the_result():
    reference = base.config_hash(base.connect())
    for field, value, same in (
        ("seed", 1, False),
        ("curve.weight_decay", 0.0, False),
        ("data.dir", "elsewhere", True),
        ("model.bfloat16", True, False),
        ("curve.align", "weights", False),
        ("run.log_every_steps", 7, True),
    ):
        config = base.connect()
        config.update_from_flattened_dict({field: value})
        assert (base.config_hash(config) == reference) == same


@pytest.mark.parametrize("name", ["model.bfloat16", "run.tensorboard"])
def test_a_config_that_lacks_a_field_is_refused(name):
    config = base.connect()
    part, field = name.split(".")
    del config[part][field]
    with pytest.raises(UserError, match=f"the config lacks {name}"):
        base.validate(config)


def test_a_switch_is_true_or_false():
    config = base.connect()
    with config.ignore_type():
        config.model.bfloat16 = "yes"
    with pytest.raises(UserError, match="bfloat16 is 'yes'; it must be True or False"):
        base.validate(config)


def test_variants():
    assert base.variant(base.connect(), None).data.name == "digits"
    assert base.variant(base.connect(), "quick").data.name == "fake:digits"
    with pytest.raises(UserError, match="unknown config argument 'fast'"):
        base.variant(base.connect(), "fast")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("vgg16", {"batch_norm": True}, {"batch_norm": True, "width": 16}),
        ("vgg16", {}, {}),
        ("vgg16_wide", {"dropout_rate": 0.5}, {"dropout_rate": 0.5}),
        ("resnet8", {"width": 4}, {"width": 4}),
        ("mlp", {}, {}),
    ],
)
def test_quick_networks_are_narrow(name, options, expected):
    config = base.connect()
    config.model.name = name
    config.model.options.update(options)
    assert base.quick(config).model.options.to_dict() == expected


@pytest.mark.parametrize("field", ["learning_rate", "momentum", "weight_decay", "num_epochs"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
def test_what_training_would_not_survive_is_refused(field, value):
    for part in ("endpoint", "curve"):
        config = base.connect()
        config[part][field] = value
        with pytest.raises(UserError, match=rf"config\.{part}\.{field} is {value}; it must be"):
            base.validate(config)


def test_a_misspelt_field_is_answered_with_the_nearest_one():
    config = base.connect()
    del config.curve.num_bends
    config.curve.num_bend = 2
    with pytest.raises(
        UserError, match=r"no field curve\.num_bend; did you mean curve\.num_bends\?"
    ):
        base.validate(config)
