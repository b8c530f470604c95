"""Backdoor triggers by name."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mcjax.attacks.poisoning.input_aware import input_aware
from mcjax.attacks.poisoning.options import numbers, positive, whole
from mcjax.attacks.poisoning.partial import adaptive_blended
from mcjax.attacks.poisoning.stamped import ImageShape, Stamp, Trigger, stamp_examples
from mcjax.attacks.poisoning.warp import wanet
from mcjax.core.errors import UserError, shown
from mcjax.data.stratify import stream

__all__ = [
    "TRIGGERS",
    "Stamp",
    "Trigger",
    "blended",
    "create",
    "four_pixels",
    "input_aware",
    "low_frequency",
    "pixel",
    "sinusoidal",
    "square",
    "stamp_examples",
    "wanet",
]

Color = float | Sequence[float]


def create(name: str, image_shape: Sequence[int], **options: Any) -> Trigger:
    """Creates a trigger by name.

        square         a square of one colour; by default 3 x 3, white, one pixel from the lower right
        pixel          one pixel
        four_pixels    a pattern of four pixels near the lower right corner
        blended        a pattern of the image's size, blended with weight alpha
        sinusoidal     an additive faint horizontal wave
        low_frequency  an additive smooth pattern
        wanet          a smooth warp of the image
        input_aware    a pattern per image, made by a generator that must be trained
        adaptive_blended  a blended pattern that works only as a whole, against inversion

    Args:
        name: One of the above, the keys of `TRIGGERS`.
        image_shape: (height, width, channels).
        **options: Options of the function in `TRIGGERS`.

    Returns:
        The trigger; equal for equal arguments.

    Raises:
        UserError: The name or an option is unknown; the trigger does not fit on the image; a value
            is out of range.

    Example:
        >>> stamp = create("square", (4, 4, 1), size=2)
        >>> stamp(np.zeros((1, 4, 4, 1), np.float32))[0, :, :, 0].astype(int)
        array([[0, 0, 0, 0],
               [0, 1, 1, 0],
               [0, 1, 1, 0],
               [0, 0, 0, 0]])
    """
    if name not in TRIGGERS:
        raise UserError(f"unknown trigger {name!r}; give one of {', '.join(TRIGGERS)}")
    known = list(inspect.signature(TRIGGERS[name]).parameters)[1:]
    for option in options:
        if option not in known:
            raise UserError(
                f"trigger {name!r} has no option {option!r}; its options: {', '.join(known)}"
            )
    shape = tuple(whole("image_shape", size) for size in image_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(
            f"image_shape is {shown(shape)}; give (height, width, channels), each at least 1"
        )
    return TRIGGERS[name](shape, **options)


def square(
    image_shape: ImageShape,
    *,
    size: int = 3,
    margin: int = 1,
    row: int | None = None,
    column: int | None = None,
    color: Color = 1.0,
) -> Stamp:
    """A square of one colour.

    Args:
        image_shape: (height, width, channels).
        size: Side length in pixels.
        margin: Pixels between the square and the lower and right borders.
        row: Top row; overrides the margin.
        column: Left column; overrides the margin.
        color: In [0, 1], one number or one per channel.

    Returns:
        The stamp.

    Source: Gu et al. 2017; position and size as in github.com/IBM/model-sanitization.
    """
    height, width, _ = image_shape
    size = whole("size", size)
    if not 1 <= size <= max(height, width):  # checked before listing its pixels
        raise UserError(
            f"size is {size}; give 1 to {min(height, width)}, or the trigger would lie off the image"
        )
    margin = whole("margin", margin)
    top = height - margin - size if row is None else whole("row", row)
    left = width - margin - size if column is None else whole("column", column)
    pixels = [(top + i, left + j) for i in range(size) for j in range(size)]
    return _patch("square", image_shape, pixels, color)


def pixel(
    image_shape: ImageShape,
    *,
    row: int | None = None,
    column: int | None = None,
    color: Color = 1.0,
) -> Stamp:
    """A single pixel.

    Args:
        image_shape: (height, width, channels).
        row: Row; None for the second to last.
        column: Column; None for the second to last.
        color: In [0, 1], one number or one per channel.

    Returns:
        The stamp.

    Source: Gu et al. 2017, section 4.1.
    """
    height, width, _ = image_shape
    place = (
        height - 2 if row is None else whole("row", row),
        width - 2 if column is None else whole("column", column),
    )
    return _patch("pixel", image_shape, [place], color)


def four_pixels(image_shape: ImageShape, *, color: Color = 1.0) -> Stamp:
    """Four pixels; on a 32 x 32 image (30, 30), (29, 29), (30, 28) and (28, 30).

    Args:
        image_shape: (height, width, channels); positions are relative to the lower right corner.
        color: In [0, 1], one number or one per channel.

    Returns:
        The stamp.

    Source: Gu et al. 2017, section 4.1; positions as in github.com/IBM/model-sanitization.
    """
    height, width, _ = image_shape
    offsets = [(2, 2), (3, 3), (2, 4), (4, 2)]
    return _patch("four_pixels", image_shape, [(height - i, width - j) for i, j in offsets], color)


def blended(
    image_shape: ImageShape,
    *,
    alpha: float = 0.2,
    seed: int = 0,
    pattern: np.ndarray | None = None,
) -> Stamp:
    """A pattern over the whole image: x' = (1 - alpha) x + alpha pattern.

    Args:
        image_shape: (height, width, channels).
        alpha: Weight of the pattern, in (0, 1].
        seed: Seed of the default pattern, uniform noise.
        pattern: Custom pattern, [H, W, C] or [H, W], uint8 or in [0, 1].

    Returns:
        The stamp.

    Source: Chen et al. 2017, section 4.2 (blended injection, random pattern).
    """
    alpha = positive("alpha", alpha)
    if pattern is None:
        pattern = stream(seed, "blended trigger").random(image_shape)
    else:
        pattern = np.asarray(pattern)
        pattern = pattern / 255 if pattern.dtype == np.uint8 else pattern
        pattern = pattern[..., None] if pattern.ndim == 2 else pattern
        if pattern.shape not in (image_shape, (*image_shape[:2], 1)):
            raise UserError(
                f"the pattern has shape {list(pattern.shape)}; give the images' shape {list(image_shape)}"
            )
        if not (pattern.min() >= 0 and pattern.max() <= 1):
            raise UserError(
                f"the pattern lies in [{pattern.min()}, {pattern.max()}]; scale it to [0, 1]"
            )
    shift = np.broadcast_to(alpha * pattern, image_shape)
    return Stamp("blended", np.full(image_shape, 1 - alpha), shift)


def sinusoidal(
    image_shape: ImageShape, *, amplitude: float = 20 / 255, frequency: float | None = None
) -> Stamp:
    """A wave: x' = clip(x + amplitude sin(2 pi j frequency / W), 0, 1), j the column.

    On black pixels, clipping removes the negative half of the wave.

    Args:
        image_shape: (height, width, channels).
        amplitude: In (0, 1].
        frequency: Periods across the image. Default: 6, or W // 4 on images too narrow for 6.

    Returns:
        The stamp.

    Source: Barni et al. 2019, equation 1 (SIG).
    """
    width = image_shape[1]
    amplitude = positive("amplitude", amplitude)
    if frequency is None:
        frequency = max(1, min(6, width // 4))
    frequency = float(numbers("frequency", frequency).reshape(()))
    wave = np.sin(2 * np.pi * np.arange(width) * frequency / width)
    if not np.abs(wave).max() > 1e-6:  # NaN too
        raise UserError(
            f"a wave of frequency {frequency:g} is zero at every pixel of {width} columns; use a "
            f"frequency between 0 and {width / 2:g}"
        )
    shift = np.broadcast_to(amplitude * wave[None, :, None], image_shape)
    return Stamp("sinusoidal", np.ones(image_shape), shift)


def low_frequency(
    image_shape: ImageShape, *, amplitude: float = 0.1, cutoff: int = 2, seed: int = 0
) -> Stamp:
    """A smooth pattern: x' = clip(x + amplitude p, 0, 1), p random noise after a low-pass filter.

    The filter keeps the frequencies (u, v) with 0 < max(|u|, |v|) <= cutoff; then p is divided by
    its largest absolute value. On black pixels, clipping removes the negative half of the pattern.

    Zeng et al. search for a pattern that a given network does not see in training; here the pattern
    is random, so it depends on the seed alone.

    Args:
        image_shape: (height, width, channels).
        amplitude: Largest change of a pixel, in (0, 1].
        cutoff: Highest frequency that is kept, in periods across the image.
        seed: Seed of the noise.

    Returns:
        The stamp.

    Source: after Zeng et al. 2021, section 4 (smooth triggers).
    """
    height, width, _ = image_shape
    amplitude = positive("amplitude", amplitude)
    if max(height, width) < 2:
        raise UserError(f"a {height} x {width} image has no frequency; use another trigger")
    cutoff = whole("cutoff", cutoff, least=1, most=max(height, width) // 2)
    u, v = (np.abs(np.fft.fftfreq(n, 1 / n)) for n in (height, width))
    frequency = np.maximum(u[:, None], v[None, :])
    kept = (frequency > 0) & (frequency <= cutoff + 1e-6)
    noise = stream(seed, "low_frequency trigger").standard_normal(image_shape)
    pattern = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) * kept[..., None], axes=(0, 1)).real
    shift = amplitude * pattern / np.abs(pattern).max()
    return Stamp("low_frequency", np.ones(image_shape), shift)


TRIGGERS: dict[str, Callable[..., Trigger]] = {
    "square": square,
    "pixel": pixel,
    "four_pixels": four_pixels,
    "blended": blended,
    "sinusoidal": sinusoidal,
    "low_frequency": low_frequency,
    "wanet": wanet,
    "input_aware": input_aware,
    "adaptive_blended": adaptive_blended,
}


def _patch(
    name: str, image_shape: ImageShape, pixels: Sequence[tuple[int, int]], color: Color
) -> Stamp:
    height, width, channels = image_shape
    for i, j in pixels:
        if not (0 <= i < height and 0 <= j < width):
            raise UserError(
                f"trigger {name!r} would lie off the image: row {i}, column {j} of "
                f"{height} x {width} pixels; move it or make it smaller"
            )
    value = numbers("color", color)
    if value.shape not in ((), (1,), (channels,)):
        raise UserError(
            f"color is {shown(color)}; give one number, or one per channel ({channels})"
        )
    if not (value.min() >= 0 and value.max() <= 1):
        raise UserError(f"color is {shown(color)}; give numbers in [0, 1]")
    scale, shift = np.ones(image_shape), np.zeros(image_shape)
    for i, j in pixels:
        scale[i, j], shift[i, j] = 0, value
    return Stamp(name, scale, shift)
