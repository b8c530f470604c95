"""The stages of a study that look for evidence: a network's control, and its inverted triggers."""

import functools
import time
from collections.abc import Mapping
from typing import Any

import jax

from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.core.processes import once
from mcjax.core.progress import say
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch
from mcjax.data.splits import Examples
from mcjax.experiments.stages.training import train_stage
from mcjax.repair.evidence.control import Control, make_control
from mcjax.repair.evidence.invert import Inverted, invert
from mcjax.runs.run import Run
from mcjax.runs.stage import Found, stage
from mcjax.training.fit import Training


def control_stage(
    run: Run, name: str, variables: PyTree, bonafide: Examples, *, images: Batch
) -> Control | None:
    """A network's control; None if the config wants none.

    Args:
        run: The run.
        name: The stage.
        variables: The network's variables.
        bonafide: The bonafide images.
        images: The same on the device, perhaps repeated.
    """
    num_steps, key = run.config.repair.evidence.control_steps, run.key(name)
    if not num_steps:
        return None

    def train(training: Training) -> dict[str, PyTree]:
        return train_stage(run, f"{name}_{training.part}", stream(key, "training"), training)

    control = make_control(
        stream(key, "start"),
        run.network,
        variables,
        images,
        bonafide,
        num_steps=num_steps,
        fit_fn=train,
    )
    if control.why_not:
        say(f"{name}: no control network: {control.why_not}")
    return control


def search_stage(
    run: Run,
    name: str,
    variables: PyTree,
    bonafide: Examples,
    *,
    control: Control | None = None,
    classes: Mapping[str, int] | None = None,
    finished: str = "",
) -> dict[str, Inverted]:
    """Triggers inverted on a network: one restart to unlearn, one to judge by.

    Args:
        run: The run.
        name: The stage.
        variables: The network's variables.
        bonafide: The bonafide images.
        control: See `mcjax.repair.evidence.invert.invert`.
        classes: Likewise.
        finished: The stage of a finished training that this search was part of: then the search must
            be finished too, because the network that it was about, half trained, is gone.

    Raises:
        UserError: It is not.
    """
    options = run.config.repair.evidence
    search = functools.partial(
        invert,
        run.key(name),
        run.network,
        forms=tuple(options.forms),
        num_steps=options.num_steps,
        batch_size=options.batch_size,
        num_restarts=2,
        control=control,
        classes=classes,
    )

    def compute() -> Found:
        if finished:
            raise UserError(
                f"{run.checkpoint(name)} is missing; delete {run.checkpoint(finished)} too, and run again"
            )
        say(f"{name}: begins")
        began = time.monotonic()
        found = jax.device_get(search(variables, bonafide))
        seconds = round(time.monotonic() - began, 3)
        return once(lambda: _plain(found)), {"seconds": seconds}

    like = jax.eval_shape(search, variables, bonafide)
    tree, _ = stage(run, name, _plain(like), compute)
    return {form: Inverted(**one) for form, one in tree.items()}


def _plain(inverted: Mapping[str, Inverted]) -> dict[str, Any]:
    """Inverted triggers as a checkpoint keeps them."""
    return {form: one._asdict() for form, one in inverted.items()}
