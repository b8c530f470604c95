"""Functions with their first arguments given, equal where these are; programs kept in a bounded number.

JAX compiles anew for every function that it has not met. A closure is new each time it is made; a
`Bound` function is not, so a network that is made again finds the programs of the first.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax


class Bound:
    """`fn(*args, ...)` as a function of what follows, equal to any other of the same fn and args.

    Args:
        fn: A function at the top of a module.
        *args: Its first arguments. If one cannot be hashed, the object equals only itself.
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
        """The function's value."""
        return self.fn(*self.args, *args, **self.options, **options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"<{self.fn.__name__} with {len(self.args) + len(self.options)} arguments given>"


class FewPrograms:
    """`jax.jit` that forgets its programs, the longest unused first, beyond a number of settings.

    A program holds megabytes, and the functions that it was made for. Without a bound, a notebook
    that repairs a hundred networks would keep all of them.

    Args:
        fn: The function; its static arguments are keyword-only.
        static: Names of the static arguments, which must be given by keyword.
        most: Number of settings of the static arguments that are kept.
        **options: Of `jax.jit`, such as donate_argnames.

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
        """The function's value, compiled."""
        jitted, options = self._of(options)
        return jitted(*args, **options)

    def lower(self, *args: Any, **options: Any) -> Any:
        """As `jax.jit(...).lower`."""
        jitted, options = self._of(options)
        return jitted.lower(*args, **options)
