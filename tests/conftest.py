"""How the tests run: strict JAX settings and eight CPU devices, or with --accelerator the device that JAX finds.

Most of the tests' time is compiling some ten thousand small programs. So XLA leaves out most of its optimisations, but not
for tests marked `slow` (unless `slow(compiles=True)`: they compile more than they compute) or with --accelerator. Compiled
programs are kept in pytest's cache folder, which the workers share. What a test starts does the same. The programs of a
thread are lowered in one MLIR context, and Python looks for garbage less often.
"""

import functools
import gc
import os
import threading

import jax
import matplotlib
import pytest

matplotlib.use("Agg")

QUICKLY_COMPILED = {
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",  # else a small program is compiled in many parts
}


def pytest_addoption(parser):
    parser.addoption(
        "--accelerator",
        action="store_true",
        help="run the tests marked `accelerator`, on the device that JAX finds",
    )
    parser.addoption(
        "--slow",
        action="store_true",
        help="run the tests marked `slow`, too",
    )


def pytest_configure(config):
    settings = {
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_traceback_in_locations_limit": 0,  # a twentieth of the time
    }
    if not jax.config.jax_compilation_cache_dir and hasattr(config, "cache"):
        settings["jax_compilation_cache_dir"] = str(config.cache.mkdir("xla"))
    if not config.getoption("--accelerator"):
        settings["jax_platforms"] = "cpu"
        # An XLA that does not know a flag ends the process; those of JAX 0.8 to 0.10 know it.
        if not config.getoption("--slow") and (0, 8) <= jax.__version_info__[:2] <= (0, 10):
            flags = os.environ.get("XLA_FLAGS", "").split()
            flags += sorted(QUICKLY_COMPILED - set(flags))
            os.environ["XLA_FLAGS"] = " ".join(flags)
    for name, value in settings.items():
        set_jax(name, value)
    quick_at_first = not (config.getoption("--slow") or config.getoption("--accelerator"))
    set_jax("jax_disable_most_optimizations", quick_at_first)  # what test modules compute at import
    lower_in_one_context()
    jax.config.update("jax_numpy_rank_promotion", "raise")
    if config.getoption("--accelerator"):
        # TF32, which a GPU takes for float32 by itself, would fail float32's tolerances.
        jax.config.update("jax_default_matmul_precision", "float32")
    else:
        jax.config.update("jax_num_cpu_devices", 8)


def set_jax(name, value):
    """Here, and in the processes that tests start."""
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)


def lower_in_one_context():
    """Makes MLIR's context once per thread: JAX makes one per program, a sixth of a small one's time.

    Where this version of JAX has none of that name, nothing changes.
    """
    from jax._src.interpreters import mlir

    make, kept = getattr(mlir, "make_ir_context", None), threading.local()
    if make is None:
        return

    @functools.wraps(make)
    def make_ir_context():
        if not hasattr(kept, "context"):
            kept.context = make()
        return kept.context

    mlir.make_ir_context = make_ir_context


def pytest_collection_finish():
    """What is there now stays: looking for garbage in it again and again is a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    slow = item.get_closest_marker("slow")
    computes = slow is not None and not slow.kwargs.get("compiles")
    quickly_compiled = not (computes or item.config.getoption("--accelerator"))
    if os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") != str(quickly_compiled):
        set_jax("jax_disable_most_optimizations", quickly_compiled)


def pytest_sessionstart():
    """As in the commands: threads of Orbax whose read or write failed end later, in any test."""
    from mcjax.cli.quiet import hide_storage_threads

    hide_storage_threads()


def pytest_xdist_auto_num_workers(config):
    """One process for a single file or test, else pytest-xdist's own number."""
    named = [w for w in config.invocation_params.args if "::" in w or w.endswith(".py")]
    if len(named) == 1:
        return 0
    # Neighbours in a file share programs and fixtures: a worker keeps them together while it can.
    config.option.dist = "worksteal"
    return None


def pytest_collection_modifyitems(config, items):
    if config.getoption("--accelerator"):
        chosen = [item for item in items if item.get_closest_marker("accelerator")]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
    named = any("::" in word for word in config.invocation_params.args)
    if config.getoption("--slow") or named:
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: --slow runs it, and so does .ci/run"))
