"""NAD: attention against NumPy, its loss by hand, and beta = 0 against fine-tuning."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_case
from slow import SLOW

from mcjax.core.errors import UserError
from mcjax.models.network import from_apply
from mcjax.repair.methods import nad
from mcjax.training.objectives import endpoint_loss


def by_hand(activation):
    q = (np.asarray(activation, np.float64) ** 2).sum(-1).reshape(len(activation), -1)
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def test_attention():
    a = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(nad.attention(jnp.asarray(a)), by_hand(a), rtol=1e-5)
    zero = jnp.zeros((1, 2, 2, 3))
    np.testing.assert_array_equal(nad.attention(zero), np.zeros((1, 4)))
    assert np.isfinite(jax.grad(lambda a: nad.attention(a).sum())(zero)).all()


@pytest.mark.parametrize(
    ("model", "options", "layers"),
    [
        ("cnn", {"width": 2}, ["conv1", "conv2", "conv3"]),
        ("cnn", {"width": 2, "batch_norm": True}, ["bn1", "bn2", "bn3"]),
        ("resnet8", {"width": 2}, ["layer2_0/bn1", "layer3_0/bn1", "bn"]),
    ],
)
def test_the_last_layer_of_each_resolution(model, options, layers):
    case = tiny_case.case(model, **options)
    x = jnp.asarray(np.random.default_rng(1).random((2, 8, 8, 1)), jnp.float32)
    maps = nad.attention_maps(case.network, case.suspect, x)
    assert list(maps) == layers
    outputs = case.network.layer_outputs(case.suspect, x)
    for layer in layers:
        np.testing.assert_allclose(maps[layer], by_hand(outputs[layer]), rtol=1e-4, atol=1e-6)


def test_the_loss_by_hand():
    case = tiny_case.case(width=2)
    x = jnp.asarray(np.random.default_rng(1).random((4, 8, 8, 1)), jnp.float32)
    batch = {"image": x, "label": jnp.arange(4) % 3}
    student, teacher = case.suspect, case.second_fn()
    key, step = jax.random.key(0), jnp.int32(0)
    arguments = (key, step, student["params"], {})
    loss, (_, metrics) = nad.distillation_loss(case.network, beta=7.0)(*arguments, teacher, batch)
    plain, _ = endpoint_loss(case.network)(*arguments, None, batch)
    ours, theirs = (case.network.layer_outputs(v, x) for v in (student, teacher))
    layers = ("conv1", "conv2", "conv3")
    distance = sum(
        ((by_hand(ours[layer]) - by_hand(theirs[layer])) ** 2).sum(1).mean() for layer in layers
    )
    assert distance > 0.01
    assert float(loss) == pytest.approx(float(plain) + 7.0 * distance, rel=1e-4)
    assert float(metrics.loss) == float(loss)


@pytest.mark.parametrize(
    ("batch_norm", "num_steps"), [pytest.param(False, 3, marks=SLOW), (True, 1)]
)
def test_without_the_distance_the_student_is_fine_tuned(batch_norm, num_steps):
    options = {"nad.beta": 0.0, "nad.teacher": 0.5}
    case = tiny_case.case(num_steps=2 * num_steps, options=options, width=2, batch_norm=batch_norm)
    found = nad.run(case)
    start, budget = case.suspect, dataclasses.replace(case.budget, num_steps=num_steps)
    tuned = case.train(
        "nad", start["params"], start["batch_stats"], endpoint_loss(case.network), budget=budget
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), found, tuned)


def test_the_teacher_is_trained_first_with_a_key_of_its_own():
    case = tiny_case.case(num_steps=4, width=2)
    seen = []

    def fit_fn(key, training):
        seen.append((str(key), training))
        return {"params": case.second_fn()["params"], "batch_stats": {}}

    nad.run(dataclasses.replace(case, fit_fn=fit_fn))
    (key, teacher), (other, student) = seen
    assert key != other
    assert (teacher.part, student.part) == ("teacher", "")
    assert student.params is case.suspect["params"]
    assert student.fixed["params"] is case.second_fn()["params"]


def test_mistakes():
    with pytest.raises(UserError, match="make it with from_linen"):
        nad.attention_maps(from_apply(lambda w, x: x), {}, jnp.zeros((1, 2, 2, 1)))
    case = tiny_case.case("mlp", hidden=(4,))
    with pytest.raises(UserError, match="no layer with a map of positions"):
        nad.attention_maps(case.network, case.suspect, jnp.zeros((1, 8, 8, 1)))
