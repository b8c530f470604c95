"""Packages of extras: what is missing is said in one line, with the cure."""

import sys

import pytest

from mcjax.errors import UserError
from mcjax.extras import need


def test_what_is_there_and_what_is_not(monkeypatch):
    assert need("json.decoder", "report", "a page").dumps([1]) == "[1]"
    with pytest.raises(
        UserError, match=r'a page needs nothing_at_all; pip install "mcjax\[report\]"'
    ):
        need("nothing_at_all.below", "report", "a page")


def test_a_damaged_package_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import something_else_that_is_missing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_else"):
        need("half_there", "report", "a page")


@pytest.mark.parametrize(
    ("package", "command"),
    [
        (
            "pyarrow",
            lambda: __import__("mcjax.report.gathered.tidy_tables", fromlist=["arrow"]).arrow(
                [{"a": 1}]
            ),
        ),
        ("tensorflow_datasets", lambda: __import__("mcjax.data", fromlist=["load"]).load("tfds:x")),
    ],
)
def test_commands_name_the_extra(monkeypatch, package, command):
    monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=f"needs {package}; pip install"):
        command()
