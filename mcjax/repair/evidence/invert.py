"""Trigger inversion: the cheapest trigger of each form that sends clean images to each class.

For class k and form F with parameters q and size |q|, in nats:

    cost_k = min over q of  mean_x CE(f(F(q, x)), k) + |q| / s

s is a size that natural triggers of the form have (those that draw the class's own features), so
costs of different forms can be compared. All classes are inverted at once by Adam on clean images.
A class that is cheaper to reach than the others is suspect.
"""

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
from mcjax.repair.evidence.forms import FORMS
from mcjax.training.losses import cross_entropy

MOST_JUDGED = 256
"""Images that the final costs are measured on, at most."""


class Inverted(NamedTuple):
    """The inverted triggers of one form.

    Attributes:
        triggers: Parameters of the form, leaves [restarts, classes, ...].
        cost: Cross-entropy plus relative size, in nats, [restarts, classes].
        size: In the form's unit, [restarts, classes].
        success: Share of the clean images, whatever their class, that are sent to the trigger's
            class, [restarts, classes].
    """

    triggers: PyTree
    cost: jax.Array
    size: jax.Array
    success: jax.Array


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
    tell: Callable[[str, Inverted], None] | None = None,
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
        tell: Called after each form with its name and triggers.

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
    found = {}
    for name in forms:
        one = _invert(
            stream(key, name),
            variables,
            jnp.asarray(images["image"]),
            indices,
            network=network,
            form=name,
            num_restarts=num_restarts,
        )
        found[name] = jax.block_until_ready(one)  # a form's search needs memory of its own
        if tell is not None:
            tell(name, found[name])
    return found


class _Search(NamedTuple):
    """The state of one inversion."""

    q: PyTree
    adam: PyTree


def _inversion(
    key: jax.Array,
    variables: PyTree,
    image: jax.Array,
    indices: jax.Array,
    *,
    network: Network,
    form: str,
    num_restarts: int,
) -> Inverted:
    f = FORMS[form]
    height, width, channels = image.shape[1:]
    image_shape = (height, width, channels)
    optimizer = optax.adam(optax.cosine_decay_schedule(f.learning_rate, len(indices)))
    num_classes = jax.eval_shape(network.apply, variables, to_unit(image[:1])).shape[1]
    natural = f.natural(image_shape)

    def start(restart: jax.Array, k: jax.Array) -> _Search:
        q = f.start(stream(key, "start", restart, k), image_shape)
        return _Search(q, optimizer.init(q))

    def judged(q: PyTree, k: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        logits = network.apply(variables, f.stamp(q, x))
        size = f.size(q, x)
        cost = cross_entropy(logits, jnp.full(len(x), k)).mean() + size / natural
        return cost, size, (logits.argmax(-1) == k).mean()

    def advance(search: _Search, k: jax.Array, x: jax.Array) -> _Search:
        gradient = jax.grad(lambda q: judged(q, k, x)[0])(search.q)
        updates, adam = optimizer.update(gradient, search.adam, search.q)
        return _Search(optax.apply_updates(search.q, updates), adam)

    def advance_all(searches: _Search, x: jax.Array) -> _Search:
        over_classes = jax.vmap(advance, (0, 0, None))
        return jax.vmap(over_classes, (0, None, None))(searches, classes, x)

    classes, restarts = jnp.arange(num_classes), jnp.arange(num_restarts)
    searches = jax.vmap(jax.vmap(start, (None, 0)), (0, None))(restarts, classes)

    def step(searches: _Search, index: jax.Array) -> tuple[_Search, None]:
        return advance_all(searches, to_unit(image[index])), None

    searches, _ = lax.scan(step, searches, indices)
    x = to_unit(image[:MOST_JUDGED])
    # One trigger at a time: all at once would need classes times as much memory.
    flat = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), searches.q)
    measured = lax.map(
        lambda one: judged(one[0], one[1], x), (flat, jnp.tile(classes, num_restarts))
    )
    cost, size, success = (v.reshape(num_restarts, num_classes) for v in measured)
    return Inverted(searches.q, cost, size, success)


_invert = FewPrograms(_inversion, static=("network", "form", "num_restarts"))
