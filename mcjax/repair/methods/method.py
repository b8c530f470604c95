"""What a repair method is, and what every method is given."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax

from mcjax.core.errors import UserError
from mcjax.core.settings import Settings
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch
from mcjax.data.splits import Examples
from mcjax.models.network import Network
from mcjax.repair.evidence.invert import Inverted
from mcjax.training import LossFn
from mcjax.training.curve import CurveOptions
from mcjax.training.fit import Budget, Training
from mcjax.training.loop import ProjectFn

TRAIN_PASSES = 3  # forward, back to the inputs, back to the weights: as much work each


@dataclasses.dataclass(frozen=True)
class Case:
    """A suspect network, clean images and a budget: all that a repair method sees.

    No trigger and no test image is in it.

    Args:
        network: The network.
        suspect: The variables of the suspect, {"params", "batch_stats"}.
        second_fn: Gives the variables of a path's far end: a second network that is given, or a copy
            of the suspect, which is made when it is first asked for.
        images: The bonafide images on the device, perhaps repeated.
        bonafide: The bonafide images, each once.
        selection: Clean images for choices such as t.
        budget: Of every method that trains by SGD.
        curve: The curve of a path.
        options: The methods' own settings and learning rates by dotted name:
            "prune_fraction", "learning_rate.path".
        key_fn: The key of a named draw; the same name gives the same key.
        fit_fn: Runs a training with a key: `mcjax.training.fit.fit`, or a stage of a run.
        model_name: The architecture's name, if it has one.
        evidence_fn: Gives the triggers inverted on the suspect (`mcjax.repair.evidence`), which are
            inverted when they are first asked for.
        invert_fn: `invert_fn(name, variables)` inverts triggers on another network, on the same
            images; the same name gives the same draws.
        end_is_free: Whether the far end is trained with the path; `second_fn` gives where it begins.
    """

    network: Network
    suspect: PyTree
    second_fn: Callable[[], PyTree]
    images: Batch
    bonafide: Examples
    selection: Examples
    budget: Budget
    curve: CurveOptions
    options: Mapping[str, Any]
    key_fn: Callable[[str], jax.Array]
    fit_fn: Callable[[jax.Array, Training], dict[str, PyTree]]
    model_name: str = ""
    evidence_fn: Callable[[], dict[str, Inverted]] = dict
    invert_fn: Callable[[str, PyTree], dict[str, Inverted]] = lambda name, variables: {}
    end_is_free: bool = False

    def train(
        self,
        name: str,
        params: PyTree,
        batch_stats: PyTree,
        loss_fn: LossFn,
        fixed: PyTree = None,
        *,
        budget: Budget | None = None,
        project_fn: ProjectFn | None = None,
        part: str = "",
    ) -> dict[str, PyTree]:
        """Trains parameters on the bonafide images with the method's learning rate.

        Args:
            name: The method, of the learning rate and the key.
            params: The parameters before the first step.
            batch_stats: The running statistics before the first step.
            loss_fn: The objective.
            fixed: What the objective needs besides the parameters.
            budget: The case's if None. A step that computes several gradients takes fewer steps.
            project_fn: Applied to the parameters after each step.
            part: Name of this training, for a method that trains more than once.

        Returns:
            {"params", "batch_stats"} after the last step.

        Raises:
            UserError: The method has no learning rate, or the loss is not finite.
        """
        if f"learning_rate.{name}" not in self.options:
            raise UserError(
                f"{name!r} has no learning rate; give the name of a method that is registered with one"
            )
        rate = self.options[f"learning_rate.{name}"]
        training = Training(
            params,
            batch_stats,
            self.images,
            loss_fn,
            rate,
            budget or self.budget,
            fixed,
            project_fn=project_fn,
            part=part,
        )
        return self.fit_fn(self.key_fn(f"{name}_{part}" if part else name), training)

    def shortened(self, num_gradients: int, **changes: Any) -> Budget:
        """The case's budget for a method that computes several gradients per step.

        Args:
            num_gradients: Gradients of the network's loss per step; the steps are divided by it, so
                that all methods compute as many.
            **changes: Other fields of the budget.
        """
        num_steps = max(1, self.budget.num_steps // num_gradients)
        return dataclasses.replace(self.budget, num_steps=num_steps, **changes)


class Draws(NamedTuple):
    """Random networks around one, judged by their mean.

    Attributes:
        name: What the table calls them.
        center: The variables of the network in the middle.
        points: A function of an integer that gives parameters.
        number: How many are drawn.
    """

    name: str
    center: PyTree
    points: PyTree
    number: int


class Family(NamedTuple):
    """Networks that differ in one hyperparameter; `mcjax.repair.rule` chooses one of them.

    Attributes:
        setting: Name of the hyperparameter, a noun of the table: "threshold".
        values: Its values, from the gentlest repair to the strongest.
        networks: A callable pytree: `networks(i)` gives the variables of the network of values[i];
            `mcjax.evaluation.networks_as_path.Stacked.of(list)` for a list of networks.
    """

    setting: str
    values: tuple[float, ...]
    networks: PyTree


class Tuning(NamedTuple):
    """The hyperparameter of a method that makes one network, by which a study makes it a `Family`.

    Attributes:
        setting: Its name, a noun of the table: "strength", "rho".
        values: Its values, from the gentlest repair to the strongest, ascending or descending.
        at: `at(case, value)` is the case with that value.
        own: `own(options)` is the value that the options have already.
        cost: `cost(value)` is the work of a value, in trainings with the whole budget.
    """

    setting: str
    values: tuple[float, ...]
    at: Callable[[Case, float], Case]
    own: Callable[[Mapping[str, Any]], float]
    cost: Callable[[float], float]

    def tried(self, options: Mapping[str, Any]) -> tuple[float, ...]:
        """The values with the options' own, from the gentlest to the strongest."""
        values = {*self.values, self.own(options)}
        return tuple(sorted(values, reverse=self.values[0] > self.values[-1]))


class Plan(NamedTuple):
    """What is known of a study before it runs, to count its work.

    Attributes:
        options: As in `Case`.
        sizes: Numbers of bonafide images.
        num_steps: Training steps at each size.
        batch_size: Images per step.
        num_selection: Selection images.
        num_points: Points of a path that are evaluated.
    """

    options: Mapping[str, Any]
    sizes: tuple[int, ...]
    num_steps: tuple[int, ...]
    batch_size: int
    num_selection: int
    num_points: int


class Work(NamedTuple):
    """Steps of computation that are all alike.

    Attributes:
        name: What they do.
        num_steps: How many.
        images: Images per step.
        passes: Forward passes that a step is worth, per image.
        weight_passes: Times that a step reads or writes all weights, gradients and momenta.
        spread: What several chips share: "batch" (with data_parallel), "points" of a path, or
            "" for nothing.
    """

    name: str
    num_steps: float
    images: float
    passes: float
    weight_passes: float
    spread: str


def training_work(name: str, num_steps: float, batch_size: float, *, curve: bool = False) -> Work:
    """The work of a training by SGD."""
    # Weights are read forward and back; gradient, momentum and weight are written and read again.
    # A curve's point is made from three trees, and the gradient goes to one of them.
    return Work(name, num_steps, batch_size, TRAIN_PASSES, 12 if curve else 8, "batch")


def no_work(plan: Plan) -> Iterable[Work]:
    """The work of a method that only looks at networks."""
    return ()


@dataclasses.dataclass(frozen=True)
class Method:
    """A repair method: how it runs, and all that others need to know of it.

    Args:
        run: Repairs a case. A "network" method returns variables like the suspect's, a "path"
            method a curve of parameters from the suspect to the second network, a "draws" method
            a list of `Draws`, a "family" method a `Family`. A family trains at most once.
        kind: What `run` returns.
        learning_rate: Default of the setting `repair.learning_rate.NAME`, of the first half of
            the training; None without SGD.
        uses_images: Whether the result depends on the bonafide images, other than through
            BatchNorm's statistics and a second end that is made from them.
        settings: The method's own fields of `config.repair`.
        work: Its training, counted before it runs.
        end: For a "path" method, the method whose network its path leads to, made from the suspect;
            "" leads to the case's second network.
        needs_second: Whether it needs a second network at the far end, and has no use for a free one.
        num_networks: Networks that a "draws" or "family" method has judged.
        check: Refuses a network, given the shapes of its variables, that the method can't repair.
        tuning: For a "network" method, what a study may choose by the rule for families; None leaves
            the method with its options.
    """

    run: Callable[[Case], Any]
    kind: Literal["network", "path", "draws", "family"] = "network"
    learning_rate: float | None = None
    uses_images: bool = True
    settings: Settings = dataclasses.field(default_factory=dict)
    work: Callable[[Plan], Iterable[Work]] = no_work
    end: str = ""
    needs_second: bool = False
    num_networks: Callable[[Plan], int] = lambda plan: 1
    check: Callable[[PyTree], Any] = lambda variables: None
    tuning: Tuning | None = None

    def __post_init__(self) -> None:
        if self.tuning is not None and not (self.kind == "network" and self.trains):
            raise ValueError("only a method that trains one network has a tuning")

    @property
    def trains(self) -> bool:
        """Whether there is something to keep of it."""
        return self.work is not no_work


def trained(name: str, *, curve: bool = False) -> Callable[[Plan], Iterable[Work]]:
    """The work of a method that is one training at each size."""

    def work(plan: Plan) -> Iterable[Work]:
        yield training_work(f"train {name}", sum(plan.num_steps), plan.batch_size, curve=curve)

    return work


def num_repeats(size: int, sizes: Sequence[int]) -> int:
    """How often the images of one size stand in `Case.images`, so that all sizes are as long.

    Equal lengths share one compiled program. If the common multiple is too large, the images are
    not repeated.

    Example:
        >>> num_repeats(50, [50, 100, 400])
        8
    """
    length = math.lcm(*sizes)
    return length // size if length <= 10 * max(sizes) else 1
