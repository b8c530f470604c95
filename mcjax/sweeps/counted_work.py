"""Counts the work of a repair study from its config, before anything runs."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mcjax import models
from mcjax.core import named_options
from mcjax.core.errors import UserError
from mcjax.core.operation_counts import count
from mcjax.curves.renormalise import hidden_layers
from mcjax.experiments.repair_study.explain import STRENGTHS
from mcjax.experiments.repair_study.study import num_repair_steps
from mcjax.experiments.stages.training import num_training_steps
from mcjax.models.network import Network, from_linen
from mcjax.repair import methods
from mcjax.repair.evidence.control import BATCH_SIZE
from mcjax.repair.methods import taught
from mcjax.repair.methods.method import Plan, Work, training_work
from mcjax.runs.config import flat

DATA = {  # (height, width, channels), classes, training images, test images
    "cifar10": ((32, 32, 3), 10, 50_000, 10_000),
    "cifar100": ((32, 32, 3), 100, 50_000, 10_000),
    "svhn_cropped": ((32, 32, 3), 10, 73_257, 26_032),
    "fashion_mnist": ((28, 28, 1), 10, 60_000, 10_000),
    "mnist": ((28, 28, 1), 10, 60_000, 10_000),
    "digits": ((8, 8, 1), 10, 1_297, 500),
}


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


def size(config: ConfigDict) -> Size:
    """The size of a config's network, counted from its program.

    Raises:
        UserError: The data set's shape is not known here.
    """
    network, image_shape = _network(config), _data(config)[0]
    variables = jax.eval_shape(network.init, jax.random.key(0))
    work = count(network.apply, variables, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return Size(work.operations, work.outputs, parameters, network.has_batch_stats)


def stages(config: ConfigDict, *, has_batch_stats: bool) -> list[Work]:
    """Every stage of a backdoor run, as `mcjax.experiments` goes through them.

    Args:
        config: A config of `mcjax.runs.config.backdoor`.
        has_batch_stats: Whether BatchNorm is recomputed at each point.

    Returns:
        The stages; those of several seeds in one run counted together.

    Raises:
        UserError: It is another experiment, or the data set's size is not known here.
    """
    if config.experiment != "backdoor":
        raise UserError(
            f"config.experiment is {config.experiment!r}; only the work of backdoor can be counted"
        )
    num_seeds = len(config.seeds) or 1
    one = [*_networks(config), *_repairs(config), *_judgements(config, has_batch_stats)]
    per_seed = [stage._replace(num_steps=num_seeds * stage.num_steps) for stage in one]
    return [*per_seed, *_explanations(config, has_batch_stats)]


def _data(config: ConfigDict) -> tuple[tuple[int, int, int], int, int, int]:
    if config.data.name not in DATA:
        raise UserError(f"the size of {config.data.name} is unknown; use one of {', '.join(DATA)}")
    return DATA[config.data.name]


def _network(config: ConfigDict) -> Network:
    image_shape, num_classes, _, _ = _data(config)
    options = config.model.options.to_dict()
    module = models.create(config.model.name, num_classes=num_classes, **options)
    return from_linen(module, image_shape)


def _networks(config: ConfigDict) -> Iterator[Work]:
    """The attacker's: two tampered networks, or one, and an untampered twin."""
    *_, num_train, _ = _data(config)
    left = num_train
    if config.data.protocol == "disjoint":
        left -= config.data.num_bonafide + config.data.num_selection
    o = config.endpoint
    steps = num_training_steps(o.num_epochs, left, o.batch_size)
    number = 3 if config.repair.pair == "both_tampered" else 2
    yield training_work("two networks and a twin", number * steps, o.batch_size)
    if named_options.parse(config.attack.trigger)[0] == "input_aware":
        # The generator is small; its classifier is trained like an endpoint.
        yield training_work("the trigger's generator", steps, o.batch_size)
    if config.attack.attacker in ("path_aware", "unalignment_aware"):
        steps = num_training_steps(config.attack.curve_epochs, left, o.batch_size)
        yield training_work("the attacker's curve", steps, o.batch_size, curve=True)


def _plan(config: ConfigDict) -> Plan:
    o, sizes = config.repair, tuple(sorted(config.repair.sizes))
    return Plan(
        options=flat(o),
        sizes=sizes,
        num_steps=tuple(num_repair_steps(o, n) for n in sizes),
        batch_size=o.batch_size,
        num_selection=config.data.num_selection,
        num_points=config.evaluation.num_points,
    )


def _repairs(config: ConfigDict) -> Iterator[Work]:
    """The work of all methods at all sizes."""
    names = list(config.repair.methods)
    if config.repair.pair == "tampered_and_fine_tuned" and "fine_tune" not in names:
        names.append("fine_tune")  # the second end
    for name in names:
        times = sum(_values(name, config))
        for one in methods.get(name).work(_plan(config)):
            yield one._replace(num_steps=times * one.num_steps)
    o = config.repair
    if o.choose == "evidence" or any(name.startswith("taught_") for name in names):
        steps = len(o.evidence.forms) * len(o.sizes) * o.evidence.num_steps
        stamped = 2 * o.evidence.batch_size  # for two restarts; forward, and back to the images
        num_classes, again = _data(config)[1], sum(name in taught.METHODS for name in names)
        yield Work("inversion of triggers", steps, num_classes * stamped, 2, 1, "")
        yield Work("inversion anew", steps * again * (o.taught.rounds - 1), stamped, 2, 1, "")
        controls = len(o.sizes) * o.evidence.control_steps
        yield training_work("train control", controls, BATCH_SIZE, curve=True)


def _values(name: str, config: ConfigDict) -> list[float]:
    """The work of each network that a method trains at a size, in trainings with the whole budget."""
    tuning = methods.get(name).tuning
    if tuning is None or not config.repair.tune or name not in config.repair.methods:
        return [1.0]
    return [tuning.cost(value) for value in tuning.tried(flat(config.repair))]


def _look(name: str, config: ConfigDict, points: float, images: float) -> Work:
    batch = min(config.evaluation.batch_size, images)
    return Work(name, points * images / batch, batch, 1, 1, "points")


def _judged(config: ConfigDict) -> tuple[float, float]:
    """Images that judge one network: all, and those of them that are attacked."""
    _, num_classes, _, num_test = _data(config)
    num_test = config.evaluation.test_images or num_test
    success = num_test
    if config.attack.label_map != "all_to_all":
        success = num_test * (num_classes - 1) / num_classes  # those of the target do not count
    selection = config.data.num_selection if config.data.protocol == "disjoint" else num_test
    return selection + num_test + success, success


def _judgements(config: ConfigDict, has_batch_stats: bool) -> Iterator[Work]:
    """Forward passes at every point of every path, and of every other network."""
    plan = _plan(config)
    sizes, largest = plan.sizes, plan.sizes[-1]
    judged, _ = _judged(config)
    needs_images = config.repair.pair == "tampered_and_fine_tuned"
    normalised = has_batch_stats and config.evaluation.batch_stats == "bonafide"
    num_single = 3  # the suspect, the second network and the twin
    for name in config.repair.methods:
        method = methods.get(name)
        used = sizes if method.uses_images or needs_images else (largest,)
        if method.kind == "network":
            num_single += len(used) * len(_values(name, config))
            continue
        along = method.kind == "path"
        number = plan.num_points if along else method.num_networks(plan)
        recomputed = normalised and method.kind != "family"
        own = sum(judged + (largest if along else 0) + (n if recomputed else 0) for n in used)
        yield _look(f"{number} points of each {name}" if along else name, config, number, own)
        if along and config.repair.renormalise:
            passes = _renormalising_passes(config)
            own = sum(judged + largest + passes * n for n in used)
            yield _look(f"{number} renormalised points of each {name}", config, number, own)
    yield _look("other networks", config, num_single, judged)


def _explanations(config: ConfigDict, has_batch_stats: bool) -> Iterator[Work]:
    """Input gradients along the largest path, and noise around the suspect: of the first seed."""
    images, largest = config.explain.num_images, max(config.repair.sizes)
    own = largest if has_batch_stats and config.evaluation.batch_stats == "bonafide" else 0
    points = config.evaluation.num_points
    yield _look(
        "input gradients", config, points, 4 * images + own
    )  # clean, stamped; there and back
    draws = len(STRENGTHS) * config.explain.num_draws
    yield _look("surroundings", config, draws, 2 * images + own)
    yield from _relearning(config)


def _renormalising_passes(config: ConfigDict) -> float:
    """Forward passes that correct a point, per image: one per hidden layer, which ends there."""
    network = _network(config)
    shape = jax.ShapeDtypeStruct((1, *_data(config)[0]), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0))
    outputs = network.layer_outputs
    return (len(hidden_layers(outputs, variables, shape)) + 1) / 2 if outputs else 0.0


def _relearning(config: ConfigDict) -> Iterator[Work]:
    """Fine-tuning with poisoned images, of points of the path and of each method's network."""
    o = config.explain
    if not o.relearn_images:
        return
    both = config.repair.pair in ("both_tampered", "tampered_and_clean")
    single = 2 + both + sum(methods.get(n).kind != "draws" for n in config.repair.methods)
    networks, times = o.relearn_points + single, len(o.relearn_images) * o.relearn_draws
    steps = networks * times * o.relearn_steps
    training = training_work("re-learning", steps, config.repair.batch_size)
    yield training._replace(spread="points")
    judged, _ = _judged(config)
    seen = judged - _plan(config).num_selection
    yield _look("re-learned networks", config, networks * (times + 1), seen)
