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
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.suspects import measured_rows, parsed, rates, searched, suspect_of
from mcjax.core.files import write
from mcjax.core.keys import stream
from mcjax.repair.evidence.control import CONTROLS, THRESHOLDS, make_control
from mcjax.repair.evidence.invert import Inverted
from mcjax.repair.evidence.verdict import Finding, findings
from mcjax.repair.options import DEFAULTS
from mcjax.training.fit import fit

ARRAYS = ("cost", "control_share")
"""Of a form's triggers, what is kept per class: means over the restarts."""


def main() -> None:
    """Measures what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--control", choices=list(CONTROLS), default="path", help="how it is made")
    options = parsed(parser, "verdict")
    rows = measured_rows(options, functools.partial(measured, kind=options.control))
    write(options.output.with_suffix(".md"), page(rows, options.data))


def measured(name: str, architecture: str, trigger: str, seed: int, *, kind: str) -> dict[str, Any]:
    """One network: its accuracies, and what every class costs by every form.

    Args:
        name: The data.
        architecture: Of `benchmarks.suspects.ARCHITECTURES`.
        trigger: Of `benchmarks.suspects.TRIGGERS`; "" for a clean network.
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
            f"| {form} | {middle:.2f} | {high:.2f} | {largest[0]:.2f} | {largest[1]:.2f} | "
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
    return best.margin, best.target


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
