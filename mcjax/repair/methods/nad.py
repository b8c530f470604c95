"""NAD: distils the attention of a fine-tuned copy into the suspect."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax

from mcjax.core.bound_functions import Bound
from mcjax.core.errors import UserError
from mcjax.core.fields import number
from mcjax.core.settings import Setting
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch
from mcjax.models.network import Network
from mcjax.repair.methods.method import TRAIN_PASSES, Case, Method, Plan, Work, training_work
from mcjax.repair.methods.pruning import refuse_without_convolutions
from mcjax.repair.methods.tuning import by_length
from mcjax.training import LossFn, StepMetrics
from mcjax.training.objectives import endpoint_loss


def attention(activation: jax.Array) -> jax.Array:
    """Where a layer is active: sum over channels of A^2, as a unit vector over positions.

        q_p = sum_c A_pc^2,    attention = q / sqrt(||q||^2 + 1e-24)

    Args:
        activation: A, the layer's output, [B, H, W, C].

    Returns:
        [B, H * W].

    Example:
        >>> attention(jnp.array([1.0, 1.0, 2.0, 0.0]).reshape(1, 2, 1, 2)).tolist()
        [[0.4472135901451111, 0.8944271802902222]]

    Source: Li et al. 2021, the attention with p = 2, and its unit length in the loss.
    """
    q = jnp.square(activation).sum(-1).reshape(len(activation), -1)
    return q * lax.rsqrt(jnp.square(q).sum(-1, keepdims=True) + 1e-24)


def attention_maps(network: Network, variables: PyTree, x: jax.Array) -> dict[str, jax.Array]:
    """The attention of the last layer or block of each resolution, in evaluation mode.

    A resolution is a height and a width of more than one position: the attention of one position is
    always 1. In a residual network this is the output of each stage, as in the paper; in a
    pre-activation network it is that output after the next BatchNorm.

    Args:
        network: The network, made by `from_linen`.
        variables: Its variables.
        x: Images in [0, 1], [B, H, W, C].

    Returns:
        Attention [B, positions] by the layer's path.

    Raises:
        UserError: The layers are not accessible, or no output has several positions.
    """
    if network.layer_outputs is None:
        raise UserError("nad needs the layers of a network; make it with from_linen")
    last = {
        output.shape[1:3]: (path, output)
        for path, output in network.layer_outputs(variables, x).items()
        if output.ndim == 4 and output.shape[1] * output.shape[2] > 1
    }
    if not last:
        raise UserError("the network has no layer with a map of positions; do not use nad")
    return {path: attention(output) for path, output in last.values()}


def distillation_loss(network: Network, *, beta: float) -> LossFn:
    """CE + beta mean_i sum_l ||a_l(student, x_i) - a_l(teacher, x_i)||^2.

    Args:
        network: The network.
        beta: Weight of the distance of the attention maps.

    Returns:
        A loss_fn for `train_steps`; its `fixed` are the teacher's variables.

    Source: Li et al. 2021, the total loss. Theirs averages the squared difference over positions, here
        it is summed, so values of beta differ.
    """
    return Bound(_distillation_loss, network, beta)


def _distillation_loss(
    network: Network,
    beta: float,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    fixed: PyTree,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    x = batch["image"]
    loss, (new_stats, metrics) = endpoint_loss(network)(key, step, params, stats, None, batch)
    student = attention_maps(network, {"params": params, "batch_stats": stats}, x)
    teacher = attention_maps(network, fixed, x)
    distances = [jnp.square(student[path] - teacher[path]).sum(-1).mean() for path in student]
    loss = loss + beta * sum(distances)
    return loss, (new_stats, metrics._replace(loss=loss))


def split_steps(num_steps: int, share: float) -> tuple[int, int]:
    """Steps of the teacher and of the student, together num_steps; the student has at least one.

    Example:
        >>> split_steps(100, 0.3), split_steps(1, 0.5)
        ((30, 70), (0, 1))
    """
    teacher = min(round(share * num_steps), num_steps - 1)
    return teacher, num_steps - teacher


def run(case: Case) -> dict[str, PyTree]:
    """Fine-tunes a teacher, then trains the suspect of a case to attend to what the teacher does.

    The teacher is the suspect, fine-tuned for a share of the steps; the student is the suspect, and
    takes the rest. A step of the student counts as one: its two passes, by batch statistics for the
    cross-entropy and in evaluation mode for the attention, are one in a network without BatchNorm.

    Source: Li et al. 2021, "Neural attention distillation".
    """
    start, options = case.suspect, case.options
    steps = split_steps(case.budget.num_steps, options["nad.teacher"])
    teacher_budget, student_budget = (
        dataclasses.replace(case.budget, num_steps=number) for number in steps
    )
    teacher = start
    if steps[0]:
        teacher = case.train(
            "nad",
            start["params"],
            start["batch_stats"],
            endpoint_loss(case.network),
            budget=teacher_budget,
            part="teacher",
        )
    return case.train(
        "nad",
        start["params"],
        start["batch_stats"],
        distillation_loss(case.network, beta=options["nad.beta"]),
        teacher,
        budget=student_budget,
    )


def work(plan: Plan) -> Iterator[Work]:
    """The teacher's training, and the student's: two gradients and a pass of the teacher."""
    steps = [split_steps(n, plan.options["nad.teacher"]) for n in plan.num_steps]
    yield training_work("train nad teacher", sum(a for a, _ in steps), plan.batch_size)
    student = sum(b for _, b in steps)
    yield Work("train nad", student, plan.batch_size, 2 * TRAIN_PASSES + 1, 11, "batch")


METHOD = Method(
    run=run,
    learning_rate=0.02,
    settings={
        "nad.beta": Setting(10.0, number(0, 1e6), "weight of NAD's distance of attention maps"),
        "nad.teacher": Setting(
            0.5, number(0, 1, below=True), "fraction of NAD's steps that train its teacher"
        ),
    },
    work=work,
    check=functools.partial(refuse_without_convolutions, "nad"),
    tuning=by_length("nad"),
)
