"""The benchmark's work in mcjax: what its runners call, nothing special."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import inputs
from mcjax import cpu_convolution
from mcjax.attacks.images.pgd import pgd
from mcjax.core.tree import path_name
from mcjax.curves import Bezier
from mcjax.curves.batch_stats import CurveWithStats
from mcjax.data import augmentation
from mcjax.data.batches import stack_batches
from mcjax.evaluation.path import evaluate_path
from mcjax.training import init_state, sgd, train_steps
from mcjax.training.losses import classification_metrics, cross_entropy
from mcjax.training.objectives import curve_loss, split_curve

EVALUATION_BATCH = 125
Work = Callable[[int], dict[str, np.ndarray]]


def prepare(name: str, file: Path, variant: str) -> dict[str, Work]:
    """The functions to time; each takes a size and returns what is compared.

    Args:
        name: The network.
        file: From `inputs.write_inputs`.
        variant: "mcjax", or "stock": XLA's own convolutions.

    Returns:
        {"step": steps -> losses, "point": _ -> loss, accuracy, "pgd": _ -> loss under attack,
        "path": points -> loss, accuracy}.
    """
    if variant == "mcjax":
        cpu_convolution.enable()
    net = inputs.network(name)
    data = dict(np.load(file))
    curve, stats = _curve(name, data)
    images, labels = jnp.asarray(data["images"]), jnp.asarray(data["labels"])
    examples = {"image": images, "label": labels}
    host = {"image": data["images"], "label": data["labels"]}
    batches = {k: jnp.asarray(v) for k, v in stack_batches(host, EVALUATION_BATCH).items()}
    metric_fn = classification_metrics(net.apply)
    points = _points(name, curve, stats, images)
    trained, fixed = split_curve(curve)
    optimizer = sgd(inputs.LEARNING_RATE, 10_000, momentum=inputs.MOMENTUM)
    loss_fn = curve_loss(net, Bezier, weight_decay=inputs.WEIGHT_DECAY)
    x, y = images[: inputs.BATCH_SIZE], labels[: inputs.BATCH_SIZE]

    def step(num_steps: int) -> dict[str, np.ndarray]:
        # A copy, because train_steps takes its state over.
        state = jax.tree.map(jnp.copy, init_state(trained, stats[0], optimizer))
        state, history = train_steps(
            jax.random.key(inputs.TRAIN_KEY),
            state,
            fixed,
            examples,
            jnp.int32(num_steps),
            capacity=inputs.MAX_STEPS,
            loss_fn=loss_fn,
            optimizer=optimizer,
            batch_size=inputs.BATCH_SIZE,
            augment_fn=augmentation.get("none"),
        )
        jax.block_until_ready(state)
        return {"losses": np.asarray(history.loss[:num_steps])}

    def path(num_points: int) -> dict[str, np.ndarray]:
        ts = np.linspace(0, 1, num_points) if num_points > 1 else np.array([inputs.T])
        means = evaluate_path(metric_fn, points, ts, batches)
        return {name: np.asarray(v) for name, v in means.items()}

    variables = jax.jit(points)(jnp.float32(inputs.T))

    @jax.jit
    def attack(variables: dict, x: jax.Array) -> jax.Array:
        return pgd(
            jax.random.key(0),
            lambda x: net.apply(variables, x),
            x,
            y,
            inputs.EPS,
            inputs.STEP_SIZE,
            inputs.PGD_STEPS,
            random_start=False,
        )

    def attack_point(_: int) -> dict[str, np.ndarray]:
        x_adv = attack(variables, x).block_until_ready()
        return {"images": np.asarray(x_adv)}

    return {"step": step, "point": lambda _: path(1), "pgd": attack_point, "path": path}


def _curve(name: str, data: dict) -> tuple[Bezier, list[dict]]:
    """The curve, and the statistics of its ends."""
    like = jax.eval_shape(inputs.network(name).init, jax.random.key(0))

    def variables(point: str) -> dict:
        def leaf(part: str, path: tuple) -> jax.Array:
            return jnp.asarray(data[f"{point}:{part}:{path_name(path)}"])

        return {
            part: jax.tree.map_with_path(lambda path, _, part=part: leaf(part, path), tree)
            for part, tree in like.items()
        }

    start, bend, end = (variables(point) for point in ("start", "bend", "end"))
    curve = Bezier(start["params"], (bend["params"],), end["params"])
    return curve, [v.get("batch_stats", {}) for v in (start, end)]


def _points(name: str, curve: Bezier, stats: list[dict], images: jax.Array) -> CurveWithStats:
    net = inputs.network(name)
    given = images if net.has_batch_stats else None
    return CurveWithStats(curve, stats[0], stats[1], given, net.apply_train, EVALUATION_BATCH)


def loss_at(name: str, file: Path, x_adv: np.ndarray) -> float:
    """Mean loss at T of given images of the first batch: how strong an attack was.

    Args:
        name: The network.
        file: From `inputs.write_inputs`.
        x_adv: Images, [B, H, W, C].

    Returns:
        The mean cross-entropy, in nats.
    """
    data = dict(np.load(file))
    points = _points(name, *_curve(name, data), jnp.asarray(data["images"]))
    logits = inputs.network(name).apply(jax.jit(points)(jnp.float32(inputs.T)), jnp.asarray(x_adv))
    return float(cross_entropy(logits, jnp.asarray(data["labels"][: len(x_adv)])).mean())
