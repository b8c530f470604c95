"""Hashable partial functions, and a `jax.jit` with a bounded cache.

JAX recompiles for every new function object. A closure is a new object each time it is created; two
`Bound` functions with equal arguments are equal, so they share compiled programs.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax


class Bound:
    """Like `functools.partial`, but equal to any other `Bound` with the same fn and arguments.

    Args:
        fn: A module-level function.
        *args: Its first arguments. If one is not hashable, the object equals only itself.
        **options: Keyword arguments.

    Example:
        >>> double = Bound(int.__mul__, 2)
        >>> double(4), double == Bound(int.__mul__, 2)
        (8, True)
    """

    __slots__ = ("__weakref__", "_key", "args", "fn", "options")

    def __init__(self, fn: Callable[..., Any], *args: Any, **options: Any):
        self.fn, self.args, self.options = fn, args, options
        self._key: Any = (fn, args, tuple(sorted(options.items())))
        try:
            hash(self._key)
        except TypeError:
            self._key = object()

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Calls the function with the bound and the given arguments."""
        return self.fn(*self.args, *args, **self.options, **options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"<{self.fn.__name__} with {len(self.args) + len(self.options)} arguments given>"


class FewPrograms:
    """`jax.jit` with a least-recently-used cache of compiled programs.

    A compiled program takes megabytes and keeps its static arguments alive. With an unbounded cache,
    a notebook that repairs a hundred networks would keep all of them.

    Args:
        fn: The function; its static arguments are keyword-only.
        static: Names of the static arguments; they must be passed by keyword.
        most: Number of combinations of static arguments to keep.
        **options: Options of `jax.jit`, such as donate_argnames.

    Example:
        >>> scaled = FewPrograms(lambda x, *, factor: factor * x, static=("factor",))
        >>> scaled(jax.numpy.ones(2), factor=3.0)
        Array([3., 3.], dtype=float32)
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        static: tuple[str, ...],
        most: int = 16,
        **options: Any,
    ):
        functools.update_wrapper(self, fn)
        self._static = static

        @functools.lru_cache(maxsize=most)
        def jitted(settings: frozenset[tuple[str, Any]]) -> Any:
            return jax.jit(functools.partial(fn, **dict(settings)), **options)

        self._jitted = jitted

    def _of(self, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        settings = {name: options.pop(name) for name in self._static if name in options}
        return self._jitted(frozenset(settings.items())), options

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Calls the compiled function."""
        jitted, options = self._of(options)
        return jitted(*args, **options)

    def lower(self, *args: Any, **options: Any) -> Any:
        """As `jax.jit(...).lower`."""
        jitted, options = self._of(options)
        return jitted.lower(*args, **options)
