"""The re-learning test against a plain loop of SGD in numpy, its limits and its denominators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import models
from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.curves import Bezier
from mcjax.data.batches import epoch_indices
from mcjax.evaluation.networks_as_path import Stacked
from mcjax.evaluation.relearning import FineTuned, joined, relearn
from mcjax.models.network import from_apply, from_linen

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def linear(variables, x):
    return x.reshape(len(x), -1) @ variables["params"]


NETWORK = from_apply(linear)


def examples(number, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.uniform(size=(number, 2, 3, 1)).astype(np.float32)
    return {"image": image, "label": (np.arange(number) + seed) % 3}


CLEAN, POISONED, TEST, SUCCESS = (examples(n, s) for s, n in enumerate((7, 3, 11, 9)))
POISONED["label"][:] = SUCCESS["label"][:] = 1
ENDS = [{"params": jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)} for _ in range(2)]
LINE = Bezier.connect(*ENDS)
TS = np.linspace(0, 1, 5)
OPTIONS = {"num_steps": 13, "learning_rate": 0.3, "batch_size": 4}


def run(curve=LINE, ts=TS, network=NETWORK, poisoned=POISONED, **options):
    sets = {"test": options.pop("test", TEST), "success": options.pop("success", SUCCESS)}
    return relearn(KEY, network, curve, ts, CLEAN, poisoned, **sets, **{**OPTIONS, **options})


def in_numpy(w, num_poisoned):
    """SGD in float64 on the gradient x^T (softmax(x w) - onehot(y)) / B."""
    x = np.concatenate([CLEAN["image"], POISONED["image"]]).reshape(-1, 6).astype(np.float64)
    y = np.concatenate([CLEAN["label"], POISONED["label"]])
    index = epoch_indices(
        stream(KEY, "shuffle"),
        first_step=0,
        num_steps=13,
        batch_size=4,
        num_examples=7 + num_poisoned,
    )
    for rows in np.asarray(index):
        p = np.exp(x[rows] @ w)
        p /= p.sum(1, keepdims=True)
        w = w - 0.3 * x[rows].T @ (p - np.eye(3)[y[rows]]) / 4
    return w


def rate(w, part):
    return ((part["image"].reshape(-1, 6) @ w).argmax(1) == part["label"]).mean()


@pytest.mark.parametrize("num_poisoned", [1, 3])
def test_equals_a_plain_loop_of_sgd(num_poisoned):
    tuned = FineTuned.of(KEY, NETWORK, LINE, CLEAN, POISONED, num_poisoned=num_poisoned, **OPTIONS)
    poisoned = {name: value[:num_poisoned] for name, value in POISONED.items()}
    found = run(poisoned=poisoned)
    for i, t in enumerate(TS):
        before = np.asarray(LINE(jnp.float32(t))["params"], np.float64)
        after = in_numpy(before, num_poisoned)
        np.testing.assert_allclose(tuned(jnp.float32(t))["params"], after, rtol=1e-4, atol=1e-5)
        for name, part in (("success", SUCCESS), ("accuracy", TEST)):
            assert found[f"{name}_before"][i] == pytest.approx(rate(before, part))
            assert found[f"{name}_after"][i] == pytest.approx(rate(after, part))
    assert not np.allclose(found["success_before"], found["success_after"])


def test_no_steps_change_nothing():
    found = run(num_steps=0, twin=ENDS[0])
    for name in ("success", "accuracy"):
        np.testing.assert_array_equal(found[f"{name}_after"], found[f"{name}_before"])


def test_a_network_equal_to_the_twin_has_no_excess():
    options = {"num_steps": 2, "learning_rate": 0.1}
    found = run(Stacked.of([ENDS[0], ENDS[1]]), [0, 1], twin=ENDS[1], **options)
    assert found["excess"][1] == 0
    assert found["twin_after"] == found["success_after"][1]
    assert found["excess"][0] == found["success_after"][0] - found["success_after"][1] != 0


@pytest.mark.parametrize("chunk", [1, 3])
def test_together_equals_one_by_one(chunk):
    together = run(chunk=chunk)
    for i, t in enumerate(TS):
        alone = run(ts=[t], chunk=1)
        for name, values in together.items():
            assert values[i] == pytest.approx(float(alone[name][0]), abs=1e-6)


def test_rates_are_over_their_own_sets():
    """9 success images and 11 test images, and as batches whose last one is padded."""
    found = run()
    for name, number in (("success", 9), ("accuracy", 11)):
        for when in ("before", "after"):
            counts = np.asarray(found[f"{name}_{when}"]) * number
            np.testing.assert_allclose(counts, counts.round(), atol=1e-4)
    batches = [{k: v[i : i + 4] for k, v in SUCCESS.items()} for i in (0, 4, 8)]
    np.testing.assert_allclose(
        run(success=batches)["success_after"], found["success_after"], rtol=1e-6
    )


def test_numbers_of_poisoned_images_share_a_program():
    traces = []

    def apply(variables, x):
        traces.append(x.shape)
        return linear(variables, x)

    network = from_apply(apply)
    point_of = jax.jit(lambda tuned, t: tuned(t))
    points = [
        point_of(
            FineTuned.of(KEY, network, LINE, CLEAN, POISONED, num_poisoned=m, **OPTIONS),
            jnp.float32(0.5),
        )["params"]
        for m in (1, 2, 3)
    ]
    assert len(traces) == 1
    assert not np.allclose(points[0], points[2])


@pytest.mark.slow(compiles=True)
def test_batch_norm_is_updated_and_used():
    network = from_linen(
        models.create("cnn", num_classes=3, width=2, hidden=4, batch_norm=True), (2, 3, 1)
    )
    variables = network.init(KEY)
    options = {**OPTIONS, "num_steps": 1, "learning_rate": 0.0, "batch_size": 8}
    tuned = FineTuned.of(KEY, network, Stacked.of([variables]), CLEAN, POISONED, **options)
    after = tuned(jnp.float32(0))
    jax.tree.map(np.testing.assert_array_equal, after["params"], variables["params"])
    both = joined(CLEAN, POISONED)
    batch = both["image"][tuned.indices[0]]
    expected = network.apply_train(KEY, variables, batch)[1]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        after["batch_stats"],
        expected,
    )


def test_images_of_both_kinds_are_joined():
    pixels = {**POISONED, "image": (255 * POISONED["image"]).astype(np.uint8)}
    assert joined(pixels, pixels)["image"].dtype == jnp.uint8
    mixed = joined(CLEAN, pixels)["image"]
    np.testing.assert_allclose(mixed[:7], CLEAN["image"])
    np.testing.assert_allclose(mixed[7:], pixels["image"] / np.float32(255), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": -1}, "num_steps is -1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"poisoned": {**POISONED, "image": np.zeros((3, 2, 2, 1))}}, "images of one shape"),
        ({"curve": lambda t: t, "network": NETWORK}, "must be variables"),
        ({"learning_rate": 1e3, "num_steps": 500, "network": "overflows"}, "lower learning_rate"),
    ],
)
def test_mistakes(changes, message):
    if changes.get("network") == "overflows":
        network = from_apply(lambda v, x: linear(v, x) ** 3)
        changes = {**changes, "network": network}
    with pytest.raises(UserError, match=message):
        run(**changes)


def test_more_poisoned_images_than_there_are():
    with pytest.raises(UserError, match="num_poisoned is 4"):
        FineTuned.of(KEY, NETWORK, LINE, CLEAN, POISONED, num_poisoned=4, **OPTIONS)
