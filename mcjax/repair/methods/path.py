"""The path: a curve from the suspect on, trained on bonafide images, to a second network or a free end."""

import functools

from mcjax.core.fields import number, several
from mcjax.core.settings import Setting
from mcjax.curves import Curve
from mcjax.repair.methods.method import Case, Method, trained
from mcjax.training.curve import starting_curve, train_curve
from mcjax.training.objectives import curve_loss

LEARNING_RATE = 0.05


def run(case: Case) -> Curve:
    """Trains the curve of a case.

    Source: Zhao et al. 2020, section 4.
    """
    key, options = case.key_fn("path"), case.curve
    start = starting_curve(key, case.network, options, case.suspect, case.second_fn())
    return train_curve(
        start,
        case.suspect["batch_stats"],
        case.images,
        loss_fn=curve_loss(
            case.network,
            options.curve_type,
            weight_decay=case.budget.weight_decay,
            num_strata=options.num_strata,
        ),
        learning_rate=case.options["learning_rate.path"],
        budget=case.budget,
        fit_fn=functools.partial(case.fit_fn, key),
        fix_end=not case.end_is_free,
    )


METHOD = Method(
    run=run,
    kind="path",
    learning_rate=LEARNING_RATE,
    settings={
        "fixed_t": Setting(
            (0.1, 0.5),
            several(number(0, 1)),
            "t's to report in addition to the chosen one",
        ),
    },
    work=trained("path", curve=True),
)
