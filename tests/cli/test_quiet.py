"""What a command shows of errors in threads."""

import gc
import resource
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from mcjax.cli.quiet import hide_storage_threads
from mcjax.core.errors import UserError
from mcjax.runs import checkpoint


def test_a_write_that_fails_says_one_line_and_nothing_else(tmp_path, capfd, monkeypatch):
    """As on a full disk: TensorStore fails in threads of Orbax's, which would print tracebacks."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    hide_storage_threads()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    tree = {name: np.random.default_rng(0).normal(size=20_000) for name in "abc"}
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"^can't write .*endpoint: .*") as caught:
            checkpoint.save(tmp_path / "endpoint", tree)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert not checkpoint.exists(tmp_path / "endpoint")
    time.sleep(0.5)  # for the threads that fail later
    gc.collect()
    assert capfd.readouterr() == ("", "")
    checkpoint.save(tmp_path / "endpoint", tree)  # what is computed can still be kept
    np.testing.assert_array_equal(checkpoint.restore(tmp_path / "endpoint")[0]["a"], tree["a"])


def test_a_coroutine_that_was_not_begun_is_no_news(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

    async def write():
        pass

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        hide_storage_threads()
        write()
        gc.collect()
        warnings.warn("another", RuntimeWarning, stacklevel=1)
    assert [str(one.message) for one in shown] == ["another"]


def test_other_threads_still_show_their_errors(capfd, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    hide_storage_threads()
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    assert "ZeroDivisionError" in capfd.readouterr().err
