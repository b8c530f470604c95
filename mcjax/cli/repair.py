"""Repairs a suspect network with clean labelled images, along a path of low loss.

    python -m mcjax.repair --model suspect.pt2 --data clean.npz --out repaired
    python -m mcjax.repair --model suspect.pt2 --data folder_of_images --resize 32,32 --out repaired
    python -m mcjax.repair --model runs/.../checkpoints/endpoint_a --data clean.npz --out repaired
    python -m mcjax.repair --model suspect --arch cnn:width=16 --data clean.npz --out repaired --second other
    python -m mcjax.repair --model suspect.pt --arch preactresnet18 --normalise cifar10 --data clean.npz --out repaired

Writes to --out: the network `repaired` (in the suspect's format: a checkpoint, .pt, .safetensors, or
.pt2 and a state dict beside it), path.csv, path.png, triggers.png, report.html and result.json. If no point of the
path has sufficient accuracy, it writes a report but no repaired network, and exits with code 3.
"""

import warnings

import jax
from absl import flags

from mcjax import cpu_convolution, models
from mcjax.cli import data_flags
from mcjax.cli.command import NoAnswer
from mcjax.core.bucket import local
from mcjax.core.errors import UserError
from mcjax.core.keys import check_seed
from mcjax.core.progress import say
from mcjax.interop import normalise
from mcjax.interop.exported.load import is_exported
from mcjax.interop.exported.onnx import check_packages, write_onnx
from mcjax.repair.evidence.forms import FORMS
from mcjax.repair.inputs import check_inputs
from mcjax.repair.model import repair_model
from mcjax.repair.options import DEFAULTS, changed
from mcjax.repair.repaired import NothingRepaired
from mcjax.report.repaired_page import new_folder, verdict, write_repaired
from mcjax.runs.suspect import (
    Suspect,
    compare_with_torch,
    load_suspect,
    load_variables,
    save_like,
)


def define_flags() -> None:
    """Defines the command's flags, when the command runs and not when the module is imported."""
    flags.DEFINE_string(
        "model",
        None,
        "The suspect: .pt2 of torch.export.save, .pt, .pth, .safetensors, or an mcjax checkpoint folder.",
    )
    flags.DEFINE_string(
        "arch",
        None,
        f"Its architecture, NAME or NAME:option=value,...; NAME is one of {', '.join(models.names())}.",
    )
    flags.DEFINE_string(
        "normalise",
        None,
        f"Normalisation of its images: {', '.join(normalise.KNOWN)}, or MEAN,.../STD,...",
    )
    data_flags.define("Clean images")
    flags.DEFINE_string("out", None, "A new folder for the results.")
    flags.DEFINE_boolean("onnx", False, "Write repaired.onnx too; --model must be a .pt2 file.")
    flags.DEFINE_string("second", None, "A second network of the same architecture.")
    flags.DEFINE_boolean("second_is_clean", False, "The second network is known to be clean.")
    flags.DEFINE_string(
        "align",
        "none",
        "With --second, permute its channels: weights, activations, away or activations_away.",
    )
    flags.DEFINE_string(
        "unalign",
        "weights",
        "Without --second, how the suspect's own copy is permuted: weights, activations, random; "
        "none: a fine-tuned copy.",
    )
    flags.DEFINE_string(
        "fit",
        "auto",
        "What the path learns: distillation (the suspect's answers), labels, or auto (the answers if "
        "there is evidence of a backdoor).",
    )
    flags.DEFINE_string(
        "choose", "evidence", "How t is chosen: evidence (inverted triggers) or distance."
    )
    flags.DEFINE_float("tolerance", 0.02, "Accuracy that the repair may lose, a fraction.")
    flags.DEFINE_integer("num_steps", 4000, "Training steps of the path, with as many gradients.")
    flags.DEFINE_integer("batch_size", 128, "Images per step.")
    flags.DEFINE_float("learning_rate", 0.05, "Learning rate of the path's training.")
    flags.DEFINE_integer("num_points", 61, "Number of points of the path to evaluate.")
    flags.DEFINE_float("extrapolate", 0.0, "How far beyond its ends to evaluate the path, in t.")
    flags.DEFINE_list("forms", list(FORMS), "Forms of triggers that are looked for.")
    flags.DEFINE_integer("inversion_steps", 200, "Adam steps of the search for triggers.")
    flags.DEFINE_integer("seed", 0, "Random seed.")


def main() -> None:
    """Reads the flags and repairs."""
    values = {name: getattr(flags.FLAGS, name) for name in ("model", "data", "out")}
    for name, value in values.items():
        if not value:
            raise UserError(f"--{name} is missing; see --help")
    repair(**values)


def repair(model: str, data: str, out: str) -> None:
    """Repairs a network, with the other settings from the flags.

    Args:
        model: Path of the suspect.
        data: Path of the images.
        out: A new folder.

    Raises:
        UserError: An input is invalid; or, with exit code 3, no point has sufficient accuracy.
    """
    options = flags.FLAGS
    folder = new_folder(out, "--out")
    if options.onnx:
        if not is_exported(local(model)):
            raise UserError(f"--onnx needs a .pt2 file, but --model is {model}; export the module")
        check_packages()
    settings = {
        name: getattr(options, name)
        for name in (
            "second_is_clean",
            "align",
            "unalign",
            "fit",
            "choose",
            "tolerance",
            "num_steps",
            "batch_size",
            "learning_rate",
            "num_points",
            "extrapolate",
            "inversion_steps",
            "forms",
        )
    }
    # Before anything is read, which takes a while.
    changed(DEFAULTS, {k: v for k, v in settings.items() if hasattr(DEFAULTS, k)})
    key = jax.random.key(check_seed(options.seed, "--seed"))
    images = data_flags.read(data)
    suspect: Suspect = load_suspect(
        local(model), options.arch, images["image"].shape[1:], options.normalise
    )
    second = None
    if options.second:
        second = load_variables(local(options.second), suspect)
    check_inputs(suspect.network, suspect.variables, images, second)
    compare_with_torch(suspect)  # slow
    cpu_convolution.enable()
    with warnings.catch_warnings():  # told below
        warnings.simplefilter("ignore", NothingRepaired)
        repaired = repair_model(
            key,
            suspect.network,
            suspect.variables,
            images,
            second,
            verbose=True,
            **settings,
        )
    written = None
    if repaired.t is not None:
        written = save_like(suspect, folder, repaired.variables, t=repaired.t)
        if options.onnx:
            write_onnx(written.with_suffix(".onnx"), written)
    facts = {"model": model, "second": options.second or "", "data": data, "arch": suspect.arch}
    facts |= {"normalise": suspect.normalise, **data_flags.settings()}
    write_repaired(folder, repaired, {**facts, **settings, "seed": options.seed})
    report = repaired.report
    if repaired.t is None or written is None:
        raise NoAnswer(
            f"no point of the path has accuracy {report['floor']:.4f} on the selection images, so "
            f"there is no repaired network (see {folder / 'report.html'}); try more --num_steps, "
            "more images, or a larger --tolerance"
        )
    say(verdict(report))
    say(
        f"t = {repaired.t:.4f}: accuracy {report['repaired_accuracy']:.4f} on "
        f"{report['num_selection']} selection images (suspect: {report['suspect_accuracy']:.4f})"
    )
    if report["backdoor_found"]:
        say(
            f"estimated attack success {report['repaired_success']:.4f} "
            f"(suspect: {report['suspect_success']:.4f})"
        )
    if "fine-tuned" in report["second"]:
        say(
            f"the second endpoint is {report['second']}; a path to it often keeps a backdoor: give "
            "--second if you have another network (docs/repair.md)"
        )
    say(
        f"results in {folder}: {written.name}, report.html, result.json, path.csv, path.png, triggers.png"
    )
