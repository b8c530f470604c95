"""What inverted triggers say of a network: which class is suspect, and whether that is evidence."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mcjax.repair.evidence.forms import FORMS
from mcjax.repair.evidence.invert import Inverted

LEAST_SPREADS = {"cost": 0.1, "share": 0.1, "both": 0.2}
"""Smallest spreads of the logarithm of costs, of shares, and of their sum: few classes can lie close by chance."""


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
        "digits": Measured((0, 40), (36, 40), 36),  # benchmarks/verdict_fresh.json
        "Fashion-MNIST": Measured((0, 8), (9, 9), 9),  # benchmarks/verdict_fashion.json
    },
    "away": {
        "digits": Measured((0, 40), (32, 40), 30),  # benchmarks/verdict_away.json
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

    @property
    def margin(self) -> float:
        """The anomaly in units of its threshold."""
        return self.anomaly / self.threshold


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


def outlying_in_both(cost: np.typing.ArrayLike, share: np.typing.ArrayLike) -> np.ndarray:
    """How far each class lies above the others in what its trigger saves and in what it leaves undone.

        a_k = (out(-log cost)_k + out(share)_k) / 4 + out(share - log cost)_k / 2,    out = `outlying`

    By nature a trigger that costs little draws what the class looks like, works on the control as well, and
    has a small share. So the sum of both varies less from class to class than either does, and a planted
    trigger, cheap and of no use on the control, stands out in it most.

    Args:
        cost: What a class's trigger costs, in nats, [K].
        share: What it leaves of the control's cross-entropy, [K].

    Returns:
        [K]; 0 is ordinary.

    Example:
        >>> outlying_in_both([0.1, 1.0, 1.0, 1.0], [1.0, 0.5, 0.5, 0.5]).round(1).tolist()
        [14.0, 0.0, 0.0, 0.0]
    """
    cheap = -np.log(np.maximum(np.asarray(cost, np.float64), 1e-6))
    share = np.asarray(share, np.float64)
    each = outlying(cheap, LEAST_SPREADS["cost"]) + outlying(share, LEAST_SPREADS["share"])
    return each / 4 + outlying(cheap + share, LEAST_SPREADS["both"]) / 2


def anomalies(one: Inverted) -> np.ndarray:
    """How suspicious each class is by the triggers of one form.

    By how much cheaper its trigger is than those of other classes, and how little it does on a control
    network, which has forgotten what clean images do not teach (`outlying_in_both`):

        share_k = CE_control(stamped images, k) / CE_control(plain images, k)

    A class that is cheap to reach by nature has triggers that work on the control as well, and so a
    small share; a planted trigger does nothing there. Without a control the cost alone counts.

    Args:
        one: The triggers; means over their restarts are taken.

    Returns:
        [K]; 0 is ordinary.
    """
    cost = np.asarray(one.cost, np.float64).mean(0)
    if not has_control(one):
        return outlying(-np.log(np.maximum(cost, 1e-6)), LEAST_SPREADS["cost"])
    return outlying_in_both(cost, np.asarray(one.control_share, np.float64).mean(0))


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
    return sorted(found, key=lambda one: -one.margin)


def targets(inverted: Mapping[str, Inverted]) -> dict[str, int]:
    """The most suspicious class of each form."""
    return {one.form: one.target for one in findings(inverted)}


def evident_forms(inverted: Mapping[str, Inverted]) -> tuple[str, ...]:
    """The forms whose trigger counts as evidence, in the order of `inverted`."""
    found = {one.form for one in findings(inverted) if one.evident}
    return tuple(form for form in inverted if form in found)


COMPARABLE = 0.5
"""From this share of the largest margin on a form is nearly as suspicious as the most suspicious one."""


def suspicious_forms(inverted: Mapping[str, Inverted]) -> tuple[str, ...]:
    """The forms whose triggers a repair should unlearn: evidence, and what speaks nearly as much for another class.

    A natural trigger can be evidence of a wrong class, while the attacker's, by another form, comes near. Where
    all that comes near is of the same class, more forms cost accuracy and gain nothing.

    Args:
        inverted: The result of `invert`.

    Returns:
        In the order of `inverted`; all forms without evidence.
    """
    found = findings(inverted)
    evident = [one for one in found if one.evident]
    if not evident:
        return tuple(inverted)
    classes, least = {one.target for one in evident}, COMPARABLE * found[0].margin
    rivals = [one for one in found if one.margin >= least and one.target not in classes]
    wanted = {one.form for one in (*evident, *rivals)}
    return tuple(form for form in inverted if form in wanted)


def backdoor_found(inverted: Mapping[str, Inverted]) -> bool:
    """Whether a trigger of any form counts as evidence of a backdoor."""
    return bool(evident_forms(inverted))
