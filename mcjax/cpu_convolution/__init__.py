"""Fast float32 convolutions on CPU, without changes to networks.

XLA's CPU convolutions are very slow in a few common cases: weight gradients, images of 2x2 pixels,
and anything but a plain forward convolution inside a loop. :func:`enable` registers a different CPU
lowering of ``jax.lax.conv_general_dilated``. It is applied after differentiation, batching and
``shard_map``, so all of these keep working. Other dtypes and ranks and dilated convolutions are left
to XLA.
"""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from mcjax.cpu_convolution import hook

_enabled = False


def enable() -> None:
    """Lowers convolutions on CPU by the fastest known method, in this process.

    Clears JAX's caches (``jax.clear_caches``), so that no jitted function keeps the old convolutions;
    call this once, before the first program. If this version of JAX lacks the hook, it only warns.

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
    from mcjax.cpu_convolution.rule import rule

    if hook.ORIGINAL is None:
        _warn()
        return
    _register(rule, on=True)


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
    _register(hook.ORIGINAL, on=False)


@contextmanager
def disabled() -> Iterator[None]:
    """Uses XLA's convolutions within a `with` block, then restores the previous state.

    JAX's caches are cleared on entry and exit (if the lowering was on), so a jitted function called
    inside and outside is compiled twice. What matters is where a program is first called, not where
    it is defined.
    """
    was = _enabled
    disable()
    try:
        yield
    finally:
        if was:
            enable()


def _register(rule: Any, *, on: bool) -> None:
    global _enabled
    if on == _enabled:
        return
    hook.register(rule)
    jax.clear_caches()
    _enabled = on
