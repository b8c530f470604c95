"""What every attack on images asks of its arguments."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.errors import UserError


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Refuses a name that is not among the known ones."""
    if value not in known:
        raise UserError(f"unknown {name} {value!r}; use one of {', '.join(known)}")


def check_sizes(**sizes: Any) -> None:
    """Refuses negative numbers and NaN, where they are known before the program runs."""
    for name, value in sizes.items():
        if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) >= 0):
            raise UserError(f"{name} is {value}; it must not be negative")


def check_images(x: jax.Array, y: jax.Array) -> None:
    """Refuses images outside of [0, 1] and labels that do not fit them.

    Inside jit only shapes and types are known, so only these are looked at.

    Args:
        x: Images, [B, H, W, C].
        y: Labels, [B].

    Raises:
        UserError: Not images of floats in [0, 1], or not one integer label an image.
    """
    shape, dtype = jnp.shape(x), jnp.result_type(x)
    if len(shape) != 4 or not jnp.issubdtype(dtype, jnp.floating):
        raise UserError(f"images are {dtype} {list(shape)}; give floats [B, H, W, C] in [0, 1]")
    if dtype.itemsize < 4:
        raise UserError(f"images are {dtype}; give float32: a step of an attack is lost in less")
    if jnp.shape(y) != shape[:1] or not jnp.issubdtype(jnp.result_type(y), jnp.integer):
        raise UserError(
            f"labels are {jnp.result_type(y)} {list(jnp.shape(y))}; give {shape[0]} integers, one an image"
        )
    if isinstance(x, jax.core.Tracer) or not shape[0]:
        return
    with jax.ensure_compile_time_eval():  # known images inside somebody's jit too
        low, high = float(jnp.min(x)), float(jnp.max(x))
    if not (low >= 0 and high <= 1):  # NaN too
        raise UserError(f"images lie in [{low:g}, {high:g}]; scale them to [0, 1], without NaN")


def check_logits(logits: jax.Array, num_images: int, *, at_least: int = 2) -> jax.Array:
    """The logits, if they have the shape that attacks need.

    Args:
        logits: What logits_fn returned.
        num_images: Images that it was given.
        at_least: Number of classes that the loss needs.

    Returns:
        The logits.

    Raises:
        UserError: Not [num_images, classes], or too few classes.
    """
    if logits.ndim != 2 or len(logits) != num_images:
        raise UserError(
            f"logits_fn returned shape {list(logits.shape)} for {num_images} images; "
            f"return [{num_images}, classes]"
        )
    if logits.shape[1] < at_least:
        raise UserError(f"{logits.shape[1]} classes; this loss needs at least {at_least}")
    return logits
