"""Which way is fastest for which shape: measured, not derived."""

import math
from collections.abc import Sequence

Shape = Sequence[int]


def forward(x: Shape, w: Shape, stride: Shape) -> str:
    """The way of a forward convolution: "xla" or "blocked"."""
    small = x[1] <= 2 or x[3] <= 4
    return "blocked" if small or math.prod(w[:2]) == 1 else "xla"


def images(x: Shape, taps: Shape) -> int:
    """How many images make a block whose patches fill about 4096 rows."""
    return max(1, 4096 // (x[1] * x[2]))
