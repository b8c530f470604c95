"""What an attack leaves to repair: the tampered networks, and how to measure whether it still works."""

import dataclasses
from collections.abc import Mapping

from mcjax.core.tree import PyTree
from mcjax.data.splits import Examples


@dataclasses.dataclass(frozen=True)
class Tampered:
    """The tampered networks, and how to measure whether the attack still works.

    Args:
        measure: The name of the success rate, a column: "attack_success_rate".
        success: Examples whose "label" is the prediction that the attacker wants; all of them
            count.
        start: The suspect network, {"params", "batch_stats"}.
        end: The second network; None for a copy of the first, fine-tuned or un-aligned.
        suspects: The control points that may be tampered with: 0 the start, -1 the end.
        references: Clean networks to report as references, by name.
        target: The class whose own images the official code counts in its success rate, where they
            are trivially right; None if both rates are the same.
    """

    measure: str
    success: Examples
    start: PyTree
    end: PyTree | None
    suspects: tuple[int, ...]
    references: Mapping[str, PyTree]
    target: int | None = None
