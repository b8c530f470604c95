"""The command `mcjax`: one word, one module."""

import importlib.util
import subprocess
import sys

import in_process
import pytest

from mcjax.cli import entry as cli


def run(*words):
    return subprocess.run([sys.executable, "-m", "mcjax", *words], capture_output=True, text=True)


def test_every_command_is_a_module_that_can_be_run():
    for module, _ in cli.COMMANDS.values():
        spec = importlib.util.find_spec(module)
        package = spec.submodule_search_locations is not None
        assert importlib.util.find_spec(f"{module}.__main__" if package else module)


def test_every_module_of_the_report_that_is_a_command_has_a_word():
    assert {cli.COMMANDS[word][0] for word in ("report", "markdown", "ranking")} == {
        "mcjax.report",
        "mcjax.report.markdown",
        "mcjax.report.ranking",
    }


def test_a_command_sees_its_own_words(monkeypatch):
    called = []
    monkeypatch.setattr(cli.runpy, "run_module", lambda name, **_: called.append(name))
    monkeypatch.setattr(sys, "argv", ["mcjax", "report", "runs/a", "--out=x"])
    cli.main()
    assert called == ["mcjax.report"]
    assert sys.argv == ["mcjax", "runs/a", "--out=x"]


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), ([], 2)])
def test_usage(words, code):
    answer = run(*words)
    assert answer.returncode == code
    for word in cli.COMMANDS:
        assert f"mcjax {word}" in answer.stdout


def test_mistakes_end_as_the_commands_end():
    answer = run("repiar")
    assert answer.returncode == 2
    assert "no command 'repiar'" in answer.stderr
    answer = run("train", "--config", "no_such")
    assert answer.returncode == 2
    (line,) = answer.stderr.strip().splitlines()
    assert "one of backdoor_digits" in line


def test_help_lists_the_allowed_values_of_choices():
    for module, values in (
        ("mcjax.train", "one of bezier, polychain"),
        ("mcjax.repair", "Normalisation of its images: cifar10, cifar100"),
    ):
        words = ("--config", "digits", "--help") if module == "mcjax.train" else ("--help",)
        done = in_process.run(module, *words)
        assert done.returncode == 0, done.stderr
        assert values in done.stdout
