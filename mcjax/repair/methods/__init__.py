"""Repair methods by name: a new one is a file in this folder and a line below."""

import difflib

from mcjax.core.errors import UserError
from mcjax.repair.methods import (
    anp,
    clp,
    d3,
    fine_pruning,
    fine_tune,
    ft_sam,
    i_bau,
    line,
    nad,
    noise,
    path,
    pruning,
    scratch,
    taught_fine_tune,
    taught_line,
    taught_path,
    tsc,
)
from mcjax.repair.methods.method import Method

METHODS: dict[str, Method] = {
    "path": path.METHOD,
    "line": line.METHOD,
    "fine_tune": fine_tune.METHOD,
    "scratch": scratch.METHOD,
    "prune": pruning.METHOD,
    "fine_prune": fine_pruning.METHOD,
    "i_bau": i_bau.METHOD,
    "noise": noise.METHOD,
    "anp": anp.METHOD,
    "ft_sam": ft_sam.METHOD,
    "d3": d3.METHOD,
    "clp": clp.METHOD,
    "nad": nad.METHOD,
    "taught_path": taught_path.METHOD,
    "taught_fine_tune": taught_fine_tune.METHOD,
    "taught_line": taught_line.METHOD,
    "tsc": tsc.METHOD,
}

DEFAULT = ("path", "line", "fine_tune", "scratch", "prune", "fine_prune", "i_bau", "noise")
"""The methods that a study compares unless it is told otherwise; ask for others by name."""


def get(name: str) -> Method:
    """A method by name.

    Raises:
        UserError: There is no method of that name.

    Example:
        >>> get("fine_tune").learning_rate
        0.02
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"unknown repair method {name!r}; {hint}choose from {', '.join(METHODS)}")
    return METHODS[name]
