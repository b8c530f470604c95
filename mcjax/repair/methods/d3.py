"""D3: trains the suspect away from its own last layer, at low loss on clean images."""

from mcjax.core.fields import number
from mcjax.core.keys import stream
from mcjax.core.settings import Setting
from mcjax.core.tree import PyTree
from mcjax.repair.away import LEARNING_RATE, LOSS_FLOOR, LOSS_WEIGHT, away, kernels
from mcjax.repair.methods.method import Case, Method, trained
from mcjax.repair.methods.tuning import by_length


def run(case: Case) -> dict[str, PyTree]:
    """Trains the suspect of a case away from its last layer (`mcjax.repair.away`).

    Source: D3 (ICCV 2025, arXiv 2411.09585).
    """
    training = away(
        stream(case.key_fn("d3"), "init"),
        case.network,
        case.suspect,
        case.images,
        weight=case.options["d3.weight"],
        eps=case.options["d3.loss_floor"],
    )
    return case.train(
        "d3",
        training.params,
        case.suspect["batch_stats"],
        training.loss_fn,
        training.kernel,
        project_fn=training.project_fn,
    )


METHOD = Method(
    run=run,
    learning_rate=LEARNING_RATE,
    settings={
        "d3.weight": Setting(LOSS_WEIGHT, number(0, 1e6), "weight of D3's cross-entropy"),
        "d3.loss_floor": Setting(
            LOSS_FLOOR,
            number(0, 1e3),
            "cross-entropy per image, in nats, below which D3 ignores it",
        ),
    },
    work=trained("d3"),
    check=lambda variables: kernels(variables["params"]),
    tuning=by_length("d3"),
)
