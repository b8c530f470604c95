"""Taught fine-tuning: the suspect learns its own answers and unlearns inverted triggers."""

from typing import Any

from mcjax.core.tree import PyTree
from mcjax.repair.methods import taught
from mcjax.repair.methods.method import Case, Method
from mcjax.training.fit import Budget

LEARNING_RATE = 0.01


def run(case: Case) -> dict[str, PyTree]:
    """Fine-tunes the suspect of a case by answers and unlearning, in rounds."""
    loss_fn = taught.taught_loss(case)

    def train(
        trained: dict[str, PyTree], beside: dict[str, Any], budget: Budget, part: str
    ) -> dict[str, PyTree]:
        params, batch_stats = trained["params"], trained["batch_stats"]
        return case.train(
            "taught_fine_tune", params, batch_stats, loss_fn, beside, budget=budget, part=part
        )

    return taught.teach(
        case, "taught_fine_tune", case.suspect, train_fn=train, network_fn=lambda trained: trained
    )


METHOD = Method(run=run, learning_rate=LEARNING_RATE, work=taught.work("taught_fine_tune"))
