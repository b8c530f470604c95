"""Every number of an experiment has a meaning on its page."""

import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.curves import Bezier
from mcjax.experiments import connect, evasion_report
from mcjax.experiments.repair_study import table as repair_table
from mcjax.report import path_page
from mcjax.report.definitions import meaning

T = np.linspace(0, 1, 5)


def test_a_look_between_two_networks():
    names = ("loss", "accuracy", "robust_loss", "robust_accuracy", "eigenvalue")
    table = dict.fromkeys(names, 0.5 + 0.1 * T)
    counts = ("distance_of_ends", "num_train", "num_held_out", "num_attacked", "num_hessian")
    for name in [*path_page.summary(T, {"line": table, "curve": table}), *counts]:
        assert meaning(name), name


def path():
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    return dict.fromkeys(names, 0.5 + 0.1 * T)


def test_connect():
    curve = Bezier.connect({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}, 1)
    for name in connect.summary(curve, T, path(), path()):
        assert meaning(name), name


@pytest.mark.parametrize("measure", ["attack_success_rate", "injection_success"])
def test_repair(measure):
    def row(method, bonafide, seed):
        values = {"t": 0.5, "clean_accuracy": 0.9, measure: 0.1 * seed}
        return {"method": method, "bonafide": bonafide, "seed": seed, **values}

    references = ("clean twin", "clean network")
    methods = (("suspect", 0), *((name, 0) for name in references), ("path", 400))
    rows = [row(*method, seed) for method in methods for seed in (0, 1)]
    summary = repair_table.summarise(rows, measure)
    names = [*summary[0], *repair_table.metrics(summary, measure, references, [400])]
    assert {
        f"path_400_{measure}",
        "clean_twin_clean_accuracy",
        "clean_network_clean_accuracy",
    } <= set(names)
    names += ["fold", "selection_accuracy", "acceptable", f"{measure}_official_denominator"]
    for name in names:
        if name != "injection_success_official_denominator":  # injection has no target class
            assert meaning(name), name


def test_evasion():
    rng = np.random.default_rng(0)
    examples = {k: rng.random((5, 8)) for k in ("loss", "robust_loss", "robust_accuracy")}
    table = {"t": T, **path(), "robust_loss": rng.random(5), "robust_accuracy": rng.random(5)}
    table["input_hessian_eigenvalue"] = rng.random(5)
    ensemble = ("ensemble_accuracy", "ensemble_robust_accuracy", "ensemble_transfer_accuracy")
    row = {
        "path": "regular-regular",
        "seed": 0,
        **evasion_report.numbers(table, examples),
        **dict.fromkeys(ensemble, 0.5),
    }
    for name in row:
        assert meaning(name), name
    assert meaning("regular-regular (robust path) robust_loss_barrier interval").startswith("half")
    tables = evasion_report.page_tables([row])
    shown = {name for rows in tables.values() for line in rows for name in line}
    whole = {name for name in row if not name.endswith(("_low", "_high"))}
    assert shown == whole  # no number is lost between the tables
    assert len(tables) == 4
    low, high = row["pearson_low"], row["pearson_high"]
    (line,) = tables["Correlation of robust loss and eigenvalue over the path"]
    assert line["pearson"] == f"{row['pearson']:.3f} [{low:.3f}, {high:.3f}]"
