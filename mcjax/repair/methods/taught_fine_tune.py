"""Taught fine-tuning: the suspect learns its own answers and unlearns inverted triggers."""

import functools
from typing import Any

import jax

from mcjax.core.bound_functions import FewPrograms
from mcjax.core.errors import UserError
from mcjax.core.tree import PyTree
from mcjax.curves.batch_stats import ApplyTrain, of_network
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

    normalised = functools.partial(on_clean_images, case)
    trained = taught.teach(
        case, "taught_fine_tune", case.suspect, train_fn=train, network_fn=normalised
    )
    return normalised(trained)


def on_clean_images(case: Case, trained: dict[str, PyTree]) -> dict[str, PyTree]:
    """The network with BatchNorm statistics of the bonafide images, each once.

    The training's running averages include stamped images. Unchanged without BatchNorm, if nothing
    was unlearned, or if the network has state that cannot be recomputed.
    """
    if not (case.network.has_batch_stats and taught.unlearned(case)):
        return trained
    try:
        stats = _stats(trained, case.bonafide["image"], apply_train=case.network.apply_train)
    except UserError:
        return trained
    return {**trained, "batch_stats": stats}


def _recomputed(variables: PyTree, images: jax.Array, *, apply_train: ApplyTrain) -> PyTree:
    return of_network(apply_train, variables, images)


_stats = FewPrograms(_recomputed, static=("apply_train",))


METHOD = Method(run=run, learning_rate=LEARNING_RATE, work=taught.work("taught_fine_tune"))
