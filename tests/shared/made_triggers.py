"""Inverted triggers whose costs a test chooses."""

import numpy as np

from mcjax.repair.evidence.invert import Inverted

ORDINARY, CHEAP = [3.0, 2.7, 3.3, 3.1], [3.0, 0.3, 2.7, 3.1]


def inverted(costs, restarts=2):
    """Patterns of 2 x 2 pixels whose value names restart and class."""
    cost = np.tile(np.float32(costs), (restarts, 1))
    number = len(costs)
    pattern = np.arange(restarts * number, dtype=np.float32).reshape(restarts, number, 1, 1, 1)
    triggers = {"pattern": np.broadcast_to(pattern, (restarts, number, 2, 2, 1)) / 10}
    untried = np.full_like(cost, np.nan)
    return Inverted(triggers, cost, cost, np.full_like(cost, 0.5), untried)
