"""The search for evidence alone."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import find_evidence, models, plot_images, repair_model
from mcjax.core.errors import Diverged, UserError
from mcjax.models.given import as_network
from mcjax.models.network import from_linen
from mcjax.repair import search, stages
from mcjax.repair.evidence import control as evidence_control
from mcjax.repair.evidence import verdict
from mcjax.repair.options import DEFAULTS, changed
from mcjax.training.fit import Budget, Training, fit
from mcjax.training.objectives import endpoint_loss

X = np.tile(np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1), (10, 1, 1, 1))
BONAFIDE = {"image": X, "label": np.tile(np.arange(4), 10)}
QUICK = {"forms": ("patch",), "inversion_steps": 5, "control_steps": 20}


def linear(w, x):
    return x.reshape(len(x), -1) @ w


def test_it_finds_what_a_repair_finds(capsys, monkeypatch):
    suspect = 5 * jnp.eye(4).at[:, 1].add(0.5)
    found = find_evidence(jax.random.key(0), linear, suspect, BONAFIDE, verbose=True, **QUICK)
    assert capsys.readouterr().err.startswith(
        "evidence: triggers of 1 form on 32 images; control network, 20 steps\n"
    )
    assert found["num_images"] == 40
    assert len(plot_images(found).axes) > 0

    told = []
    monkeypatch.setattr(stages, "say_found", lambda inverted, control: told.append(inverted))
    monkeypatch.setattr(stages, "METHODS", {})  # ends it after the evidence
    with pytest.raises(KeyError):
        repair_model(jax.random.key(0), linear, suspect, BONAFIDE, verbose=True, **QUICK)
    assert verdict.findings(told[0]) == found["findings"]


def test_the_first_search_has_a_control_and_the_next_only_the_suspects_classes(monkeypatch):
    searches, real = [], search.invert

    def recorded(*args, **options):
        searches.append((options, real(*args, **options)))
        return searches[-1][1]

    monkeypatch.setattr(search, "invert", recorded)
    monkeypatch.setattr(evidence_control, "usable", lambda *args: True)
    monkeypatch.setitem(
        evidence_control.THRESHOLDS, "path", -99.0
    )  # evidence, and so a second round
    suspect, options = 5 * jnp.eye(4).at[:, 1].add(0.5), {**QUICK, "num_steps": 8, "num_points": 3}
    fixed = repair_model(jax.random.key(0), linear, suspect, BONAFIDE, tolerance=1.0, **options)
    (first, found), (second, _) = searches
    assert first["control"].variables["params"].shape == (4, 4)
    assert first["classes"] is None
    assert np.isfinite(found["patch"].control_share).all()
    assert second["control"] is None
    assert second["classes"] == verdict.targets(found)
    assert 0 <= fixed.report["control_accuracy"] <= 1


def test_the_control_is_a_network_of_its_own_or_none():
    network = from_linen(models.create("mlp", num_classes=4, hidden=(16,)), (2, 2, 1))
    images = jax.tree.map(jnp.asarray, BONAFIDE)
    loss_fn, budget = endpoint_loss(network), Budget(num_steps=200, batch_size=8)
    start = network.init(jax.random.key(0))["params"]
    suspect = fit(jax.random.key(1), Training(start, {}, images, loss_fn, 0.05, budget))
    parts = {"bonafide": BONAFIDE, "selection": BONAFIDE}

    def made(network, variables, **changes):
        options = changed(DEFAULTS, changes)
        key = jax.random.key(0)
        found = search.control_network(
            key, network, variables, images, options=options, verbose=False
        )
        return found.variables, search.control_report(network, found, parts)

    control, report = made(network, suspect)
    assert report == {"control": "path", "control_accuracy": 1.0, "no_control": ""}
    new, old = (np.asarray(v["params"]["fc2"]["kernel"]) for v in (control, suspect))
    assert np.linalg.norm(new - old) > np.linalg.norm(old) / 2
    none = {"control": "", "control_accuracy": None, "no_control": "control_steps is 0"}
    assert made(network, suspect, control_steps=0) == (None, none)
    # Neither channels to permute, nor anything that tells which of two matrices is the last.
    pair = {"a": jnp.eye(4), "b": 5 * jnp.eye(4)}
    unclear, variables = as_network(lambda v, x: linear(v["a"] + v["b"], x), pair)
    found, report = made(unclear, variables, control_steps=5)
    assert found is None
    assert re.search("no channels .* a, b could be it", report["no_control"])
    # A single layer is trained away from all that it knew.
    single, variables = as_network(linear, 5 * jnp.eye(4))
    found, report = made(single, variables, control_steps=200)
    assert found is None
    assert "after 200 steps it had less than half" in report["no_control"]


def test_a_control_that_diverges_is_left_out(monkeypatch):
    def diverges(*args, **options):
        raise Diverged("the loss is not finite; lower the learning rate")

    monkeypatch.setattr(search, "kept_fit", diverges)
    network, suspect = as_network(linear, jnp.eye(4))
    found = search.control_network(
        jax.random.key(0),
        network,
        suspect,
        BONAFIDE,
        options=DEFAULTS,
        verbose=False,
    )
    no_channels = "this network has no channels that can be permuted"
    assert found == search.Control(None, why_not=f"{no_channels} and the loss is not finite")


def test_mistakes():
    with pytest.raises(
        TypeError, match="no option 'tolerance'; use forms, inversion_steps, control_steps"
    ):
        find_evidence(jax.random.key(0), linear, jnp.eye(4), BONAFIDE, tolerance=0.1)
    with pytest.raises(TypeError, match="did you mean control_steps"):
        find_evidence(jax.random.key(0), linear, jnp.eye(4), BONAFIDE, control_step=3)
    with pytest.raises(UserError, match="forms"):
        find_evidence(jax.random.key(0), linear, jnp.eye(4), BONAFIDE, forms=())
    shifted = {**BONAFIDE, "label": BONAFIDE["label"] + 1}
    with pytest.raises(UserError, match=r"labels lie in \[1, 4\]"):
        find_evidence(jax.random.key(0), linear, jnp.eye(4), shifted)
