"""How a command ends: exit codes and lines, in this process."""

import sys
import warnings

import pytest

from mcjax.cli import command
from mcjax.core import processes
from mcjax.core.errors import UserError


class Ended(Exception):
    """Stands for the end of the process."""


def plain_showwarning(message, category, filename, lineno, file=None, line=None):
    """Python's own; pytest's would keep the warning."""
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


@pytest.fixture
def session(monkeypatch):
    def end(code):
        raise Ended(code)

    monkeypatch.setattr(processes, "end", end)
    monkeypatch.setattr(command, "hide_storage_threads", lambda: None)
    monkeypatch.setattr(command.interrupt, "repeat_where_swallowed", lambda: None)
    monkeypatch.setattr(command, "_keep_compiled_programs", lambda: None)
    monkeypatch.setattr(
        warnings, "formatwarning", warnings.formatwarning
    )  # put back after the test
    monkeypatch.setattr(sys, "argv", ["mcjax"])
    return lambda **options: command.session(lambda: None, "What it does.", **options)


@pytest.mark.parametrize(
    ("error", "code"), [(UserError, 2), (command.NoAnswer, 3), (command.Failed, 1)]
)
def test_errors_are_exit_codes(error, code, session, capsys):
    with pytest.raises(Ended) as ended, session():
        raise error("no data; give some")
    assert ended.value.args == (code,)
    assert capsys.readouterr().err.endswith(": error: no data; give some\n")


def test_an_interrupt_is_one_line_and_130(session, capsys):
    with pytest.raises(SystemExit) as ended, session():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith("interrupted; run the same command to resume\n")
    with pytest.raises(SystemExit), session(resumes=False):
        raise KeyboardInterrupt
    assert capsys.readouterr().err.endswith("interrupted; the same command starts over\n")


def test_a_warning_is_one_line(session, capsys):
    with session(), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = plain_showwarning
        warnings.warn("no compiler: slower", stacklevel=1)
    assert capsys.readouterr().err.endswith(": warning: no compiler: slower\n")


def test_a_reader_that_has_enough(session):
    with pytest.raises(Ended) as ended, session():
        raise BrokenPipeError
    assert ended.value.args == (141,)


def test_a_bug_keeps_its_traceback(session):
    with pytest.raises(ZeroDivisionError), session():
        _ = 1 / 0


def test_words_are_refused_or_handed_on(session, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mcjax", "one", "two"])
    with session(takes_words=True) as words:
        assert words == ["one", "two"]
    with pytest.raises(Ended), session():
        pytest.fail("the work began")
    assert "unexpected argument 'one'" in capsys.readouterr().err
