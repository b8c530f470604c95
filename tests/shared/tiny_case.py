"""A repair method's case, with a network, images and steps so few that compiling takes the most time."""

import jax
import jax.numpy as jnp
import numpy as np

from mcjax import models
from mcjax.core.keys import stream
from mcjax.models.network import from_linen
from mcjax.repair.evidence.invert import invert
from mcjax.repair.methods.method import Case, Plan
from mcjax.runs import config as base
from mcjax.training.curve import CurveOptions
from mcjax.training.fit import Budget, fit

KEY = jax.random.key(0)
SHAPE = (8, 8, 1)
OPTIONS = {
    name.removeprefix("repair."): value
    for name, value in base.flat(base.quick(base.backdoor())).items()
    if name.startswith("repair.")
}
PLAN = Plan(OPTIONS, (50, 100), (2, 2), 4, 6, 3)


def images(number, seed):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (number, *SHAPE), np.uint8),
        "label": np.arange(number, dtype=np.int32) % 3,
    }


def case(model="cnn", num_steps=2, options=None, **changes):
    """The case of a network with 3 classes; `options` are the method's, on top of the quick ones."""
    changes = changes or {"width": 2}
    network = from_linen(models.create(model, num_classes=3, **changes), SHAPE)
    suspect, second = (
        {"batch_stats": {}, **network.init(stream(KEY, name))} for name in ("suspect", "second")
    )
    bonafide = images(12, 0)
    return Case(
        network=network,
        suspect=suspect,
        second_fn=lambda: second,
        images=jax.tree.map(jnp.asarray, bonafide),
        bonafide=bonafide,
        selection=images(6, 1),
        budget=Budget(num_steps=num_steps, batch_size=4),
        curve=CurveOptions(),
        options={**OPTIONS, **(options or {})},
        key_fn=lambda name: stream(KEY, name),
        fit_fn=fit,
        model_name=model,
        evidence_fn=lambda: invert(
            stream(KEY, "evidence"),
            network,
            suspect,
            bonafide,
            forms=("patch", "smooth"),
            num_steps=2,
            batch_size=4,
        ),
    )
