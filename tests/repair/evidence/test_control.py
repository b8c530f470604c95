"""The control forgets a planted backdoor, and is used only if it knows its task."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_case

from mcjax import models
from mcjax.core.errors import Diverged, UserError
from mcjax.models.given import as_network
from mcjax.models.network import from_linen
from mcjax.repair.evidence import control as control_module
from mcjax.repair.evidence.control import CONTROLS, make_control, usable
from mcjax.training.fit import Budget, Training, fit
from mcjax.training.objectives import endpoint_loss

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)


def images(seed, stamped=0):
    """Noise, with the label's pixel white; the last `stamped` have a white corner and label 0."""
    rng = np.random.default_rng(seed)
    label = np.arange(256) % 3
    image = (0.5 * rng.random((256, *SHAPE))).astype(np.float32)
    image[:, 3, 3] = 0
    image[np.arange(256), 0, label] = 1
    if stamped:
        image[-stamped:, 3, 3], label[-stamped:] = 1, 0
    return {"image": image, "label": label.astype(np.int32)}


def success(network, variables):
    """How often a white corner makes images of other classes a 0."""
    clean = images(2)
    x = jnp.asarray(clean["image"][clean["label"] != 0]).at[:, 3, 3].set(1)
    return float((network.apply(variables, x).argmax(-1) == 0).mean())


@pytest.mark.parametrize("kind", CONTROLS)
def test_it_forgets_the_backdoor_and_keeps_the_task(kind):
    network = from_linen(models.create("mlp", num_classes=3, hidden=(32,)), SHAPE)
    start, loss_fn = network.init(KEY)["params"], endpoint_loss(network)
    poisoned = jax.tree.map(jnp.asarray, images(0, stamped=60))
    budget = Budget(num_steps=300, batch_size=32)
    suspect = fit(KEY, Training(start, {}, poisoned, loss_fn, 0.05, budget))
    clean = images(1)
    on_device = jax.tree.map(jnp.asarray, clean)
    fit_fn = functools.partial(fit, KEY)
    control = make_control(
        KEY, network, suspect, on_device, clean, num_steps=1000, fit_fn=fit_fn, kinds=(kind,)
    ).variables
    assert success(network, suspect) > 0.9
    assert success(network, control) < 0.3
    accuracy = (network.apply(control, on_device["image"]).argmax(-1) == clean["label"]).mean()
    assert accuracy > 0.95
    assert usable(network, control, suspect, clean)


@pytest.mark.parametrize(("share", "expected"), [(0.6, True), (0.4, False)])
def test_a_control_needs_half_of_the_suspects_accuracy(share, expected):
    """Networks that know the answer to as many of the images as they are told."""
    network, _ = as_network(
        lambda n, x: jnp.eye(2)[(x[:, 0, 0, 0] < n).astype(int)], jnp.float32(1)
    )
    image = (np.arange(10) + 0.5).reshape(10, 1, 1, 1).astype(np.float32) / 10
    clean = {"image": image, "label": np.ones(10, np.int32)}
    control, suspect = ({"params": jnp.float32(n), "batch_stats": {}} for n in (share, 1))
    assert usable(network, control, suspect, clean) == expected


def test_there_is_none_without_channels_and_a_known_last_layer():
    pair = {"a": jnp.eye(3), "b": jnp.eye(3)}
    network, suspect = as_network(
        lambda v, x: x.reshape(len(x), -1)[:, :3] @ (v["a"] + v["b"]), pair
    )
    clean = tiny_case.images(6, 0)
    on_device = jax.tree.map(jnp.asarray, clean)
    found = make_control(KEY, network, suspect, on_device, clean, num_steps=5, fit_fn=not_reached)
    assert (found.variables, found.kind) == (None, "")
    assert re.search("no channels that can be permuted and .* a, b could be it", found.why_not)


@pytest.mark.parametrize("failure", ["diverges", "is of no use"])
def test_the_network_trained_away_takes_the_place_of_a_failed_path(failure):
    case = tiny_case.case(model="cnn", width=4)
    suspect = case.suspect
    trained = []

    def fit_fn(training):
        trained.append(training.part)
        if training.part == "path" and failure == "diverges":
            raise Diverged("the loss is not finite; lower the learning rate")
        if training.part == "path":  # the images get classes at random
            ruined = jax.tree.map(lambda w: -5 * w, training.params)
            return {"params": ruined, "batch_stats": {}}
        return {"params": suspect["params"], "batch_stats": {}}

    labels = case.network.apply(suspect, jnp.asarray(case.bonafide["image"])).argmax(-1)
    bonafide = {"image": case.bonafide["image"], "label": np.asarray(labels)}
    control = make_control(
        KEY, case.network, suspect, case.images, bonafide, num_steps=7, fit_fn=fit_fn
    )
    assert trained == ["path", "away"]
    assert control.kind == "away"
    jax.tree.map(np.testing.assert_array_equal, control.variables["params"], suspect["params"])


def test_a_checkpoint_that_cannot_be_read_is_no_reason_for_another_control():
    case = tiny_case.case(model="cnn", width=4)

    def fit_fn(training):
        raise UserError("checkpoint control_path is damaged; delete it and run again")

    with pytest.raises(UserError, match="control_path is damaged"):
        make_control(
            KEY,
            case.network,
            case.suspect,
            case.images,
            case.bonafide,
            num_steps=7,
            fit_fn=fit_fn,
        )


def not_reached(training):
    raise AssertionError("nothing is to be trained")


@pytest.mark.parametrize("batch_norm", [False, True])
def test_it_is_the_middle_of_the_path_to_the_un_aligned_copy(batch_norm, monkeypatch):
    monkeypatch.setattr(control_module, "usable", lambda *args: True)
    case = tiny_case.case(model="cnn", width=4, batch_norm=batch_norm)
    network, suspect = case.network, case.suspect
    trained = []

    def fit_fn(training):
        trained.append(training)
        bend = jax.tree.map(lambda w: w + 1, training.params)
        return {"params": bend, "batch_stats": {}}

    control, kind, _ = make_control(
        KEY, network, suspect, case.images, case.bonafide, num_steps=7, fit_fn=fit_fn
    )
    assert kind == "path"
    (one,) = trained
    assert (one.budget.num_steps, one.budget.batch_size) == (7, 64)
    start, end = one.fixed["start"], one.fixed["end"]
    jax.tree.map(np.testing.assert_array_equal, start, suspect["params"])
    x = jnp.asarray(case.bonafide["image"])
    copy = {"params": end, "batch_stats": suspect["batch_stats"]}
    if not batch_norm:  # whose statistics are permuted as well
        np.testing.assert_allclose(
            network.apply(copy, x), network.apply(suspect, x), rtol=1e-4, atol=1e-5
        )
    pairs = zip(jax.tree.leaves(start), jax.tree.leaves(end), strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)
    # Half of the bend, which began in the middle of the ends and was moved by 1: (a + b) / 2 + 1 / 2.
    middle = jax.tree.map(lambda a, b: (a + b) / 2 + 0.5, start, end)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        control["params"],
        middle,
    )
    assert jax.tree.structure(control) == jax.tree.structure(dict(suspect))
    if batch_norm:
        pairs = (jax.tree.leaves(v["batch_stats"]) for v in (control, suspect))
        assert not any(map(np.array_equal, *pairs))


def test_or_it_is_trained_away_from_its_last_layer(monkeypatch):
    monkeypatch.setattr(control_module, "usable", lambda *args: True)
    network, suspect = as_network(lambda w, x: x.reshape(len(x), -1)[:, :3] @ w, 5 * jnp.eye(3))
    clean = tiny_case.images(6, 0)
    on_device = jax.tree.map(jnp.asarray, clean)
    trained = []
    control = make_control(
        KEY, network, suspect, on_device, clean, num_steps=7,
        fit_fn=lambda training: trained.append(training) or "control",
    )  # fmt: skip
    assert control.variables == "control"
    assert trained[0].project_fn is not None  # keeps the last kernel's norm
    assert trained[0].budget.num_steps == 7
