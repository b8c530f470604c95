"""Tables of names, and what happens to the axes."""

import numpy as np
import pytest

from mcjax.core.errors import UserError
from mcjax.interop.rows import CONV, DENSE, SAME, Row, flat, to_tensors, to_variables

RNG = np.random.default_rng(0)


def test_a_dense_layer_after_a_flattened_image_sees_the_same_pixels():
    x = RNG.normal(size=(4, 2, 5, 3))  # [B, H, W, C]
    w = RNG.normal(size=(7, 30))
    expected = x.transpose(0, 3, 1, 2).reshape(4, -1) @ w.T
    np.testing.assert_allclose(x.reshape(4, -1) @ flat(2, 5, 3).to_mcjax(w), expected)
    assert not np.allclose(x.reshape(4, -1) @ DENSE.to_mcjax(w), expected)


def test_axes_of_convolutions():
    w = RNG.normal(size=(4, 3, 5, 2))  # [O, I, H, W]
    kernel = CONV.to_mcjax(w)
    assert kernel.shape == (5, 2, 3, 4)
    assert kernel[4, 1, 2, 3] == w[3, 2, 4, 1]


@pytest.mark.parametrize(
    ("transform", "shape"),
    [(SAME, ()), (SAME, (3,)), (CONV, (4, 3, 5, 2)), (DENSE, (4, 3)), (flat(2, 5, 3), (4, 30))],
)
def test_there_and_back_no_bit_changes(transform, shape):
    w = RNG.normal(size=shape).astype(np.float32)
    back = transform.to_torch(transform.to_mcjax(w))
    assert back.shape == w.shape
    assert back.tobytes() == w.tobytes()


ROWS = [
    Row("body.weight", "params/conv/kernel", CONV),
    Row("head.weight", "params/fc/kernel", DENSE),
    Row("norm.running_mean", "batch_stats/norm/mean", SAME),
]
TENSORS = {
    "body.weight": np.zeros((4, 3, 3, 3), np.float32),
    "head.weight": np.zeros((10, 4), np.float32),
    "norm.running_mean": np.ones(4, np.float32),
    "norm.num_batches_tracked": np.array(7),
}


def test_a_table_makes_variables_and_tensors_again():
    variables = to_variables(TENSORS, ROWS)
    assert variables["params"]["conv"]["kernel"].shape == (3, 3, 3, 4)
    assert variables["batch_stats"]["norm"]["mean"].tolist() == [1, 1, 1, 1]
    again = to_tensors(variables, ROWS)
    assert list(again) == ["body.weight", "head.weight", "norm.running_mean"]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"head.weight": None}, "it lacks head.weight; give its architecture"),
        (
            {"other.weight": np.zeros(1)},
            r"it has other.weight \[1\], which the network does not know",
        ),
        (
            {"head.weight": np.zeros((2, 3, 4))},
            r"head.weight has shape \[2, 3, 4\], which does not fit dense",
        ),
    ],
)
def test_tensors_that_do_not_fit(tensors, message):
    tensors = {k: v for k, v in {**TENSORS, **tensors}.items() if v is not None}
    with pytest.raises(UserError, match=message):
        to_variables(tensors, ROWS)


@pytest.mark.parametrize(
    "bias", [np.ones(4, bool), np.array(["a"] * 4), np.ones(4, np.complex64)], ids=str
)
def test_no_weights_but_in_names_that_no_row_uses(bias):
    with pytest.raises(UserError, match=r"the state dict: norm.running_mean is .*, not a weight"):
        to_variables({**TENSORS, "norm.running_mean": bias}, ROWS)
    to_variables({**TENSORS, "mask": bias}, ROWS, unused=["mask"])


def test_names_that_may_be_there():
    to_variables({**TENSORS, "other": np.zeros(1)}, ROWS, unused=["other"])


def test_variables_that_do_not_fit():
    variables = to_variables(TENSORS, ROWS)
    with pytest.raises(UserError, match="have unknown leaves batch_stats/norm/mean"):
        to_tensors(variables, ROWS[:2])
    with pytest.raises(UserError, match="have no params/x"):
        to_tensors(variables, [*ROWS, Row("x", "params/x", SAME)])
