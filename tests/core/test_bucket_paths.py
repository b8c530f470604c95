"""Paths as users write them."""

from pathlib import Path

import pytest

from mcjax import data
from mcjax.attacks.poisoning import triggers
from mcjax.core import named_options as spec
from mcjax.core.bucket import local
from mcjax.core.errors import UserError
from mcjax.core.files import as_path


def test_home_and_users_that_there_are_not():
    assert local("~/a") == Path.home() / "a"
    for call in (
        lambda: local("~nobody-of-that-name/a"),
        lambda: as_path("~nobody-of-that-name/a"),
        lambda: data.load("npz:~nobody-of-that-name/a.npz"),
        lambda: data.load("mnist", data_dir="~nobody-of-that-name"),
    ):
        with pytest.raises(UserError, match="there is no such user; give another path"):
            call()


def test_a_square_larger_than_any_image_is_refused_at_once():
    with pytest.raises(UserError, match="size is 1000000000; give 1 to 8"):
        triggers.create("square", (8, 8, 1), size=10**9)


def test_an_option_given_twice():
    with pytest.raises(UserError, match="option 'width' is given twice"):
        spec.parse("cnn:width=8,width=16")
