"""The taught path: a curve that learns the suspect's answers and unlearns inverted triggers."""

import functools

from mcjax.curves import Curve
from mcjax.repair.methods import taught
from mcjax.repair.methods.method import Case, Method
from mcjax.training.curve import starting_curve, train_curve

LEARNING_RATE = 0.05


def run(case: Case) -> Curve:
    """Trains the curve of a case by distillation and unlearning; see `mcjax.repair.objective`."""
    key, options = case.key_fn("taught_path"), case.curve
    return train_curve(
        starting_curve(key, case.network, options, case.suspect, case.second_fn()),
        case.suspect["batch_stats"],
        case.images,
        loss_fn=taught.taught_loss(case, options.curve_type),
        learning_rate=case.options["learning_rate.taught_path"],
        budget=case.shortened(taught.NUM_GRADIENTS),
        fit_fn=functools.partial(case.fit_fn, key),
        beside=taught.taught_by(case),
    )


METHOD = Method(
    run=run,
    kind="path",
    learning_rate=LEARNING_RATE,
    settings=taught.SETTINGS,
    work=taught.work("taught_path", curve=True),
)
