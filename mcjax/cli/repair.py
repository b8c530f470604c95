"""Repairs a suspect network with clean labelled images, along a path of low loss.

    python -m mcjax.repair --model runs/.../checkpoints/endpoint_a --data clean.npz --out repaired
    python -m mcjax.repair --model suspect --arch cnn:width=16 --data clean.npz --out repaired --second other
    python -m mcjax.repair --model suspect.pt --arch preactresnet18 --normalise cifar10 --data clean.npz --out repaired

Leaves in --out: the network `repaired` (of the suspect's kind: a checkpoint, .pt, .safetensors), path.csv, path.png, report.html and result.json. Exit code 3 if no
point of the path is accurate enough: then there is a report and no repaired checkpoint.
"""

import jax
from absl import flags

from mcjax import cpu_convolution
from mcjax.cli.command import NoAnswer
from mcjax.core.bucket import local
from mcjax.core.errors import UserError
from mcjax.core.keys import check_seed
from mcjax.core.progress import say
from mcjax.data.npz import read_examples
from mcjax.repair.model import repair_model
from mcjax.report.repaired_page import write_repaired
from mcjax.runs.suspect import Suspect, load_suspect, load_variables, save_like


def define_flags() -> None:
    """The command's flags; defined when it runs, so that the module can be imported freely."""
    flags.DEFINE_string(
        "model", None, "The suspect: a folder that mcjax saved, .pt, .pth or .safetensors."
    )
    flags.DEFINE_string(
        "arch", None, "Its architecture, NAME or NAME:option=value,...: docs/pytorch.md."
    )
    flags.DEFINE_string(
        "normalise",
        None,
        "cifar10, imagenet, ... or MEAN,.../STD,...: what its images are normalised by.",
    )
    flags.DEFINE_string("data", None, "Clean images, .npz with `image` and `label`.")
    flags.DEFINE_string("out", None, "A new folder for the results.")
    flags.DEFINE_string("second", None, "A second network of the same architecture.")
    flags.DEFINE_boolean("second_is_clean", False, "The second network is known to be clean.")
    flags.DEFINE_string("align", "none", "weights: bring its channels into the suspect's order.")
    flags.DEFINE_float("tolerance", 0.02, "Accuracy that the repair may cost, a fraction.")
    flags.DEFINE_integer("num_steps", 2000, "Training steps of the path.")
    flags.DEFINE_integer("batch_size", 128, "Images a step.")
    flags.DEFINE_float("learning_rate", 0.05, "Of the path's training.")
    flags.DEFINE_integer("num_points", 61, "Points of the path that are looked at.")
    flags.DEFINE_integer("seed", 0, "Seed of everything that is random.")


def main() -> None:
    """Reads the flags and repairs."""
    values = {name: getattr(flags.FLAGS, name) for name in ("model", "data", "out")}
    for name, value in values.items():
        if not value:
            raise UserError(f"--{name} is missing; see --help")
    repair(**values)


def repair(model: str, data: str, out: str) -> None:
    """Repairs the network of the flags.

    Args:
        model: The suspect's checkpoint.
        data: The images' file.
        out: The new folder.

    Raises:
        UserError: Anything that does not fit; with exit code 3 where no point is accurate enough.
    """
    options = flags.FLAGS
    folder = local(out).absolute()
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise UserError(f"{folder} is there already; give a new --out, nothing is overwritten")
    images = read_examples(local(data))
    suspect: Suspect = load_suspect(
        local(model), options.arch, images["image"].shape[1:], options.normalise
    )
    second = None
    if options.second:
        second = load_variables(local(options.second), suspect)
    try:  # before the training, not after
        folder.mkdir(parents=True, exist_ok=True)
        folder.rmdir()
    except OSError as error:
        raise UserError(f"can't make {folder}: {error.strerror}; give another --out") from None
    cpu_convolution.enable()
    settings = {
        name: getattr(options, name)
        for name in (
            "second_is_clean",
            "align",
            "tolerance",
            "num_steps",
            "batch_size",
            "learning_rate",
            "num_points",
        )
    }
    repaired = repair_model(
        jax.random.key(check_seed(options.seed, "--seed")),
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
    facts = {"model": model, "second": options.second or "", "data": data, "arch": suspect.arch}
    facts["normalise"] = suspect.normalise
    write_repaired(folder, repaired, {**facts, **settings, "seed": options.seed})
    report = repaired.report
    if repaired.t is None or written is None:
        raise NoAnswer(
            f"no point of the path has accuracy {report['floor']:.4f} on the selection images; the "
            f"suspect stays as it is. See {folder / 'report.html'}; try more --num_steps, more "
            "images, or a larger --tolerance"
        )
    say(
        f"t = {repaired.t:.4f}: accuracy {report['repaired_accuracy']:.4f} on "
        f"{report['num_selection']} images held out, the suspect's {report['suspect_accuracy']:.4f}"
    )
    if second is None:
        say(
            "the other end was a copy of the suspect, trained on the clean images: a path to it often keeps a "
            "backdoor; give --second where you have another network (docs/repair.md)"
        )
    say(f"left in {folder}: {written.name}, report.html, result.json, path.csv and its figure")
