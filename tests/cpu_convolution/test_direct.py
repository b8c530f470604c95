"""Compiled direct convolutions against float64 sums; threads, signals and ends of a process."""

import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from mcjax import cpu_convolution
from mcjax.cpu_convolution import build, direct, self_test

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="module")
def compiled(c_compiler):
    assert build.load()


def operands(batch, h, w, i, o, taps, groups):
    random = np.random.default_rng(0)
    x = random.normal(size=(batch, h, w, i * groups)).astype(np.float32)
    return x, random.normal(size=(*taps, i, o * groups)).astype(np.float32)


def both(x, w, stride, padding, groups):
    """The convolution, and its weights' gradient for a gradient that is another convolution."""
    options = {"stride": stride, "padding": padding, "groups": groups}
    y = jax.jit(partial(direct.forward, **options))(x, w)
    g = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    dw = jax.jit(partial(direct.weight_gradient, taps=w.shape[:2], **options))(x, g)
    return (y, dw), self_test.exact(x, w, g, stride, padding, groups)


def close(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert np.abs(np.asarray(a) - b).max() <= 4e-6 * np.abs(b).max()


@settings(max_examples=40, deadline=None)
@given(
    batch=st.sampled_from([1, 2, 3, 50]),
    size=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    taps=st.tuples(st.integers(1, 3), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(*2 * [st.tuples(st.integers(-1, 3), st.integers(0, 3))]),
    groups=st.sampled_from([1, 1, 2, 5]),
)
def test_any_shape_equals_float64(batch, size, channels, taps, stride, padding, groups):
    padded = [n + sum(p) for n, p in zip(size, padding, strict=True)]
    taps = tuple(min(k, n) for k, n in zip(taps, padded, strict=True))
    x, w = operands(batch, *size, *channels, taps, groups)
    close(*both(x, w, stride, padding, groups))


@pytest.mark.parametrize(
    ("shape", "channels"), [((3, 9, 8), (6, 19)), ((20, 8, 8), (32, 48)), ((300, 2, 2), (16, 40))]
)
@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
def test_bfloat16_equals_float64(shape, channels, stride):
    if not build.sums_pairs():
        pytest.skip("this processor has no products of bfloat16")
    x, w = (z.astype(jnp.bfloat16) for z in operands(*shape, *channels, (3, 3), 1))
    options = {"stride": stride, "padding": ((1, 1), (1, 0))}
    y = jax.jit(partial(direct.forward, **options))(x, w)
    assert y.dtype == jnp.float32
    wide = x.astype(np.float32), w.astype(np.float32)
    close([y], self_test.exact(*wide, np.zeros(y.shape), groups=1, **options)[:1])


@pytest.mark.parametrize("channels", [1, 7, 8, 16, 33])
@pytest.mark.parametrize(("taps", "stride"), [((3, 3), (1, 1)), ((5, 7), (2, 1)), ((1, 2), (1, 3))])
def test_depthwise_equals_float64(channels, taps, stride):
    x, w = operands(5, 9, 11, 1, 1, taps, channels)
    close(*both(x, w, stride, ((1, 2), (2, 0)), channels))


@pytest.mark.parametrize("shape", [(1, 64, 80), (300, 2, 2), (2, 150, 130)])
def test_tasks_that_share_an_image_or_take_several(shape):
    x, w = operands(*shape, 16, 24, (3, 3), 1)
    close(*both(x, w, (1, 1), ((1, 1), (1, 1)), 1))


@pytest.mark.parametrize("groups", [2, 6])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_grouped_convolutions_equal_xlas(groups, stride):
    x, w = operands(3, 8, 9, 6 // groups, 12 // groups, (3, 3), groups)

    def loss(x, w):
        y = lax.conv_general_dilated(
            x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )  # fmt: skip
        return jnp.sin(y).sum()

    gradient = jax.grad(loss, (0, 1))
    with cpu_convolution.disabled():
        expected = jax.jit(gradient)(x, w)
    cpu_convolution.enable()
    try:
        assert "mcjax_" in jax.jit(gradient).lower(x, w).as_text()
        found = jax.jit(gradient)(x, w)
    finally:
        cpu_convolution.disable()
    close(found, [np.asarray(z) for z in expected])


def test_one_result_for_any_number_of_threads():
    """Both cores work on one call at a time, or four calls share them."""
    x, _ = operands(32, 12, 12, 16, 16, (3, 3), 1)
    fn = jax.jit(
        partial(direct.weight_gradient, taps=(3, 3), stride=(1, 1), padding=((0, 0), (0, 0)))
    )
    g = np.random.default_rng(1).normal(size=(32, 10, 10, 16)).astype(np.float32)
    expected, found = np.asarray(fn(x, g)), []

    def call():
        found.extend(np.asarray(fn(x, g)) for _ in range(20))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 80
    assert all((one == expected).all() for one in found)


PROGRAM = """
import os, signal, jax, jax.numpy as jnp
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
from jax import lax
from mcjax import cpu_convolution
cpu_convolution.enable()
def conv(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
step = jax.jit(lambda x, w: lax.fori_loop(0, 60, lambda k, x: jnp.tanh(conv(x, w)), x))
x, w = jnp.ones((64, 32, 32, CHANNELS)), jnp.ones((3, 3, CHANNELS, CHANNELS))
assert "FUNCTION" in step.lower(x, w).as_text()
step(x, w).block_until_ready()
print("ready", flush=True)
"""
ENDS = {
    "returns in the middle of a step": ("step(x, w)", None, 0),
    "Ctrl-C": ("while True: step(x, w).block_until_ready()", signal.SIGINT, -signal.SIGINT),
    "fork": (
        "import warnings; warnings.simplefilter('ignore')\n"
        "child = os.fork()\n"
        "if not child: os._exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "step(x, w).block_until_ready()",
        None,
        0,
    ),
}


@pytest.mark.slow(compiles=True)
@pytest.mark.parametrize(
    ("channels", "function"), [("15", "mcjax_convolution"), ("16", "mcjax_winograd")]
)
@pytest.mark.parametrize(("rest", "sent", "code"), ENDS.values(), ids=ENDS.keys())
def test_a_process_ends(rest, sent, code, channels, function):
    program = PROGRAM.replace("CHANNELS", channels).replace("FUNCTION", function)
    command = [sys.executable, "-c", program + rest]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        if sent:
            process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, errors
    assert ("KeyboardInterrupt" in errors) == (sent is not None)
