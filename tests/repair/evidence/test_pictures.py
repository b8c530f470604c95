"""Which triggers are shown, and on which images."""

import numpy as np
import pytest

from mcjax.repair.evidence.invert import Inverted
from mcjax.repair.evidence.pictures import pictures

IMAGE = np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1) / 10 * np.ones((8, 2, 2, 1), np.float32)
EXAMPLES = {"image": IMAGE, "label": np.array([3, 3, 1, 0, 0, 2, 1, 2])}


def inverted(*costs):
    """Patterns whose value is 0.01 times the class, plus 0.1 times the restart."""
    cost = np.float32(costs)
    value = 0.01 * np.arange(cost.shape[1]) + 0.1 * np.arange(len(cost))[:, None]
    pattern = np.broadcast_to(value[..., None, None, None], (*cost.shape, 2, 2, 1))
    return Inverted({"pattern": pattern}, cost, cost, cost, np.full_like(cost, np.nan))


ORDINARY = inverted([3.0, 2.7, 3.3, 3.1])
EVIDENT = inverted([3.0, 0.3, 2.7, 3.1], [3.0, 0.2, 2.7, 3.1])


def test_evident_triggers_are_shown_on_images_of_other_classes():
    found = pictures({"smooth": ORDINARY, "pattern": EVIDENT}, EXAMPLES)
    assert list(found) == ["clean", "pattern"]
    np.testing.assert_allclose(found["clean"][:, 0, 0, 0], [0.3, 0.5, 0.0])
    # The cheaper restart, the second, of class 1.
    np.testing.assert_allclose(found["pattern"] - found["clean"], 0.11, atol=1e-6)


def test_without_evidence_the_most_suspicious_trigger_is_shown():
    found = pictures({"pattern": ORDINARY}, EXAMPLES, num_images=2)
    np.testing.assert_allclose(found["clean"][:, 0, 0, 0], [0.3, 0.5])
    np.testing.assert_allclose(found["pattern"] - found["clean"], 0.01, atol=1e-6)


def test_images_of_one_class_are_shown_as_they_are():
    only = {"image": IMAGE[2:3], "label": np.array([1])}
    assert pictures({"pattern": EVIDENT}, only)["clean"][0, 0, 0, 0] == pytest.approx(0.2)
