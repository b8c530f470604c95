"""Compiling direct.c: kept, checked apart, and done without where it fails."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from slow import SLOW

from mcjax import cpu_convolution
from mcjax.cpu_convolution import build

BAD = """
#include <stdlib.h>
#include "xla/ffi/api/c_api.h"
static XLA_FFI_Error *handle(XLA_FFI_CallFrame *f) {{
  if (f->extension_start && f->extension_start->type == XLA_FFI_Extension_Metadata) {{
    XLA_FFI_Api_Version *v = &((XLA_FFI_Metadata_Extension *)f->extension_start)->metadata->api_version;
    v->major_version = XLA_FFI_API_MAJOR;
    v->minor_version = XLA_FFI_API_MINOR;
    return NULL;
  }}
  {what}
  return NULL;
}}
XLA_FFI_Error *mcjax_convolution(XLA_FFI_CallFrame *f) {{ return handle(f); }}
XLA_FFI_Error *mcjax_weight_gradient(XLA_FFI_CallFrame *f) {{ return handle(f); }}
XLA_FFI_Error *mcjax_winograd(XLA_FFI_CallFrame *f) {{ return handle(f); }}
XLA_FFI_Error *mcjax_winograd_gradient(XLA_FFI_CallFrame *f) {{ return handle(f); }}
XLA_FFI_Error *mcjax_max_pool(XLA_FFI_CallFrame *f) {{ return handle(f); }}
XLA_FFI_Error *mcjax_max_pool_taken(XLA_FFI_CallFrame *f) {{ return handle(f); }}
XLA_FFI_Error *mcjax_max_pool_spread(XLA_FFI_CallFrame *f) {{ return handle(f); }}
"""


pytestmark = pytest.mark.usefixtures("c_compiler")


def compiler(folder, text):
    """A command that notes each call with a source file and then runs the shell's text."""
    folder.mkdir(exist_ok=True)
    file = folder / "compiler"
    file.write_text(
        f'#!/bin/sh\ncase "$*" in *direct.c*) echo x >> {folder}/calls;; esac\n{text}\n'
    )
    file.chmod(0o755)
    return str(file), folder / "calls"


@pytest.mark.slow(compiles=True)
def test_a_second_call_compiles_nothing(tmp_path, monkeypatch):
    build.find_compiler()
    real = " ".join(build.find_compiler())
    command, calls = compiler(tmp_path / "bin", f'exec {real} "$@"')
    monkeypatch.setenv("CC", command)
    first = build.library_file(tmp_path / "cache")
    assert first.stat().st_size > 10_000
    assert build.library_file(tmp_path / "cache") == first
    assert len(calls.read_text().split()) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.name]
    monkeypatch.setattr(build.jaxlib, "__version__", "99.0")
    assert build.library_file(tmp_path / "cache") != first, "another jaxlib has other headers"
    assert len(calls.read_text().split()) == 2


def test_a_failure_is_told_and_not_tried_again(tmp_path, monkeypatch):
    command, calls = compiler(tmp_path / "bin", "echo 'x.c:1: error: no such thing' >&2; exit 1")
    monkeypatch.setenv("CC", command)
    for again in ("", r" \(said in .*; delete it to try again\)"):
        with pytest.raises(
            build.NotBuilt, match=f"cannot compile them: x.c:1: error: no such thing{again}$"
        ):
            build.library_file(tmp_path / "cache")
    assert len(calls.read_text().split()) == len(build.NATIVE), "each flag for the processor once"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("abort();", "their check ended with -6"),
        pytest.param("*(volatile int *)0 = 1;", "their check ended with -11", marks=SLOW),
        ("", "their check ended with 1: wrong numbers for"),
    ],
)
def test_a_library_that_crashes_or_errs_does_so_in_another_process(
    what, message, tmp_path, monkeypatch
):
    source = tmp_path / "direct.c"
    source.write_text(BAD.format(what=what))
    monkeypatch.setattr(build, "SOURCES", (source,))
    with pytest.raises(build.NotBuilt, match=message):
        build.library_file(tmp_path / "cache")
    (left,) = (tmp_path / "cache").iterdir()
    assert left.suffix == ".txt"


@pytest.mark.slow(compiles=True)
def test_without_a_compiler_one_warning_and_convolutions_in_jax(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("MCJAX_CACHE_DIR", str(tmp_path / "cache"))
    build._library.cache_clear()
    cpu_convolution.enable()
    x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))

    @jax.jit
    def convolve(x, w):
        return lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    try:
        with pytest.warns(UserWarning, match="there is no C compiler"):
            lowered = convolve.lower(x, w)
        assert "mcjax_" not in lowered.as_text()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose(convolve(x, w)[0, 1, 1], 27)
    finally:
        cpu_convolution.disable()
        build._library.cache_clear()


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MCJAX_CACHE_DIR", str(tmp_path / "file"))
    build._library.cache_clear()
    try:
        with pytest.warns(UserWarning, match="slower than they could"):
            assert not build.load()
    finally:
        build._library.cache_clear()


def test_where_the_library_is_kept(monkeypatch, tmp_path):
    for name in ("MCJAX_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert build.cache_folder() == tmp_path / ".cache" / "mcjax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert build.cache_folder() == tmp_path / "x" / "mcjax"
    monkeypatch.setenv("MCJAX_CACHE_DIR", str(tmp_path / "y"))
    assert build.cache_folder() == tmp_path / "y"
