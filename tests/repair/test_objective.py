"""The repair's objective beside plain objectives, closed forms and hand-made batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import SLOW

from mcjax import models
from mcjax.core.keys import stream
from mcjax.curves import Bezier
from mcjax.models.network import from_linen
from mcjax.repair.evidence.forms import FORMS
from mcjax.repair.objective import repair_loss, stamp_with_each
from mcjax.training.losses import cross_entropy, l2
from mcjax.training.objectives import curve_loss, endpoint_loss, sample_t

KEY, STEP, SHAPE = jax.random.key(0), jnp.int32(3), (8, 8, 1)
NETWORK = from_linen(models.create("cnn", num_classes=4, width=2, batch_norm=True), SHAPE)
SUSPECT, OTHER = (NETWORK.init(jax.random.key(i)) for i in range(2))
BATCH = {
    "image": jnp.asarray(np.random.default_rng(0).random((8, *SHAPE)), jnp.float32),
    "label": jnp.arange(8) % 4,
}


def triggers(number=1):
    return {
        form: jax.tree.map(
            lambda *v: jnp.stack(v),
            *(FORMS[form].start(jax.random.key(10 + i), SHAPE) for i in range(number)),
        )
        for form in FORMS
    }


def of(loss_fn, variables, **fixed):
    params, stats = variables["params"], variables["batch_stats"]
    return loss_fn(KEY, STEP, params, stats, fixed, BATCH)


def test_labels_alone_are_plain_training():
    same = of(repair_loss(NETWORK), SUSPECT), of(endpoint_loss(NETWORK), SUSPECT)
    jax.tree.map(np.testing.assert_array_equal, *same)
    curve = {"start": SUSPECT["params"], "end": OTHER["params"]}
    bends, stats = {"bends": (SUSPECT["params"],)}, SUSPECT["batch_stats"]
    plain = curve_loss(NETWORK, Bezier, weight_decay=0.1, num_strata=2)
    taught = repair_loss(NETWORK, Bezier, weight_decay=0.1, num_strata=2)
    one = plain(KEY, STEP, bends, stats, curve, BATCH)
    two = taught(KEY, STEP, bends, stats, {"curve": curve}, BATCH)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def without_batch_norm():
    network = from_linen(models.create("mlp", num_classes=4, hidden=(6,)), SHAPE)
    variables = {"batch_stats": {}, **network.init(KEY)}
    return network, variables


@pytest.mark.parametrize(("step", "t"), [(0, 1.0), (2, 1.0), (1, None), (3, None)])
def test_every_second_step_is_at_a_free_end(step, t):
    network, suspect = without_batch_norm()
    _, other = without_batch_norm()
    fixed = {"curve": {"start": suspect["params"]}}
    free = {"bends": (suspect["params"],), "end": jax.tree.map(lambda w: w + 1, other["params"])}
    loss_fn = repair_loss(network, Bezier, end_is_free=True)
    found = loss_fn(KEY, jnp.int32(step), free, {}, fixed, BATCH)[0]
    t = sample_t(stream(KEY, "t"), jnp.int32(step)) if t is None else t
    w = Bezier(**fixed["curve"], **free)(t)
    expected = cross_entropy(network.apply({"params": w}, BATCH["image"]), BATCH["label"]).mean()
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_answers_are_the_suspects_to_the_images_themselves():
    network, suspect = without_batch_norm()
    student = jax.tree.map(lambda w: w + 0.1, suspect)
    found = of(repair_loss(network, fit="answers"), student, suspect=suspect)[0]
    p, q = (
        np.asarray(jax.nn.softmax(network.apply(v, BATCH["image"])), np.float64)
        for v in (suspect, student)
    )
    assert found == pytest.approx(-(p * np.log(q)).sum(-1).mean(), rel=1e-5)


@SLOW
@pytest.mark.parametrize("fit", ["answers", "distillation"])
def test_the_suspect_is_its_own_best_student(fit):
    network, suspect = without_batch_norm()
    loss_fn = repair_loss(network, fit=fit)

    def loss(params):
        return loss_fn(KEY, STEP, params, {}, {"suspect": suspect}, BATCH)[0]

    gradient = jax.grad(loss)(suspect["params"])
    assert all(np.abs(g).max() < 1e-6 for g in jax.tree.leaves(gradient))
    # The least cross-entropy is the answers' mean entropy: positive, at most log 4.
    assert 0 < loss(suspect["params"]) <= np.log(4)
    worse = jax.tree.map(lambda w: w + 0.5, suspect["params"])
    assert loss(worse) > loss(suspect["params"])


def test_answers_are_to_mixed_images():
    """A network that answers the image's mean: mixing pairs keeps each pair's total."""
    network, suspect = without_batch_norm()
    asked = []

    def apply(variables, x):
        asked.append(x)
        return network.apply(variables, x)

    watched = network._replace(apply=apply)
    of(repair_loss(watched, fit="distillation"), suspect, suspect=suspect)
    x, mixed = np.asarray(BATCH["image"]), np.asarray(asked[0])
    # x~_i = l_i x_i + (1 - l_i) x_{B-1-i}: one share per image, the same for all its pixels.
    difference = x - x[::-1]
    share = (mixed - x[::-1])[difference != 0] / difference[difference != 0]
    shares = share.reshape(len(x), -1)
    np.testing.assert_allclose(shares, shares[:, :1].repeat(shares.shape[1], 1), atol=1e-3)
    assert (shares >= -1e-4).all()
    assert (shares <= 1 + 1e-4).all()
    assert len(np.unique(shares[:, 0].round(4))) > 4


@pytest.mark.parametrize("form", FORMS)
def test_unlearning_is_the_loss_of_stamped_images_with_true_labels(form):
    network, suspect = without_batch_norm()
    q = {form: triggers()[form]}
    both = of(repair_loss(network, unlearn=(form,)), suspect, suspect=suspect, triggers=q)[0]
    own = of(repair_loss(network), suspect)[0]
    stamped = FORMS[form].stamp(jax.tree.map(lambda v: v[0], q[form]), BATCH["image"])
    expected = cross_entropy(network.apply(suspect, stamped), BATCH["label"]).mean()
    assert both - own == pytest.approx(float(expected), rel=1e-5)


def test_weight_decay_is_half_the_squared_norm():
    with_decay = of(repair_loss(NETWORK, weight_decay=0.3), SUSPECT)[0]
    without = of(repair_loss(NETWORK), SUSPECT)[0]
    assert with_decay - without == pytest.approx(0.3 * float(l2(SUSPECT["params"])), rel=1e-5)


def test_each_image_gets_one_trigger_and_triggers_share_the_images():
    x = jnp.full((12, *SHAPE), 0.5)
    q = {
        "pattern": {"pattern": jnp.stack([jnp.full(SHAPE, 0.1), jnp.full(SHAPE, 0.2)])},
        "smooth": {"grid": jnp.full((1, 7, 7, 1), -0.3)},
    }
    places = set()
    for seed in range(8):
        stamped = stamp_with_each(jax.random.key(seed), q, x, ("pattern", "smooth"))
        value = np.asarray(stamped)[:, 0, 0, 0].round(4)
        np.testing.assert_allclose(stamped, value[:, None, None, None] * np.ones_like(x), atol=1e-4)
        assert [np.isclose(value, v).sum() for v in (0.2, 0.6, 0.7)] == [4, 4, 4]
        places.add(tuple(np.isclose(value, 0.2)))
    assert len(places) > 1  # other images from step to step


def test_fewer_images_than_forms_still_run():
    stamped = stamp_with_each(KEY, triggers(), BATCH["image"][:2], tuple(FORMS))
    assert stamped.shape == (2, *SHAPE)
