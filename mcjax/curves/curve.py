"""Curves in weight space. A curve is a pytree of control points that can be called with t.

    w(t) = sum_j c_j(t) w_j,    w_0 = start, w_1 ... w_K = bends, w_{K+1} = end

The control points are parameter trees with the same structure, so curves work for any network whose
forward pass is `apply(variables, x)`.
"""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp

from mcjax.core.errors import UserError, shown
from mcjax.core.foreign import refuse_torch
from mcjax.core.tree import PyTree, by_name, check_same_structure, size_in_words

MOST_BENDS = 100
"""With more than about 125 bends, a Bezier curve's binomial coefficients overflow float32."""

_register = functools.partial(
    jax.tree_util.register_dataclass, data_fields=["start", "bends", "end"], meta_fields=[]
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Curve:
    """Base class of curves; subclasses define `coefficients`.

    Args:
        start: Parameter tree at t = 0.
        bends: Tuple of trees between the endpoints; empty for a straight line.
        end: Parameter tree at t = 1.
    """

    start: PyTree
    bends: tuple[PyTree, ...]
    end: PyTree

    @classmethod
    def connect(
        cls,
        start: PyTree,
        end: PyTree,
        num_bends: int = 1,
        *,
        init_fn: Callable[[int], PyTree] | None = None,
    ) -> Self:
        """Connects two parameter trees; the bends start equally spaced on the straight line.

        Args:
            start: Parameter tree at t = 0.
            end: Parameter tree at t = 1, same structure, shapes and dtypes.
            num_bends: Number of bends between them; 0 gives a straight line.
            init_fn: Optional `init_fn(j) -> bend j` (j counts from 0), e.g. a random initialisation.

        Returns:
            The curve.

        Raises:
            UserError: The trees differ in structure, shape or dtype, or contain integers; num_bends
                is not an integer from 0 to 100.

        Example:
            >>> curve = Bezier.connect({"w": jnp.zeros(2)}, {"w": jnp.ones(2)}, num_bends=1)
            >>> curve(0.25)["w"]
            Array([0.25, 0.25], dtype=float32)
        """
        refuse_torch("start", start)
        check_same_structure(start, end)
        for name, leaf in by_name(start).items():
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
                raise UserError(
                    f"{name} is {jnp.result_type(leaf)}; integer parameters cannot be interpolated: "
                    "remove them from the trees"
                )
        if not isinstance(num_bends, numbers.Integral) or not 0 <= num_bends <= MOST_BENDS:
            raise UserError(
                f"num_bends is {shown(num_bends)}; give an integer from 0 (a straight line) to {MOST_BENDS}"
            )

        def on_line(j: int) -> PyTree:
            s = (j + 1) / (num_bends + 1)
            return jax.tree.map(lambda a, b: a + _as(s, a) * (b - a), start, end)

        bends = tuple((init_fn or on_line)(j) for j in range(num_bends))
        for j, bend in enumerate(bends):
            check_same_structure(start, bend, ("start", f"bend {j}"))
        return cls(start, bends, end)

    @property
    def points(self) -> tuple[PyTree, ...]:
        """The control points, from start to end."""
        return (self.start, *self.bends, self.end)

    @property
    def num_bends(self) -> int:
        """Number of bends between the ends."""
        return len(self.bends)

    def length(self) -> float:
        """The arc length in weight space; see `mcjax.curves.geometry.arc_length`."""
        from mcjax.curves.geometry import arc_length  # which imports this module

        return float(arc_length(self))

    def __repr__(self) -> str:
        """Type, bends and size, not the arrays.

        Example:
            >>> Bezier.connect({"w": jnp.zeros(3)}, {"w": jnp.ones(3)}, num_bends=1)
            Bezier(1 bend, 3 parameters)
        """
        return f"{type(self).__name__}({bends(self.num_bends)}, {size_in_words(self.start)})"

    def coefficients(self, t: jax.typing.ArrayLike) -> jax.Array:
        """c(t), the weight of each control point, [num_bends + 2]; the weights sum to one."""
        raise TypeError(f"{type(self).__name__} has no coefficients; use Bezier or PolyChain")

    def __call__(self, t: jax.typing.ArrayLike) -> PyTree:
        """w(t), a tree like the endpoints; equal to them at t = 0 and t = 1."""
        c = self.coefficients(t)
        return jax.tree.map(
            lambda *w: sum(_as(c[j], w_j) * w_j for j, w_j in enumerate(w)), *self.points
        )


@_register
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Bezier(Curve):
    """Bezier curve: c_j(t) = C(n, j) t^j (1 - t)^(n - j) with n = num_bends + 1.

    It passes through its endpoints; its bends only pull it towards them.

    Example:
        >>> w = {"w": jnp.zeros(1)}
        >>> Bezier.connect(w, w, num_bends=1).coefficients(0.5)
        Array([0.25, 0.5 , 0.25], dtype=float32)

    Source: Garipov et al. 2018, section 3.2; Zhao et al. 2020, equation 4.
    """

    def coefficients(self, t: jax.typing.ArrayLike) -> jax.Array:
        """c(t), [num_bends + 2]."""
        t = jnp.asarray(t, jnp.float32)
        n = len(self.bends) + 1
        return jnp.stack([float(math.comb(n, j)) * t**j * (1 - t) ** (n - j) for j in range(n + 1)])


@_register
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PolyChain(Curve):
    """Polygonal chain through its bends: c_j(t) = max(0, 1 - |t n - j|), n = num_bends + 1.

    Outside [0, 1] its first and last segment go on.

    Example:
        >>> w = {"w": jnp.zeros(1)}
        >>> PolyChain.connect(w, w, num_bends=1).coefficients(0.25)
        Array([0.5, 0.5, 0. ], dtype=float32)

    Source: Garipov et al. 2018, section 3.2; Zhao et al. 2020, equation 3.
    """

    def coefficients(self, t: jax.typing.ArrayLike) -> jax.Array:
        """c(t), [num_bends + 2]."""
        t = jnp.asarray(t, jnp.float32)
        n = len(self.bends) + 1
        j = jnp.arange(n + 1, dtype=jnp.float32)
        c = jnp.maximum(0, 1 - jnp.abs(t.clip(0, 1) * n - j))
        beyond = n * (t - t.clip(0, 1))  # 0 inside
        first = (j == 1).astype(c.dtype) - (j == 0)
        last = (j == n).astype(c.dtype) - (j == n - 1)
        return c + jnp.minimum(beyond, 0) * first + jnp.maximum(beyond, 0) * last


KINDS: dict[str, Any] = {"bezier": Bezier, "polychain": PolyChain}


def bends(number: int) -> str:
    """A number of bends in words."""
    return "straight line" if number == 0 else f"{number} bend{'s' if number > 1 else ''}"


def _as(c: Any, leaf: Any) -> jax.Array:
    """Casts a coefficient to the leaf's dtype, so that half precision is kept."""
    return jnp.asarray(c, jnp.result_type(leaf))
