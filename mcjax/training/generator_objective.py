"""Trains a classifier and the generator of an input-aware trigger together."""

import dataclasses
import functools
from typing import Any

import jax
import optax

from mcjax.attacks.poisoning.backdoor import stamp_poisoned
from mcjax.attacks.poisoning.input_aware import Generated, diversity
from mcjax.core.bound_functions import Bound
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch
from mcjax.models.network import Network
from mcjax.training.fit import Training
from mcjax.training.loop import LossFn, StepMetrics, schedule
from mcjax.training.losses import accuracy, cross_entropy


def generator_loss(network: Network, trigger: Generated) -> LossFn:
    """Mean cross-entropy on stamped batches, plus weight * `diversity` of the patterns.

    The batch is that of `poison(..., when="after")`: poisoned images are stamped with their own
    trigger and have the attacker's label, cover images are stamped with another image's trigger and
    have their true label, the others are clean. Gradients flow through the stamps to the generator.

    Args:
        network: The classifier.
        trigger: The trigger, whose own parameters are not used.

    Returns:
        A loss_fn for `train_steps`; its params are {"network", "generator"}, `fixed` is not used.

    Source: Nguyen and Tran 2020, equation 7.
    """
    return Bound(_generator_loss, network, trigger)


def _generator_loss(
    network: Network,
    trigger: Generated,
    key: jax.Array,
    step: jax.Array,
    params: PyTree,
    stats: PyTree,
    fixed: None,
    batch: Batch,
) -> tuple[jax.Array, tuple[PyTree, StepMetrics]]:
    live, x = trigger.with_params(params["generator"]), batch["image"]
    stamped = stamp_poisoned(live, batch, key=stream(key, "decoys", step))
    variables = {"params": params["network"], "batch_stats": stats}
    logits, stats = network.apply_train(stream(key, "dropout", step), variables, stamped["image"])
    nll = cross_entropy(logits, batch["label"]).mean()
    apart = diversity(stream(key, "diversity", step), x, live.pattern(x))
    loss = nll + trigger.diversity * apart
    return loss, (stats, StepMetrics(loss, nll, accuracy(logits, batch["label"]).mean()))


@dataclasses.dataclass(frozen=True)
class JointTraining(Training):
    """A training of {"network", "generator"}: the network by SGD, the generator by Adam.

    The gradient of the diversity loss is unbounded, and SGD's first steps saturate the generator: then
    all images have one pattern. Adam's steps are bounded.

    Args:
        generator_learning_rate: Adam's rate in the first half of the steps; same schedule as SGD's.
    """

    generator_learning_rate: float = 2e-3

    @property
    def optimizer(self) -> Any:
        """SGD as the budget says, and Adam without weight decay."""
        return _joint(super().optimizer, self.generator_learning_rate, self.budget.num_steps)


@functools.lru_cache(64)  # equal arguments return the same object, hence one compiled program
def _joint(
    sgd: optax.GradientTransformation, learning_rate: float, num_steps: int
) -> optax.GradientTransformation:
    parts = {"network": sgd, "generator": optax.adam(schedule(learning_rate, num_steps), b1=0.5)}

    def init(params: Any) -> Any:
        return {name: part.init(params[name]) for name, part in parts.items()}

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        both = {
            name: part.update(grads[name], state[name], params[name])
            for name, part in parts.items()
        }
        return {n: u for n, (u, _) in both.items()}, {n: s for n, (_, s) in both.items()}

    return optax.GradientTransformation(init, update)
