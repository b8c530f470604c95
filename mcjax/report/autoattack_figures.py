"""The figure of AutoAttack along a path: errors beside those under PGD."""

from collections.abc import Mapping

import numpy as np

from mcjax.report.panels import (
    BLUE,
    GREEN,
    ORANGE,
    PERCENT_LIMITS,
    T_LIMITS,
    Line,
    Panel,
    percent_wrong,
)


def autoattack_panel(table: Mapping[str, np.ndarray], num_images: int) -> Panel:
    """Errors on clean images, under PGD and under AutoAttack, against t.

    Args:
        table: "t", "accuracy", "pgd_accuracy", "autoattack_accuracy", each [T].
        num_images: Number of images of these means.
    """
    lines = [
        Line(f"{num_images} test images", percent_wrong(table["accuracy"]), BLUE),
        Line("the same under PGD", percent_wrong(table["pgd_accuracy"]), ORANGE, dotted=True),
        Line("under AutoAttack", percent_wrong(table["autoattack_accuracy"]), GREEN, mark="o"),
    ]
    return Panel(table["t"], lines, "t", "error (%)", ylim=PERCENT_LIMITS, xlim=T_LIMITS)
