"""What a repair gives back: a network, the point of the path that it is, and what was measured."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from mcjax.core.tree import PyTree
from mcjax.curves import Curve


class NothingRepaired(UserWarning):
    """No point of the path was accurate enough; the result is the suspect."""


@dataclasses.dataclass(frozen=True, repr=False)
class Repaired:
    """What `repair_model` returns.

    Args:
        variables: The repaired network, of the suspect's structure; the suspect itself where no
            point of the path was accurate enough.
        t: The chosen point; None where none was accurate enough.
        curve: The trained path.
        report: What was measured: "ts", "selection_accuracy" and "bonafide_accuracy" along the
            path, "distance" to the nearest suspect, "estimated_attack_success" of inverted
            triggers and "success_by_form"; of the evidence "findings", one
            `mcjax.repair.evidence.verdict.Finding` per form, "backdoor_found" and "target" (the
            class, or None), "pictures", images with those triggers
            (`mcjax.repair.evidence.pictures`); and of the choice "suspect_accuracy", "repaired_accuracy",
            "suspect_success" and "repaired_success" (the estimates; None without evidence; of the repaired network
            None, too, where nothing was repaired), "floor",
            "moved" and "moved_relative" (distance to the suspect, and over the suspect's norm),
            "second" (the far end), "fit", "learning_rate" and "rounds" of the path's training,
            "num_bonafide", "num_selection", "seconds".
    """

    variables: PyTree
    t: float | None
    curve: Curve
    report: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether a point was accurate enough; if not, `variables` is the suspect."""
        return self.t is not None

    @property
    def reason(self) -> str:
        """Why nothing was repaired, and what to do; "" where a point was found."""
        if self.ok:
            return ""
        inside = self.report["selection_accuracy"][self.report["distance"] > 0]
        best = (
            f"the best has {inside.max():.4f}" if len(inside) else "no point lies between the ends"
        )
        return (
            f"no point of the path has accuracy {self.report['floor']:.4f} on the selection images "
            f"({best}); try more num_steps, more images, or a larger tolerance"
        )

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes the network and what was measured, as `python -m mcjax.repair` does.

        Args:
            folder: A new folder: `repaired` (a checkpoint), path.csv, path.png, triggers.png,
                report.html and result.json.

        Returns:
            The folder.

        Raises:
            UserError: The folder exists and is not empty, or can't be written.
        """
        import mcjax  # the report is written above this room

        return mcjax.save_repaired(self, folder)

    def __repr__(self) -> str:
        """What was chosen, in one line."""
        r = self.report
        found = f"evidence of a backdoor: {'yes' if r['backdoor_found'] else 'no'}"
        if not self.ok:
            return f"Repaired(ok=False, {found}, floor={r['floor']:.4f})"
        success = r["repaired_success"]
        estimate = "" if success is None else f"estimated attack success={success:.4f}, "
        return (
            f"Repaired(t={self.t:.4f}, accuracy={r['repaired_accuracy']:.4f}, suspect's "
            f"{r['suspect_accuracy']:.4f}, {estimate}{found})"
        )
