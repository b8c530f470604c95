"""Looks along the straight line and a trained curve between two networks of one architecture.

    python -m mcjax.path --start a.pt2 --end b.pt2 --data clean.npz --out look
    python -m mcjax.path --start a.pt2 --end b.pt2 --data images --out look --eps 8/255 --eigenvalue
    python -m mcjax.path --start a.pt2 --end b.pt2 --data images --out look --attack apgd --eps 8/255
    python -m mcjax.path --start a.pt --end b.pt --data clean.npz --out look --num_steps 0

Writes to --out: path.csv (one row per path and t), path.png, report.html and result.json. The curve is
trained on most of the images; a fifth is held out to measure accuracy and loss. --num_steps 0 measures
the straight line only. A complete folder is left as it is when the same command runs again.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from absl import flags

from mcjax import alignment, cpu_convolution, models
from mcjax.alignment.by_name import WAYS, aligned
from mcjax.cli import command, data_flags
from mcjax.core import fields
from mcjax.core.bucket import local
from mcjax.core.errors import UserError
from mcjax.core.keys import check_seed, stream
from mcjax.core.progress import Progress, progress, say
from mcjax.core.tree import PyTree, digest
from mcjax.curves import MOST_BENDS, Bezier
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.curves.geometry import distances
from mcjax.data.batches import to_unit
from mcjax.data.given import Examples, given_examples, given_labels
from mcjax.data.stratify import holdout
from mcjax.evaluation.look import NUM_STEPS, Quantity, along, eigenvalue, robust
from mcjax.interop import normalise
from mcjax.models.given import as_network, check_variables, classes_of
from mcjax.models.network import Network
from mcjax.runs.output_folder import answered, asked, new_folder
from mcjax.training.connect import connect
from mcjax.training.losses import classification_metrics

if TYPE_CHECKING:
    from mcjax.runs.suspect import Suspect

LINE, CURVE = "line", "curve"
EPS = "8/255"
CHECKS = {
    "num_points": fields.whole(2, 100_000),
    "num_steps": fields.whole(0),
    "num_bends": fields.whole(1, MOST_BENDS),
    "batch_size": fields.whole(1, 2**20),
    "learning_rate": fields.number(0, 1e3, above=True),
    "align": fields.choice(*WAYS),
    "attack": fields.choice("none", *NUM_STEPS),
    "attack_steps": fields.whole(1),
    "attack_queries": fields.whole(1),
    "attack_images": fields.whole(1),
    "hessian_images": fields.whole(1),
    "held_out": fields.number(0, 1, above=True, below=True),
}


def define_flags() -> None:
    """Defines the command's flags, when the command runs and not when the module is imported."""
    flags.DEFINE_string(
        "start",
        None,
        "The network at t = 0: .pt2 of torch.export.save, .pt, .pth, .safetensors, or an mcjax "
        "checkpoint folder.",
    )
    flags.DEFINE_string("end", None, "The network at t = 1, of the same architecture.")
    flags.DEFINE_string(
        "arch",
        None,
        f"Their architecture, NAME or NAME:option=value,...; NAME is one of {', '.join(models.names())}.",
    )
    flags.DEFINE_string(
        "normalise",
        None,
        f"Normalisation of their images: {', '.join(normalise.KNOWN)}, or MEAN,.../STD,...",
    )
    data_flags.define("Images")
    flags.DEFINE_string("out", None, "A new folder for the results.")
    flags.DEFINE_integer("num_points", 61, "Number of t's, equally spaced, including the ends.")
    flags.DEFINE_integer(
        "num_steps", 2000, "Training steps of the curve; 0 measures the straight line only."
    )
    flags.DEFINE_integer("num_bends", 1, "Bends of the curve.")
    flags.DEFINE_integer("batch_size", 128, "Images per step.")
    flags.DEFINE_float("learning_rate", 0.05, "Learning rate of the curve's training.")
    flags.DEFINE_float("held_out", 0.2, "Fraction of the images held out to measure.")
    flags.DEFINE_string(
        "align",
        "none",
        f"Permute the channels of the second network: {', '.join(WAYS)}.",
    )
    flags.DEFINE_string(
        "attack",
        None,
        f"Robust accuracy under pgd, apgd or autoattack (slow); or none. Default: pgd if --eps is given; --eps {EPS}.",
    )
    flags.DEFINE_string(
        "eps", None, f"Radius of the attack's l_inf ball, such as {EPS} or 0.03; 0: no attack."
    )
    flags.DEFINE_integer(
        "attack_steps",
        None,
        f"Steps of the attack; default: {', '.join(f'{n} of {name}' for name, n in NUM_STEPS.items())}.",
    )
    flags.DEFINE_integer("attack_queries", 5000, "Queries of AutoAttack's Square.")
    flags.DEFINE_integer("attack_images", 500, "Held-out images to attack, at most.")
    flags.DEFINE_boolean(
        "eigenvalue", False, "Measure the largest eigenvalue of the input Hessian (mean)."
    )
    flags.DEFINE_integer("hessian_images", 100, "Held-out images for it, at most.")
    flags.DEFINE_integer("seed", 0, "Random seed.")


def main() -> None:
    """Reads the flags and looks."""
    values = {name: getattr(flags.FLAGS, name) for name in ("start", "end", "data", "out")}
    for name, value in values.items():
        if not value:
            raise UserError(f"--{name} is missing; see --help")
    given = command.arguments(__name__, data_flags.__name__)
    folder = local(given.pop("out")).absolute()
    question = asked(given, (values["start"], values["end"], data_flags.place(values["data"])))
    before = answered(folder, question)
    if before is not None:
        command.say_already(before, folder / "report.html")
        return
    folder = new_folder(folder, "--out", question)
    look(values["start"], values["end"], values["data"], folder, question)


def look(start: str, end: str, data: str, folder: Path, question: Mapping[str, Any]) -> None:
    """Measures the paths between two networks, with the other settings from the flags.

    Args:
        start: Path of the first network.
        end: Path of the second.
        data: Path of the images.
        folder: The output folder, a new one.
        question: What is asked, for result.json.

    Raises:
        UserError: An input is invalid.
    """
    # Imported here, because they take longer than all else where the folder is complete.
    from mcjax.report.path_page import write_look
    from mcjax.runs.suspect import compare_with_torch, load_suspect, load_variables

    options = flags.FLAGS
    settings: dict[str, Any] = {name: getattr(options, name) for name in CHECKS}
    settings["attack"], settings["eps"] = attack_of(options.attack, options.eps)
    if settings["attack_steps"] is None:
        settings["attack_steps"] = NUM_STEPS.get(settings["attack"], NUM_STEPS["pgd"])
    for name, field in CHECKS.items():
        fields.check(f"--{name}", settings[name], field)
    check_seed(options.seed, "--seed")
    images = data_flags.read(data)
    suspect = load_suspect(local(start), options.arch, images["image"].shape[1:], options.normalise)
    other = load_variables(local(end), suspect)
    check_variables(f"--start {start}", suspect.variables, suspect.network)
    check_variables(f"--end {end}", other, suspect.network)
    if digest(suspect.variables) == digest(other):
        raise UserError(f"{end} has the same weights as {start}; give two different networks")
    parts, num_classes = _split(suspect, images, settings["held_out"])
    compare_with_torch(suspect, local(end))  # slow
    cpu_convolution.enable()
    straight, curves = _paths(suspect, other, parts["train"], settings, options.seed)
    measured = _quantities(
        suspect.network, parts, num_classes, settings, options.eigenvalue, options.seed
    )
    ts = np.linspace(0, 1, settings["num_points"])
    tables: dict[str, Mapping[str, np.ndarray]] = {}
    for name, curve in curves.items():
        with progress(name, len(ts), unit="point") as bar:
            tables[name] = along(measured, curve, ts, functools.partial(_advance, bar))
    facts = {"start": start, "end": end, "data": data, "arch": suspect.arch}
    facts |= {"normalise": suspect.normalise, **data_flags.settings()}
    numbers = {
        "distance_of_ends": float(distances(straight, np.ones(1))[0]),
        "num_train": len(parts["train"]["label"]),
        "num_held_out": len(parts["held_out"]["label"]),
        "num_attacked": _count(settings["eps"] > 0, parts, settings["attack_images"]),
        "num_hessian": _count(options.eigenvalue, parts, settings["hessian_images"]),
    }
    rest = {"eigenvalue": options.eigenvalue, "seed": options.seed}
    sentences = write_look(folder, ts, tables, numbers, {**facts, **settings, **rest}, question)
    for sentence in sentences:
        say(sentence)
    say(f"results in {folder}: report.html, result.json, path.csv, path.png")


def _advance(bar: Progress, points: int, values: dict[str, float]) -> None:
    bar.advance(points, accuracy=values["accuracy"])


def attack_of(attack: str | None, eps: str | None) -> tuple[str, float]:
    """The attack and its radius.

    Args:
        attack: An attack, "none", or None: "pgd" if there is a radius.
        eps: The radius, a number or a fraction; None: `EPS`. 0: no attack.

    Raises:
        UserError: The radius is not a number in [0, 1], or given with "none".

    Example:
        >>> attack_of(None, None), attack_of("pgd", "1/4"), attack_of("pgd", "0")
        (('none', 0.0), ('pgd', 0.25), ('none', 0.0))
    """
    attack = attack or ("none" if eps is None else "pgd")
    text = eps or ("0" if attack == "none" else EPS)
    try:
        radius = float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError, OverflowError):
        radius = -1.0
    if not 0 <= radius <= 1:
        raise UserError(f"--eps is {text!r}; give a radius from 0 to 1, such as {EPS}")
    if attack == "none" and radius:
        raise UserError("--eps needs an attack; give --attack pgd, or leave --eps out")
    return attack if radius else "none", radius


def _split(
    suspect: "Suspect", images: dict[str, np.ndarray], share: float
) -> tuple[dict[str, Examples], int]:
    """The images to train on and those held out, stratified by class; the number of classes."""
    whole = given_examples("the", images)
    num_classes = classes_of(suspect.network, suspect.variables, whole["image"])
    whole["label"] = given_labels("the", whole["label"], num_classes)
    size = len(whole["label"])
    if size < 2:
        raise UserError("one image can't be split; give more")
    num_held_out = min(max(1, round(share * size)), size - 1)
    index = holdout(whole["label"], num_test=num_held_out, seed=0)
    named = zip(("train", "held_out"), index, strict=True)
    return {name: {k: v[i] for k, v in whole.items()} for name, i in named}, num_classes


def _paths(
    suspect: "Suspect", other: PyTree, images: Examples, settings: dict[str, Any], seed: int
) -> tuple[Bezier, dict[str, CurveWithStats]]:
    """The straight line's parameters, and the paths; both have as many bends, so they share programs."""
    network, key = suspect.network, jax.random.key(seed)
    first, last = (as_network(network, v)[1] for v in (suspect.variables, other))

    def batches() -> Iterator[jax.Array]:
        for i in range(0, len(images["label"]), 250):
            yield to_unit(images["image"][i : i + 250])

    spec_fn = functools.partial(
        alignment.permutation_spec, network.apply, first, images["image"].shape[1:]
    )
    last = aligned(
        stream(key, "alignment"), settings["align"], spec_fn, network, first, last, batches
    )
    num_steps, num_bends = (
        settings["num_steps"],
        settings["num_bends"] * bool(settings["num_steps"]),
    )
    found = connect(
        stream(key, "curve"),
        network,
        first,
        last,
        images,
        num_bends=num_bends,
        learning_rate=settings["learning_rate"],
        verbose=True,
        num_steps=max(num_steps, 1),  # without bends nothing is trained
        batch_size=settings["batch_size"],
    )
    straight = Bezier.connect(first["params"], last["params"], num_bends)
    line = dataclasses.replace(found, curve=straight)
    return straight, {LINE: line, CURVE: found} if num_steps else {LINE: line}


def _quantities(
    network: Network,
    parts: dict[str, Examples],
    num_classes: int,
    settings: dict[str, Any],
    with_eigenvalue: bool,
    seed: int,
) -> list[Quantity]:
    """What is measured, each on its own images; subsets are stratified by class."""
    metrics, held_out = classification_metrics(network.apply), parts["held_out"]

    def some(number: int) -> Examples:
        number = min(number, len(held_out["label"]))
        index = holdout(held_out["label"], num_test=number, seed=1)[1]
        return {k: v[index] for k, v in held_out.items()}

    found = [Quantity(metrics, held_out), Quantity(metrics, parts["train"], prefix="train_")]
    if settings["eps"]:
        attacked = robust(
            network,
            seed=seed,
            eps=settings["eps"],
            attack=settings["attack"],
            num_steps=settings["attack_steps"],
            num_queries=settings["attack_queries"],
        )
        found.append(Quantity(attacked, some(settings["attack_images"]), 250))
    if with_eigenvalue:
        found.append(
            Quantity(eigenvalue(network, num_classes), some(settings["hessian_images"]), 50)
        )
    return found


def _count(measured: bool, parts: dict[str, Examples], most: int) -> int:
    return min(most, len(parts["held_out"]["label"])) if measured else 0
