"""What a study changes of a case to make a method gentler or stronger."""

from types import SimpleNamespace

import pytest

from mcjax.repair.methods import METHODS
from mcjax.repair.methods.method import Case
from mcjax.repair.methods.strength import by_length, by_setting
from mcjax.training.fit import Budget

OPTIONS = {
    "learning_rate.d3": 0.5,
    "i_bau.num_rounds": 10,
    "i_bau.learning_rate": 0.5,
    "ft_sam.rho": 3.0,
}
FOR_EACH = [name for name, method in METHODS.items() if method.strength]


def case(options=OPTIONS):
    names = {field: SimpleNamespace() for field in Case.__dataclass_fields__}
    return Case(**{**names, "budget": Budget(num_steps=100), "options": options})


def test_a_value_is_a_share_of_the_steps_and_then_a_multiple_of_the_learning_rate():
    d3 = by_length("d3")
    changed = [d3.at(case(), value) for value in d3.values]
    assert [one.budget.num_steps for one in changed] == [50, 100, 100, 100]
    assert [one.options["learning_rate.d3"] for one in changed] == [0.5, 0.5, 1.0, 2.0]
    assert d3.trainings == 3.5


def test_a_method_with_rounds_of_its_own_takes_a_share_of_them():
    i_bau = by_length("i_bau", rounds="i_bau.num_rounds")
    changed = [i_bau.at(case(), value).options for value in i_bau.values]
    assert [one["i_bau.num_rounds"] for one in changed] == [5, 10, 10, 10]
    assert [one["i_bau.learning_rate"] for one in changed] == [0.5, 0.5, 1.0, 2.0]
    (short,) = {i_bau.at(case({**OPTIONS, "i_bau.num_rounds": 1}), 0.5).options["i_bau.num_rounds"]}
    assert short == 1


def test_a_setting_takes_each_value():
    rho = by_setting("ft_sam.rho", (1.0, 2.0))
    assert (rho.setting, rho.own(OPTIONS), rho.trainings) == ("rho", 3.0, 2.0)
    assert [rho.at(case(), value).options["ft_sam.rho"] for value in rho.values] == [1.0, 2.0]
    assert case().options["ft_sam.rho"] == 3.0


@pytest.mark.parametrize("name", FOR_EACH)
def test_the_config_s_own_value_changes_nothing_and_none_exceeds_the_budget(name):
    method, strength = METHODS[name], METHODS[name].strength
    options = {key: setting.default for key, setting in method.settings.items()}
    options[f"learning_rate.{name}"] = method.learning_rate
    whole = case(options)
    own = strength.own(options)
    assert own in strength.values
    assert strength.at(whole, own) == whole
    assert list(strength.values) == sorted(set(strength.values))
    assert max(strength.at(whole, v).budget.num_steps for v in strength.values) == 100


def test_one_training_has_a_strength_and_nothing_else():
    assert set(FOR_EACH) == {"fine_tune", "prune", "fine_prune", "i_bau", "ft_sam", "d3", "nad"}
    assert {METHODS[name].kind for name in FOR_EACH} == {"network"}
