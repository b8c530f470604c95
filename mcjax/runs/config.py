"""Run configs: default values, `:quick` variants, validation and hashes."""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from mcjax import models
from mcjax.core.errors import UserError, shown
from mcjax.core.fields import check
from mcjax.repair import methods
from mcjax.repair.methods.taught_path import FREE_LEARNING_RATE
from mcjax.repair.paths import PATHS, shown_path
from mcjax.runs.schema import SETTINGS

__all__ = [
    "backdoor",
    "config_hash",
    "connect",
    "default",
    "evasion",
    "flat",
    "hashed_fields",
    "injection",
    "one_suspect",
    "quick",
    "validate",
    "variant",
]

# Fields that do not change a run's result; not part of the hash.
NOT_HASHED = ("run", "data.dir")


def connect() -> ConfigDict:
    """The config of `experiment = "connect"` with the defaults of the digits run.

    Returns:
        A config; a file in configs/ modifies and returns it.
    """
    return default("connect")


def backdoor() -> ConfigDict:
    """The config of `experiment = "backdoor"`; see `connect`."""
    return default("backdoor")


def one_suspect() -> ConfigDict:
    """The config of a backdoor study of one suspect: a free end, evidence, every defence."""
    config = backdoor()
    config.data.num_bonafide = 2500
    config.data.num_selection = 1000
    config.repair.pair = "suspect_alone"
    config.repair.learning_rate.path = 0.02
    config.repair.learning_rate.taught_path = FREE_LEARNING_RATE
    config.repair.choose = "evidence"
    config.repair.tune = True
    config.repair.sizes = (2500, 1000, 250)
    config.repair.methods = tuple(
        name for name, method in methods.METHODS.items() if not method.needs_second
    )
    config.evaluation.num_points = 41
    config.evaluation.batch_size = 1000
    return config


def injection() -> ConfigDict:
    """The config of `experiment = "injection"`; see `connect`."""
    return default("injection")


def evasion() -> ConfigDict:
    """The config of `experiment = "evasion"`; see `connect`."""
    return default("evasion")


def default(experiment: str) -> ConfigDict:
    """An experiment's config with default values.

    Args:
        experiment: A name of `mcjax.runs.schema.SETTINGS`.

    Example:
        >>> default("connect").curve.num_bends
        1
    """
    config = ConfigDict()
    for name, setting in SETTINGS[experiment].items():
        *parts, last = name.split(".")
        node = config
        for part in parts:
            if part not in node:
                node[part] = ConfigDict()
            node = node[part]
        node[last] = setting.default
    config.model.options = ConfigDict()  # depth, width, ...; depends on the network
    return config


QUICK_WIDTH = 16
"""With `:quick`, channels of a network's first layers, at most, where the config gives it options."""


def quick(config: ConfigDict) -> ConfigDict:
    """Shrinks a config so that it runs in seconds, on fake images of the same shape (`:quick`).

    Args:
        config: Any config; modified in place.

    Returns:
        The same config.
    """
    values = _leaves(config)
    for name, setting in SETTINGS[config.experiment].items():
        if name in values:
            config.update_from_flattened_dict({name: setting.shrunk(values[name])})
    if config.model.options:  # without any, the name alone may still be changed
        network = models.create(config.model.name, num_classes=2, **config.model.options)
        if getattr(network, "width", 0) > QUICK_WIDTH and not getattr(network, "wide", False):
            config.model.options.width = QUICK_WIDTH
    return config


def variant(config: ConfigDict, arg: str | None) -> ConfigDict:
    """Applies the words after the colon of a config file's name, FILE:WORD,WORD.

    Words: `quick`, and `all_to_all` for backdoors.

    Raises:
        UserError: A word is unknown.
    """
    for word in (arg or "").split(",") if arg else ():
        if word == "quick":
            quick(config)
        elif word == "all_to_all" and "label_map" in config.get("attack", {}):
            config.attack.label_map = word
        else:
            words = ["quick", *(["all_to_all"] if "label_map" in config.get("attack", {}) else [])]
            raise UserError(
                f"unknown config argument {word!r}; use {' or '.join(words)}, or no argument"
            )
    return config


def validate(config: ConfigDict) -> None:
    """Validates a config before anything is computed.

    Checks that need the data or the network follow once these are loaded.

    Raises:
        UserError: A field is invalid; the message names it and its allowed values.
    """
    fields = _leaves(config)
    experiment = fields.get("experiment")
    if not isinstance(experiment, str) or experiment not in SETTINGS:
        raise UserError(
            f"config.experiment is {shown(experiment)}; it must be one of {', '.join(SETTINGS)}"
        )
    settings = SETTINGS[experiment]
    expected = set(settings)
    missing, added = sorted(expected - set(fields)), sorted(set(fields) - expected)
    if missing or added:
        misspelt = len(added) == 1 and len(missing) <= 1
        near = difflib.get_close_matches(added[0], expected, 1, 0.85) if misspelt else []
        if near:
            raise UserError(f"the config has no field {added[0]}; did you mean {near[0]}?")
        what = f"lacks {missing[0]}" if missing else f"has an unknown field, {added[0]}"
        raise UserError(
            f"config.experiment is {experiment}, but the config {what}; use a config file for that "
            "experiment (see configs/)"
        )
    for name, value in fields.items():
        check(f"config.{name}", value, settings[name].field)
        try:
            json.dumps(value)
        except TypeError:
            raise UserError(
                f"config.{name} is {shown(value)}; give a Python int or float, so that the config can "
                "be saved"
            ) from None
    if fields.get("run.data_parallel") and fields.get("run.side_by_side"):
        raise UserError(
            "config.run.data_parallel (one network on all devices) excludes config.run.side_by_side "
            "(several networks on one device); use one of them"
        )
    if experiment == "injection" and fields["attack.num_faults"] > fields["attack.num_images"]:
        raise UserError(
            f"config.attack.num_faults is {fields['attack.num_faults']}, more than the "
            f"{fields['attack.num_images']} of config.attack.num_images; increase num_images"
        )
    pair, way = fields.get("repair.pair"), fields.get("repair.unalign")
    usual = settings["repair.unalign"].default if way else None
    if way != usual and pair != "suspect_and_unaligned":
        raise UserError(
            f"config.repair.unalign is {way}, but config.repair.pair is {pair}; use suspect_and_unaligned, or "
            "leave unalign out"
        )
    if "repair.methods" in fields:
        _check_methods(fields["repair.methods"], fields["repair.pair"])
    uses = fields.get("curve.images"), fields["evaluation.batch_stats"]
    if "bonafide" in uses and fields["data.num_bonafide"] == 0:
        raise UserError(
            "config.data.num_bonafide is 0, but the config uses bonafide images; set it, or use train "
            "images"
        )


def _check_methods(names: Iterable[str], pair: str) -> None:
    names = tuple(names)
    for name in names:
        try:
            methods.get(name)
        except UserError as error:
            raise UserError(f"config.repair.methods: {error}") from None
        if pair == "suspect_alone" and methods.METHODS[name].needs_second:
            raise UserError(
                f"config.repair.methods: {name} needs a second network, and config.repair.pair is "
                f"{pair}; leave {name} out, or use another pair"
            )
    if shown_path(names) is None:
        raise UserError(
            f"config.repair.methods has none of {', '.join(PATHS)}, which every other is compared with"
        )


def _leaves(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """{"curve.num_bends": 1, ...} with unconverted values, without `model.options`."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if prefix + name == "model.options":
            continue
        if isinstance(value, ConfigDict):
            found |= _leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def flat(config: ConfigDict) -> dict[str, Any]:
    """All fields of a config by dotted name: {"curve.num_bends": 1, ...}."""

    def walk(prefix: str, node: Any) -> dict[str, Any]:
        if not isinstance(node, dict):
            return {prefix: node}
        rows = {}
        for name, child in node.items():
            rows.update(walk(f"{prefix}.{name}" if prefix else name, child))
        return rows

    return walk("", json.loads(config.to_json()))


def hashed_fields(config: ConfigDict) -> dict[str, Any]:
    """The fields that determine the result."""
    return deciding(flat(config))


def deciding(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a flat config that determine the result.

    Example:
        >>> deciding({"seed": 1, "run.chunk": 8})
        {'seed': 1}
    """
    return {
        name: value
        for name, value in fields.items()
        if not any(name == skip or name.startswith(skip + ".") for skip in NOT_HASHED)
    }


def config_hash(config: ConfigDict) -> str:
    """A hash of 12 hexadecimal digits, equal for configs that give equal results.

    Example:
        >>> a, b = connect(), connect()
        >>> b.run.checkpoint_seconds = 5.0
        >>> config_hash(a) == config_hash(b)
        True
    """
    text = json.dumps(hashed_fields(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
