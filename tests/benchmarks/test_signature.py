"""The signature of a path: what counts as anomalous, and its page, from made-up shares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import signature
from benchmarks.suspects import SEARCHES, suspect_of
from mcjax.repair.evidence.verdict import LEAST_SPREADS
from mcjax.repair.options import RepairOptions

ORDINARY = [0.5] * 10


def row(trigger, seed, anomaly, target=1):
    """A network whose triggers for one class do nothing at t = 0.5 of the path, and cost as others do."""
    planted = [*ORDINARY]
    planted[target] += anomaly * LEAST_SPREADS["share"]
    rates = {"clean_accuracy": 0.9, **({"attack_success_rate": 0.25} if trigger else {})}
    along = [
        {"t": t, **rates, "share": {"patch": planted if t == 0.5 else ORDINARY, "warp": ORDINARY}}
        for t in signature.TS
    ]
    cost = {"patch": [1.0] * 10, "warp": [1.0] * 10}
    return {
        "architecture": "cnn",
        "trigger": trigger,
        "seed": seed,
        **rates,
        "cost": cost,
        "along": along,
    }


def test_the_anomaly_is_that_of_the_verdict_with_the_point_as_control():
    one, middle = row("square", 0, 6.0, target=4), signature.TS.index(0.5)
    assert signature.anomaly(one, middle, cost=False) == pytest.approx((6.0, 4))
    assert signature.anomaly(one, middle) == pytest.approx((3.0, 4))
    assert signature.anomaly(one, 0)[0] == pytest.approx(0)
    one["cost"]["warp"][7] = np.exp(-5 * LEAST_SPREADS["cost"])
    assert signature.anomaly(one, None) == pytest.approx((5.0, 7))


def test_the_page_has_rates_by_point():
    clean = [row("", seed, 0.0) for seed in range(4)]
    tampered = [row("square", 0, 6.0), row("square", 1, 6.0, target=4), row("blended", 0, 0.0)]
    lines = signature.page([*clean, *tampered], []).splitlines()
    (middle,) = (line for line in lines if line.startswith("| 0.5 |"))
    cells = [cell.strip() for cell in middle.split("|")[1:-1]]
    # Two of three above all clean ones, one equal to them.
    assert cells == ["0.5", "0.900", "0.250", f"{2.5 / 3:.3f}", f"{2.5 / 3:.3f}", "2 of 3", "1"]
    (end,) = (line for line in lines if line.startswith("| 1.5 |"))
    assert "| 0.500 | 0.500 | 0 of 3 | 0 |" in end


def test_a_network_trained_away_stands_beside_the_path():
    rows = [row("", 0, 0.0), row("", 1, 0.0), row("square", 0, 6.0)]
    control = {"clean_accuracy": 0.8, "attack_success_rate": 0.125}
    verdicts = []
    for one, share in zip(rows, (0.0, 0.0, 9.0), strict=True):
        shares = [0.5 + share * LEAST_SPREADS["share"] * (k == 1) for k in range(10)]
        triggers = {"patch": {"cost": [1.0] * 10, "control_share": shares}}
        verdicts.append({**one, "triggers": triggers, "kind": "away", "control": control})
    lines = signature.page(rows, verdicts).splitlines()
    assert lines[-1] == "| trained away | 0.800 | 0.125 |  | 1.000 | 1 of 1 | 1 |"
    assert "trained away |" not in signature.page(rows, verdicts[:2])  # not the same networks


def test_the_threshold_lets_a_twentieth_of_the_clean_ones_pass():
    for number, passed in ((4, 0), (19, 0), (20, 1), (40, 2)):
        scores = np.random.default_rng(number).permutation(number).astype(float)
        assert sum(v > signature.threshold(list(scores)) for v in scores) == passed


@pytest.mark.slow
def test_the_path_leads_to_the_same_function(monkeypatch):
    how = SEARCHES["digits"]
    monkeypatch.setitem(SEARCHES, "digits", how._replace(num_steps=2))
    monkeypatch.setattr(signature, "DEFAULTS", RepairOptions(control_steps=2))
    suspect = suspect_of("digits", "cnn with BatchNorm", "", 0)
    points = signature.path_of(suspect, jax.random.key(0))
    x = jnp.asarray(suspect.splits.bonafide["image"][:20], jnp.float32)
    logits = suspect.network.apply(suspect.variables, x)
    for t in (0, 1):
        found = suspect.network.apply({"batch_stats": {}, **points(jnp.float32(t))}, x)
        np.testing.assert_allclose(found, logits, atol=1e-3)
    middle = suspect.network.apply({"batch_stats": {}, **points(jnp.float32(0.5))}, x)
    assert not np.allclose(middle, logits, atol=1e-2)
