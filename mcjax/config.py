"""The configuration of a run: its fields, its `:quick` form, its checks and its hash."""

import hashlib
import json
from typing import Any

from ml_collections import ConfigDict

from mcjax.errors import UserError

# Fields that change how a run is carried out but not its result: not part of the hash.
NOT_HASHED = ("run", "data.dir")

CHOICES = {
    "curve.kind": ("bezier", "polychain"),
    "curve.init": ("line", "random"),
    "curve.images": ("train", "bonafide"),
    "evaluation.batch_stats": ("train", "bonafide", "none"),
    "data.protocol": ("disjoint", "legacy"),
}

AT_LEAST = {
    "curve.num_bends": 0,
    "curve.num_strata": 1,
    "evaluation.num_points": 2,
    "evaluation.plane_points": 0,
    "evaluation.train_images": 0,
    "evaluation.test_images": 0,
    "evaluation.plane_images": 1,
    "evaluation.batch_stats_images": 0,
    "data.num_bonafide": 0,
    "data.num_selection": 0,
    "run.chunk": 0,
}

POSITIVE = (
    *(
        f"{part}.{n}"
        for part in ("endpoint", "curve")
        for n in ("num_epochs", "batch_size", "learning_rate")
    ),
    "evaluation.batch_size",
    "evaluation.batch_stats_batch_size",
    "run.log_every_steps",
    "run.checkpoint_seconds",
)


def connect() -> ConfigDict:
    """The fields of `experiment = "connect"` with the defaults of the digits run.

    Returns:
        A config that a file in configs/ changes and returns.
    """
    config = ConfigDict()
    config.experiment = "connect"
    config.seed = 0

    config.data = ConfigDict()
    config.data.name = "digits"  # see mcjax.data; "npz:FILE" for your own arrays
    config.data.dir = ""  # folder of the original archives or of TFDS; "" looks in the usual places
    config.data.verify = True  # check the archives' contents by checksum
    config.data.num_bonafide = 0  # clean images kept out of the endpoints' training set
    config.data.num_selection = 0  # images kept for choosing t
    config.data.protocol = (
        "disjoint"  # or "legacy": overlapping sets, as the official code has them
    )
    config.data.augmentation = "none"  # see mcjax.data.augmentation

    config.model = ConfigDict()
    config.model.name = "cnn"  # see mcjax.models
    config.model.options = ConfigDict()  # depth, width, ...: the network's own

    config.endpoint = ConfigDict()  # training of the two ends, from seeds of their own
    config.endpoint.num_epochs = 40.0
    config.endpoint.batch_size = 64
    config.endpoint.learning_rate = 0.05
    config.endpoint.momentum = 0.9
    config.endpoint.nesterov = False
    config.endpoint.weight_decay = 5e-4

    config.curve = ConfigDict()
    config.curve.kind = "bezier"
    config.curve.num_bends = 1
    config.curve.init = "line"  # where the bends start: "line" or "random"
    config.curve.fix_start = True
    config.curve.fix_end = True
    config.curve.images = "train"  # the images it is trained on: "train" or "bonafide"
    config.curve.num_strata = 1  # > 1: stratified t
    config.curve.num_epochs = 80.0
    config.curve.batch_size = 64
    config.curve.learning_rate = 0.05
    config.curve.momentum = 0.9
    config.curve.nesterov = False
    config.curve.weight_decay = 5e-4

    config.evaluation = ConfigDict()
    config.evaluation.num_points = 61
    config.evaluation.batch_size = 500
    config.evaluation.train_images = 0  # evaluate on that many training images; 0 is all
    config.evaluation.test_images = 0  # likewise
    config.evaluation.batch_stats = "train"  # images that BatchNorm is recomputed from at each t
    config.evaluation.batch_stats_images = 0  # the first so many of them; 0 is all
    config.evaluation.batch_stats_batch_size = 128
    config.evaluation.plane_points = 21  # along each side of the loss surface; 0 draws none
    config.evaluation.plane_images = 500  # test images a point of the surface

    config.run = ConfigDict()  # how it is carried out; results do not depend on it
    config.run.log_every_steps = 100  # steps a line of metrics.jsonl, and a dispatch
    config.run.checkpoint_seconds = 60.0
    config.run.chunk = 0  # points vmapped together on a device; 0 is the device's default
    config.run.cpu_convolution = True  # mcjax's faster convolutions on CPU
    return config


def quick(config: ConfigDict) -> ConfigDict:
    """Shrinks a config to seconds, on fake images of its data set's shape: `--config FILE:quick`.

    Args:
        config: Any config; changed in place.

    Returns:
        The same config.
    """
    config.data.name = f"fake:{config.data.name}"
    config.data.num_bonafide = min(config.data.num_bonafide, 32)
    config.data.num_selection = min(config.data.num_selection, 32)
    for part in (config.endpoint, config.curve):
        part.batch_size = 16
        part.num_epochs = 0.1
    config.evaluation.num_points = 3
    config.evaluation.batch_size = 32
    config.evaluation.train_images = 32
    config.evaluation.test_images = 32
    config.evaluation.batch_stats_images = 32
    config.evaluation.batch_stats_batch_size = 16
    config.evaluation.plane_points = min(config.evaluation.plane_points, 2)
    config.evaluation.plane_images = 32
    config.run.log_every_steps = 2
    return config


def variant(config: ConfigDict, arg: str | None) -> ConfigDict:
    """What stands after the colon of `--config FILE:ARG`: nothing, or `quick`.

    Raises:
        UserError: Anything else.
    """
    if not arg:
        return config
    if arg == "quick":
        return quick(config)
    raise UserError(f"unknown config argument {arg!r}; use :quick or none")


def validate(config: ConfigDict) -> None:
    """Checks every value that a user can get wrong, before anything is computed.

    Raises:
        UserError: Names the field, its value and what it can be.
    """
    for field, allowed in CHOICES.items():
        _require(config, field, lambda v, a=allowed: v in a, f"one of {', '.join(allowed)}")
    for field, low in AT_LEAST.items():
        _require(config, field, lambda v, low=low: v >= low, f"at least {low}")
    for field in POSITIVE:
        _require(config, field, lambda v: v > 0, "more than 0")
    uses = config.curve.images, config.evaluation.batch_stats
    if "bonafide" in uses and config.data.num_bonafide == 0:
        raise UserError(
            "config.data.num_bonafide is 0 but bonafide images are asked for; "
            "set it, or use train images"
        )


def _require(config: ConfigDict, field: str, holds: Any, wanted: str) -> None:
    part, name = field.split(".")
    value = config[part][name]
    if not holds(value):
        raise UserError(f"config.{field} is {value!r}; it must be {wanted}")


def flat(config: ConfigDict) -> dict[str, Any]:
    """{"curve.num_bends": 1, ...}: every field of a config by its dotted name."""

    def walk(prefix: str, node: Any) -> dict[str, Any]:
        if not isinstance(node, dict):
            return {prefix: node}
        rows = {}
        for name, child in node.items():
            rows.update(walk(f"{prefix}.{name}" if prefix else name, child))
        return rows

    return walk("", json.loads(config.to_json()))


def hashed_fields(config: ConfigDict) -> dict[str, Any]:
    """The fields that decide the result."""
    return {
        name: value
        for name, value in flat(config).items()
        if not any(name == skip or name.startswith(skip + ".") for skip in NOT_HASHED)
    }


def config_hash(config: ConfigDict) -> str:
    """12 hexadecimal digits, equal for configs that give equal results.

    Example:
        >>> a, b = connect(), connect()
        >>> b.run.checkpoint_seconds = 5.0
        >>> config_hash(a) == config_hash(b)
        True
    """
    text = json.dumps(hashed_fields(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
