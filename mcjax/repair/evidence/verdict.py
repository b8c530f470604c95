"""What inverted triggers say of a network: which class is suspect, and whether that is evidence."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mcjax.repair.evidence.forms import FORMS
from mcjax.repair.evidence.invert import Inverted

LEAST_SPREADS = {"cost": 0.1, "share": 0.1}
"""Smallest spreads of the logarithm of costs and of shares: few classes can lie close by chance."""


class Measured(NamedTuple):
    """How many of how many networks gave an alarm, whose truth is known.

    Attributes:
        clean: Clean ones: alarms, networks.
        tampered: Tampered ones, with five to seven triggers: alarms, networks.
        right: Alarms that name the attacker's class.
    """

    clean: tuple[int, int]
    tampered: tuple[int, int]
    right: int


MEASURED = {
    "path": {
        "digits": Measured((0, 40), (36, 40), 35),  # benchmarks/verdict.json
        "Fashion-MNIST": Measured((0, 8), (9, 9), 9),  # benchmarks/verdict_fashion.json
    },
    "away": {
        "digits": Measured((0, 40), (33, 40), 31),  # benchmarks/verdict_away.json
        "Fashion-MNIST": Measured((0, 8), (9, 9), 9),  # benchmarks/verdict_fashion_away.json
    },
}
"""Small networks, by the kind of their controls and by their data."""


class Finding(NamedTuple):
    """The most suspicious class of one form.

    Attributes:
        form: Name of the form.
        target: The class of the largest anomaly.
        anomaly: See `anomalies`.
        threshold: The anomaly from which a trigger of this form is evidence of a backdoor.
        cost: Mean cost over the restarts, in nats.
        success: Mean success over the restarts, a fraction.
    """

    form: str
    target: int
    anomaly: float
    threshold: float
    cost: float
    success: float

    @property
    def evident(self) -> bool:
        """Whether the trigger is evidence of a backdoor."""
        return self.anomaly >= self.threshold


def threshold(form: str, one: Inverted) -> float:
    """The anomaly from which a trigger of a form is evidence of a backdoor.

    Without a control, forms differ: by a warp, clean networks reach much by chance.

    Args:
        form: Name of the form.
        one: Its triggers.
    """
    if not has_control(one):
        return FORMS[form].threshold
    return round(float(np.asarray(one.threshold)), 6)  # of a float32


def outlying(v: np.typing.ArrayLike, least_spread: float) -> np.ndarray:
    """How far each value lies above the others.

        a_k = (v_k - median_{j != k} v_j) / spread of the others
        spread = max(1.4826 median_{j != k} |v_j - median|, least_spread)

    Args:
        v: One value per class, [K], K >= 2.
        least_spread: In the unit of v.

    Returns:
        [K]; 0 is ordinary.

    Example:
        >>> outlying([9.0, 1.0, 1.0, 1.0], 0.5).tolist()
        [16.0, 0.0, 0.0, 0.0]

    Source: after Wang et al. 2019, section 4.2, without the class itself, and with a least spread.
    """
    v = np.asarray(v, np.float64)
    found = []
    for k in range(len(v)):
        others = np.delete(v, k)
        middle = np.median(others)
        spread = max(1.4826 * float(np.median(np.abs(others - middle))), least_spread)
        found.append((v[k] - middle) / spread)
    return np.array(found)


def anomalies(one: Inverted) -> np.ndarray:
    """How suspicious each class is by the triggers of one form.

    The mean of how far its trigger is cheaper than those of other classes, -log cost, and of how little
    it does on a control network, which has forgotten what clean images do not teach:

        share_k = CE_control(stamped images, k) / CE_control(plain images, k)

    each as it lies above the other classes (`outlying`). A class that is cheap to reach by nature has
    triggers that work on the control as well, and so a small share; a planted trigger does nothing
    there. Without a control the cost alone counts.

    Args:
        one: The triggers; means over their restarts are taken.

    Returns:
        [K]; 0 is ordinary.
    """
    cost = np.asarray(one.cost, np.float64).mean(0)
    cheap = outlying(-np.log(np.maximum(cost, 1e-6)), LEAST_SPREADS["cost"])
    if not has_control(one):
        return cheap
    share = np.asarray(one.control_share, np.float64).mean(0)
    return (cheap + outlying(share, LEAST_SPREADS["share"])) / 2


def has_control(one: Inverted) -> bool:
    """Whether triggers were tried on a control network."""
    return not np.isnan(one.control_share).any()


def findings(inverted: Mapping[str, Inverted]) -> list[Finding]:
    """The most suspicious class of each form, by how far its anomaly is above the form's threshold."""
    found = []
    for form, one in inverted.items():
        anomaly, limit = anomalies(one), threshold(form, one)
        k = int(anomaly.argmax())
        cost, success = (
            float(np.asarray(v, np.float64)[:, k].mean()) for v in (one.cost, one.success)
        )
        found.append(Finding(form, k, float(anomaly[k]), limit, cost, success))
    return sorted(found, key=lambda one: -one.anomaly / one.threshold)


def targets(inverted: Mapping[str, Inverted]) -> dict[str, int]:
    """The most suspicious class of each form."""
    return {one.form: one.target for one in findings(inverted)}


def evident_forms(inverted: Mapping[str, Inverted]) -> tuple[str, ...]:
    """The forms whose trigger counts as evidence, in the order of `inverted`."""
    found = {one.form for one in findings(inverted) if one.evident}
    return tuple(form for form in inverted if form in found)


def backdoor_found(inverted: Mapping[str, Inverted]) -> bool:
    """Whether a trigger of any form counts as evidence of a backdoor."""
    return bool(evident_forms(inverted))
