"""Whether the path to a network's own un-aligned copy tells tampered networks from clean ones.

    python -m benchmarks.signature --number 4
    python -m benchmarks.signature --number 20 --triggers clean

For the networks of `benchmarks.suspects`: triggers are inverted on the network, a path with one bend is trained
on clean images to its un-aligned copy, and at every t the triggers are tried on w(t), as the verdict tries them on its control,
the middle of such a path. A planted trigger should do little there and a natural one as much as before. A second call goes on where the first
ended. Then it writes the page beside the file.

    signature at t:  mean over a class's restarts of  CE_w(t)(stamped images, k) / CE_w(t)(plain images, k)
"""

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.suspects import Suspect, key_of, measured_rows, parsed, rates, searched, suspect_of
from benchmarks.verdict import roc_area, score
from mcjax.core.files import write
from mcjax.core.keys import stream
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.repair.evidence.control import BATCH_SIZE, path_to_unaligned_copy
from mcjax.repair.evidence.invert import tried_on
from mcjax.repair.evidence.verdict import LEAST_SPREADS, outlying, outlying_in_both
from mcjax.repair.options import DEFAULTS
from mcjax.training.fit import Budget, fit

TS = (-0.5, -0.25, 0.25, 0.5, 0.75, 1.25, 1.5)
"""Points of the path. At t = 0 and 1 is the network's own function."""


def main() -> None:
    """Measures what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options = parsed(parser, "signature")
    rows = measured_rows(options, measured)
    path = Path(f"benchmarks/verdict{'' if options.data == 'digits' else '_fashion'}_away.json")
    wanted = set(map(key_of, rows))
    verdicts = [row for row in json.loads(path.read_text()) if key_of(row) in wanted]
    write(options.output.with_suffix(".md"), page(rows, verdicts, options.data))


def measured(name: str, architecture: str, trigger: str, seed: int) -> dict[str, Any]:
    """One network: what every class costs by every form, and the triggers' shares along the path."""
    began = time.monotonic()
    suspect = suspect_of(name, architecture, trigger, seed)
    inverted = searched(name, suspect, seed)
    image = jnp.asarray(suspect.splits.bonafide["image"])
    points = path_of(suspect, jax.random.key(seed))
    along = []
    for t in TS:
        variables = {"batch_stats": {}, **jax.jit(points)(jnp.float32(t))}
        tried = {
            form: tried_on(variables, one, image, network=suspect.network, form=form)
            for form, one in inverted.items()
        }
        shares = {form: means(one.control_share) for form, one in tried.items()}
        along.append(
            {
                "t": t,
                **rates(suspect.network, variables, suspect.splits, suspect.stamp),
                "share": shares,
            }
        )
    row = {
        "architecture": architecture,
        "trigger": trigger,
        "seed": seed,
        **rates(suspect.network, suspect.variables, suspect.splits, suspect.stamp),
        "cost": {form: means(one.cost) for form, one in inverted.items()},
        "along": along,
        "seconds": round(time.monotonic() - began, 1),
    }
    scores = ", ".join(f"{anomaly(row, i)[0]:.1f}" for i in range(len(TS)))
    print(
        f"{architecture}, {trigger or 'clean'}, seed {seed}: anomalies {scores}; {row['seconds']} s",
        flush=True,
    )
    return row


def path_of(suspect: Suspect, key: jax.Array) -> CurveWithStats:
    """The points of a path from a network to its un-aligned copy, trained on the bonafide images."""
    return path_to_unaligned_copy(
        key,
        suspect.network,
        suspect.variables,
        jax.tree.map(jnp.asarray, suspect.splits.bonafide),
        Budget(num_steps=DEFAULTS.control_steps, batch_size=BATCH_SIZE),
        functools.partial(fit, stream(key, "path")),
    )


def means(v: jax.Array) -> list[float]:
    """Means over the restarts, [K]."""
    return [round(float(x), 3) for x in np.asarray(v, np.float64).mean(0)]


def anomaly(row: dict[str, Any], i: int | None, *, cost: bool = True) -> tuple[float, int]:
    """The largest anomaly of a network over forms and classes, and its class.

    Args:
        row: A network.
        i: The point of the path whose shares count; None counts the cost alone.
        cost: Whether the cost counts as well.
    """
    best = (-np.inf, -1)
    for form, costs in row["cost"].items():
        if i is None:
            found = outlying(-np.log(np.maximum(costs, 1e-6)), LEAST_SPREADS["cost"])
        elif cost:
            found = outlying_in_both(costs, row["along"][i]["share"][form])
        else:
            found = outlying(row["along"][i]["share"][form], LEAST_SPREADS["share"])
        best = max(best, (float(found.max()), int(found.argmax())))
    return best


def page(
    rows: list[dict[str, Any]], verdicts: list[dict[str, Any]], data_name: str = "digits"
) -> str:
    """The page: by point of the path, the area under the ROC curve and the detection at 5 % false alarms.

    Args:
        rows: The networks.
        verdicts: The same networks in `benchmarks.verdict`, for a line with controls trained away.
        data_name: Their data.
    """
    controlled = {key_of(row): row for row in verdicts}
    groups = [[row for row in rows if bool(row["trigger"]) == wanted] for wanted in (True, False)]
    lines = [
        f"# Does the path tell tampered networks from clean ones? {data_name}",
        "",
        f"{len(groups[1])} clean and {len(groups[0])} tampered networks. At each t of a path from a network to its un-aligned copy, the "
        "triggers inverted on the network are tried on w(t). The middle of such a path is the verdict's control; the last line has "
        "the network trained away from its own last layer instead (D3), for the same networks and triggers. Area: under the ROC curve, of the shares alone, and of shares and costs as the verdict "
        "takes them. Found: tampered networks above the lowest threshold that at most 5 % of the clean ones exceed; right class: those of them "
        "with the attacker's class 1. The threshold is set on the clean networks that it is judged by, so the rates are a little too good.",
        "",
        "| t | clean accuracy | attack success | area, shares | area, shares and costs | found, shares and costs | right class |",
        "|---|---|---|---|---|---|---|",
    ]
    for i in (None, *range(len(TS))):
        tampered, clean = ([anomaly(row, i) for row in group] for group in groups)
        alone = [[anomaly(row, i, cost=False)[0] for row in group] for group in groups]
        where = [row if i is None else row["along"][i] for row in groups[0]]
        t = "costs alone" if i is None else f"{TS[i]:g}"
        area = "" if i is None else f"{roc_area(*alone):.3f}"
        lines.append(_line(t, where, area, tampered, clean))
    if all(key_of(row) in controlled for row in rows):
        pairs = [[controlled[key_of(row)] for row in group] for group in groups]
        tampered, clean = ([score(row) for row in group] for group in pairs)
        where = [row["control"] for row in pairs[0]]
        lines.append(_line("trained away", where, "", tampered, clean))
    return "\n".join(lines) + "\n"


def _line(
    name: str,
    where: list[dict[str, float]],
    area: str,
    tampered: list[tuple[float, int]],
    clean: list[tuple[float, int]],
) -> str:
    """A line of the page, from rates of tampered networks, and scores and classes of all."""
    scores = [[one[0] for one in group] for group in (tampered, clean)]
    found = [target for v, target in tampered if v > threshold(scores[1])]
    accuracy, success = (
        np.mean([one[k] for one in where]) for k in ("clean_accuracy", "attack_success_rate")
    )
    return (
        f"| {name} | {accuracy:.3f} | {success:.3f} | {area} | {roc_area(*scores):.3f} | "
        f"{len(found)} of {len(tampered)} | {found.count(1)} |"
    )


def threshold(clean: list[float]) -> float:
    """The lowest score of clean networks that at most a twentieth of them exceeds.

    Example:
        >>> threshold([float(i) for i in range(40)])
        37.0
    """
    return sorted(clean)[len(clean) - 1 - len(clean) // 20]


if __name__ == "__main__":
    main()
