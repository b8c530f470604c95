"""The config fields of all experiments: default, allowed values, quick value and meaning.

Configs, their checks, their `:quick` form, `--help` and docs/config.md are generated from these
tables. To add a field, add a line here.
"""

import dataclasses
from collections.abc import Iterator, Mapping

from mcjax.core.fields import Field, choice, flag, number, several, text, whole
from mcjax.core.keys import NUM_SEEDS
from mcjax.core.settings import Setting, Settings, at_most
from mcjax.curves import MOST_BENDS
from mcjax.repair.methods import DEFAULT, METHODS


def _training(part: str, *, epochs: float, quick_epochs: float, whose: str) -> Settings:
    return {
        f"{part}.num_epochs": Setting(
            epochs, number(0, 1e6, above=True), f"training epochs of {whose}", quick_epochs
        ),
        f"{part}.batch_size": Setting(64, whole(1, 2**20), "images per step", 16),
        f"{part}.learning_rate": Setting(
            0.05, number(0, 1e3, above=True), "learning rate in the first half of the training"
        ),
        **_momentum(part),
    }


def _momentum(part: str) -> Settings:
    return {
        f"{part}.momentum": Setting(0.9, number(0, 1, below=True), "SGD momentum"),
        f"{part}.nesterov": Setting(False, flag(), "use Nesterov momentum"),
        f"{part}.weight_decay": Setting(
            5e-4,
            number(0, 1e3),
            "weight decay on all parameters: half of it times their squared norm",
        ),
    }


_SEED = Setting(0, whole(0, NUM_SEEDS - 1), "seed of data splits, initial weights and batches")
_SEEDS = Setting(
    (), several(whole(0, NUM_SEEDS - 1)), "several seeds in one run; () uses only `seed`"
)

_DATA: Settings = {
    "data.name": Setting(
        "digits",
        text(),
        "a data set, or npz:FILE for your own arrays",
        lambda name: f"fake:{name}",
    ),
    "data.dir": Setting(
        "", text(empty=True), "folder of the original archives or of TFDS; empty: default folders"
    ),
    "data.verify": Setting(True, flag(), "verify the archives' checksums"),
    "data.num_bonafide": Setting(
        0, whole(0), "clean images held out from the endpoints' training set", at_most(32)
    ),
    "data.num_selection": Setting(0, whole(0), "images held out for choosing t", at_most(32)),
    "data.protocol": Setting(
        "disjoint",
        choice("disjoint", "legacy"),
        "legacy: overlapping sets, as in the official code",
    ),
    "data.augmentation": Setting(
        "none", text(), "augmentation of training images; see mcjax.data.augmentation"
    ),
}

_MODEL: Settings = {
    "model.name": Setting(
        "cnn", text(), "a network of mcjax.models; its options are in model.options"
    ),
    "model.bfloat16": Setting(False, flag(), "compute in bfloat16, for accelerators"),
}

_ENDPOINT = _training("endpoint", epochs=40.0, quick_epochs=0.1, whose="each endpoint")

_CURVE: Settings = {
    "curve.kind": Setting("bezier", choice("bezier", "polychain"), "kind of curve"),
    "curve.num_bends": Setting(
        1, whole(0, MOST_BENDS), "number of control points between the endpoints"
    ),
    "curve.init": Setting("line", choice("line", "random"), "initialisation of the bends"),
    "curve.align": Setting(
        "none",
        choice("none", "weights", "away", "activations", "activations_away"),
        "order of the second endpoint's channels: near the first's, or away from them",
    ),
    "curve.num_strata": Setting(
        1,
        whole(1, 10**6),
        "strata of [0, 1]; this many consecutive steps visit each once; 1: independent t",
    ),
}

_CURVE_TRAINING = _training("curve", epochs=80.0, quick_epochs=0.1, whose="the curve")

_CONNECT_CURVE: Settings = {
    "curve.fix_start": Setting(True, flag(), "False also trains the first endpoint"),
    "curve.fix_end": Setting(True, flag(), "False also trains the second endpoint"),
    "curve.images": Setting("train", choice("train", "bonafide"), "training images of the curve"),
}

_EVALUATION: Settings = {
    "evaluation.num_points": Setting(
        61, whole(2, 100_000), "number of t's, equally spaced in [0, 1]", 3
    ),
    "evaluation.batch_size": Setting(500, whole(1, 2**20), "images per batch", 32),
    "evaluation.test_images": Setting(
        0, whole(0), "number of test images (the first ones); 0: all", 32
    ),
    "evaluation.batch_stats": Setting(
        "train",
        choice("train", "bonafide", "none"),
        "images to recompute BatchNorm statistics from",
    ),
    "evaluation.batch_stats_images": Setting(
        0, whole(0), "number of these images (the first ones); 0: all", 32
    ),
    "evaluation.batch_stats_batch_size": Setting(
        128, whole(1, 2**20), "images per batch of them", 16
    ),
}

_TRAIN_IMAGES: Settings = {
    "evaluation.train_images": Setting(
        0, whole(0), "number of training images (the first ones) to evaluate on; 0: all", 32
    ),
}

_PLANE: Settings = {
    "evaluation.plane_points": Setting(
        21,
        Field("0, or an integer from 2 to 1000", lambda v: whole(0, 1000).holds(v) and v != 1),
        "points per side of the loss surface; 0: no surface",
        at_most(2),
    ),
    "evaluation.plane_images": Setting(
        500, whole(1), "test images per point of the loss surface", 32
    ),
}

_RUN: Settings = {  # do not change results, except for rounding
    "run.log_every_steps": Setting(
        100, whole(1, 10**6), "steps per line of metrics.jsonl and per dispatch", 2
    ),
    "run.checkpoint_seconds": Setting(60.0, number(0, above=True), "seconds between checkpoints"),
    "run.tensorboard": Setting(False, flag(), "also write metrics.jsonl as TensorBoard events"),
    "run.chunk": Setting(
        0, whole(0, 10_000), "points vmapped together on a device; 0: the device's default"
    ),
    "run.data_parallel": Setting(
        False, flag(), "shard each training batch over all devices; equal up to rounding"
    ),
    "run.side_by_side": Setting(
        False,
        flag(),
        "train equal networks together by vmap; for small ones on accelerators",
    ),
    "run.cpu_convolution": Setting(True, flag(), "commands use faster convolutions on CPU"),
}

_ALL: Settings = {"seed": _SEED, **_DATA, **_MODEL, **_ENDPOINT, **_CURVE, **_EVALUATION, **_RUN}


def _experiment(name: str) -> Settings:
    return {"experiment": Setting(name, choice(name), "the experiment")}


CONNECT: Settings = {
    **_experiment("connect"),
    **_ALL,
    **_CONNECT_CURVE,
    **_CURVE_TRAINING,
    **_TRAIN_IMAGES,
    **_PLANE,
}

_REPAIR: Settings = {
    "repair.pair": Setting(
        "both_tampered",
        choice(
            "both_tampered",
            "tampered_and_clean",
            "tampered_and_fine_tuned",
            "suspect_and_unaligned",
            "suspect_alone",
        ),
        "the networks that the path connects; suspect_alone: the far end is trained",
    ),
    "repair.unalign": Setting(
        "weights",
        choice("weights", "activations", "random"),
        "how the un-aligned copy of the suspect is permuted",
    ),
    "repair.extrapolate": Setting(
        0.0, number(0, 10), "how far beyond its ends a path is evaluated, in t"
    ),
    "repair.choose": Setting(
        "distance",
        choice("distance", "evidence"),
        "how t is chosen among accurate points: evidence needs inverted triggers",
    ),
    "repair.sizes": Setting(
        (400, 200, 100, 50), several(whole(1), least=1), "numbers of bonafide images", (32, 16)
    ),
    "repair.folds": Setting(
        0,
        Field("0, or an integer from 2 to 1000", lambda v: whole(0, 1000).holds(v) and v != 1),
        "0: no cross-validation; else the number of folds (the held-out fold chooses t)",
    ),
    "repair.methods": Setting(
        DEFAULT,
        several(text(), least=1),
        "repair methods to compare; path, taught_line or taught_path is among them",
    ),
    "repair.num_epochs": Setting(40.0, number(0, 1e6, above=True), "epochs of each repair", 1.0),
    "repair.steps_per_epoch": Setting(
        25, whole(0, 10**6), "steps per epoch, for any number of images; 0: a pass over them", 2
    ),
    "repair.batch_size": Setting(64, whole(1, 2**20), "images per step", 16),
    **_momentum("repair"),
    "repair.augmentation": Setting(
        "none", text(), "augmentation of bonafide images in each repair"
    ),
    "repair.tolerance": Setting(
        0.02, number(0, 1), "accuracy on the selection images that a repair may lose, a fraction"
    ),
    "repair.tune": Setting(
        False,
        flag(),
        "train seven methods at several values of a hyperparameter, and choose one",
        False,  # every value is a program of its own, which takes longer to compile than to run
    ),
    "repair.renormalise": Setting(
        False, flag(), "also report paths with REPAIR, for networks without BatchNorm"
    ),
    "explain.num_images": Setting(
        500, whole(1), "test images for the gradients' similarity and for the noise", 16
    ),
    "explain.num_draws": Setting(5, whole(1, 100_000), "networks per noise level", 2),
}

_STUDY: Settings = {  # the path is trained with the settings of `repair`
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
    "attack.trigger": Setting(
        "square", text(), "a trigger of mcjax.attacks.poisoning.triggers, with options"
    ),
    "attack.label_map": Setting(
        "single_target",
        choice("single_target", "all_to_all", "clean_label"),
        "how stamped images are labelled",
    ),
    "attack.target": Setting(1, whole(0), "class of stamped images"),
    "attack.fraction": Setting(
        0.1,
        number(0, 1, above=True),
        "poisoned fraction of the training images (clean_label: of the target class)",
    ),
    "attack.when": Setting(
        "before", choice("before", "after"), "stamp the trigger before or after augmentation"
    ),
    "attack.attacker": Setting(
        "plain",
        choice("plain", "path_aware", "unalignment_aware"),
        "path_aware: release two points of a curve; unalignment_aware: one, see Backdoors",
    ),
    "attack.release": Setting(
        (0.25, 0.75), several(number(0, 1), least=2, most=2), "t's of the released points"
    ),
    "attack.curve_epochs": Setting(
        40.0, number(0, 1e6, above=True), "training epochs of that curve", 0.1
    ),
    "explain.relearn_images": Setting(
        (),
        several(whole(1, 10**6)),
        "numbers of poisoned images of the re-learning test; (): no test",
    ),
    "explain.relearn_steps": Setting(
        100, whole(0, 10**6), "its steps of SGD, each on repair.batch_size images", at_most(2)
    ),
    "explain.relearn_learning_rate": Setting(
        0.05, number(0, 1e3), "learning rate of all its steps"
    ),
    "explain.relearn_points": Setting(
        11, whole(2, 100_000), "its number of t's, equally spaced in [0, 1]", at_most(3)
    ),
    "explain.relearn_draws": Setting(
        3, whole(1, 10_000), "its repetitions with other images and batches, averaged", 1
    ),
}

INJECTION: Settings = {
    **_experiment("injection"),
    **_STUDY,
    # Faults need networks that classify some images correctly.
    "endpoint.num_epochs": dataclasses.replace(_ENDPOINT["endpoint.num_epochs"], quick=3.0),
    "attack.method": Setting(
        "l0",
        choice("l0", "l2", "gradient", "bit_flips"),
        "how errors are injected into the weights",
    ),
    "attack.num_faults": Setting(4, whole(1), "S, number of training images to misclassify", 1),
    "attack.num_images": Setting(
        500, whole(1), "T, including the images that must keep their class", 8
    ),
    "attack.layers": Setting((), several(text()), "names of layers or tensors to attack; (): all"),
    "attack.confidence": Setting(1.0, number(0), "margin, in logits, by which a target must win"),
    "attack.strength": Setting(
        1e-3, number(0), "weight of the norm, in units of the loss; use less for many faults"
    ),
    "attack.rho": Setting(1.0, number(0, above=True), "penalty parameter of ADMM"),
    "attack.step_size": Setting(0.1, number(0), "step size of the attack"),
    "attack.num_steps": Setting(500, whole(0, 10**6), "number of steps of the attack", 300),
    "attack.num_flips": Setting(40, whole(0, 10**6), "maximum number of bits for bit_flips", 40),
    "attack.stored_as": Setting("int8", choice("int8", "float32"), "storage type for bit_flips"),
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
        "pairs of networks that paths connect",
    ),
    "attack.norm": Setting("linf", choice("linf", "l2", "l1"), "norm of the attack on the path"),
    "attack.eps": Setting(0.1, number(0), "radius of the ball, images in [0, 1]"),
    "attack.step_size": Setting(0.025, number(0), "step size of PGD, in the same unit"),
    "attack.num_steps": Setting(20, whole(0, 10**6), "number of steps of PGD", 2),
    "adversarial.method": Setting(
        "madry", choice("madry", "fgsm", "trades"), "how the adversarial networks are trained"
    ),
    "adversarial.eps": Setting(0.1, number(0), "radius of the ball in adversarial training"),
    "adversarial.step_size": Setting(0.025, number(0), "step size of PGD in adversarial training"),
    "adversarial.num_steps": Setting(
        10, whole(0, 10**6), "number of steps of PGD in adversarial training", 2
    ),
    "adversarial.beta": Setting(6.0, number(0), "weight of the KL term of trades"),
    "robust_path.pairs": Setting(
        ("regular-adversarial",), several(text()), "pairs for which a robust path is also trained"
    ),
    "robust_path.num_steps": Setting(
        10, whole(0, 10**6), "number of steps of PGD in training robust paths", 2
    ),
    "autoattack.num_points": Setting(
        0, whole(0, 10_000), "number of t's at which AutoAttack runs; 0: none"
    ),
    "autoattack.num_images": Setting(200, whole(1), "test images of AutoAttack", 8),
    "autoattack.num_steps": Setting(
        100, whole(1, 10**6), "steps of its APGD and FAB; standard: 100", 2
    ),
    "autoattack.num_queries": Setting(
        5000, whole(1, 10**6), "queries of its Square; standard: 5000", 5
    ),
    "hessian.method": Setting(
        "exact",
        choice("exact", "lanczos", "power"),
        "method for the input Hessian's eigenvalue; exact: piecewise-linear networks only",
    ),
    "evaluation.robust_images": Setting(500, whole(1), "test images to attack at each t", 16),
    "evaluation.robust_batch_size": Setting(250, whole(1, 2**20), "images per batch of them", 8),
    "evaluation.transfer_points": Setting(
        11, whole(2, 10_000), "number of t's of the transfer matrix and of the ensemble", 2
    ),
    "evaluation.transfer_images": Setting(250, whole(1), "test images of the transfer matrix", 8),
}


def method_settings() -> Settings:
    """The fields of `config.repair` that the registered methods bring."""
    rates = {
        f"repair.learning_rate.{name}": Setting(
            method.learning_rate,
            number(0, 1e3, above=True),
            f"of {name}, in the first half of its training",
        )
        for name, method in METHODS.items()
        if method.learning_rate is not None
    }
    own = {
        f"repair.{field}": setting
        for method in METHODS.values()
        for field, setting in method.settings.items()
    }
    return {**rates, **own}


class _Tables(Mapping[str, Settings]):
    """The tables by experiment, made when asked for: a notebook may have registered a method."""

    _EXPERIMENTS: Mapping[str, Settings] = {
        "connect": CONNECT,
        "backdoor": BACKDOOR,
        "injection": INJECTION,
        "evasion": EVASION,
    }

    def __getitem__(self, experiment: str) -> Settings:
        table: dict[str, Setting] = {}
        for name, setting in self._EXPERIMENTS[experiment].items():
            table[name] = setting
            if name == "repair.tolerance":
                table |= method_settings()
        return table

    def __iter__(self) -> Iterator[str]:
        return iter(self._EXPERIMENTS)

    def __len__(self) -> int:
        return len(self._EXPERIMENTS)


SETTINGS: Mapping[str, Settings] = _Tables()
"""By experiment. `model.options` are free: each network says what it takes."""
