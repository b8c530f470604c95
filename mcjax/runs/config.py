"""The configuration of a run: its fields, its `:quick` form, its checks and its hash."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mcjax.core.errors import UserError, shown
from mcjax.core.fields import check
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
    "quick",
    "validate",
    "variant",
]

# Fields that change how a run is carried out but not its result: not part of the hash.
NOT_HASHED = ("run", "data.dir")

# Fields that came later, with what runs did before: hashed where they differ, so that these runs
# can still be taken up.
ADDED = {"model.bfloat16": False, "curve.align": "none"}

# Those, and switches of how a run is carried out that came later: a run of before lacks them.
LATER = (*ADDED, "run.tensorboard", "run.data_parallel", "run.side_by_side")


def connect() -> ConfigDict:
    """The config of `experiment = "connect"` with the defaults of the digits run.

    Returns:
        A config that a file in configs/ changes and returns.
    """
    return default("connect")


def backdoor() -> ConfigDict:
    """The config of `experiment = "backdoor"`; see `connect`."""
    return default("backdoor")


def injection() -> ConfigDict:
    """The config of `experiment = "injection"`; see `connect`."""
    return default("injection")


def evasion() -> ConfigDict:
    """The config of `experiment = "evasion"`; see `connect`."""
    return default("evasion")


def default(experiment: str) -> ConfigDict:
    """An experiment's config with every field at its default.

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
    config.model.options = ConfigDict()  # depth, width, ...: the network's own
    return config


def quick(config: ConfigDict) -> ConfigDict:
    """Shrinks a config to seconds, on fake images of its data set's shape: `--config FILE:quick`.

    Args:
        config: Any config; changed in place.

    Returns:
        The same config.
    """
    values = _leaves(config)
    for name, setting in SETTINGS[config.experiment].items():
        if name in values:
            config.update_from_flattened_dict({name: setting.shrunk(values[name])})
    return config


def variant(config: ConfigDict, arg: str | None) -> ConfigDict:
    """Applies what stands after the colon of `--config FILE:WORD,WORD`.

    Words: `quick`; `all_to_all`, of a backdoor.

    Raises:
        UserError: Anything else.
    """
    for word in (arg or "").split(",") if arg else ():
        if word == "quick":
            quick(config)
        elif word == "all_to_all" and "label_map" in config.get("attack", {}):
            config.attack.label_map = word
        else:
            raise UserError(f"unknown config argument {word!r}; use :quick or none")
    return config


def validate(config: ConfigDict) -> None:
    """Checks every value that a user can get wrong, before anything is computed.

    What needs the data or the network is checked right after these are there.

    Raises:
        UserError: Names the field, its value and what it can be.
    """
    fields = _leaves(config)
    experiment = fields.get("experiment")
    if not isinstance(experiment, str) or experiment not in SETTINGS:
        raise UserError(
            f"config.experiment is {shown(experiment)}; it must be one of {', '.join(SETTINGS)}"
        )
    settings = SETTINGS[experiment]
    expected = set(settings)
    missing, added = sorted(expected - set(fields) - set(LATER)), sorted(set(fields) - expected)
    if missing or added:
        what = f"lacks {missing[0]}" if missing else f"has {added[0]}, which is no field of it"
        raise UserError(
            f"config.experiment is {experiment}, but the config {what}; use a config file of that "
            "experiment (configs/ has one of each)"
        )
    for name, value in fields.items():
        check(f"config.{name}", value, settings[name].field)
        try:
            json.dumps(value)
        except TypeError:
            raise UserError(
                f"config.{name} is {shown(value)}; give Python's own int or float, which a file of "
                "the config can hold"
            ) from None
    if fields.get("run.data_parallel") and fields.get("run.side_by_side"):
        raise UserError(
            "config.run.data_parallel spreads one network over all devices and config.run.side_by_side puts "
            "several on one; use one of them"
        )
    if experiment == "injection" and fields["attack.num_faults"] > fields["attack.num_images"]:
        raise UserError(
            f"config.attack.num_faults is {fields['attack.num_faults']}, more than the "
            f"{fields['attack.num_images']} images of config.attack.num_images; raise that"
        )
    uses = fields.get("curve.images"), fields["evaluation.batch_stats"]
    if "bonafide" in uses and fields["data.num_bonafide"] == 0:
        raise UserError(
            "config.data.num_bonafide is 0 but bonafide images are asked for; "
            "set it, or use train images"
        )


def _leaves(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """{"curve.num_bends": 1, ...} with values as they are; `model.options` left out."""
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
    return deciding(flat(config))


def deciding(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a flat config's fields that decide the result.

    Example:
        >>> deciding({"seed": 1, "run.chunk": 8, "model.bfloat16": False})
        {'seed': 1}
    """
    return {
        name: value
        for name, value in fields.items()
        if not any(name == skip or name.startswith(skip + ".") for skip in NOT_HASHED)
        and not (name in ADDED and value == ADDED[name])
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
