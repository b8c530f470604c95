"""The control: the suspect without the backdoor, made without knowing a trigger.

A class can be cheap to reach by nature. A natural trigger draws what the class looks like, so it works
on the control as well; a planted one does nothing there.
"""

import jax

from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch
from mcjax.data.splits import Examples
from mcjax.models.network import Network
from mcjax.repair.away import LEARNING_RATE, away
from mcjax.repair.bonafide import num_right
from mcjax.training.fit import Budget, Training

BATCH_SIZE = 64


def control_training(
    key: jax.Array, network: Network, suspect: PyTree, images: Batch, *, num_steps: int
) -> Training:
    """The training that makes a suspect's control: away from its last layer, on clean images.

    Args:
        key: Random key of the start.
        network: The network.
        suspect: The suspect's variables, {"params", "batch_stats"}.
        images: The clean images, on the device.
        num_steps: Steps of `BATCH_SIZE` images.

    Returns:
        The training, for `mcjax.training.fit.fit`.

    Raises:
        UserError: The network's last layer is not known (`mcjax.repair.away.last_kernel`).

    Source: D3 (ICCV 2025, arXiv 2411.09585); its use as a control is mcjax's own.
    """
    training = away(stream(key, "init"), network, suspect, images)
    return Training(
        training.params,
        suspect["batch_stats"],
        images,
        training.loss_fn,
        LEARNING_RATE,
        Budget(num_steps=num_steps, batch_size=BATCH_SIZE),
        training.kernel,
        project_fn=training.project_fn,
    )


def usable(network: Network, control: PyTree, suspect: PyTree, images: Examples) -> bool:
    """Whether a control still knows its task: half of the suspect's accuracy, or more.

    A network of one layer, say, is trained away from all that it knew.

    Args:
        network: The network.
        control: The control's variables.
        suspect: The suspect's variables.
        images: Clean images.
    """
    kept, had = (num_right(network, v, {"clean": images})[0] for v in (control, suspect))
    return 2 * kept >= had
