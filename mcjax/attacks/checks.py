"""Argument checks for attacks and input Hessians."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax.core.errors import UserError, shown


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Checks that a name is one of the known ones."""
    if not isinstance(value, str) or value not in known:
        raise UserError(f"unknown {name} {shown(value)}; use one of {', '.join(known)}")


def check_sizes(**sizes: Any) -> None:
    """Checks that each value is a finite number of at least 0; traced values are not checked."""
    for name, value in sizes.items():
        if np.shape(value):
            raise UserError(
                f"{name} has shape {list(np.shape(value))}; give a single number for all images"
            )
        if isinstance(value, jax.core.Tracer):
            continue
        if not np.issubdtype(np.asarray(value).dtype, np.number):
            raise UserError(f"{name} is {shown(value)}; give a number")
        if not 0 <= value < np.inf:  # NaN too
            raise UserError(f"{name} is {value}; it must be finite and not negative")


def check_radius(eps: Any, norm: str, shape: Sequence[int]) -> None:
    """Refuses a radius larger than the box of images, which is often one in units of 0 to 255.

    Args:
        eps: The radius; a traced value is not checked.
        norm: "linf", "l2" or "l1".
        shape: The images' shape, [B, H, W, C].

    Raises:
        UserError: No two images in [0, 1] are so far apart.
    """
    size = math.prod(shape[1:])
    most = {"linf": 1.0, "l2": math.sqrt(size), "l1": float(size)}[norm]
    if not isinstance(eps, jax.core.Tracer) and eps > most * (1 + 1e-6):
        raise UserError(
            f"eps is {float(eps):g}, but images in [0, 1] of this size are at most {most:g} apart in {norm}; "
            f"give it in units of the images, such as {float(eps):g}/255"
        )


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Checks that a value is an integer of at least `least`; a traced value is not checked."""
    if isinstance(value, jax.core.Tracer):
        return
    if np.shape(value) or not np.issubdtype(np.asarray(value).dtype, np.integer) or value < least:
        raise UserError(f"{name} is {shown(value)}; give an integer of at least {least}")


def check_examples(
    logits_fn: Callable[[jax.Array], jax.Array], x: jax.Array, y: jax.Array, *, num_classes: int = 2
) -> int:
    """Checks images and labels against each other, the box [0, 1] and the network.

    Inside jit only shapes and dtypes are checked.

    Args:
        logits_fn: The network, as a `Partial`; it is traced once per shape.
        x: Images, [B, H, W, C].
        y: Labels, [B].
        num_classes: Number of classes that the loss needs.

    Returns:
        The number of classes.

    Raises:
        UserError: As `check_images` and `check_logits`; labels are not valid classes.
    """
    check_images(x, y)
    logits = check_logits(_logits.eval_shape(logits_fn, x), len(x), at_least=num_classes)
    if isinstance(y, jax.core.Tracer):
        return int(logits.shape[1])
    with jax.ensure_compile_time_eval():
        low, high = int(jnp.min(y)), int(jnp.max(y))
    if low < 0 or high >= logits.shape[1]:
        raise UserError(
            f"labels lie in [{low}, {high}], but the network has {logits.shape[1]} classes; "
            f"give 0 to {logits.shape[1] - 1}"
        )
    return int(logits.shape[1])


def count_targets(num_targets: int | None, num_classes: int, most: int = 9) -> int:
    """The number of classes that a targeted attack aims at.

    Args:
        num_targets: The user's value; None is `most`, or all other classes if there are fewer.
        num_classes: Classes of the network.
        most: The default.

    Returns:
        An integer in [1, num_classes - 1].

    Raises:
        UserError: The value is not in this range.

    Example:
        >>> count_targets(None, 10), count_targets(None, 3), count_targets(5, 10)
        (9, 2, 5)
    """
    if num_targets is None:
        return min(most, num_classes - 1)
    check_count("num_targets", num_targets)
    if num_targets > num_classes - 1:
        raise UserError(
            f"num_targets is {num_targets}, but the network has {num_classes} classes; "
            f"give at most {num_classes - 1}"
        )
    return int(num_targets)


@jax.jit  # for its tracing cache; it is never executed
def _logits(logits_fn: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    return logits_fn(x)


def check_images(x: jax.Array, y: jax.Array) -> None:
    """Checks that images are in [0, 1] and labels match them.

    Inside jit only shapes and dtypes are checked.

    Args:
        x: Images, [B, H, W, C].
        y: Labels, [B].

    Raises:
        UserError: There are no images; they are not floats in [0, 1]; or there is not one integer
            label per image.
    """
    for name, value in (("images", x), ("labels", y)):
        try:
            np.shape(value)
        except ValueError:  # a tuple of images and labels
            raise UserError(f"{name} are {shown(value)}; give an array") from None
    shape, dtype = jnp.shape(x), jnp.result_type(x)
    if len(shape) != 4 or not jnp.issubdtype(dtype, jnp.floating):
        raise UserError(f"images are {dtype} {list(shape)}; give floats [B, H, W, C] in [0, 1]")
    if dtype.itemsize < 4:
        raise UserError(
            f"images are {dtype}; give float32, because attack steps are lost to rounding"
        )
    if jnp.shape(y) != shape[:1] or not jnp.issubdtype(jnp.result_type(y), jnp.integer):
        raise UserError(
            f"labels are {jnp.result_type(y)} {list(jnp.shape(y))}; give {shape[0]} integers, shape [{shape[0]}]"
        )
    if not all(shape):
        raise UserError(f"images have shape {list(shape)}, which is empty; give at least one image")
    if isinstance(x, jax.core.Tracer):
        return
    with jax.ensure_compile_time_eval():  # checks concrete images inside jit too
        low, high = float(jnp.min(x)), float(jnp.max(x))
    if not (low >= 0 and high <= 1):  # NaN too
        raise UserError(f"images lie in [{low:g}, {high:g}]; scale them to [0, 1], without NaN")


def check_logits(logits: Any, num_images: int, *, at_least: int = 2) -> Any:
    """Checks the shape of logits.

    Args:
        logits: The result of logits_fn, or its shape.
        num_images: Number of images passed to it.
        at_least: Number of classes that the loss needs.

    Returns:
        The logits.

    Raises:
        UserError: The shape is not [num_images, classes], or there are too few classes.
    """
    if len(logits.shape) != 2 or logits.shape[0] != num_images:
        members = len(logits.shape) == 3 and logits.shape[1] == num_images
        raise UserError(
            f"logits_fn returned shape {list(logits.shape)} for {num_images} images; "
            f"return [{num_images}, classes]"
            + (", for an ensemble by mcjax.attacks.ensemble_logits" if members else "")
        )
    if logits.shape[1] < at_least:
        raise UserError(
            f"the network has {logits.shape[1]} classes; this loss needs at least {at_least}"
        )
    return logits
