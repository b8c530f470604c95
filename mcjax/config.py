"""The configuration of a run: its fields, its `:quick` form, its checks and its hash."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mcjax.defaults import backdoor, connect, evasion, injection
from mcjax.errors import UserError, shown
from mcjax.fields import FIELDS, check

__all__ = [
    "backdoor",
    "config_hash",
    "connect",
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

DEFAULTS = {"connect": connect, "backdoor": backdoor, "injection": injection, "evasion": evasion}


def quick(config: ConfigDict) -> ConfigDict:
    """Shrinks a config to seconds, on fake images of its data set's shape: `--config FILE:quick`.

    Args:
        config: Any config; changed in place.

    Returns:
        The same config.
    """
    changes = {
        "data.name": f"fake:{config.data.name}",
        "data.num_bonafide": min(config.data.num_bonafide, 32),
        "data.num_selection": min(config.data.num_selection, 32),
        **{f"{part}.batch_size": 16 for part in ("endpoint", "curve", "repair")},
        **{f"{part}.num_epochs": 0.1 for part in ("endpoint", "curve")},
        "evaluation.num_points": 3,
        "evaluation.batch_size": 32,
        "evaluation.train_images": 32,
        "evaluation.test_images": 32,
        "evaluation.batch_stats_images": 32,
        "evaluation.batch_stats_batch_size": 16,
        "evaluation.plane_points": min(config.evaluation.get("plane_points", 0), 2),
        "evaluation.plane_images": 32,
        "repair.sizes": (32, 16),
        "repair.num_epochs": 1.0,
        "repair.steps_per_epoch": 2,
        "repair.num_draws": 2,
        "repair.i_bau.num_rounds": 1,
        "evaluation.robust_images": 16,
        "evaluation.robust_batch_size": 8,
        "evaluation.transfer_points": 2,
        "evaluation.transfer_images": 8,
        "attack.num_steps": 2,
        "attack.num_images": 8,
        "attack.num_faults": 1,
        "attack.curve_epochs": 0.1,
        "adversarial.num_steps": 2,
        "robust_path.num_steps": 2,
        "explain.num_images": 16,
        "explain.num_draws": 2,
        "run.log_every_steps": 2,
    }
    has = flat(config)
    if "attack.num_faults" in has:  # faults need networks that are right somewhere
        changes |= {"attack.num_steps": 300, "attack.num_flips": 40, "endpoint.num_epochs": 3.0}
    config.update_from_flattened_dict({k: v for k, v in changes.items() if k in has})
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
    if not isinstance(experiment, str) or experiment not in DEFAULTS:
        raise UserError(
            f"config.experiment is {shown(experiment)}; it must be one of {', '.join(DEFAULTS)}"
        )
    expected = set(_leaves(DEFAULTS[experiment]()))
    missing, added = sorted(expected - set(fields) - set(LATER)), sorted(set(fields) - expected)
    if missing or added:
        what = f"lacks {missing[0]}" if missing else f"has {added[0]}, which is no field of it"
        raise UserError(
            f"config.experiment is {experiment}, but the config {what}; use a config file of that "
            "experiment (configs/ has one of each)"
        )
    for name, value in fields.items():
        check(f"config.{name}", value, FIELDS[name])
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
