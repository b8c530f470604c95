"""How well inverted triggers tell tampered networks from clean ones: anomalies and ROC curves.

    python -m benchmarks.verdict --data digits --number 10

Trains `--number` clean networks and as many per trigger, inverts triggers on each with clean images alone, and keeps
the anomaly of every form. A second call goes on where the first ended. Then it writes the page beside the file.

Thresholds are calibrated on the first half of the clean networks of the first architecture; the rates are those of the
second half, of every trigger, and of the other architecture.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mcjax import cpu_convolution, data, models
from mcjax.attacks.poisoning import backdoor, triggers
from mcjax.core.files import write
from mcjax.core.keys import stream
from mcjax.data.splits import Examples, Splits, split
from mcjax.models.network import Network, from_linen
from mcjax.repair.evidence.invert import invert
from mcjax.repair.evidence.judge import THRESHOLD, findings
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
}
BUDGETS = {
    "digits": Budget(num_steps=600, batch_size=64),
    "fashion_mnist": Budget(num_steps=1230, batch_size=128),
}
FALSE_ALARMS = 0.05


def main() -> None:
    """Measures what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=list(TRIGGERS), default="digits")
    parser.add_argument("--number", type=int, default=10)
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/verdict.json"))
    options = parser.parse_args()
    cpu_convolution.enable()
    rows = json.loads(options.output.read_text()) if options.output.exists() else []
    known = {(row["architecture"], row["trigger"], row["seed"]) for row in rows}
    for seed in range(options.number):
        for architecture in options.architectures:
            for trigger in ("", *TRIGGERS[options.data]):
                if (architecture, trigger, seed) in known:
                    continue
                rows.append(measured(options.data, architecture, trigger, seed))
                write(options.output, json.dumps(rows, indent=1) + "\n")
    write(options.output.with_suffix(".md"), page(rows))


def measured(name: str, architecture: str, trigger: str, seed: int) -> dict[str, Any]:
    """One network: its accuracies, and the anomaly and class of every form."""
    began = time.monotonic()
    splits = split(data.load(name), seed=seed, num_bonafide=400, num_selection=150)
    image_shape = splits.train["image"].shape[1:]
    model, changes = ARCHITECTURES[architecture]
    network = from_linen(models.create(model, num_classes=10, **changes), image_shape)
    stamp = None
    examples: Examples = splits.train
    if trigger:
        stamp = triggers.create(trigger, image_shape, **TRIGGERS[name][trigger])
        examples = backdoor.poison(examples, stamp, seed=seed, num_classes=10).examples
    variables = trained(network, examples, seed, BUDGETS[name])
    found = findings(
        invert(
            stream(jax.random.key(seed), "evidence"),
            network,
            variables,
            splits.bonafide,
            num_restarts=2,
        )
    )
    row = {
        "architecture": architecture,
        "trigger": trigger,
        "seed": seed,
        **rates(network, variables, splits, stamp),
        "anomaly": {one.form: one.anomaly for one in found},
        "target": {one.form: one.target for one in found},
        "seconds": round(time.monotonic() - began, 1),
    }
    best = found[0]
    print(
        f"{architecture}, {trigger or 'clean'}, seed {seed}: {row['clean_accuracy']:.3f} / "
        f"{row.get('attack_success_rate', 0):.3f}, {best.form} class {best.target} anomaly "
        f"{best.anomaly:.1f}, {row['seconds']} s",
        flush=True,
    )
    return row


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


def page(rows: list[dict[str, Any]]) -> str:
    """The page: thresholds, false alarms, and detection per trigger and architecture."""
    forms = list(rows[0]["anomaly"])
    first = rows[0]["architecture"]
    clean = [row for row in rows if not row["trigger"]]
    mine = [row for row in clean if row["architecture"] == first]
    half = len(mine) // 2
    threshold = highest(mine[:half])
    lines = [
        "# Is it backdoored? Anomalies of inverted triggers",
        "",
        f"Threshold: {threshold:.2f}, the {100 * (1 - FALSE_ALARMS):g} % quantile of the highest anomaly over all forms on "
        f"{half} clean networks ({first}). Detected: the highest anomaly reaches the threshold. Right class: and "
        f"it belongs to the attacker's class 1. The last column has the alarms at mcjax's own threshold, {THRESHOLD:g}.",
        "",
        f"| architecture | trigger | networks | attack success | alarms | right class | median anomaly | area under ROC | alarms at {THRESHOLD:g} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for architecture in dict.fromkeys(row["architecture"] for row in rows):
        those = [row for row in clean if row["architecture"] == architecture]
        controls = those[half:] if architecture == first else those
        for trigger in dict.fromkeys(row["trigger"] for row in rows):
            group = [
                row
                for row in rows
                if row["architecture"] == architecture and row["trigger"] == trigger
            ]
            group = group if trigger else controls
            if not group:
                continue
            score = np.array([max(row["anomaly"].values()) for row in group])
            best = [max(forms, key=row["anomaly"].__getitem__) for row in group]
            right = [row["target"][f] == 1 for row, f in zip(group, best, strict=True)]
            alarm = score >= threshold
            success = np.mean([row.get("attack_success_rate", np.nan) for row in group])
            area = roc_area(score, [max(row["anomaly"].values()) for row in controls])
            lines.append(
                f"| {architecture} | {trigger or 'none (control)'} | {len(group)} | "
                f"{'' if not trigger else f'{success:.3f}'} | {alarm.mean():.2f} | "
                f"{'' if not trigger else f'{np.mean(alarm & right):.2f}'} | {np.median(score):.1f} | "
                f"{'' if not trigger else f'{area:.3f}'} | {(score >= THRESHOLD).mean():.2f} |"
            )
    return "\n".join(lines) + "\n"


def highest(rows: list[dict[str, Any]]) -> float:
    """The threshold: a quantile of the highest anomaly of clean networks."""
    return float(np.quantile([max(row["anomaly"].values()) for row in rows], 1 - FALSE_ALARMS))


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
