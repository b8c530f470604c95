"""Fast float32 convolutions and max-pools on CPU, without changes to networks.

XLA's CPU convolutions are slow where there are few channels, and very slow in a few common cases:
weight gradients, groups, images of 2x2 pixels, and anything but a plain forward convolution inside a
loop. :func:`enable` registers a different CPU lowering of ``jax.lax.conv_general_dilated``. It is
applied after differentiation, batching and ``shard_map``, so all of these keep working. Other dtypes
and ranks, and convolutions with both a stride and a dilation, are left to XLA. Where there is a C
compiler the same is done with ``lax.reduce_window`` of a maximum (``flax.linen.max_pool``), whose
gradient is slow in XLA.

hook.py       JAX's private table of lowerings, the only file that touches it
rule.py       recognises what differentiation and batching make of a convolution
choice.py     the way for each shape, by thresholds; measured.py: or as measured on this machine
seen.py       the taps that see pixels; the others, which only meet padding, are cut
dilated.py    taps with a distance, as plain convolutions of every d-th pixel (depthwise: direct.c itself)
direct.py     compiled direct convolutions: direct.c
fused.py      compiled convolutions by Winograd's forms: winograd.c
pooling.py    compiled max-pools: pool.c
build.py      compiles the C files, once a machine; self_test.py checks the result in a process of its own
winograd.py, blocked.py, few.py   the ways that are written in JAX
"""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from mcjax.cpu_convolution import hook

_on: bool | None = None  # whether C functions may be used; None: all is XLA's


def enable(*, compiled: bool = True) -> None:
    """Lowers convolutions on CPU by the fastest known method, in this process.

    Clears JAX's caches (``jax.clear_caches``), so that no jitted function keeps the old convolutions;
    call this once, before the first program. If this version of JAX lacks the hook, it only warns.
    The first convolution on a machine compiles C functions, in some seconds, and keeps them in the user's
    cache folder; without a C compiler, convolutions written in JAX take its place, after a warning.

    Args:
        compiled: Use C functions, if they can be compiled.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax import lax
        >>> from mcjax import cpu_convolution
        >>> cpu_convolution.enable()
        >>> x, w = jnp.ones((2, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
        >>> y = lax.conv_general_dilated(
        ...     x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        >>> y[0, :, :, 0].tolist()[0]
        [4.0, 6.0, 6.0, 4.0]
        >>> cpu_convolution.disable()
    """
    if hook.ORIGINAL[hook.CONVOLUTION] is None:
        _warn()
        return
    _register(compiled)


@functools.cache  # once per process
def _warn() -> None:
    warnings.warn(
        f"jax {jax.__version__} has moved its CPU lowering of convolutions, so mcjax leaves them to XLA: "
        "training is several times slower; use a version listed in CONTRIBUTING.md, or turn the "
        "lowering off (run.cpu_convolution=False in the config)",
        stacklevel=3,
    )


def disable() -> None:
    """Restores XLA's convolutions on CPU; clears JAX's caches."""
    _register(None)


@contextmanager
def disabled() -> Iterator[None]:
    """Uses XLA's convolutions within a `with` block, then restores the previous state.

    JAX's caches are cleared on entry and exit (if the lowering was on), so a jitted function called
    inside and outside is compiled twice. What matters is where a program is first called, not where
    it is defined.
    """
    was = _on
    disable()
    try:
        yield
    finally:
        _register(was)


def has_compiled_pools(dtype: jax.typing.DTypeLike) -> bool:
    """Whether programs that are traced now pool images of a dtype by ``pool.c``."""
    from mcjax.cpu_convolution import build, pooling

    known = all(hook.ORIGINAL[pool] for pool in hook.POOLS) and dtype in pooling.DTYPES
    return bool(_on) and known and jax.default_backend() == "cpu" and build.load()


def _register(on: bool | None) -> None:
    global _on
    if on is _on:
        return
    from mcjax.cpu_convolution import pooling, rule

    rules = {hook.CONVOLUTION: rule.with_direct if on else rule.in_jax} if on is not None else {}
    if on:
        rules |= {pool: pooling.rule(pool) for pool in hook.POOLS}
    for primitive, original in hook.ORIGINAL.items():
        if original is not None:
            hook.register(primitive, rules.get(primitive, original))
    jax.clear_caches()
    _on = on
