"""How well inverted triggers tell tampered networks from clean ones: anomalies and ROC curves.

    python -m benchmarks.verdict --data digits --number 10

Trains `--number` clean networks and as many per trigger, inverts triggers on each with clean images alone, tries them
on its control, and keeps what every class cost. A second call goes on where the first ended. Then it writes the page
beside the file.

The threshold (`mcjax.repair.evidence.control.THRESHOLDS`) comes from clean networks of digits with odd seeds; the rates are those
of clean networks with even seeds, of every trigger, of other architectures and of Fashion-MNIST.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mcjax import cpu_convolution, data, models
from mcjax.attacks.poisoning import backdoor, triggers
from mcjax.core.files import write
from mcjax.core.keys import stream
from mcjax.data.splits import Examples, Splits, split
from mcjax.models.network import Network, from_linen
from mcjax.repair.evidence.control import CONTROLS, THRESHOLDS, Control, make_control
from mcjax.repair.evidence.invert import Inverted, invert
from mcjax.repair.evidence.verdict import Finding, findings
from mcjax.repair.options import DEFAULTS
from mcjax.training.fit import Budget, Training, fit
from mcjax.training.objectives import endpoint_loss

# Strengths at which a network of a few epochs learns the trigger.
TRIGGERS: dict[str, dict[str, dict[str, float]]] = {
    "digits": {
        "square": {},
        "four_pixels": {},
        "blended": {},
        "low_frequency": {"amplitude": 0.3},
        "wanet": {"strength": 2.0},
    },
    "fashion_mnist": {
        "square": {},
        "pixel": {},
        "four_pixels": {},
        "blended": {},
        "sinusoidal": {},
        "low_frequency": {},
        "wanet": {},
    },
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn": ("cnn", {"width": 16}),
    "cnn with BatchNorm": ("cnn", {"width": 16, "batch_norm": True}),
    "resnet8": ("resnet8", {"width": 16}),
}


class Search(NamedTuple):
    """How networks of a data set are trained and looked at."""

    budget: Budget
    num_bonafide: int
    num_steps: int


SEARCHES = {
    "digits": Search(Budget(num_steps=600, batch_size=64), 400, 200),
    "fashion_mnist": Search(Budget(num_steps=1230, batch_size=128), 1000, 100),
}
ARRAYS = ("cost", "control_share")
"""Of a form's triggers, what is kept per class: means over the restarts."""


def main() -> None:
    """Measures what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--control", choices=list(CONTROLS), default="path", help="how it is made")
    options = parsed(parser, "verdict")
    rows = measured_rows(options, functools.partial(measured, kind=options.control))
    write(options.output.with_suffix(".md"), page(rows, options.data))


def parsed(parser: argparse.ArgumentParser, name: str) -> argparse.Namespace:
    """The command line: which networks are measured, and the file of the results.

    Args:
        parser: The command's parser, with `--control` where there are several kinds.
        name: The usual file's, `NAME.json` for digits and controls by paths.
    """
    parser.add_argument("--data", choices=list(TRIGGERS), default="digits")
    parser.add_argument("--number", type=int, default=10, help="networks per trigger")
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--triggers", nargs="*", help='all of the data set; "clean": the controls')
    parser.add_argument("--architectures", nargs="+", default=["cnn", "cnn with BatchNorm"])
    parser.add_argument("--output", type=Path, help="default: by data and control")
    options = parser.parse_args()
    data_part = "" if options.data == "digits" else "_fashion"
    control_part = "_away" if getattr(options, "control", "path") == "away" else ""
    options.output = options.output or Path(f"benchmarks/{name}{data_part}{control_part}.json")
    return options


def key_of(row: dict[str, Any]) -> tuple[str, str, int]:
    """What names a network."""
    return row["architecture"], row["trigger"], row["seed"]


def measured_rows(
    options: argparse.Namespace, measure_fn: Callable[[str, str, str, int], dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows of all networks that were asked for now or before, each kept as soon as it is measured.

    Args:
        options: What `parsed` returns.
        measure_fn: `measure_fn(data, architecture, trigger, seed)` gives a network's row.
    """
    cpu_convolution.enable()
    rows = json.loads(options.output.read_text()) if options.output.exists() else []
    known = set(map(key_of, rows))
    triggers_asked = options.triggers or ["clean", *TRIGGERS[options.data]]
    for seed in range(options.first_seed, options.first_seed + options.number):
        for architecture in options.architectures:
            for trigger in (t.removesuffix("clean") for t in triggers_asked):
                if (architecture, trigger, seed) in known:
                    continue
                rows.append(measure_fn(options.data, architecture, trigger, seed))
                lines = ",\n".join(json.dumps(row) for row in rows)
                write(options.output, f"[\n{lines}\n]\n")
    return rows


class Suspect(NamedTuple):
    """A network whose truth is known.

    Attributes:
        network: The network.
        variables: Its variables.
        splits: The images.
        stamp: The attacker's trigger; None if the network is clean.
    """

    network: Network
    variables: dict[str, Any]
    splits: Splits
    stamp: Any


def suspect_of(name: str, architecture: str, trigger: str, seed: int) -> Suspect:
    """A network of a data set, clean with the trigger ""."""
    how = SEARCHES[name]
    splits = split(data.load(name), seed=seed, num_bonafide=how.num_bonafide, num_selection=150)
    image_shape = splits.train["image"].shape[1:]
    model, changes = ARCHITECTURES[architecture]
    network = from_linen(models.create(model, num_classes=10, **changes), image_shape)
    stamp = None
    examples: Examples = splits.train
    if trigger:
        stamp = triggers.create(trigger, image_shape, **TRIGGERS[name][trigger])
        examples = backdoor.poison(examples, stamp, seed=seed, num_classes=10).examples
    return Suspect(network, trained(network, examples, seed, how.budget), splits, stamp)


def searched(
    name: str, suspect: Suspect, seed: int, control: Control | None = None
) -> dict[str, Inverted]:
    """The triggers inverted on a network, tried on its control if there is one."""
    images = jax.tree.map(jnp.asarray, suspect.splits.bonafide)
    return invert(
        stream(jax.random.key(seed), "evidence"),
        suspect.network,
        suspect.variables,
        images,
        num_steps=SEARCHES[name].num_steps,
        num_restarts=2,
        control=control,
    )


def measured(name: str, architecture: str, trigger: str, seed: int, *, kind: str) -> dict[str, Any]:
    """One network: its accuracies, and what every class costs by every form.

    Args:
        name: The data.
        architecture: Of `ARCHITECTURES`.
        trigger: Of `TRIGGERS`; "" for a clean network.
        seed: Of everything.
        kind: The kind of the control (`mcjax.repair.evidence.control.CONTROLS`).
    """
    began = time.monotonic()
    suspect = suspect_of(name, architecture, trigger, seed)
    network, variables, splits, stamp = suspect
    key, images = jax.random.key(seed), jax.tree.map(jnp.asarray, splits.bonafide)
    control = make_control(
        stream(key, "control"),
        network,
        variables,
        images,
        splits.bonafide,
        num_steps=DEFAULTS.control_steps,
        fit_fn=functools.partial(fit, stream(key, "control training")),
        kinds=(kind,),
    )
    if control.variables is None:
        raise ValueError(f"{architecture}, {trigger or 'clean'}, seed {seed}: {control.why_not}")
    inverted = searched(name, suspect, seed, control)
    row = {
        "architecture": architecture,
        "trigger": trigger,
        "seed": seed,
        **rates(network, variables, splits, stamp),
        "kind": kind,
        "control": rates(network, control.variables, splits, stamp),
        "triggers": {
            form: {k: np.asarray(getattr(one, k)).mean(-2).round(3).tolist() for k in ARRAYS}
            for form, one in inverted.items()
        },
        "seconds": round(time.monotonic() - began, 1),
    }
    best = ranked(row)[0]
    print(
        f"{architecture}, {trigger or 'clean'}, seed {seed}: {row['clean_accuracy']:.3f} / "
        f"{row.get('attack_success_rate', 0):.3f}, {best.form} class {best.target} anomaly "
        f"{best.anomaly:.1f}, {row['seconds']} s",
        flush=True,
    )
    return row


def ranked(row: dict[str, Any]) -> list[Finding]:
    """The findings of a network, the most suspicious form first."""
    found = {}
    for form, one in row["triggers"].items():
        cost, share = jnp.asarray(one["cost"])[None], jnp.asarray(one["control_share"])[None]
        nothing = jnp.zeros_like(cost)
        limit = THRESHOLDS[row["kind"]]
        found[form] = Inverted(None, cost, nothing, nothing, share, limit)
    return findings(found)


def trained(network: Network, examples: Examples, seed: int, budget: Budget) -> dict[str, Any]:
    """A network trained on images."""
    key = jax.random.key(seed)
    start = {"batch_stats": {}, **network.init(stream(key, "init"))}
    images = {k: jnp.asarray(v) for k, v in examples.items()}
    training = Training(
        start["params"], start["batch_stats"], images, endpoint_loss(network), 0.05, budget
    )
    return fit(key, training)


def rates(network: Network, variables: Any, splits: Splits, stamp: Any) -> dict[str, float]:
    """Clean accuracy, and attack success where there is a trigger, on at most 2,000 images."""

    def right(examples: Examples) -> float:
        x = jnp.asarray(examples["image"][:2000], jnp.float32) / 255
        if examples["image"].dtype != np.uint8:
            x = jnp.asarray(examples["image"][:2000])
        answers = jax.jit(network.apply)(variables, x).argmax(-1)
        return float((np.asarray(answers) == examples["label"][:2000]).mean())

    found = {"clean_accuracy": right(splits.test)}
    if stamp is not None:
        attacked = backdoor.attack_set(splits.test, stamp, num_classes=10)
        found["attack_success_rate"] = right(attacked)
    return found


CONTROL_NAMES = {
    "path": "the middle of a path to the un-aligned copy",
    "away": "the network trained away from its own last layer",
}


def page(rows: list[dict[str, Any]], data_name: str = "digits") -> str:
    """The page: what clean networks reach by form, then alarms per trigger and architecture.

    Args:
        rows: The networks.
        data_name: Their data.
    """
    found = [{one.form: one for one in ranked(row)} for row in rows]
    is_clean = np.array([not row["trigger"] for row in rows])
    odd = np.array([row["seed"] % 2 == 1 for row in rows])
    lines = [
        f"# Is it backdoored? Anomalies of inverted triggers on {data_name}",
        "",
        f"What {is_clean.sum()} clean networks reach by chance, by form, and the threshold of mcjax: a trigger is evidence "
        f"from there on. The control: {CONTROL_NAMES[rows[0]['kind']]}.",
        "",
        "| form | median | 90 % quantile | largest, odd seeds | largest, even seeds | threshold |",
        "|---|---|---|---|---|---|",
    ]
    for form in found[0]:
        reached = np.array([one[form].anomaly for one in found])
        middle, high = np.quantile(reached[is_clean], (0.5, 0.9))
        largest = [reached[is_clean & some].max(initial=-np.inf) for some in (odd, ~odd)]
        lines.append(
            f"| {form} | {middle:.1f} | {high:.1f} | {largest[0]:.1f} | {largest[1]:.1f} | "
            f"{found[0][form].threshold:g} |"
        )
    lines += [
        "",
        "Alarm: a form reaches its threshold. The score is the highest anomaly over its threshold, so 1 is an alarm. "
        "Right class: the form with the highest score names the attacker's class 1. Clean networks with even seeds set "
        "no threshold; ROC curves are with them.",
        "",
        "| architecture | trigger | networks | attack success | attack success of the control network | alarms | right class | "
        "median score | area under ROC |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for architecture in dict.fromkeys(row["architecture"] for row in rows):
        mine = [row for row in rows if row["architecture"] == architecture]
        controls = [row for row in mine if not row["trigger"] and row["seed"] % 2 == 0]
        for trigger in dict.fromkeys(["", *(row["trigger"] for row in mine)]):
            group = [row for row in mine if row["trigger"] == trigger] if trigger else controls
            if not group:
                continue
            scores, classes = zip(*map(score, group), strict=True)
            alarm = np.array(scores) >= 1
            shown = [""] * 4
            if trigger:
                right = alarm & (np.array(classes) == 1)
                area = roc_area(scores, [score(row)[0] for row in controls]) if controls else np.nan
                success = [
                    np.mean([one["attack_success_rate"] for one in some])
                    for some in (group, [row["control"] for row in group])
                ]
                shown = [*(f"{v:.3f}" for v in success), f"{right.mean():.2f}", f"{area:.3f}"]
            lines.append(
                f"| {architecture} | {trigger or 'none, even seeds'} | {len(group)} | {shown[0]} | {shown[1]} | "
                f"{alarm.sum()} | {shown[2]} | {np.median(scores):.2f} | {shown[3]} |"
            )
    return "\n".join(lines) + "\n"


def score(row: dict[str, Any]) -> tuple[float, int]:
    """A network's highest anomaly over the form's threshold, and the class that it names."""
    best = ranked(row)[0]
    return best.anomaly / best.threshold, best.target


def roc_area(tampered: Any, clean: Any) -> float:
    """The area under the ROC curve: how often a tampered network scores above a clean one.

    Example:
        >>> roc_area([3.0, 1.0], [2.0, 0.0])
        0.75
    """
    a, b = np.asarray(tampered)[:, None], np.asarray(clean)[None]
    return float((a > b).mean() + (a == b).mean() / 2)


if __name__ == "__main__":
    main()
