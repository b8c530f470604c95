"""The work in mcjax: what its experiments call, nothing special."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator import numbers
from benchmarks.accelerator.networks import network, shapes_of
from mcjax.attacks.images.pgd import pgd
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree, path_name
from mcjax.curvature import input_hessian_eigenvalue
from mcjax.curves import Bezier
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.data import augmentation
from mcjax.data.batches import epoch_indices, stack_batches
from mcjax.evaluation.path import evaluate_path
from mcjax.models.network import Network, in_bfloat16
from mcjax.training import init_state, sgd, train_steps
from mcjax.training.losses import classification_metrics
from mcjax.training.objectives import curve_loss, sample_t, split_curve

PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": None}
Results = dict[str, Any]
Apply = Callable[[PyTree, jax.Array], jax.Array]


def prepare(name: str, shapes: Path) -> dict[str, Callable[..., Results]]:
    """The functions to time; each takes a precision and returns what is compared.

    Args:
        name: A network of `networks`.
        shapes: Where to write the names and shapes of its variables, for the other framework.

    Returns:
        {"draws", "step", "point", "path", "pgd", "exact", "power", "memory"}.
    """
    size, net = numbers.sizes(name), network(name)
    like = shapes_of(net)
    named = jax.tree.leaves_with_path(like)
    shapes.write_text(json.dumps({path_name(path): leaf.shape for path, leaf in named}))
    names = numbers.read_shapes(shapes)

    def variables(point: str) -> dict:
        arrays = numbers.variables(names, point)
        return jax.tree.map_with_path(lambda path, _: jnp.asarray(arrays[path_name(path)]), like)

    start, bend, end = map(variables, numbers.POINTS)
    curve = Bezier(start["params"], (bend["params"],), end["params"])
    stats = [v.get("batch_stats", {}) for v in (start, end)]
    train, test = (
        {"image": x, "label": y} for x, y in (numbers.images(size, s) for s in ("train", "test"))
    )
    examples = jax.tree.map(jnp.asarray, train)
    sets = {
        split: jax.tree.map(jnp.asarray, stack_batches(given, size.evaluation_batch))
        for split, given in (("train", train), ("test", test))
    }
    key = jax.random.key(0)
    optimizer = sgd(numbers.LEARNING_RATE, 10_000, momentum=numbers.MOMENTUM)
    x = examples["image"][: size.evaluation_batch].astype(jnp.float32) / 255
    y = examples["label"][: size.evaluation_batch]

    def at(precision: str) -> Network:
        jax.config.update("jax_default_matmul_precision", PRECISIONS[precision])
        return in_bfloat16(net) if precision == "bfloat16" else net

    def points(net: Network) -> CurveWithStats:
        given = examples["image"] if net.has_batch_stats else None
        return CurveWithStats(
            curve, stats[0], stats[1], given, net.apply_train, size.evaluation_batch
        )

    def draws() -> Results:
        ts = jax.vmap(lambda i: sample_t(stream(key, "t"), i))(jnp.arange(size.steps))
        indices = epoch_indices(
            stream(key, "shuffle"), first_step=0, num_steps=size.steps,
            batch_size=size.batch, num_examples=size.train,
        )  # fmt: skip
        return {"ts": np.asarray(ts), "indices": np.asarray(indices)}

    def step(precision: str) -> Results:
        net = at(precision)
        trained, fixed = split_curve(curve)
        # A copy, because train_steps takes its state over.
        state = jax.tree.map(jnp.copy, init_state(trained, stats[0], optimizer))
        state, history = train_steps(
            key, state, fixed, examples, jnp.int32(size.steps),
            capacity=size.steps,
            loss_fn=curve_loss(net, Bezier, weight_decay=numbers.WEIGHT_DECAY),
            optimizer=optimizer,
            batch_size=size.batch,
            augment_fn=augmentation.get("none"),
        )  # fmt: skip
        jax.block_until_ready(state)
        return {"loss": np.asarray(history.loss)}

    def along(precision: str, ts: np.ndarray) -> Results:
        net = at(precision)
        means = evaluate_path(classification_metrics(net.apply), points(net), ts, sets)
        return {"loss": np.asarray([means[split]["loss"] for split in sets])}

    attack = jax.jit(_attack, static_argnums=0)
    hessian = jax.jit(_hessian, static_argnums=(0, 4))
    found: dict[str, Any] = {}  # the point that is attacked, by precision; not what is timed

    def variables_at(precision: str) -> Any:
        if precision not in found:
            found[precision] = jax.jit(points(at(precision)))(jnp.float32(numbers.T))
        return found[precision]

    def attacked(precision: str) -> Results:
        net, variables = at(precision), variables_at(precision)
        x_adv = attack(net.apply, variables, x, y).block_until_ready()
        return {"loss": np.asarray(_loss(net.apply, variables, x_adv, y))}

    def eigenvalues(precision: str, method: str) -> Results:
        net, variables = at(precision), variables_at(precision)
        images, labels = x[: size.hessian], y[: size.hessian]
        return {"eigenvalue": np.asarray(hessian(net.apply, variables, images, labels, method))}

    def memory() -> Results:
        about = jax.devices()[0].memory_stats() or {}
        return {"peak_bytes": int(about.get("peak_bytes_in_use", 0))}

    return {
        "draws": draws,
        "step": step,
        "point": lambda precision: along(precision, np.array([numbers.T])),
        "path": lambda precision: along(precision, np.linspace(0, 1, size.points)),
        "pgd": attacked,
        "exact": lambda precision: eigenvalues(precision, "exact"),
        "power": lambda precision: eigenvalues(precision, "power"),
        "memory": memory,
    }


def _attack(apply: Apply, variables: PyTree, x: jax.Array, y: jax.Array) -> jax.Array:
    return pgd(
        jax.random.key(0),
        lambda x: apply(variables, x),
        x,
        y,
        numbers.EPS,
        numbers.STEP_SIZE,
        numbers.PGD_STEPS,
        random_start=False,
    )


def _hessian(apply: Apply, variables: PyTree, x: jax.Array, y: jax.Array, method: str) -> jax.Array:
    top = input_hessian_eigenvalue(
        lambda x: apply(variables, x),
        x,
        y,
        method=method,
        piecewise_linear=True,
        max_iters=numbers.POWER_PRODUCTS if method == "power" else None,
        tolerance=1e-12,  # never reached: power takes all its products, as PyTorch's side does
    )
    return top.eigenvalue


@jax.jit
def _cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def _loss(apply: Apply, variables: PyTree, x: jax.Array, y: jax.Array) -> jax.Array:
    return _cross_entropy(jax.jit(apply)(variables, x), y)
