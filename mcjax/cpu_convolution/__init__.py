"""Fast float32 convolutions on CPU, below the models: nothing in a network changes.

XLA's own CPU convolutions lose large factors in a few cases that every network meets: weight
gradients, images of 2x2 pixels, and anything but a plain forward convolution inside a loop.
:func:`enable` registers another lowering of ``jax.lax.conv_general_dilated`` for the CPU. It works
below differentiation, batching and ``shard_map``, so all of these keep working, and it leaves what
it does not recognise (other dtypes and ranks, dilated convolutions) to XLA.
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
    """Lower convolutions on CPU by the fastest known way, in this process, from now on.

    Programs compiled before are forgotten (``jax.clear_caches``), so that no jitted function keeps
    the old convolutions; call this once, before the first program. Where JAX lacks the hook, this
    warns and changes nothing.

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


@functools.cache  # once a process
def _warn() -> None:
    warnings.warn(
        f"jax {jax.__version__} has moved its CPU lowering of convolutions, so mcjax leaves them to XLA: "
        "training is several times slower; use a version that CONTRIBUTING.md lists, or switch the "
        "lowering off (--config.run.cpu_convolution=False)",
        stacklevel=3,
    )


def disable() -> None:
    """Give convolutions on CPU back to XLA; programs compiled before are forgotten."""
    _register(hook.ORIGINAL, on=False)


@contextmanager
def disabled() -> Iterator[None]:
    """XLA's own convolutions within the block; afterwards the former state.

    Compiled programs are forgotten on entry and exit (if the lowering was on): a jitted function
    called on both sides compiles twice. What counts is where a program is first called, not where
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
