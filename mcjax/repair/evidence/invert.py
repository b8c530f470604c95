"""Trigger inversion: the cheapest trigger of each form that sends clean images to each class.

For class k and form F with parameters q and size |q|, in nats:

    cost_k = min over q of  mean_x CE(f(F(q, x)), k) + |q| / s

s is a size that natural triggers of the form have (those that draw the class's own features), so
costs of different forms can be compared. All classes are inverted at once by Adam on clean images.
A class that is cheaper to reach than the others is suspect.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mcjax.core.bound_functions import FewPrograms
from mcjax.core.errors import UserError
from mcjax.core.keys import stream
from mcjax.core.tree import PyTree
from mcjax.data.batches import epoch_indices, to_unit
from mcjax.models.network import Network
from mcjax.repair.evidence import forms as forms_by_name
from mcjax.repair.evidence.control import THRESHOLDS, Control
from mcjax.repair.evidence.forms import FORMS
from mcjax.training.losses import cross_entropy

MOST_JUDGED = 256
"""Images that the final costs are measured on, at most."""

CHUNK = {"cpu": 1}
"""Classes that are searched at once. CPUs gain nothing from more, and so need the least memory."""

MOST_AT_ONCE = 32
"""The same on other devices, at most."""


class Inverted(NamedTuple):
    """The inverted triggers of one form.

    Attributes:
        triggers: Parameters of the form, leaves [restarts, classes, ...].
        cost: Cross-entropy plus relative size, in nats, [restarts, classes].
        size: In the form's unit, [restarts, classes].
        success: Share of the clean images, whatever their class, that are sent to the trigger's
            class, [restarts, classes].
        control_share: What the trigger leaves of the control network's cross-entropy with its class,
            [restarts, classes]: 1 where it does nothing there; NaN without a control.
        threshold: The anomaly from which a trigger is evidence of a backdoor, by the kind of the control
            (`mcjax.repair.evidence.control.THRESHOLDS`); NaN without a control.
    """

    triggers: PyTree
    cost: jax.Array
    size: jax.Array
    success: jax.Array
    control_share: jax.Array
    threshold: jax.typing.ArrayLike = float("nan")


def invert(
    key: jax.Array,
    network: Network,
    variables: PyTree,
    images: Mapping[str, Any],
    *,
    forms: Sequence[str] = tuple(FORMS),
    num_steps: int = 200,
    batch_size: int = 16,
    num_restarts: int = 1,
    control: Control | None = None,
    classes: Mapping[str, int] | None = None,
) -> dict[str, Inverted]:
    """Inverts a trigger per form and class.

    Args:
        key: Random key.
        network: The network; evaluation mode is used.
        variables: The suspect's variables.
        images: Clean images, "image" [N, H, W, C] uint8 or in [0, 1]; labels are not used.
        forms: Names of `mcjax.repair.evidence.forms.FORMS`.
        num_steps: Adam steps.
        batch_size: Images per step; each is stamped for every class.
        num_restarts: Independent inversions per class, from other starts.
        control: The control that the triggers are tried on as well, if there is one.
        classes: The one class of each form that is searched, {form: class}; None searches all. The
            others have infinite costs then.

    Returns:
        The inverted triggers by form.

    Raises:
        UserError: A form is unknown, an option is not positive, or there are no images.

    Source: Wang et al. 2019 (Neural Cleanse), section 4.1, with a fixed weight of the size; forms
        other than the patch are mcjax's own.
    """
    if len(images["image"]) == 0:
        raise UserError("there are no images to invert triggers on; give at least one")
    if min(num_restarts, num_steps, batch_size) < 1:
        raise UserError(
            f"inversion with {num_steps} steps of {batch_size} images and {num_restarts} restarts; "
            "give at least 1 of each"
        )
    for name in forms:
        forms_by_name.get(name)
    # Computed apart, because compiling the permutations takes longer than the rest of a program.
    indices = epoch_indices(
        stream(key, "images"),
        first_step=0,
        num_steps=num_steps,
        batch_size=batch_size,
        num_examples=len(images["image"]),
    )
    image, found = jnp.asarray(images["image"]), {}
    num_classes = jax.eval_shape(network.apply, variables, to_unit(image[:1])).shape[1]
    chunk = min(num_classes, CHUNK.get(jax.default_backend(), MOST_AT_ONCE))
    for name in forms:
        wanted = range(num_classes) if classes is None else [classes[name]]
        # Padded with the last one, which is searched again.
        missing = chunk * math.ceil(num_classes / chunk) - len(wanted)
        padded = [*wanted, *[wanted[-1]] * missing]
        one = _invert(
            stream(key, name),
            variables,
            image,
            indices,
            jnp.asarray(padded),
            math.ceil(len(wanted) / chunk),
            network=network,
            form=name,
            num_restarts=num_restarts,
            chunk=chunk,
        )
        if control is not None and control.variables is not None:
            one = tried_on(control.variables, one, image, network=network, form=name)
            one = one._replace(threshold=jnp.float32(THRESHOLDS[control.kind]))
        found[name] = jax.block_until_ready(one)  # a form's search needs memory of its own
    return found


def tried_on(
    control: PyTree, one: Inverted, image: jax.Array, *, network: Network, form: str
) -> Inverted:
    """The same triggers, tried on another network.

    Args:
        control: Variables of that network.
        one: The triggers of one form.
        image: Clean images, [N, H, W, C] uint8 or in [0, 1]; the first `MOST_JUDGED` are used.
        network: The network.
        form: The form's name.

    Returns:
        The triggers with that network's `control_share`.
    """
    share = _share(control, image[:MOST_JUDGED], one.triggers, network=network, form=form)
    return one._replace(control_share=share)


class _Search(NamedTuple):
    """The state of one inversion."""

    q: PyTree
    adam: PyTree


def _inversion(
    key: jax.Array,
    variables: PyTree,
    image: jax.Array,
    indices: jax.Array,
    wanted: jax.Array,
    num_chunks: jax.Array,
    *,
    network: Network,
    form: str,
    num_restarts: int,
    chunk: int,
) -> Inverted:
    """Inverts the first num_chunks x chunk of the wanted classes."""
    f = FORMS[form]
    height, width, channels = image.shape[1:]
    image_shape = (height, width, channels)
    optimizer = optax.adam(optax.cosine_decay_schedule(f.learning_rate, len(indices)))
    num_classes = jax.eval_shape(network.apply, variables, to_unit(image[:1])).shape[1]

    def start(restart: jax.Array, k: jax.Array) -> _Search:
        q = f.start(stream(key, "start", restart, k), image_shape)
        return _Search(q, optimizer.init(q))

    def cost(q: PyTree, k: jax.Array, x: jax.Array) -> jax.Array:
        return _judged(variables, q, k, x, network=network, form=form).cost

    def advance(search: _Search, k: jax.Array, x: jax.Array) -> _Search:
        gradient = jax.grad(cost)(search.q, k, x)
        updates, adam = optimizer.update(gradient, search.adam, search.q)
        return _Search(optax.apply_updates(search.q, updates), adam)

    restarts = jnp.arange(num_restarts)

    def searched(classes: jax.Array) -> tuple[PyTree, _Judged]:
        searches = jax.vmap(jax.vmap(start, (None, 0)), (0, None))(restarts, classes)

        def step(searches: _Search, index: jax.Array) -> tuple[_Search, None]:
            x = to_unit(image[index])
            over_classes = jax.vmap(advance, (0, 0, None))
            return jax.vmap(over_classes, (0, None, None))(searches, classes, x), None

        searches, _ = lax.scan(step, searches, indices)
        found = _over_all(
            lambda q, k, x: _judged(variables, q, k, x, network=network, form=form),
            searches.q,
            classes,
            to_unit(image[:MOST_JUDGED]),
        )
        return searches.q, found

    def add_chunk(i: jax.Array, found: PyTree) -> PyTree:
        classes = lax.dynamic_slice(wanted, (i * chunk,), (chunk,))
        return jax.tree.map(lambda v, new: v.at[:, classes].set(new), found, searched(classes))

    like = jax.eval_shape(searched, wanted[:1])
    shape = (num_restarts, num_classes)
    q, rates = jax.tree.map(lambda v: jnp.zeros((*shape, *v.shape[2:]), v.dtype), like)
    nothing = (q, rates._replace(cost=jnp.full(shape, jnp.inf)))
    triggers, found = lax.fori_loop(0, num_chunks, add_chunk, nothing)
    untried = jnp.full(shape, jnp.nan)
    return Inverted(triggers, found.cost, found.size, found.success, untried, jnp.float32(jnp.nan))


_invert = FewPrograms(_inversion, static=("network", "form", "num_restarts", "chunk"))


class _Judged(NamedTuple):
    """What a network says of a trigger."""

    cost: jax.Array
    size: jax.Array
    success: jax.Array


def _judged(
    variables: PyTree, q: PyTree, k: jax.Array, x: jax.Array, *, network: Network, form: str
) -> _Judged:
    """Judges a trigger for class k on images x in [0, 1]."""
    f = FORMS[form]
    height, width, channels = x.shape[1:]
    logits = network.apply(variables, f.stamp(q, x))
    size = f.size(q, x)
    cost = _loss(logits, k) + size / f.natural((height, width, channels))
    return _Judged(cost, size, (logits.argmax(-1) == k).mean())


def _control_share(
    control: PyTree, image: jax.Array, triggers: PyTree, *, network: Network, form: str
) -> jax.Array:
    """Cross-entropy of a control with and without each trigger, as a ratio, [restarts, classes]."""
    x = to_unit(image)
    plain = network.apply(control, x)

    def share(q: PyTree, k: jax.Array, x: jax.Array) -> jax.Array:
        return _loss(network.apply(control, FORMS[form].stamp(q, x)), k) / _loss(plain, k)

    return _over_all(share, triggers, jnp.arange(plain.shape[1]), x)


_share = FewPrograms(_control_share, static=("network", "form"))


def _over_all(
    judge_fn: Callable[..., Any], triggers: PyTree, classes: jax.Array, x: jax.Array
) -> Any:
    """Calls judge_fn(q, k, x) on triggers [restarts, classes, ...]; arrays [restarts, classes]."""
    num_restarts = len(jax.tree.leaves(triggers)[0])
    flat = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), triggers)
    # One trigger at a time: all at once would need classes times as much memory.
    of_each = (flat, jnp.tile(classes, num_restarts))
    found = lax.map(lambda one: judge_fn(one[0], one[1], x), of_each)
    return jax.tree.map(lambda v: v.reshape(num_restarts, len(classes)), found)


def _loss(logits: jax.Array, k: jax.Array) -> jax.Array:
    return cross_entropy(logits, jnp.full(len(logits), k)).mean()
