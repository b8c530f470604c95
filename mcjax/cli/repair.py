"""Repairs a suspect network with clean labelled images, along a path of low loss.

    python -m mcjax.repair --model suspect.pt2 --data clean.npz --out repaired
    python -m mcjax.repair --model suspect.pt2 --data folder_of_images --resize 32,32 --out repaired
    python -m mcjax.repair --model runs/.../checkpoints/endpoint_a --data clean.npz --out repaired
    python -m mcjax.repair --model suspect --arch cnn:width=16 --data clean.npz --out repaired --second other
    python -m mcjax.repair --model suspect.pt --arch preactresnet18 --normalise cifar10 --data clean.npz --out repaired
    python -m mcjax.repair --model suspect.pt2 --data clean.npz --out evidence --evidence_only

Writes to --out: the network `repaired` (in the suspect's format: a checkpoint, .pt, .safetensors, or
.pt2 and a state dict beside it), path.csv, path.png, triggers.png, report.html and result.json. If no point of the
path has sufficient accuracy, it writes a report but no repaired network, and exits with code 3. With
--evidence_only it looks for evidence of a backdoor, and writes triggers.png, report.html and result.json.
A complete folder is left as it is when the same command runs again, and an interrupted one goes on after the last
training or search that it finished.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags

from mcjax import cpu_convolution, models
from mcjax.cli import command, data_flags
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
from mcjax.repair.options import DEFAULTS, changed, check_ends
from mcjax.repair.repaired import NothingRepaired
from mcjax.repair.search import OPTIONS, find_evidence
from mcjax.runs.kept import Kept
from mcjax.runs.output_folder import COMPLETE, answered, asked, new_folder

SEARCH = OPTIONS
"""Flags of the search for evidence."""

WRITTEN = ("repaired", "path", "triggers", "report", "result")
"""What lies in the output folder, by name without extension."""

SETTINGS = (
    "second_is_clean",
    "align",
    "end",
    "unalign",
    "fit",
    "choose",
    "tolerance",
    "num_steps",
    "batch_size",
    "learning_rate",
    "num_points",
    "extrapolate",
    *SEARCH,
)
"""Flags of a repair."""


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
    flags.DEFINE_boolean(
        "evidence_only", False, "Look for evidence of a backdoor, and train and repair nothing."
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
        "end",
        "taught",
        "Without --second, what the path leads to: taught (the suspect, trained; a straight line), free (an end that "
        "is trained with the path), unaligned (the suspect's copy, permuted), fine_tuned.",
    )
    flags.DEFINE_string(
        "unalign",
        "weights",
        "With --end=unaligned, how the copy is permuted: weights, activations, random.",
    )
    flags.DEFINE_string(
        "fit",
        "auto",
        "What is learned: answers (the suspect's), distillation (those to mixed images), labels, or "
        "auto (the answers if there is evidence of a backdoor and no --second).",
    )
    flags.DEFINE_string(
        "choose", "evidence", "How t is chosen: evidence (inverted triggers) or distance."
    )
    flags.DEFINE_float("tolerance", 0.02, "Accuracy that the repair may lose, a fraction.")
    flags.DEFINE_integer("num_steps", 4000, "Training steps, with as many gradients.")
    flags.DEFINE_integer("batch_size", 128, "Images per step.")
    flags.DEFINE_float(
        "learning_rate", 0.0, "Of the training; 0: 0.01 where the end is trained, otherwise 0.05."
    )
    flags.DEFINE_integer("num_points", 61, "Number of points of the path to evaluate.")
    flags.DEFINE_float("extrapolate", 0.0, "How far beyond its ends to evaluate the path, in t.")
    flags.DEFINE_list("forms", list(FORMS), "Forms of triggers that are looked for.")
    flags.DEFINE_integer("inversion_steps", 200, "Adam steps of the search for triggers.")
    flags.DEFINE_integer(
        "control_steps",
        1000,
        "Training steps of the control network that triggers are tried on; 0: none, a less sure verdict.",
    )
    flags.DEFINE_integer("seed", 0, "Random seed.")


def main() -> None:
    """Reads the flags and repairs, unless the folder is complete for the same arguments."""
    values = {name: getattr(flags.FLAGS, name) for name in ("model", "data", "out")}
    for name, value in values.items():
        if not value:
            raise UserError(f"--{name} is missing; see --help")
    given = command.arguments(__name__, data_flags.__name__)
    given.pop("out")
    if flags.FLAGS.evidence_only:  # the others change nothing
        given = {k: v for k, v in given.items() if k not in SETTINGS or k in SEARCH}
    question = asked(given, (values["model"], flags.FLAGS.second, data_flags.place(values["data"])))
    folder = local(values["out"]).absolute()
    before, kept = answered(folder, question), Kept(folder, question)
    if before is None:
        kept.clear(WRITTEN)
        repair(values["model"], values["data"], new_folder(folder, "--out", question), kept)
        return
    kept.forget()  # if the last call was interrupted just before that
    for sentence in before.get("answer", ()):  # none in a result that an earlier version wrote
        say(sentence)
    command.say_already(before, folder / "report.html")
    if before["status"] != COMPLETE:
        raise no_point(before["metrics"]["floor"], folder)


def repair(model: str, data: str, folder: Path, kept: Kept) -> None:
    """Repairs a network, with the other settings from the flags.

    Args:
        model: Path of the suspect.
        data: Path of the images.
        folder: The output folder, a new one.
        kept: The steps that are kept until the folder is complete, and what is asked, for result.json.

    Raises:
        UserError: An input is invalid; or, with exit code 3, no point has sufficient accuracy.
    """
    # Imported here, because they take longer than all else where the folder is complete.
    from mcjax.report.evidence_page import write_evidence
    from mcjax.report.repaired_page import write_repaired
    from mcjax.runs import suspect as suspects

    options = flags.FLAGS
    if options.evidence_only:
        for name in ("second", "onnx"):
            if getattr(options, name):
                raise UserError(f"--evidence_only repairs nothing; leave out --{name}")
    if options.onnx:
        if not is_exported(local(model)):
            raise UserError(f"--onnx needs a .pt2 file, but --model is {model}; export the module")
        check_packages()
    names = SEARCH if options.evidence_only else SETTINGS
    settings = {name: getattr(options, name) for name in names}
    # Before anything is read, which takes a while.
    asked_for = {k: getattr(options, k) for k in SETTINGS if hasattr(DEFAULTS, k)}
    check_ends(
        changed(DEFAULTS, asked_for),
        has_second=bool(options.second),
        second_is_clean=options.second_is_clean,
    )
    key = jax.random.key(check_seed(options.seed, "--seed"))
    images = data_flags.read(data)
    suspect = suspects.load_suspect(
        local(model), options.arch, images["image"].shape[1:], options.normalise
    )
    second = None
    if options.second:
        second = suspects.load_variables(local(options.second), suspect)
    check_inputs(suspect.network, suspect.variables, images, second)
    suspects.compare_with_torch(suspect)  # slow
    cpu_convolution.enable()
    facts = {"model": model, "second": options.second or "", "data": data, "arch": suspect.arch}
    facts |= {"normalise": suspect.normalise, **data_flags.settings()}
    facts |= {**settings, "seed": options.seed}
    given = suspect.network, suspect.variables, images
    question = kept.question
    if options.evidence_only:
        found = find_evidence(key, *given, verbose=True, keep=kept, **settings)
        answer = write_evidence(folder, found, facts, question)
        kept.forget()
        say_results(answer, folder)
        return
    with warnings.catch_warnings():  # told below
        warnings.simplefilter("ignore", NothingRepaired)
        repaired = repair_model(key, *given, second, verbose=True, keep=kept, **settings)
    written = None
    if repaired.t is not None:
        written = suspects.save_like(suspect, folder, repaired.variables, t=repaired.t)
        if options.onnx:
            write_onnx(written.with_suffix(".onnx"), written)
    answer = write_repaired(folder, repaired, facts, question)
    kept.forget()
    if written is not None:
        answer = [*answer, f"The repaired network is {written}."]
    say_results(answer, folder)
    if written is None:
        raise no_point(repaired.report["floor"], folder)


def say_results(answer: Sequence[str], folder: Path) -> None:
    """Says what was found, and where it is written.

    Args:
        answer: Sentences.
        folder: The output folder.
    """
    for sentence in answer:
        say(sentence)
    say(f"results in {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")


def no_point(floor: float, folder: Path) -> NoAnswer:
    """The end of a repair that found no point of sufficient accuracy.

    Args:
        floor: The accuracy that a point had to reach.
        folder: The output folder.
    """
    return NoAnswer(
        f"no point of the path has accuracy {floor:.4f} on the selection images, so "
        f"there is no repaired network (see {folder / 'report.html'}); try more --num_steps, "
        "more images, or a larger --tolerance"
    )
