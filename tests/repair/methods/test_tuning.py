"""What a study changes of a case to make a method gentler or stronger."""

from types import SimpleNamespace

import pytest

from mcjax.repair.methods import METHODS
from mcjax.repair.methods.method import Case, Method, trained
from mcjax.repair.methods.tuning import by_length, by_setting
from mcjax.training.fit import Budget

OPTIONS = {
    "learning_rate.d3": 0.5,
    "i_bau.num_rounds": 10,
    "i_bau.learning_rate": 0.5,
    "ft_sam.rho": 3.0,
}
FOR_EACH = [name for name, method in METHODS.items() if method.tuning]


def case(options=OPTIONS):
    names = {field: SimpleNamespace() for field in Case.__dataclass_fields__}
    return Case(**{**names, "budget": Budget(num_steps=100), "options": options})


def test_a_value_is_a_share_of_the_steps_and_then_a_multiple_of_the_learning_rate():
    d3 = by_length("d3")
    changed = [d3.at(case(), value) for value in d3.values]
    assert [one.budget.num_steps for one in changed] == [50, 100, 100, 100]
    assert [one.options["learning_rate.d3"] for one in changed] == [0.5, 0.5, 1.0, 2.0]
    assert [d3.cost(value) for value in d3.values] == [0.5, 1, 1, 1]


def test_a_method_with_rounds_of_its_own_takes_a_share_of_them():
    i_bau = by_length("i_bau", rounds="i_bau.num_rounds")
    changed = [i_bau.at(case(), value).options for value in i_bau.values]
    assert [one["i_bau.num_rounds"] for one in changed] == [5, 10, 10, 10]
    assert [one["i_bau.learning_rate"] for one in changed] == [0.5, 0.5, 1.0, 2.0]
    (short,) = {i_bau.at(case({**OPTIONS, "i_bau.num_rounds": 1}), 0.5).options["i_bau.num_rounds"]}
    assert short == 1


def test_a_setting_takes_each_value_and_the_configs_own():
    rho = by_setting("ft_sam.rho", (1.0, 2.0, 4.0))
    assert rho.setting == "rho"
    tried = rho.tried(OPTIONS)
    assert tried == (1.0, 2.0, 3.0, 4.0)
    assert [rho.at(case(), value).options["ft_sam.rho"] for value in tried] == list(tried)
    assert case().options["ft_sam.rho"] == 3.0
    assert rho.tried({"ft_sam.rho": 8.0}) == (1.0, 2.0, 4.0, 8.0)
    assert by_setting("ft_sam.rho", (4.0, 2.0, 1.0)).tried(OPTIONS) == (4.0, 3.0, 2.0, 1.0)


@pytest.mark.parametrize("name", FOR_EACH)
def test_the_config_s_own_value_changes_nothing_and_none_exceeds_the_budget(name):
    method, tuning = METHODS[name], METHODS[name].tuning
    options = {key: setting.default for key, setting in method.settings.items()}
    options[f"learning_rate.{name}"] = method.learning_rate
    whole = case(options)
    own = tuning.own(options)
    assert tuning.at(whole, own) == whole
    assert tuning.tried(options) == tuning.values
    assert max(tuning.at(whole, v).budget.num_steps for v in tuning.values) == 100


def test_seven_methods_are_tuned():
    assert set(FOR_EACH) == {"fine_tune", "prune", "fine_prune", "i_bau", "ft_sam", "d3", "nad"}


@pytest.mark.parametrize("options", [{"kind": "path", "work": trained("mine")}, {}])
def test_what_is_no_trained_network_has_no_tuning(options):
    with pytest.raises(ValueError, match="trains one network"):
        Method(run=lambda case: None, tuning=by_length("mine"), **options)
