"""The re-learning test: how quickly a repaired network takes a backdoor up again.

A backdoor that is only hidden comes back after a few steps of fine-tuning with a few poisoned images.
Every point of a path is fine-tuned in the same way and compared with a clean twin, which learns the
trigger from the same images for the first time.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from mcjax.core import fields
from mcjax.core.bound_functions import Bound
from mcjax.core.errors import UserError
from mcjax.core.keys import check_key, stream
from mcjax.core.tree import PyTree
from mcjax.data.batches import Batch, epoch_indices, to_unit
from mcjax.evaluation.networks_as_path import Stacked
from mcjax.evaluation.path import check_batch, evaluate_path
from mcjax.models.network import Network
from mcjax.training import LossFn
from mcjax.training.losses import accuracy
from mcjax.training.objectives import endpoint_loss

Batches = Mapping[str, Any] | Iterable[Mapping[str, Any]]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["curve", "key", "examples", "indices", "learning_rate"],
    meta_fields=["loss_fn"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class FineTuned:
    """A curve whose points are fine-tuned by SGD: at each t the same steps on the same batches.

        w_0 = w(t),  w_{i+1} = w_i - learning_rate * grad loss(w_i; batch i)

    Plain SGD: no momentum, no weight decay, no augmentation. The passes are in training mode: BatchNorm
    normalises by the batch and updates its running statistics, which the result is evaluated with.
    Make it by `of`. It is a callable pytree, so `evaluate_path` evaluates it.

    Args:
        curve: The variables at t, {"params": ...} and perhaps "batch_stats".
        key: The key of dropout.
        examples: "image" [N, H, W, C] uint8 or in [0, 1], "label" [N].
        indices: The examples of each step, int32 [num_steps, B].
        learning_rate: Of every step.
        loss_fn: The objective, e.g. `endpoint_loss(network)`.
    """

    curve: Callable[[jax.Array], PyTree]
    key: jax.Array
    examples: Batch
    indices: jax.Array
    learning_rate: jax.typing.ArrayLike
    loss_fn: LossFn

    @classmethod
    def of(
        cls,
        key: jax.Array,
        network: Network,
        curve: Callable[[jax.Array], PyTree],
        clean: Mapping[str, Any],
        poisoned: Mapping[str, Any],
        *,
        num_steps: int,
        learning_rate: float,
        batch_size: int,
        num_poisoned: int | None = None,
    ) -> "FineTuned":
        """Fine-tunes every point on clean images and the first m poisoned ones.

        The N + m images are drawn in random order, each once per epoch. Calls that differ only in
        `num_poisoned`, in the images or in the key share one compiled program.

        Args:
            key: Random key of the batches and of dropout; the same key gives the same batches.
            network: The network.
            curve: The variables at t, {"params": ...} and perhaps "batch_stats".
            clean: "image" [N, H, W, C] uint8 or in [0, 1], "label" [N].
            poisoned: The same for images with the trigger, with the labels that the attacker wants.
            num_steps: Steps of SGD, 0 or more.
            learning_rate: Of every step.
            batch_size: Images per step.
            num_poisoned: m; default all.

        Returns:
            The fine-tuned curve.

        Raises:
            UserError: An option is not a number of the right kind; there are fewer than m poisoned
                images, or they are of another shape than the clean ones.
        """
        key = check_key(key)
        fields.check("num_steps", num_steps, fields.whole(0))
        fields.check("learning_rate", learning_rate, fields.number(0, 1e3))
        fields.check("batch_size", batch_size, fields.whole(1, 2**20))
        examples = joined(clean, poisoned)
        given = len(poisoned["label"])
        number = given if num_poisoned is None else num_poisoned
        fields.check("num_poisoned", number, fields.whole(0, given))
        if jax.tree.leaves(curve) == [curve]:  # a plain function, not a pytree
            curve = jax.tree_util.Partial(curve)
        indices = epoch_indices(
            stream(key, "shuffle"),
            first_step=0,
            num_steps=num_steps,
            batch_size=batch_size,
            num_examples=len(clean["label"]) + number,
        )
        return cls(curve, key, examples, indices, learning_rate, endpoint_loss(network))

    def __call__(self, t: jax.Array) -> PyTree:
        """The fine-tuned variables at t."""
        variables = self.curve(t)
        if not isinstance(variables, Mapping) or "params" not in variables:
            raise UserError('the points of the curve must be variables {"params": ...}')

        def step(carry: tuple[PyTree, PyTree], i: tuple[jax.Array, jax.Array]) -> Any:
            params, stats = carry
            number, index = i
            batch = {name: value[index] for name, value in self.examples.items()}
            batch["image"] = to_unit(batch["image"])
            grads, (stats, _) = jax.grad(self.loss_fn, argnums=2, has_aux=True)(
                self.key, number, params, stats, None, batch
            )
            rate = self.learning_rate
            return (jax.tree.map(lambda w, g: w - rate * g, params, grads), stats), None

        start = (variables["params"], variables.get("batch_stats", {}))
        steps = (jnp.arange(len(self.indices)), self.indices)
        (params, stats), _ = lax.scan(step, start, steps)
        return {name: {"params": params, "batch_stats": stats}[name] for name in variables}


def joined(clean: Mapping[str, Any], poisoned: Mapping[str, Any]) -> Batch:
    """The clean examples and after them the poisoned ones, on the device.

    Args:
        clean: "image" [N, H, W, C] uint8 or in [0, 1], "label" [N].
        poisoned: The same, M images of the same shape.

    Returns:
        "image" [N + M, H, W, C], uint8 if both are, else float32 in [0, 1]; "label" [N + M].

    Raises:
        UserError: The images differ in shape.
        ValueError: One of the two is not a batch.
    """
    for one in (clean, poisoned):
        check_batch(one, stacked=False)
    shapes = [tuple(one["image"].shape[1:]) for one in (clean, poisoned)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"clean images have shape {shapes[0]}, poisoned ones {shapes[1]}; give images of one shape"
        )
    images = [one["image"] for one in (clean, poisoned)]
    if images[0].dtype != images[1].dtype:
        images = [to_unit(image) for image in images]
    labels = [jnp.asarray(one["label"], jnp.int32) for one in (clean, poisoned)]
    return {
        "image": jnp.concatenate([jnp.asarray(image) for image in images]),
        "label": jnp.concatenate(labels),
    }


def relearn(
    key: jax.Array,
    network: Network,
    curve: Callable[[jax.Array], PyTree],
    ts: jax.typing.ArrayLike,
    clean: Mapping[str, Any],
    poisoned: Mapping[str, Any],
    *,
    test: Batches,
    success: Batches,
    twin: PyTree | None = None,
    num_steps: int = 100,
    learning_rate: float = 0.05,
    batch_size: int = 64,
    mesh: Mesh | None = None,
    chunk: int | None = None,
) -> dict[str, jax.Array]:
    """Measures attack success before and after fine-tuning with m poisoned images, at every t.

        excess(t) = success_after(w(t)) - success_after(twin)

    All points and the twin take the same steps on the same batches (`FineTuned`).
    An excess near 0 means that the point learns the trigger no faster than a network that never had
    it; a high one means that the backdoor was hidden, not gone. One compiled program fine-tunes and
    evaluates all points; memory use does not depend on their number.

    Args:
        key: Random key of the batches and of dropout.
        network: The network.
        curve: What `evaluate_path` takes, with variables {"params": ...} as points; several
            networks as `Stacked.of(networks)`.
        ts: Points, [T].
        clean: Clean images to fine-tune on, "image" [N, H, W, C] uint8 or in [0, 1], "label" [N].
        poisoned: m images with the trigger, with the attacker's labels; not test images.
        test: Clean test images, in any form that `evaluate_path` takes.
        success: Stamped test images with the attacker's labels (`attack_set`), likewise.
        twin: Variables of a network that was trained on the same images untampered; None for none.
        num_steps: Steps of SGD, 0 or more.
        learning_rate: Of every step.
        batch_size: Images per step.
        mesh: Devices to spread the t's over. Default: all devices.
        chunk: Number of t's vmapped together on a device. Default: `default_chunk()`.

    Returns:
        Fractions [T]: "success_before", "success_after" of the success images, "accuracy_before",
        "accuracy_after" of the test images; with a twin also "excess" [T] and "twin_after" [].

    Raises:
        UserError: See `FineTuned.of`; or the fine-tuning diverged.

    Example:
        >>> from mcjax.models.network import from_apply
        >>> network = from_apply(lambda v, x: x.reshape(len(x), -1) @ v["params"])
        >>> eye = jnp.eye(4).reshape(4, 2, 2, 1)
        >>> clean = {"image": eye, "label": jnp.arange(4)}
        >>> poisoned = {"image": 1 - eye[:1], "label": jnp.array([3])}  # the trigger inverts
        >>> stamped = {"image": 1 - eye[:3], "label": jnp.full(3, 3)}
        >>> networks = Stacked.of([{"params": jnp.eye(4)}, {"params": 3 * jnp.eye(4)}])
        >>> found = relearn(jax.random.key(0), network, networks, [0, 1], clean, poisoned, test=clean,
        ...     success=stamped, twin={"params": jnp.eye(4)}, learning_rate=0.1, batch_size=5)
        >>> found["success_before"].tolist(), found["success_after"].tolist()
        ([0.0, 0.0], [1.0, 1.0])
        >>> found["excess"].tolist()
        [0.0, 0.0]

    Source: after Min et al. 2024, the retuning attack on repaired networks; twin and path are ours.
    """
    options = {"num_steps": num_steps, "learning_rate": learning_rate, "batch_size": batch_size}

    def of(points: Callable[[jax.Array], PyTree], ts: jax.typing.ArrayLike) -> dict[str, jax.Array]:
        tuned = FineTuned.of(key, network, points, clean, poisoned, **options)  # type: ignore[arg-type]
        found = evaluate_path(
            Bound(_before_and_after, network.apply),
            jax.tree_util.Partial(_both, tuned),
            ts,
            {"accuracy": test, "success": success},
            mesh=mesh,
            chunk=chunk,
        )
        if any(bool((metrics["diverged"] > 0).any()) for metrics in found.values()):
            raise UserError(
                f"the fine-tuning diverged at learning rate {learning_rate}; lower learning_rate"
            )
        return {
            f"{name}_{when}": metrics[when]
            for name, metrics in found.items()
            for when in ("before", "after")
        }

    found = of(curve, ts)
    if twin is None:
        return found
    control = of(Stacked.of([twin]), jnp.zeros(1))["success_after"][0]
    return {**found, "twin_after": control, "excess": found["success_after"] - control}


def _both(tuned: FineTuned, t: jax.Array) -> dict[str, PyTree]:
    return {"before": tuned.curve(t), "after": tuned(t)}


def _before_and_after(
    apply_fn: Callable[[PyTree, jax.Array], jax.Array], point: dict[str, PyTree], batch: Batch
) -> dict[str, jax.Array]:
    logits = {when: apply_fn(variables, batch["image"]) for when, variables in point.items()}
    right = {when: accuracy(z, batch["label"]) for when, z in logits.items()}
    diverged = ~jnp.isfinite(logits["after"]).all(-1)
    return {**right, "diverged": diverged.astype(jnp.float32)}
