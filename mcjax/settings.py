"""Every field of every experiment's config, in one place: default, allowed values, quick value, meaning.

Configs, their checks, their `:quick` form, `--help` and docs/config.md are all made from these tables. To add a
field, add its line here.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mcjax.curves import MOST_BENDS
from mcjax.fields import Field, choice, flag, number, several, text, whole
from mcjax.keys import NUM_SEEDS


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of a config.

    Args:
        default: Its value in the digits run; its type is the field's.
        field: What it can be.
        help: What it means, in a line, with its unit.
        quick: Its value under `:quick`, or a function of the value it has; None leaves it.
    """

    default: Any
    field: Field
    help: str
    quick: Any = None

    def shrunk(self, value: Any) -> Any:
        """The value under `:quick` of a field that has a value."""
        if self.quick is None:
            return value
        return self.quick(value) if callable(self.quick) else self.quick


Settings = Mapping[str, Setting]
"""By dotted name."""


def at_most(most: int) -> Callable[[int], int]:
    """The quick value of a number that may be smaller already."""
    return lambda value: min(value, most)


def _training(part: str, *, epochs: float, quick_epochs: float, whose: str) -> Settings:
    return {
        f"{part}.num_epochs": Setting(
            epochs, number(0, 1e6, above=True), f"epochs of the training of {whose}", quick_epochs
        ),
        f"{part}.batch_size": Setting(64, whole(1, 2**20), "images a step", 16),
        f"{part}.learning_rate": Setting(
            0.05, number(0, 1e3, above=True), "of the first half of the training"
        ),
        **_momentum(part),
    }


def _momentum(part: str) -> Settings:
    return {
        f"{part}.momentum": Setting(0.9, number(0, 1, below=True), "of SGD"),
        f"{part}.nesterov": Setting(False, flag(), "Nesterov's momentum"),
        f"{part}.weight_decay": Setting(
            5e-4, number(0, 1e3), "of all parameters: half of it times their squared norm"
        ),
    }


_SEED = Setting(0, whole(0, NUM_SEEDS - 1), "of data splits, initial weights and batches")
_SEEDS = Setting((), several(whole(0, NUM_SEEDS - 1)), "several in one run; () is seed alone")

_DATA: Settings = {
    "data.name": Setting(
        "digits",
        text(),
        "a data set, or npz:FILE for arrays of your own",
        lambda name: f"fake:{name}",
    ),
    "data.dir": Setting(
        "", text(empty=True), "folder of the original archives or of TFDS; empty: the usual places"
    ),
    "data.verify": Setting(True, flag(), "check the archives by checksum"),
    "data.num_bonafide": Setting(
        0, whole(0), "clean images kept out of the endpoints' training set", at_most(32)
    ),
    "data.num_selection": Setting(0, whole(0), "images kept for choosing t", at_most(32)),
    "data.protocol": Setting(
        "disjoint",
        choice("disjoint", "legacy"),
        "legacy: overlapping sets, as the official code has",
    ),
    "data.augmentation": Setting("none", text(), "of training images: see mcjax.data.augmentation"),
}

_MODEL: Settings = {
    "model.name": Setting("cnn", text(), "a network of mcjax.models; its options: model.options"),
    "model.bfloat16": Setting(False, flag(), "passes in bfloat16: for accelerators"),
}

_ENDPOINT = _training("endpoint", epochs=40.0, quick_epochs=0.1, whose="each end")

_CURVE: Settings = {
    "curve.kind": Setting("bezier", choice("bezier", "polychain"), "form of the curve"),
    "curve.num_bends": Setting(1, whole(0, MOST_BENDS), "control points between the ends"),
    "curve.init": Setting("line", choice("line", "random"), "where the bends start"),
    "curve.align": Setting(
        "none", choice("none", "weights"), "weights: the second end's channels in the first's order"
    ),
    "curve.num_strata": Setting(
        1, whole(1, 10**6), "so many steps in a row visit each part of [0, 1] once; 1: t at random"
    ),
}

_CURVE_TRAINING = _training("curve", epochs=80.0, quick_epochs=0.1, whose="the curve")

_CONNECT_CURVE: Settings = {
    "curve.fix_start": Setting(True, flag(), "False trains the first end, too"),
    "curve.fix_end": Setting(True, flag(), "False trains the second end, too"),
    "curve.images": Setting("train", choice("train", "bonafide"), "what the curve is trained on"),
}

_EVALUATION: Settings = {
    "evaluation.num_points": Setting(61, whole(2, 100_000), "t's, equally spaced in [0, 1]", 3),
    "evaluation.batch_size": Setting(500, whole(1, 2**20), "images a batch", 32),
    "evaluation.test_images": Setting(0, whole(0), "the first so many test images; 0 is all", 32),
    "evaluation.batch_stats": Setting(
        "train", choice("train", "bonafide", "none"), "what BatchNorm is recomputed from at each t"
    ),
    "evaluation.batch_stats_images": Setting(
        0, whole(0), "the first so many of them; 0 is all", 32
    ),
    "evaluation.batch_stats_batch_size": Setting(
        128, whole(1, 2**20), "images a batch of them", 16
    ),
}

_TRAIN_IMAGES: Settings = {
    "evaluation.train_images": Setting(
        0, whole(0), "the first so many training images are evaluated on; 0 is all", 32
    ),
}

_PLANE: Settings = {
    "evaluation.plane_points": Setting(
        21,
        Field("0, or an integer from 2 to 1000", lambda v: whole(0, 1000).holds(v) and v != 1),
        "along each side of the loss surface; 0 draws none",
        at_most(2),
    ),
    "evaluation.plane_images": Setting(500, whole(1), "test images a point of the surface", 32),
}

_RUN: Settings = {  # how it is carried out; results do not depend on it but for rounding
    "run.log_every_steps": Setting(
        100, whole(1, 10**6), "steps a line of metrics.jsonl, and a dispatch", 2
    ),
    "run.checkpoint_seconds": Setting(60.0, number(0, above=True), "between two checkpoints"),
    "run.tensorboard": Setting(False, flag(), "metrics.jsonl as TensorBoard events too"),
    "run.chunk": Setting(
        0, whole(0, 10_000), "points vmapped together on a device; 0 is the device's default"
    ),
    "run.data_parallel": Setting(
        False, flag(), "all devices share each training batch: equal up to rounding"
    ),
    "run.side_by_side": Setting(
        False,
        flag(),
        "networks that are trained alike at once, by vmap: small ones on an accelerator",
    ),
    "run.cpu_convolution": Setting(True, flag(), "mcjax's faster convolutions on CPU"),
}

_ALL: Settings = {"seed": _SEED, **_DATA, **_MODEL, **_ENDPOINT, **_CURVE, **_EVALUATION, **_RUN}


def _experiment(name: str) -> Settings:
    return {"experiment": Setting(name, choice(name), "which experiment this is")}


CONNECT: Settings = {
    **_experiment("connect"),
    **_ALL,
    **_CONNECT_CURVE,
    **_CURVE_TRAINING,
    **_TRAIN_IMAGES,
    **_PLANE,
}

# The first half of the training of each method that trains by SGD.
_LEARNING_RATES = {
    "path": 0.05,
    "fine_tune": 0.02,
    "scratch": 0.05,
    "prune": 0.02,
    "fine_prune": 0.02,
}
_METHODS = ("path", "line", "fine_tune", "scratch", "prune", "fine_prune", "i_bau", "noise")

_REPAIR: Settings = {
    "repair.pair": Setting(
        "both_tampered",
        choice("both_tampered", "tampered_and_clean", "tampered_and_fine_tuned"),
        "the two networks that the path joins",
    ),
    "repair.sizes": Setting(
        (400, 200, 100, 50), several(whole(1), least=1), "numbers of bonafide images", (32, 16)
    ),
    "repair.folds": Setting(
        0,
        Field("0, or an integer from 2 to 1000", lambda v: whole(0, 1000).holds(v) and v != 1),
        "more than 1: cross-validation, the fold held out chooses t",
    ),
    "repair.methods": Setting(
        _METHODS, several(text(), least=1), "the repairs that are compared; path must be one"
    ),
    "repair.num_epochs": Setting(40.0, number(0, 1e6, above=True), "epochs of every repair", 1.0),
    "repair.steps_per_epoch": Setting(
        25, whole(0, 10**6), "whatever the number of images; 0: as many as they make", 2
    ),
    "repair.batch_size": Setting(64, whole(1, 2**20), "images a step", 16),
    **_momentum("repair"),
    "repair.augmentation": Setting("none", text(), "of bonafide images in every repair"),
    **{
        f"repair.learning_rate.{name}": Setting(
            rate, number(0, 1e3, above=True), f"of {name}, in the first half of its training"
        )
        for name, rate in _LEARNING_RATES.items()
    },
    "repair.tolerance": Setting(
        0.02, number(0, 1), "accuracy on the selection images that a repair may cost, a fraction"
    ),
    "repair.fixed_t": Setting(
        (0.1, 0.5), several(number(0, 1)), "t's that are reported beside the chosen one"
    ),
    "repair.num_draws": Setting(20, whole(1, 100_000), "networks of noise on the weights", 2),
    "repair.prune_fraction": Setting(
        0.5, number(0, 1, below=True), "of each layer's filters, by prune"
    ),
    "repair.i_bau.num_rounds": Setting(100, whole(1, 10**6), "rounds of I-BAU", 1),
    "repair.i_bau.learning_rate": Setting(3e-3, number(0, 1e3, above=True), "of I-BAU's Adam"),
    "repair.i_bau.eps": Setting(
        3.0, number(0, above=True), "l2 norm of the universal perturbation, images in [0, 1]"
    ),
    "repair.i_bau.perturbed": Setting(0.5, number(0, 1), "fraction of a batch that is perturbed"),
    "repair.i_bau.num_fixed_point": Setting(
        5, whole(0, 10_000), "iterations for the implicit gradient"
    ),
    "explain.num_images": Setting(
        500, whole(1), "test images of the gradients' similarity and of the noise", 16
    ),
    "explain.num_draws": Setting(5, whole(1, 100_000), "networks a strength of noise", 2),
}

_STUDY: Settings = {  # of repairs; the path is trained as config.repair says
    **_ALL,
    **_REPAIR,
    "seeds": _SEEDS,
    "data.num_bonafide": dataclasses.replace(_DATA["data.num_bonafide"], default=400),
    "data.num_selection": dataclasses.replace(_DATA["data.num_selection"], default=150),
    "evaluation.batch_stats": dataclasses.replace(
        _EVALUATION["evaluation.batch_stats"], default="bonafide"
    ),
}

BACKDOOR: Settings = {
    **_experiment("backdoor"),
    **_STUDY,
    "attack.trigger": Setting("square", text(), "a trigger of mcjax.attacks.triggers, and options"),
    "attack.label_map": Setting(
        "single_target",
        choice("single_target", "all_to_all", "clean_label"),
        "which label a stamped image gets",
    ),
    "attack.target": Setting(1, whole(0), "the class that stamped images get"),
    "attack.fraction": Setting(
        0.1, number(0, 1, above=True), "of the training images (clean_label: of the target's)"
    ),
    "attack.when": Setting(
        "before", choice("before", "after"), "the trigger is stamped before or after augmentation"
    ),
    "attack.attacker": Setting(
        "plain", choice("plain", "path_aware"), "path_aware: trains a curve, releases points of it"
    ),
    "attack.release": Setting(
        (0.25, 0.75), several(number(0, 1), least=2, most=2), "the points that it releases"
    ),
    "attack.curve_epochs": Setting(40.0, number(0, 1e6, above=True), "of that curve", 0.1),
}

INJECTION: Settings = {
    **_experiment("injection"),
    **_STUDY,
    # Faults need networks that are right somewhere.
    "endpoint.num_epochs": dataclasses.replace(_ENDPOINT["endpoint.num_epochs"], quick=3.0),
    "attack.method": Setting(
        "l0", choice("l0", "l2", "gradient", "bit_flips"), "how errors are put into the weights"
    ),
    "attack.num_faults": Setting(4, whole(1), "S, training images to be misclassified", 1),
    "attack.num_images": Setting(500, whole(1), "T, with those that are to keep their class", 8),
    "attack.layers": Setting((), several(text()), "names of layers or tensors; () is all"),
    "attack.confidence": Setting(1.0, number(0), "by how much, in logits, a target is to win"),
    "attack.strength": Setting(
        1e-3, number(0), "of the norm, in units of the loss; less for many faults"
    ),
    "attack.rho": Setting(1.0, number(0, above=True), "of ADMM"),
    "attack.step_size": Setting(0.1, number(0), "of the attack's gradient steps"),
    "attack.num_steps": Setting(500, whole(0, 10**6), "of the attack", 300),
    "attack.num_flips": Setting(40, whole(0, 10**6), "bits, at most, of bit_flips", 40),
    "attack.stored_as": Setting("int8", choice("int8", "float32"), "whose bits flip"),
}

EVASION: Settings = {
    **_experiment("evasion"),
    **_ALL,
    **_CURVE_TRAINING,
    **_TRAIN_IMAGES,
    "seeds": _SEEDS,
    "pairs": Setting(
        ("regular-regular", "regular-adversarial", "adversarial-adversarial"),
        several(text(), least=1),
        "the pairs of networks that paths join",
    ),
    "attack.norm": Setting(
        "linf", choice("linf", "l2", "l1"), "norm of what a path is attacked with"
    ),
    "attack.eps": Setting(0.1, number(0), "radius of the ball, images in [0, 1]"),
    "attack.step_size": Setting(0.025, number(0), "of PGD, in the same unit"),
    "attack.num_steps": Setting(20, whole(0, 10**6), "of PGD", 2),
    "adversarial.method": Setting(
        "madry", choice("madry", "fgsm", "trades"), "how the adversarial networks are trained"
    ),
    "adversarial.eps": Setting(0.1, number(0), "radius of the ball in their training"),
    "adversarial.step_size": Setting(0.025, number(0), "of PGD in their training"),
    "adversarial.num_steps": Setting(10, whole(0, 10**6), "of PGD in their training", 2),
    "adversarial.beta": Setting(6.0, number(0), "weight of the KL term of trades"),
    "robust_path.pairs": Setting(
        ("regular-adversarial",), several(text()), "pairs whose path is trained on worst cases, too"
    ),
    "robust_path.num_steps": Setting(10, whole(0, 10**6), "of PGD in that training", 2),
    "hessian.method": Setting(
        "exact",
        choice("exact", "lanczos", "power"),
        "of the input Hessian's eigenvalue; exact: piecewise-linear networks only",
    ),
    "evaluation.robust_images": Setting(
        500, whole(1), "test images attacked at each t, and looked at closer", 16
    ),
    "evaluation.robust_batch_size": Setting(250, whole(1, 2**20), "images a batch of them", 8),
    "evaluation.transfer_points": Setting(
        11, whole(2, 10_000), "t's of the transfer matrix and of the ensemble", 2
    ),
    "evaluation.transfer_images": Setting(250, whole(1), "test images of the transfer matrix", 8),
}

SETTINGS: Mapping[str, Settings] = {
    "connect": CONNECT,
    "backdoor": BACKDOOR,
    "injection": INJECTION,
    "evasion": EVASION,
}
"""By experiment. `model.options` are free: each network says what it takes."""
