"""Random networks around a network, with noise scaled by another network or by its own weights."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from mcjax.core.fields import whole
from mcjax.core.keys import stream
from mcjax.core.settings import Setting
from mcjax.core.tree import PyTree, check_same_structure
from mcjax.repair.methods.method import Case, Draws, Method


def around(key: jax.Array, center: PyTree, other: PyTree, *, scale: Any = 1.0) -> PyTree:
    """W = center + sigma * N(0, 1) with sigma = scale |center - other|, elementwise.

    Args:
        key: Key of the noise.
        center: Parameter tree that the noise is added to.
        other: Parameter tree of the same structure that sets the noise level.
        scale: Factor of the standard deviation.

    Returns:
        A tree like `center`.

    Raises:
        UserError: The trees differ in structure, shape or dtype.

    Example:
        >>> around(jax.random.key(0), {"w": jnp.ones(2)}, {"w": jnp.ones(2)})["w"].tolist()
        [1.0, 1.0]

    Source: the "noisy model" of Zhao et al. 2020 (aver_weights_case2.py of their code).
    """
    check_same_structure(center, other, ("center", "other"))
    sigma = jax.tree.map(lambda a, b: jnp.abs(a - b), center, other)
    return _add(key, center, sigma, scale)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["key", "center", "other", "scale"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Cloud:
    """Presents draws of `around` as a path (point i is draw i), so `evaluate_path` can evaluate them.

    Args:
        key: Key of all draws.
        center: See `around`.
        other: Likewise.
        scale: Likewise.

    Example:
        >>> cloud = Cloud(jax.random.key(0), {"w": jnp.zeros(1)}, {"w": jnp.ones(1)})
        >>> bool(cloud(3)["w"] == cloud(3.0)["w"]), bool(cloud(3)["w"] == cloud(4)["w"])
        (True, False)
    """

    key: jax.Array
    center: PyTree
    other: PyTree
    scale: Any = 1.0

    def __call__(self, i: jax.typing.ArrayLike) -> PyTree:
        """Draw i; i may be traced, and an integer or a float."""
        place = jnp.asarray(i).astype(jnp.int32)
        return around(stream(self.key, "draw", place), self.center, self.other, scale=self.scale)


def relative(key: jax.Array, params: PyTree, *, sigma: Any) -> PyTree:
    """W + sigma r_l N(0, 1) with r_l = ||w_l|| / sqrt(n_l), the root mean square of each tensor.

    Args:
        key: Key of the noise.
        params: Parameter tree; zero tensors get no noise.
        sigma: Noise level in units of each tensor's root mean square.

    Returns:
        A tree like `params`.

    Example:
        >>> relative(jax.random.key(0), {"w": jnp.ones(2)}, sigma=0.0)["w"].tolist()
        [1.0, 1.0]
    """
    rms = jax.tree.map(lambda w: jnp.full_like(w, jnp.sqrt(jnp.mean(jnp.square(w)))), params)
    return _add(key, params, rms, sigma)


def _add(key: jax.Array, params: PyTree, sigma: PyTree, scale: Any) -> PyTree:
    leaves, structure = jax.tree.flatten(params)
    noisy = [
        w
        + jnp.asarray(scale, w.dtype)
        * s
        * jax.random.normal(stream(key, "noise", j), w.shape, w.dtype)
        for j, (w, s) in enumerate(zip(leaves, jax.tree.leaves(sigma), strict=True))
    ]
    return jax.tree.unflatten(structure, noisy)


def run(case: Case) -> list[Draws]:
    """Random networks around either end of a case, sigma = |w_a - w_b|."""
    ends, number = (case.suspect, case.second_fn()), case.options["num_draws"]
    return [
        Draws(
            name,
            center,
            Cloud(case.key_fn(name), center["params"], other["params"], 1.0),
            number,
        )
        for name, center, other in (
            ("noise at t = 0", *ends),
            ("noise at t = 1", *reversed(ends)),
        )
    ]


METHOD = Method(
    run=run,
    kind="draws",
    uses_images=False,
    needs_second=True,
    settings={
        "num_draws": Setting(20, whole(1, 100_000), "networks with noise on the weights", 2),
    },
    num_networks=lambda plan: 2 * plan.options["num_draws"],
)
