"""Fine-tuning: the suspect, trained on with bonafide images."""

from mcjax.core.tree import PyTree
from mcjax.repair.methods.method import Case, Method, trained
from mcjax.repair.methods.tuning import by_length
from mcjax.training.objectives import endpoint_loss

LEARNING_RATE = 0.02


def run(case: Case) -> dict[str, PyTree]:
    """Fine-tunes the suspect of a case."""
    start = case.suspect
    loss_fn = endpoint_loss(case.network)
    return case.train("fine_tune", start["params"], start["batch_stats"], loss_fn)


METHOD = Method(
    run=run,
    learning_rate=LEARNING_RATE,
    work=trained("fine_tune"),
    tuning=by_length("fine_tune"),
)
