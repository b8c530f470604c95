"""Small networks, clean and tampered, whose truth is known: how they are trained, searched and judged."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcjax import cpu_convolution, data, models
from mcjax.attacks.poisoning import backdoor, triggers
from mcjax.core.files import write
from mcjax.core.keys import stream
from mcjax.data.splits import Examples, Splits, split
from mcjax.models.network import Network, from_linen
from mcjax.repair.evidence.control import Control
from mcjax.repair.evidence.invert import Inverted, invert
from mcjax.training.fit import Budget, Training, fit
from mcjax.training.objectives import endpoint_loss

# Strengths at which a network of a few epochs learns the trigger.
TRIGGERS: dict[str, dict[str, dict[str, float]]] = {
    "digits": {
        "square": {},
        "four_pixels": {},
        "blended": {},
        "low_frequency": {"amplitude": 0.3},
        "wanet": {"strength": 2.0},
    },
    "fashion_mnist": {
        "square": {},
        "pixel": {},
        "four_pixels": {},
        "blended": {},
        "sinusoidal": {},
        "low_frequency": {},
        "wanet": {},
    },
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn": ("cnn", {"width": 16}),
    "cnn with BatchNorm": ("cnn", {"width": 16, "batch_norm": True}),
    "resnet8": ("resnet8", {"width": 16}),
}


class Search(NamedTuple):
    """How networks of a data set are trained and looked at."""

    budget: Budget
    num_bonafide: int
    num_steps: int


SEARCHES = {
    "digits": Search(Budget(num_steps=600, batch_size=64), 400, 200),
    "fashion_mnist": Search(Budget(num_steps=1230, batch_size=128), 1000, 100),
}


def parsed(parser: argparse.ArgumentParser, name: str) -> argparse.Namespace:
    """The command line: which networks are measured, and the file of the results.

    Args:
        parser: The command's parser, with `--control` where there are several kinds.
        name: The usual file's, `NAME.json` for digits and controls by paths.
    """
    parser.add_argument("--data", choices=list(TRIGGERS), default="digits")
    parser.add_argument("--number", type=int, default=10, help="networks per trigger")
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--triggers", nargs="*", help='all of the data set; "clean": the controls')
    parser.add_argument("--architectures", nargs="+", default=["cnn", "cnn with BatchNorm"])
    parser.add_argument("--output", type=Path, help="default: by data and control")
    options = parser.parse_args()
    data_part = "" if options.data == "digits" else "_fashion"
    control_part = "_away" if getattr(options, "control", "path") == "away" else ""
    options.output = options.output or Path(f"benchmarks/{name}{data_part}{control_part}.json")
    return options


def key_of(row: dict[str, Any]) -> tuple[str, str, int]:
    """What names a network."""
    return row["architecture"], row["trigger"], row["seed"]


def measured_rows(
    options: argparse.Namespace, measure_fn: Callable[[str, str, str, int], dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows of all networks that were asked for now or before, each kept as soon as it is measured.

    Args:
        options: What `parsed` returns.
        measure_fn: `measure_fn(data, architecture, trigger, seed)` gives a network's row.
    """
    cpu_convolution.enable()
    rows = json.loads(options.output.read_text()) if options.output.exists() else []
    known = set(map(key_of, rows))
    triggers_asked = options.triggers or ["clean", *TRIGGERS[options.data]]
    for seed in range(options.first_seed, options.first_seed + options.number):
        for architecture in options.architectures:
            for trigger in (t.removesuffix("clean") for t in triggers_asked):
                if (architecture, trigger, seed) in known:
                    continue
                rows.append(measure_fn(options.data, architecture, trigger, seed))
                lines = ",\n".join(json.dumps(row) for row in rows)
                write(options.output, f"[\n{lines}\n]\n")
    return rows


class Suspect(NamedTuple):
    """A network whose truth is known.

    Attributes:
        network: The network.
        variables: Its variables.
        splits: The images.
        stamp: The attacker's trigger; None if the network is clean.
    """

    network: Network
    variables: dict[str, Any]
    splits: Splits
    stamp: Any


def suspect_of(name: str, architecture: str, trigger: str, seed: int) -> Suspect:
    """A network of a data set, clean with the trigger ""."""
    how = SEARCHES[name]
    splits = split(data.load(name), seed=seed, num_bonafide=how.num_bonafide, num_selection=150)
    image_shape = splits.train["image"].shape[1:]
    model, changes = ARCHITECTURES[architecture]
    network = from_linen(models.create(model, num_classes=10, **changes), image_shape)
    stamp = None
    examples: Examples = splits.train
    if trigger:
        stamp = triggers.create(trigger, image_shape, **TRIGGERS[name][trigger])
        examples = backdoor.poison(examples, stamp, seed=seed, num_classes=10).examples
    return Suspect(network, trained(network, examples, seed, how.budget), splits, stamp)


def searched(
    name: str, suspect: Suspect, seed: int, control: Control | None = None
) -> dict[str, Inverted]:
    """The triggers inverted on a network, tried on its control if there is one."""
    images = jax.tree.map(jnp.asarray, suspect.splits.bonafide)
    return invert(
        stream(jax.random.key(seed), "evidence"),
        suspect.network,
        suspect.variables,
        images,
        num_steps=SEARCHES[name].num_steps,
        num_restarts=2,
        control=control,
    )


def trained(network: Network, examples: Examples, seed: int, budget: Budget) -> dict[str, Any]:
    """A network trained on images."""
    key = jax.random.key(seed)
    start = {"batch_stats": {}, **network.init(stream(key, "init"))}
    images = {k: jnp.asarray(v) for k, v in examples.items()}
    training = Training(
        start["params"], start["batch_stats"], images, endpoint_loss(network), 0.05, budget
    )
    return fit(key, training)


def rates(network: Network, variables: Any, splits: Splits, stamp: Any) -> dict[str, float]:
    """Clean accuracy, and attack success where there is a trigger, on at most 2,000 images."""

    def right(examples: Examples) -> float:
        x = jnp.asarray(examples["image"][:2000], jnp.float32) / 255
        if examples["image"].dtype != np.uint8:
            x = jnp.asarray(examples["image"][:2000])
        answers = jax.jit(network.apply)(variables, x).argmax(-1)
        return float((np.asarray(answers) == examples["label"][:2000]).mean())

    found = {"clean_accuracy": right(splits.test)}
    if stamp is not None:
        attacked = backdoor.attack_set(splits.test, stamp, num_classes=10)
        found["attack_success_rate"] = right(attacked)
    return found
