"""The search for evidence alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import find_evidence, plot_images, repair_model
from mcjax.core.errors import UserError
from mcjax.repair import model
from mcjax.repair.evidence import judge

X = np.tile(np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1), (10, 1, 1, 1))
BONAFIDE = {"image": X, "label": np.tile(np.arange(4), 10)}
QUICK = {"forms": ("patch",), "inversion_steps": 5}


def linear(w, x):
    return x.reshape(len(x), -1) @ w


def test_it_finds_what_a_repair_finds(capsys, monkeypatch):
    suspect = 5 * jnp.eye(4).at[:, 1].add(0.5)
    found = find_evidence(jax.random.key(0), linear, suspect, BONAFIDE, verbose=True, **QUICK)
    assert capsys.readouterr().err.startswith("evidence: triggers of 1 form on 32 images\n")
    assert found["num_images"] == 40
    assert len(plot_images(found).axes) > 0

    told = []
    monkeypatch.setattr(model, "say_found", told.append)
    monkeypatch.setattr(model, "METHODS", {})  # ends it after the evidence
    with pytest.raises(KeyError):
        repair_model(jax.random.key(0), linear, suspect, BONAFIDE, verbose=True, **QUICK)
    assert judge.findings(told[0]) == found["findings"]


def test_mistakes():
    with pytest.raises(TypeError, match="no option 'num_steps'; use forms, inversion_steps"):
        find_evidence(jax.random.key(0), linear, jnp.eye(4), BONAFIDE, num_steps=3)
    with pytest.raises(UserError, match="forms"):
        find_evidence(jax.random.key(0), linear, jnp.eye(4), BONAFIDE, forms=())
    shifted = {**BONAFIDE, "label": BONAFIDE["label"] + 1}
    with pytest.raises(UserError, match=r"labels lie in \[1, 4\]"):
        find_evidence(jax.random.key(0), linear, jnp.eye(4), shifted)
