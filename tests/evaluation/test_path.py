"""Path evaluation against a plain loop, on one and on eight devices."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mcjax.core.sharding import make_mesh
from mcjax.curves import Bezier
from mcjax.data.batches import stack_batches
from mcjax.evaluation.path import _evaluate, evaluate_path, examples_along_path
from mcjax.training.losses import classification_metrics


def apply_fn(params, x):
    x = lax.conv_general_dilated(
        x, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.einsum("bhwc,hwck->bk", jax.nn.relu(x), params["dense"])


def random_params(seed):
    a, b = jax.random.split(jax.random.key(seed))
    return {"conv": jax.random.normal(a, (3, 3, 1, 4)), "dense": jax.random.normal(b, (5, 5, 4, 3))}


CURVE = Bezier(random_params(0), (random_params(1),), random_params(2))
TS = np.linspace(0, 1, 11)  # does not divide by eight


def random_batches(num_images=23, batch_size=8):
    image = jax.random.uniform(jax.random.key(3), (num_images, 5, 5, 1))
    label = jnp.arange(num_images) % 3
    return [
        {"image": image[i : i + batch_size], "label": label[i : i + batch_size]}
        for i in range(0, num_images, batch_size)
    ]


def loss_and_accuracy(params, batch):
    return METRICS(params, batch)


METRICS = classification_metrics(apply_fn)


def input_gradient_norm(params, batch):
    """The kind of metric that shard_map's default would get silently wrong."""

    def total(x):
        return METRICS(params, {**batch, "image": x})["loss"].sum()

    return {
        "norm": jnp.linalg.norm(
            jax.grad(total)(batch["image"]).reshape(len(batch["label"]), -1), axis=1
        )
    }


def plain_loop(metric_fn, curve, ts, batches):
    rows = []
    for t in ts:
        values = [metric_fn(curve(t), batch) for batch in batches]
        rows.append(
            {k: np.concatenate([v[k] for v in values]).mean(dtype=np.float64) for k in values[0]}
        )
    return {k: np.array([row[k] for row in rows]) for k in rows[0]}


@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("metric_fn", [METRICS, input_gradient_norm])
def test_equals_a_plain_loop(metric_fn, chunk, num_devices):
    batches = random_batches()
    mesh = make_mesh(jax.devices()[:num_devices])
    means = evaluate_path(metric_fn, CURVE, TS, batches, mesh=mesh, chunk=chunk)
    expected = plain_loop(metric_fn, CURVE, TS, batches)
    assert means.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(means[name], values, rtol=2e-5)


@pytest.mark.accelerator
def test_every_form_of_batches():
    rows = random_batches(num_images=16)
    stacked = {k: jnp.stack([row[k] for row in rows]) for k in rows[0]}
    whole = {k: jnp.concatenate([row[k] for row in rows]) for k in rows[0]}
    expected = evaluate_path(METRICS, CURVE, TS, rows)
    for form in (stacked, whole, iter(rows)):
        chex.assert_trees_all_close(evaluate_path(METRICS, CURVE, TS, form), expected, rtol=1e-5)
    named = evaluate_path(METRICS, CURVE, TS, {"train": stacked, "test": rows[:1]})
    chex.assert_trees_all_close(named["train"], expected, rtol=1e-5)
    chex.assert_trees_all_close(
        named["test"], evaluate_path(METRICS, CURVE, TS, rows[0]), rtol=1e-5
    )


@pytest.mark.accelerator
def test_masked_examples_do_not_count_even_where_they_are_not_numbers():
    (batch,) = random_batches(num_images=6)
    padded = {k: jnp.concatenate([v, v[:2]]) for k, v in batch.items()}
    padded["image"] = padded["image"].at[6:].set(jnp.nan)
    padded["mask"] = jnp.float32([1] * 6 + [0] * 2)
    chex.assert_trees_all_close(
        evaluate_path(METRICS, CURVE, TS, padded),
        evaluate_path(METRICS, CURVE, TS, batch),
        rtol=1e-6,
    )


@pytest.mark.accelerator
def test_uint8_images_are_taken_as_fractions_of_255():
    (batch,) = random_batches(num_images=6)
    pixels = jnp.round(batch["image"] * 255).astype(jnp.uint8)
    a = evaluate_path(METRICS, CURVE, [0.5], {**batch, "image": pixels})
    b = evaluate_path(METRICS, CURVE, [0.5], {**batch, "image": pixels.astype(jnp.float32) / 255})
    chex.assert_trees_all_close(a, b, rtol=1e-6)


def test_any_function_of_t_is_a_curve():
    def params_at(t):
        return CURVE(t)

    batches = random_batches()
    chex.assert_trees_all_close(
        evaluate_path(METRICS, params_at, TS, batches), evaluate_path(METRICS, CURVE, TS, batches)
    )


def test_traced_once_whatever_the_number_of_points_in_whole_blocks():
    chex.clear_trace_counter()
    metric_fn = chex.assert_max_traces(lambda params, batch: METRICS(params, batch), n=1)
    batches = random_batches(num_images=8)
    for _ in range(3):
        evaluate_path(metric_fn, CURVE, TS[:8], batches)


def test_no_exchange_between_devices():
    batches = {k: v[None] for k, v in random_batches(num_images=8)[0].items()}
    batches["mask"] = jnp.ones((1, 8))
    program = _evaluate.lower(
        CURVE, jnp.zeros(16), {"": batches}, metric_fns=(("", METRICS),), mesh=make_mesh(), chunk=2
    ).compile()
    text = program.as_text()
    assert "while" in text  # the loop over chunks is there
    for collective in (
        "all-reduce",
        "all-gather",
        "all-to-all",
        "collective-permute",
        "reduce-scatter",
    ):
        assert collective not in text


def test_bad_metric_and_no_batches():
    with pytest.raises(ValueError, match="return one value per example"):
        evaluate_path(lambda params, batch: {"loss": jnp.float32(0)}, CURVE, TS, random_batches())
    with pytest.raises(ValueError, match="batches is empty"):
        evaluate_path(METRICS, CURVE, TS, [])


def test_what_is_no_point_no_batch_and_no_metric():
    batches = random_batches()
    with pytest.raises(ValueError, match="give a vector of points"):
        evaluate_path(METRICS, CURVE, 0.5, batches)
    with pytest.raises(ValueError, match="a batch must be a dict"):
        evaluate_path(METRICS, CURVE, TS, (np.zeros((2, 4)), np.zeros(2, np.int32)))
    with pytest.raises(ValueError, match="metric_fn must return a dict"):
        evaluate_path(lambda params, batch: jnp.zeros(4), CURVE, TS, batches)


LABEL = np.zeros(4, np.int32)
IMAGE = np.zeros((4, 2, 2, 1), np.float32)


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        (
            {"image": IMAGE, "label": LABEL[:, None]},
            r"label \[4, 1\]|labels have shape \[4, 1\]",
        ),
        ({"image": IMAGE, "label": LABEL[:3]}, r"image has shape \[4, 2, 2, 1\], but label \[3\]"),
        (
            {"image": IMAGE, "label": LABEL, "mask": np.ones(1)},
            r"mask has shape \[1\], but label \[4\]",
        ),
        (
            {"image": IMAGE, "label": LABEL, "mask": np.ones((4, 1))},
            r"mask has shape \[4, 1\]; give \[4\]",
        ),
        ({"image": IMAGE[:0], "label": LABEL[:0]}, "give .*one label per image"),
        ({"image": IMAGE}, r"batch has no label \(it has image\)"),
        ({"x": IMAGE, "label": LABEL}, r"batch has no image \(it has x, label\)"),
        ({}, r"batch has no image or label \(it has nothing\)"),
    ],
)
def test_batches_whose_arrays_do_not_belong_together(batch, match):
    forms = [batch, [batch], {"test": batch}] if batch else [[batch]]
    for batches in forms:
        with pytest.raises(ValueError, match=match):
            evaluate_path(METRICS, CURVE, TS, batches)


def test_equal_metrics_of_a_network_made_again_are_not_compiled_again():
    traces = []

    def count(variables, x):
        traces.append(1)
        return apply_fn(variables, x)

    batches = random_batches(num_images=8)
    first = evaluate_path(classification_metrics(count), CURVE, TS, batches)
    num = len(traces)
    second = evaluate_path(classification_metrics(count), CURVE, TS, batches)
    assert num > 0
    assert len(traces) == num
    np.testing.assert_array_equal(first["loss"], second["loss"])


@pytest.mark.accelerator
def test_every_example_by_itself_and_its_mean():
    """8 devices, a padded last batch: values in the examples' order, means as evaluate_path's."""
    line = Bezier.connect({"w": jnp.float32(1.0)}, {"w": jnp.float32(3.0)})
    image = np.arange(7, dtype=np.float32).reshape(7, 1, 1, 1) / 10
    batches = stack_batches({"image": image, "label": np.zeros(7, np.int32)}, 3)

    def metric_fn(params, batch):
        return {"m": params["w"] * batch["image"][:, 0, 0, 0]}

    ts = np.array([0.0, 0.25, 1.0])
    values = examples_along_path(metric_fn, line, ts, batches)["m"]
    np.testing.assert_allclose(values, np.outer([1, 1.5, 3], image.ravel()), rtol=1e-6)
    means = evaluate_path(metric_fn, line, ts, batches)["m"]
    np.testing.assert_allclose(values.mean(1), means, rtol=1e-6)


def test_examples_of_a_generator_and_of_small_batches_between_large_ones():
    line = Bezier.connect({"w": jnp.float32(1.0)}, {"w": jnp.float32(3.0)})
    image = np.arange(1, 6, dtype=np.float32).reshape(5, 1, 1, 1) / 10
    cuts = ((0, 2), (2, 3), (3, 5))
    batches = ({"image": image[a:b], "label": np.zeros(b - a, np.int32)} for a, b in cuts)
    found = examples_along_path(
        lambda params, batch: {"m": params["w"] * batch["image"][:, 0, 0, 0]}, line, [0.0], batches
    )
    np.testing.assert_allclose(found["m"], [[0.1, 0.2, 0.3, 0.4, 0.5]], rtol=1e-6)


def test_a_mask_of_fractions_weighs():
    batch = {
        "image": np.ones((2, 1, 1, 1), np.float32),
        "label": np.arange(2),
        "mask": np.array([0.5, 1.0], np.float32),
    }
    found = evaluate_path(
        lambda params, batch: {"m": batch["label"] + 1.0}, lambda t: t, [0.0], batch
    )
    np.testing.assert_allclose(found["m"], [2.5 / 1.5], rtol=1e-6)


@pytest.mark.parametrize("evaluate_fn", [evaluate_path, examples_along_path])
def test_points_beyond_the_ends_are_asked_for(evaluate_fn):
    line = Bezier.connect({"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, num_bends=0)
    batch = {"image": jnp.ones((2, 1, 1, 1)), "label": jnp.zeros(2, jnp.int32)}

    def metric_fn(params, batch):
        return {"w": params["w"] * batch["image"][:, 0, 0, 0]}

    with pytest.raises(ValueError, match=r"ts go from 0 to 1.5, .* pass extrapolate=True"):
        evaluate_fn(metric_fn, line, [0.0, 1.5], batch)
    found = evaluate_fn(metric_fn, line, [-1.0, 1.5], batch, extrapolate=True)["w"]
    np.testing.assert_allclose(np.asarray(found).reshape(2, -1)[:, 0], [-1, 1.5])


def test_floats_from_0_to_255_are_warned_of():
    def metric_fn(params, batch):
        return {"mean": batch["image"].mean((1, 2, 3))}

    def evaluate(image):
        return evaluate_path(
            metric_fn, lambda t: t, [0.5], {"image": image, "label": np.zeros(2, int)}
        )

    image = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1) * 30
    with pytest.warns(UserWarning, match="whole numbers up to 210 as floats"):
        evaluate(image.astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(image)  # bytes are divided
        evaluate(image / np.float32(255))
        evaluate((image / np.float32(255) - 0.5) / 0.2)  # normalised
        evaluate(np.round(image / np.float32(255)))  # black and white
