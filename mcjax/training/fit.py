"""One training as a value: where it starts, what it minimises, on which images, for how long."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mcjax.core import fields
from mcjax.core.errors import Diverged
from mcjax.core.fields import Field
from mcjax.core.tree import PyTree
from mcjax.data import augmentation as augmentations
from mcjax.data.batches import Batch
from mcjax.training.loop import LossFn, ProjectFn, TrainState, init_state, sgd, train


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long a training takes and how its steps are made.

    Args:
        num_steps: Steps in all.
        batch_size: Images per step.
        momentum: Of SGD.
        nesterov: Nesterov's momentum instead of the plain one.
        weight_decay: L2, of all parameters.
        augmentation: A name of `mcjax.data.augmentation`.
    """

    num_steps: int
    batch_size: int = 128
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    augmentation: str = "none"


BUDGET_FIELDS: Mapping[str, Field] = {
    "num_steps": fields.whole(1),
    "batch_size": fields.whole(1, 2**20),
    "momentum": fields.number(0, 1, below=True),
    "nesterov": fields.flag(),
    "weight_decay": fields.number(0, 1e3),
    "augmentation": fields.choice(*augmentations.AUGMENTATIONS),
}
"""What a user may give for each field of `Budget`."""


@dataclasses.dataclass(frozen=True)
class Training:
    """One training, ready to run.

    Args:
        params: The parameters before the first step.
        batch_stats: The network's running statistics before the first step; {} without BatchNorm.
        images: The training images, on the device; see `mcjax.training.train_steps`.
        loss_fn: The objective.
        learning_rate: Of the first half of the steps.
        budget: Steps, batches, momentum, weight decay, augmentation.
        fixed: What the objective needs besides the parameters, such as a curve's fixed ends.
        decay_in_loss: The objective has the weight decay, so the optimizer has none.
        stacked: Several networks side by side: `params` and `batch_stats` have a first axis.
        project_fn: Applied to the parameters after each step, `project_fn(params, fixed)`; None
            leaves them.
        part: Name of this training, if its stage has several; its checkpoint is separate.
    """

    params: PyTree
    batch_stats: PyTree
    images: Batch
    loss_fn: LossFn
    learning_rate: float
    budget: Budget
    fixed: PyTree = None
    decay_in_loss: bool = False
    stacked: bool = False
    project_fn: ProjectFn | None = None
    part: str = ""

    @property
    def optimizer(self) -> Any:
        """SGD as the budget says."""
        budget = self.budget
        return sgd(
            self.learning_rate,
            budget.num_steps,
            momentum=budget.momentum,
            nesterov=budget.nesterov,
            weight_decay=0.0 if self.decay_in_loss else budget.weight_decay,
        )

    def state(self) -> TrainState:
        """The state before the first step; for stacked networks, that of each."""
        start = functools.partial(init_state, optimizer=self.optimizer)
        return (jax.vmap(start) if self.stacked else start)(self.params, self.batch_stats)

    @property
    def options(self) -> dict[str, Any]:
        """The options of `mcjax.training.train`."""
        return {
            "num_steps": self.budget.num_steps,
            "loss_fn": self.loss_fn,
            "optimizer": self.optimizer,
            "batch_size": self.budget.batch_size,
            "augment_fn": augmentations.get(self.budget.augmentation),
            "project_fn": self.project_fn,
        }


def fit(
    key: jax.Array,
    training: Training,
    *,
    name: str = "training",
    steps_per_dispatch: int = 100,
    tell: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, PyTree]:
    """Runs a training to its end.

    Args:
        key: Random key of batches, augmentation and draws.
        training: The training.
        name: What messages call it.
        steps_per_dispatch: Steps between two looks at the loss.
        tell: Called after each dispatch with the steps taken so far and the means of their
            metrics.

    Returns:
        {"params", "batch_stats"} after the last step.

    Raises:
        UserError: The loss is not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> from mcjax.models.network import from_apply
        >>> from mcjax.training.objectives import endpoint_loss
        >>> network = from_apply(lambda v, x: x.reshape(len(x), -1) @ v["params"])
        >>> images = {"image": jnp.eye(4).reshape(4, 2, 2, 1), "label": jnp.arange(4)}
        >>> loss_fn, budget = endpoint_loss(network), Budget(num_steps=50, batch_size=4)
        >>> training = Training(jnp.zeros((4, 4)), {}, images, loss_fn, 0.5, budget)
        >>> trained = fit(jax.random.key(0), training)
        >>> (images["image"].reshape(4, 4) @ trained["params"]).argmax(-1).tolist()
        [0, 1, 2, 3]
    """
    state = training.state()
    dispatches = train(
        key,
        state,
        training.fixed,
        training.images,
        steps_per_dispatch=steps_per_dispatch,
        **training.options,
    )
    for state, means in dispatches:
        check_loss(name, int(state.step), means, training)
        if tell is not None:
            tell(int(state.step), means)
    return {"params": state.params, "batch_stats": state.batch_stats}


def check_loss(name: str, step: int, means: dict[str, Any], training: Training) -> None:
    """Refuses a loss that is not finite.

    Raises:
        Diverged: Names the training, the step and the learning rate.
    """
    if not np.isfinite(means["loss"]).all():
        raise Diverged(
            f"{name}: the loss became {means['loss']} by step {step}; lower the learning rate "
            f"(it is {training.learning_rate})"
        )
