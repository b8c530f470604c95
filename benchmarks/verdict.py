"""How well inverted triggers tell tampered networks from clean ones: anomalies and ROC curves.

    python -m benchmarks.verdict --data digits --number 10

Trains `--number` clean networks and as many per trigger, inverts triggers on each with clean images alone, and keeps
the anomaly of every form. A second call goes on where the first ended. Then it writes the page beside the file.

Thresholds (`Form.threshold`) are set by hand from the clean networks with odd seeds; the rates are those of clean
networks with even seeds, of every trigger, and of another architecture.
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
from mcjax.repair.evidence.forms import FORMS
from mcjax.repair.evidence.invert import invert
from mcjax.repair.evidence.judge import findings, threshold
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


def main() -> None:
    """Measures what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=list(TRIGGERS), default="digits")
    parser.add_argument("--number", type=int, default=10, help="networks per trigger")
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--triggers", nargs="*", help='all of the data set; "clean": the controls')
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/verdict.json"))
    options = parser.parse_args()
    cpu_convolution.enable()
    rows = json.loads(options.output.read_text()) if options.output.exists() else []
    known = {(row["architecture"], row["trigger"], row["seed"]) for row in rows}
    triggers_asked = options.triggers or ["clean", *TRIGGERS[options.data]]
    for seed in range(options.first_seed, options.first_seed + options.number):
        for architecture in options.architectures:
            for trigger in (t.removesuffix("clean") for t in triggers_asked):
                if (architecture, trigger, seed) in known:
                    continue
                rows.append(measured(options.data, architecture, trigger, seed))
                write(options.output, json.dumps(rows, indent=1) + "\n")
    write(options.output.with_suffix(".md"), page(rows, options.data))


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


def page(rows: list[dict[str, Any]], data_name: str = "digits") -> str:
    """The page: what clean networks reach by form, then alarms per trigger and architecture."""
    clean = [row for row in rows if not row["trigger"]]
    forms = [form for form in FORMS if any(form in row["anomaly"] for row in clean)]
    on_digits = data_name == "digits"  # where the thresholds come from
    how = "by hand, from the clean networks with odd seeds before more were trained"
    control = "with even seeds, which set no threshold" if on_digits else "of all seeds"
    lines = [
        f"# Is it backdoored? Anomalies of inverted triggers on {data_name}",
        "",
        f"What {len(clean)} clean networks reach by chance, by form, and the threshold of mcjax: a trigger is evidence "
        f"from there on. Thresholds were set {how if on_digits else 'on digits'}.",
        "",
        "| form | median | 90 % quantile | largest, odd seeds | largest, even seeds | threshold |",
        "|---|---|---|---|---|---|",
    ]
    for form in forms:
        found = np.array([row["anomaly"].get(form, np.nan) for row in clean])
        odd = np.array([row["seed"] % 2 == 1 for row in clean])
        middle, high = np.nanquantile(found, (0.5, 0.9))
        lines.append(
            f"| {form} | {middle:.1f} | {high:.1f} | {np.nanmax(found[odd]):.1f} | "
            f"{np.nanmax(found[~odd]):.1f} | {threshold(form):g} |"
        )
    lines += [
        "",
        "Alarm: a form reaches its threshold. The score is the highest anomaly over its threshold, so 1 is an alarm. "
        "Right class: the form with the highest score names the attacker's class 1. The control has the clean networks "
        f"{control}.",
        "",
        "| architecture | trigger | networks | attack success | alarms | right class | median score | area under ROC |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for architecture in dict.fromkeys(row["architecture"] for row in rows):
        mine = [row for row in rows if row["architecture"] == architecture]
        controls = [
            row for row in mine if not row["trigger"] and (row["seed"] % 2 == 0 or not on_digits)
        ]
        for trigger in dict.fromkeys(["", *(row["trigger"] for row in mine)]):
            group = [row for row in mine if row["trigger"] == trigger] if trigger else controls
            if not group:
                continue
            scores, classes = zip(*map(score, group), strict=True)
            alarm = np.array(scores) >= 1
            success = np.mean([row.get("attack_success_rate", np.nan) for row in group])
            right = alarm & (np.array(classes) == 1)
            area = roc_area(scores, [score(row)[0] for row in controls]) if controls else np.nan
            of_tampered = (f"{success:.3f}", f"{right.mean():.2f}", f"{area:.3f}")
            shown = of_tampered if trigger else ("", "", "")
            lines.append(
                f"| {architecture} | {trigger or 'none (control)'} | {len(group)} | {shown[0]} | "
                f"{alarm.sum()} | {shown[1]} | {np.median(scores):.2f} | {shown[2]} |"
            )
    return "\n".join(lines) + "\n"


def score(row: dict[str, Any]) -> tuple[float, int]:
    """A network's highest anomaly over the form's threshold, and the class that it names."""
    ranked = sorted(
        (a / threshold(form), row["target"][form]) for form, a in row["anomaly"].items()
    )
    return ranked[-1]


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
