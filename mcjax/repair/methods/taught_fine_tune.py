"""Taught fine-tuning: the suspect learns its own answers and unlearns inverted triggers."""

from mcjax.core.tree import PyTree
from mcjax.repair.methods import taught
from mcjax.repair.methods.method import Case, Method

LEARNING_RATE = 0.02


def run(case: Case) -> dict[str, PyTree]:
    """Fine-tunes the suspect of a case by distillation and unlearning."""
    start = case.suspect
    return case.train(
        "taught_fine_tune",
        start["params"],
        start["batch_stats"],
        taught.taught_loss(case),
        fixed=taught.taught_by(case),
        budget=case.shortened(taught.NUM_GRADIENTS),
    )


METHOD = Method(run=run, learning_rate=LEARNING_RATE, work=taught.work("taught_fine_tune"))
