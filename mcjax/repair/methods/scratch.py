"""Training from scratch: a new network, trained on the bonafide images alone."""

from mcjax.core.tree import PyTree
from mcjax.repair.methods.method import Case, Method, trained
from mcjax.training.objectives import endpoint_loss


def run(case: Case) -> dict[str, PyTree]:
    """Trains a new network on the images of a case."""
    start = {"batch_stats": {}, **case.network.init(case.key_fn("scratch"))}
    loss_fn = endpoint_loss(case.network)
    return case.train("scratch", start["params"], start["batch_stats"], loss_fn)


METHOD = Method(run=run, learning_rate=0.05, work=trained("scratch"))
