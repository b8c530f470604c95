"""Runs a command in the test's own process: without a second Python, a second JAX and their start."""

import contextlib
import io
import logging
import os
import runpy
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from unittest import mock

import jax
from absl import flags

from mcjax import cpu_convolution
from mcjax.core import processes

ROOT = Path(__file__).parents[2]


def run(module, *words, cwd=ROOT, env=None):
    """What `python -m module *words` leaves: the exit code and both outputs."""
    out, err = io.StringIO(), io.StringIO()
    arguments = [str(word) for word in words]
    with (
        contextlib.chdir(cwd),
        mock.patch.object(sys, "argv", [module, *arguments]),
        mock.patch.dict(os.environ, env or {}),
        mock.patch.object(processes, "end", sys.exit),  # os._exit, which would end the tests
        # It forgets all that is compiled, here and in the tests that follow; `apart` does not leave it out.
        mock.patch.object(cpu_convolution, "enable"),
        _without_alias(module),
        _restored(),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        warnings.simplefilter("ignore")  # as in a process of its own; runpy gives one, too
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
        else:
            code = 0
    return subprocess.CompletedProcess(
        [module, *arguments], code or 0, out.getvalue(), err.getvalue()
    )


def apart(module, *words, cwd=ROOT, env=None):
    """The same in a process of its own, as a shell runs it."""
    command = [sys.executable, "-m", module, *(str(word) for word in words)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


@contextlib.contextmanager
def _without_alias(name):
    """Without a module that another test imported by this name, its old one: a command has it now."""
    other = sys.modules.get(name)
    if other is None or other.__name__ == name:
        yield
        return
    del sys.modules[name]
    try:
        yield
    finally:
        sys.modules[name] = other


@contextlib.contextmanager
def _restored():
    """Takes back the flags that a command defines, and JAX's settings that it changes."""
    others, level = set(flags.FLAGS), logging.getLogger("absl").level
    hooks = threading.excepthook, sys.unraisablehook, warnings.formatwarning
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    settings = {name: getattr(jax.config, name) for name in names}
    try:
        yield
    finally:
        for name in set(flags.FLAGS) - others:
            delattr(flags.FLAGS, name)
            sys.modules.pop(
                f"{name}_config", None
            )  # else the next file is read into the same module
        flags.FLAGS.unparse_flags()
        logging.getLogger("absl").setLevel(level)
        threading.excepthook, sys.unraisablehook, warnings.formatwarning = hooks
        for name, value in settings.items():
            jax.config.update(name, value)
