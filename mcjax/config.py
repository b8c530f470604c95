"""The configuration of a run: its fields, its `:quick` form, its checks and its hash."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mcjax.defaults import backdoor, connect, evasion, injection
from mcjax.errors import UserError

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

CHOICES = {
    "curve.kind": ("bezier", "polychain"),
    "curve.init": ("line", "random"),
    "curve.align": ("none", "weights"),
    "curve.images": ("train", "bonafide"),
    "evaluation.batch_stats": ("train", "bonafide", "none"),
    "data.protocol": ("disjoint", "legacy"),
    "attack.label_map": ("single_target", "all_to_all", "clean_label"),
    "attack.when": ("before", "after"),
    "attack.norm": ("linf", "l2", "l1"),
    "adversarial.method": ("madry", "fgsm", "trades"),
    "hessian.method": ("exact", "lanczos", "power"),
    "attack.method": ("l0", "l2", "gradient", "bit_flips"),
    "attack.stored_as": ("int8", "float32"),
    "attack.attacker": ("plain", "path_aware"),
    "repair.pair": ("both_tampered", "tampered_and_clean", "tampered_and_fine_tuned"),
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
    "attack.target": 0,
    **{f"{part}.{n}": 0 for part in ("attack", "adversarial") for n in ("eps", "step_size")},
    **{f"{part}.num_steps": 0 for part in ("attack", "adversarial", "robust_path")},
    "adversarial.beta": 0,
    "evaluation.robust_images": 1,
    "attack.num_flips": 0,
    "explain.num_images": 1,
    "explain.num_draws": 1,
    "attack.num_faults": 1,
    "evaluation.transfer_points": 2,
    "evaluation.transfer_images": 1,
    "repair.folds": 0,
    "repair.steps_per_epoch": 0,
    "repair.tolerance": 0,
    "repair.num_draws": 1,
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
    "repair.num_epochs",
    "repair.batch_size",
    *(f"repair.learning_rate.{n}" for n in ("path", "fine_tune", "scratch", "prune", "fine_prune")),
)


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

    Raises:
        UserError: Names the field, its value and what it can be.
    """
    for field, allowed in CHOICES.items():
        _require(config, field, lambda v, a=allowed: v in a, f"one of {', '.join(allowed)}")
    for field, low in AT_LEAST.items():
        _require(config, field, lambda v, low=low: v >= low, f"at least {low}")
    for field in POSITIVE:
        _require(config, field, lambda v: 0 < v < math.inf, "more than 0, and finite")
    for field in ("model.bfloat16", "run.data_parallel", "run.side_by_side"):
        _require(config, field, lambda v: isinstance(v, bool), "True or False")
    if config.run.get("data_parallel", False) and config.run.get("side_by_side", False):
        raise UserError(
            "config.run.data_parallel spreads one network over all devices and config.run.side_by_side puts "
            "several on one; use one of them"
        )
    for part in ("endpoint", "curve", "repair"):
        _require(config, f"{part}.momentum", lambda v: 0 <= v < 1, "at least 0 and below 1")
        _require(config, f"{part}.weight_decay", lambda v: 0 <= v < math.inf, "0 or more, finite")
    _require(config, "repair.tolerance", lambda v: v <= 1, "a fraction: 0.02 is two points of 100")
    uses = config.curve.get("images"), config.evaluation.batch_stats
    if "bonafide" in uses and config.data.num_bonafide == 0:
        raise UserError(
            "config.data.num_bonafide is 0 but bonafide images are asked for; "
            "set it, or use train images"
        )


def _require(config: ConfigDict, field: str, holds: Any, wanted: str) -> None:
    *parts, name = field.split(".")
    node = config
    for part in parts:
        if part not in node:  # its get() makes up a message about a likely name, slowly
            return
        node = node[part]
    if name not in node:  # not every experiment has every field
        return
    value = node[name]
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
