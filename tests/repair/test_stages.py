"""The stages of a repair: their order, whoever asks first, and each only once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax.models.given import as_network
from mcjax.repair import stages
from mcjax.repair.evidence import verdict
from mcjax.repair.options import RepairOptions
from mcjax.repair.stages import STAGES, Stages

X = np.tile(np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1), (5, 1, 1, 1))
CLEAN = {"image": X, "label": np.tile(np.arange(4), 5)}


def linear(w, x):
    return x.reshape(len(x), -1) @ w


def made(given=None, **changes):
    network, suspect = as_network(linear, 5 * jnp.eye(4))
    options = {"num_steps": 4, "num_points": 3, "forms": ("patch",), "inversion_steps": 2}
    return Stages(
        jax.random.key(0),
        network,
        suspect,
        {"bonafide": CLEAN, "selection": CLEAN},
        given=None if given is None else as_network(linear, given)[1],
        given_is_clean=False,
        options=RepairOptions(**options, **changes),
        tolerance=0.02,
        verbose=True,
    )


@pytest.mark.parametrize("asked", ["report", "curve"])
def test_stages_come_in_their_order_and_once(asked, capsys, monkeypatch):
    searches, search = [], stages.search
    monkeypatch.setattr(stages, "search", lambda *a, **k: searches.append(a) or search(*a, **k))
    one = made()
    for _ in range(2):
        getattr(one, asked)
    said = [line for line in capsys.readouterr().err.splitlines() if "/4 " in line.split(":")[0]]
    expected = [f"{i}/4 {stage}" for i, stage in enumerate(STAGES, start=1)]
    assert [line.split(":")[0] for line in said] == expected[: 3 if asked == "curve" else 4]
    assert len(searches) == 1  # there is no evidence, so nothing is searched anew


def test_the_ends_that_are_suspect():
    assert made().suspects == (0,)
    assert made(end="free").suspects == (0,)
    assert made(end="unaligned").suspects == (0, -1)  # made of the suspect
    assert made(3 * jnp.eye(4)).suspects == (0, -1)


def test_the_taught_suspect_takes_the_line_and_all_others_a_curve():
    line, curve = made(), made(end="free")
    assert (line.method, curve.method) == ("taught_line", "taught_path")
    assert made(3 * jnp.eye(4)).method == "taught_path"
    middle = jax.tree.map(lambda a, b: (a + b) / 2, line.curve(0.0), line.curve(1.0))
    np.testing.assert_allclose(line.curve(0.5), middle, atol=1e-6)
    assert line.second.variables["params"].shape == (4, 4)
    assert line.report["second"] == "the suspect, taught"
    assert "seconds" not in line.report


def test_estimates_are_reported_of_the_suspect_and_of_the_chosen_point(monkeypatch):
    monkeypatch.setattr(stages, "backdoor_found", lambda inverted: True)
    monkeypatch.setattr(
        stages.estimate, "estimated_success", lambda hits, inverted: np.array([0.75, 0.5, 0.25])
    )
    one = made()
    assert one.t == 1
    assert (one.report["suspect_success"], one.report["repaired_success"]) == (0.75, 0.25)


def test_a_second_network_has_answers_of_its_own(monkeypatch):
    monkeypatch.setattr(verdict, "threshold", lambda form, one: -99.0)  # all is evidence
    assert made().report["fit"] == "answers"
    assert made(3 * jnp.eye(4)).report["fit"] == "labels"
    assert made(3 * jnp.eye(4), fit="answers").report["fit"] == "answers"


def test_triggers_of_a_later_round_judge_as_well(monkeypatch):
    monkeypatch.setattr(verdict, "threshold", lambda form, one: -99.0)  # all is evidence
    held_out, judged = stages.estimate.held_out, []

    def recorded(points, inverted, again):
        judged.append((inverted, list(again)))
        return held_out(points, inverted, again)

    monkeypatch.setattr(stages.estimate, "held_out", recorded)
    one = made(rounds=2)
    assert one.report["rounds"] == 2
    ((first, (again,)),) = judged
    assert first is one.inverted
    k = verdict.targets(first)["patch"]
    # Only the suspect's class was searched anew, on another network.
    assert np.isfinite(again["patch"].cost).all(0).tolist() == [j == k for j in range(4)]
    assert not np.allclose(again["patch"].cost[:, k], first["patch"].cost[:, k], atol=1e-6)
