import importlib

import pytest

from mcjax.core.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_is_the_module_that_moved(old):
    assert importlib.import_module(old) is importlib.import_module(MOVED[old])
    assert importlib.import_module(MOVED[old]).__spec__.name == MOVED[old]


def test_attacks_have_functions_and_old_modules():
    from mcjax.attacks.apgd import apgd
    from mcjax.attacks.pgd import fgsm, pgd

    from mcjax import attacks

    assert (attacks.pgd, attacks.fgsm, attacks.apgd) == (pgd, fgsm, apgd)


def test_others_are_not_found():
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        importlib.import_module("mcjax.no_such")
