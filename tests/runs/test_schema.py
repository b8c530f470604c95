"""The tables that configs, their checks, --help and docs/config.md are made of."""

from pathlib import Path

import pytest

from mcjax.runs import config as base
from mcjax.runs.schema import SETTINGS
from mcjax.runs.schema_page import page

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("experiment", SETTINGS)
def test_defaults_and_quick_values_are_what_a_field_can_be(experiment):
    for name, setting in SETTINGS[experiment].items():
        assert setting.field.holds(setting.default), name
        quick = setting.shrunk(setting.default)
        assert setting.field.holds(quick), name
        assert type(quick) is type(setting.default), name


@pytest.mark.parametrize("experiment", SETTINGS)
def test_a_config_has_these_fields_and_no_other(experiment):
    config = base.default(experiment)
    assert config.experiment == experiment
    assert set(base.flat(config)) - {"model.options"} == set(SETTINGS[experiment])
    assert config == getattr(base, experiment)()


def test_quick_leaves_what_is_small_already_and_what_it_does_not_know():
    config = base.connect()
    config.evaluation.plane_points = 0
    config.data.num_bonafide = 7
    config.curve.num_bends = 5
    base.quick(config)
    assert (config.evaluation.plane_points, config.data.num_bonafide) == (0, 7)
    assert (config.curve.num_bends, config.data.name) == (5, "fake:digits")


def test_every_meaning_is_one_short_line():
    for settings in SETTINGS.values():
        for name, setting in settings.items():
            assert 0 < len(setting.help) <= 80, name
            assert "\n" not in setting.help, name
            assert "|" not in setting.help.strip(), name  # it stands in a table


def test_the_page_is_what_the_tables_say():
    assert (ROOT / "docs" / "config.md").read_text() == page(), (
        "run python -m mcjax.runs.schema_page > docs/config.md"
    )
