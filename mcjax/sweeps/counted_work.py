"""Counts the work of a repair study from its config, before anything runs."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mcjax import models
from mcjax.errors import UserError
from mcjax.experiments.explain import STRENGTHS
from mcjax.experiments.fit import num_training_steps
from mcjax.experiments.methods import ANY_SIZE
from mcjax.experiments.study import num_repair_steps
from mcjax.network import from_linen
from mcjax.operations import count

DATA = {  # (height, width, channels), classes, training images, test images
    "cifar10": ((32, 32, 3), 10, 50_000, 10_000),
    "cifar100": ((32, 32, 3), 100, 50_000, 10_000),
    "svhn_cropped": ((32, 32, 3), 10, 73_257, 26_032),
    "fashion_mnist": ((28, 28, 1), 10, 60_000, 10_000),
    "mnist": ((28, 28, 1), 10, 60_000, 10_000),
    "digits": ((8, 8, 1), 10, 1_297, 500),
}
TRAIN_PASSES = 3  # forward, gradient of the inputs, gradient of the weights: equal work
ASCENT_PASSES = 3  # of I-BAU: the network's predictions, then forward and back to the images

# Repairs whose work is counted below. Another one is an error: its cost would be missing from the sum.
TRAINED = ("path", "fine_tune", "scratch", "prune", "fine_prune")  # trained like a network
SINGLE = {"fine_tune", "scratch", "prune", "fine_prune", "i_bau"}  # leave one network, not a path
COUNTED_METHODS = {*TRAINED, *SINGLE, "line", "noise"}


def descent_passes(num_fixed_point: int) -> int:
    """The cost of a step of I-BAU's hypergradient in forward passes, counted from its program."""
    return 12 + 4 * num_fixed_point


class Size(NamedTuple):
    """A network's size.

    Attributes:
        operations: Operations of a forward pass of one image.
        activations: Output values of all convolutions and matrix products, for one image.
        parameters: Number of parameters.
        has_batch_stats: Whether the network has BatchNorm, which adds passes over activations.
    """

    operations: float
    activations: float
    parameters: float
    has_batch_stats: bool


class Stage(NamedTuple):
    """A number of equal steps.

    Attributes:
        name: What they do.
        num_steps: How many steps.
        images: Images per step.
        passes: Cost of a step per image, in forward passes.
        weight_passes: How often a step reads or writes all weights, gradients and momenta.
        spread: What several chips share: "batch" (with data_parallel), "points" of a path, or "".
    """

    name: str
    num_steps: float
    images: float
    passes: float
    weight_passes: float
    spread: str


def size(config: ConfigDict) -> Size:
    """The size of a config's network, counted from its program.

    Raises:
        UserError: The data set is not in `DATA`.
    """
    image_shape, num_classes, _, _ = _data(config)
    options = config.model.options.to_dict()
    module = models.create(config.model.name, num_classes=num_classes, **options)
    network = from_linen(module, image_shape)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    work = count(network.apply, variables, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return Size(work.operations, work.outputs, parameters, network.has_batch_stats)


def stages(config: ConfigDict, *, has_batch_stats: bool) -> list[Stage]:
    """Every stage of a backdoor run, in the order of `mcjax.experiments`.

    Args:
        config: A config of `mcjax.config.backdoor`.
        has_batch_stats: Whether BatchNorm is recomputed at each point.

    Returns:
        The stages; stages of several seeds in one run are counted together.

    Raises:
        UserError: The experiment is not backdoor, a repair method's cost is unknown, or the data set
            is not in `DATA`.
    """
    if config.experiment != "backdoor":
        raise UserError(
            f"config.experiment is {config.experiment!r}; only the work of backdoor can be counted"
        )
    if unknown := sorted({*config.repair.methods} - COUNTED_METHODS):
        raise UserError(
            f"the cost of the repair method {unknown[0]!r} is unknown; count it in {__name__} first, "
            "or leave it out of config.repair.methods"
        )
    num_seeds = len(config.seeds) or 1
    one = [*_networks(config), *_repairs(config), *_judgements(config, has_batch_stats)]
    per_seed = [stage._replace(num_steps=num_seeds * stage.num_steps) for stage in one]
    return [*per_seed, *_explanations(config, has_batch_stats)]


def _data(config: ConfigDict) -> tuple[tuple[int, int, int], int, int, int]:
    if config.data.name not in DATA:
        raise UserError(f"the size of {config.data.name} is unknown; use one of {', '.join(DATA)}")
    return DATA[config.data.name]


def _train(name: str, num_steps: float, batch_size: int, *, curve: bool = False) -> Stage:
    # Weights are read forward and back; gradient, momentum and weight are written and read again.
    # A point of a curve is computed from three trees, and the gradient goes to one of them.
    return Stage(name, num_steps, batch_size, TRAIN_PASSES, 12 if curve else 8, "batch")


def _networks(config: ConfigDict) -> Iterator[Stage]:
    """The attacker's trainings: two tampered networks, or one, and a clean twin."""
    *_, num_train, _ = _data(config)
    left = num_train
    if config.data.protocol == "disjoint":
        left -= config.data.num_bonafide + config.data.num_selection
    o = config.endpoint
    steps = num_training_steps(o.num_epochs, left, o.batch_size)
    number = 3 if config.repair.pair == "both_tampered" else 2
    yield _train("two networks and a twin", number * steps, o.batch_size)
    if config.attack.attacker == "path_aware":
        steps = num_training_steps(config.attack.curve_epochs, left, o.batch_size)
        yield _train("the attacker's curve", steps, o.batch_size, curve=True)


def _repairs(config: ConfigDict) -> Iterator[Stage]:
    """The trainings of all methods at all sizes."""
    o, sizes = config.repair, sorted(config.repair.sizes)
    steps = sum(num_repair_steps(o, n) for n in sizes)
    made_end = o.pair == "tampered_and_fine_tuned"
    for name in TRAINED:
        if name in o.methods or (name == "fine_tune" and made_end):
            yield _train(f"train {name}", steps, o.batch_size, curve=name == "path")
    if "i_bau" in o.methods:
        rounds, batch = o.i_bau.num_rounds, o.batch_size
        length = math.lcm(*sizes)
        lengths = [length if length <= 10 * sizes[-1] else n for n in sizes]
        descents = sum(max(1, n // batch) for n in lengths) * rounds
        ascents = 10 * rounds * len(sizes)
        passes = descent_passes(o.i_bau.num_fixed_point)
        yield Stage("train i_bau", descents, batch, passes, 14, "")
        yield Stage("ascents of i_bau", ascents, batch, ASCENT_PASSES, 2, "")


def _look(name: str, config: ConfigDict, points: float, images: float) -> Stage:
    batch = min(config.evaluation.batch_size, images)
    return Stage(name, points * images / batch, batch, 1, 1, "points")


def _judged(config: ConfigDict) -> tuple[float, float]:
    """The images that judge one network: all of them, and the attacked ones."""
    _, num_classes, _, num_test = _data(config)
    num_test = config.evaluation.test_images or num_test
    success = num_test
    if config.attack.label_map != "all_to_all":
        success = (
            num_test * (num_classes - 1) / num_classes
        )  # images of the target class do not count
    selection = config.data.num_selection if config.data.protocol == "disjoint" else num_test
    return selection + num_test + success, success


def _judgements(config: ConfigDict, has_batch_stats: bool) -> Iterator[Stage]:
    """The forward passes of every point of every path, and of every other network."""
    o, sizes = config.repair, sorted(config.repair.sizes)
    judged, _ = _judged(config)
    num_points = config.evaluation.num_points
    needs_images = o.pair == "tampered_and_fine_tuned"
    normalised = has_batch_stats and config.evaluation.batch_stats == "bonafide"
    for name in ("path", "line"):
        if name in o.methods:
            used = sizes[-1:] if name in ANY_SIZE and not needs_images else sizes
            own = sum(judged + sizes[-1] + (n if normalised else 0) for n in used)
            yield _look(f"{num_points} points of each {name}", config, num_points, own)
    if "noise" in o.methods:
        used = sizes if needs_images else sizes[-1:]
        own = sum(judged + (n if normalised else 0) for n in used)
        yield _look("noise", config, 2 * o.num_draws, own)
    single = SINGLE & {*o.methods}
    yield _look("other networks", config, 3 + len(single) * len(sizes), judged)
    if "fine_prune" in o.methods:  # at most 64 evaluations, one after another
        images = sum(n + 65 * config.data.num_selection for n in sizes)
        yield _look("search of fine_prune", config, 1, images)._replace(spread="")


def _explanations(config: ConfigDict, has_batch_stats: bool) -> Iterator[Stage]:
    """Input gradients along the largest path, and noise around the suspect, for the first seed."""
    images, largest = config.explain.num_images, max(config.repair.sizes)
    own = largest if has_batch_stats and config.evaluation.batch_stats == "bonafide" else 0
    points = config.evaluation.num_points
    # Clean and stamped images, forward and back.
    yield _look("input gradients", config, points, 4 * images + own)
    draws = len(STRENGTHS) * config.explain.num_draws
    yield _look("surroundings", config, draws, 2 * images + own)
