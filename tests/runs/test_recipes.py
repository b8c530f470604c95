"""Configs and sweeps that ship with mcjax, by name from any folder."""

import pytest

from mcjax.cli import command
from mcjax.runs import recipes


def test_names_files_and_what_is_neither(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = recipes.folder()
    assert recipes.find("digits") == f"{here}/digits.py"
    assert recipes.find("digits:quick") == f"{here}/digits.py:quick"
    assert recipes.find("backdoor_digits", "sweeps") == f"{here}/sweeps/backdoor_digits.py"
    for other in ("configs/digits.py", "digits.py", "../digits", "no_such", "", ":quick", "a b"):
        assert recipes.find(other) == other
    (tmp_path / "digits").write_text("")  # the user's own file comes first
    assert recipes.find("digits") == "digits"
    assert {"digits", "backdoor_digits", "evasion_digits"} <= set(recipes.names())


@pytest.mark.parametrize("form", [["--config=digits:quick"], ["--config", "digits:quick"]])
def test_names_on_the_command_line(form):
    words = command.with_recipes(["x", *form, "--config.seed=1", "--workdir", "digits"])
    assert words[-1] == "digits"  # --workdir takes no recipe
    assert any(word.endswith("configs/digits.py:quick") for word in words)
