"""Options of a repair that no training could have are refused before anything is computed."""

import jax
import pytest

from mcjax.errors import UserError
from mcjax.repair.model import repair_model

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tolerance", -0.1),
        ("tolerance", NAN),
        ("num_points", 1),
        ("num_steps", 0),
        ("batch_size", 0),
        ("learning_rate", NAN),
        ("learning_rate", INF),
    ],
)
def test_one_line_names_the_option(name, value):
    with pytest.raises(UserError, match=f"^{name} is {value}; give a finite number, at least"):
        repair_model(jax.random.key(0), None, {}, {}, **{name: value})
