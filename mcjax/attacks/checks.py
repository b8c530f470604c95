"""Checks of the arguments that attacks and input Hessians take."""

from collections.abc import Callable, Sequence
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
    """Refuses what is not one finite number of at least 0, as far as it is known before the program runs."""
    for name, value in sizes.items():
        if np.shape(value):
            raise UserError(
                f"{name} has shape {list(np.shape(value))}; give one number for all images and channels"
            )
        if isinstance(value, jax.core.Tracer):
            continue
        if not np.issubdtype(np.asarray(value).dtype, np.number):
            raise UserError(f"{name} is {value!r}; give a number")
        if not 0 <= value < np.inf:  # NaN too
            raise UserError(f"{name} is {value}; it must be finite and not negative")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Refuses what is not an integer of at least `least`, if it is known before the program runs."""
    if isinstance(value, jax.core.Tracer):
        return
    if np.shape(value) or not np.issubdtype(np.asarray(value).dtype, np.integer) or value < least:
        raise UserError(f"{name} is {value}; give an integer of at least {least}")


def check_examples(
    logits_fn: Callable[[jax.Array], jax.Array], x: jax.Array, y: jax.Array, *, num_classes: int = 2
) -> None:
    """Refuses images and labels that do not fit each other, the box [0, 1] or the network.

    Inside jit only shapes and types are known, so only these are looked at.

    Args:
        logits_fn: The network, as a `Partial`: its number of classes is traced once per shape.
        x: Images, [B, H, W, C].
        y: Labels, [B].
        num_classes: Number of classes that the loss needs.

    Raises:
        UserError: As `check_images` and `check_logits`; labels outside of the classes.
    """
    check_images(x, y)
    logits = check_logits(_logits.eval_shape(logits_fn, x), len(x), at_least=num_classes)
    if isinstance(y, jax.core.Tracer):
        return
    with jax.ensure_compile_time_eval():
        low, high = int(jnp.min(y)), int(jnp.max(y))
    if low < 0 or high >= logits.shape[1]:
        raise UserError(
            f"labels lie in [{low}, {high}], but the network has {logits.shape[1]} classes; "
            f"give 0 to {logits.shape[1] - 1}"
        )


@jax.jit  # for its cache of shapes; it is never run
def _logits(logits_fn: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    return logits_fn(x)


def check_images(x: jax.Array, y: jax.Array) -> None:
    """Refuses images outside of [0, 1] and labels that do not fit them.

    Inside jit only shapes and types are known, so only these are looked at.

    Args:
        x: Images, [B, H, W, C].
        y: Labels, [B].

    Raises:
        UserError: No image, not images of floats in [0, 1], or not one integer label per image.
    """
    shape, dtype = jnp.shape(x), jnp.result_type(x)
    if len(shape) != 4 or not jnp.issubdtype(dtype, jnp.floating):
        raise UserError(f"images are {dtype} {list(shape)}; give floats [B, H, W, C] in [0, 1]")
    if dtype.itemsize < 4:
        raise UserError(f"images are {dtype}; give float32: a step of an attack is lost in less")
    if jnp.shape(y) != shape[:1] or not jnp.issubdtype(jnp.result_type(y), jnp.integer):
        raise UserError(
            f"labels are {jnp.result_type(y)} {list(jnp.shape(y))}; give {shape[0]} integers, shape [{shape[0]}]"
        )
    if not all(shape):
        raise UserError(
            f"images have shape {list(shape)}, without a number in it; give at least one"
        )
    if isinstance(x, jax.core.Tracer):
        return
    with jax.ensure_compile_time_eval():  # known images inside somebody's jit too
        low, high = float(jnp.min(x)), float(jnp.max(x))
    if not (low >= 0 and high <= 1):  # NaN too
        raise UserError(f"images lie in [{low:g}, {high:g}]; scale them to [0, 1], without NaN")


def check_logits(logits: Any, num_images: int, *, at_least: int = 2) -> Any:
    """The logits, if they have the shape that attacks need.

    Args:
        logits: What logits_fn returned, or its shape.
        num_images: Images that it was given.
        at_least: Number of classes that the loss needs.

    Returns:
        The logits.

    Raises:
        UserError: Not [num_images, classes], or too few classes.
    """
    if len(logits.shape) != 2 or logits.shape[0] != num_images:
        raise UserError(
            f"logits_fn returned shape {list(logits.shape)} for {num_images} images; "
            f"return [{num_images}, classes]"
        )
    if logits.shape[1] < at_least:
        raise UserError(f"{logits.shape[1]} classes; this loss needs at least {at_least}")
    return logits
