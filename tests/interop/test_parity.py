"""Wrong tables are explained: PyTorch's name, both shapes, the first layer that differs."""

import jax
import pytest
from own_networks import SHAPE, TABLE, InJax, in_torch

import mcjax
from mcjax.core.errors import UserError
from mcjax.interop.parity import parity
from mcjax.interop.rows import DENSE, SAME, Row, to_variables
from mcjax.models.network import from_linen

torch = pytest.importorskip("torch")
NETWORK = from_linen(InJax(), SHAPE)


@pytest.fixture(scope="module")
def net():
    return in_torch()


@pytest.fixture(scope="module")
def tensors(net):
    return {name: w.numpy() for name, w in net.state_dict().items()}


def changed(**rows):
    """The table with some rows changed, by PyTorch's name; None removes one."""
    new = {name.replace("__", "."): row for name, row in rows.items()}
    table = [new.get(row.torch, row) for row in TABLE]
    return [row for row in table if row is not None]


def test_the_right_table(net, tensors):
    found = parity(net, NETWORK, to_variables(tensors, TABLE, like=NETWORK), SHAPE, rows=TABLE)
    assert found.equal
    assert found.reason == found.layer == ""


SAME_KERNEL = changed(body__0__weight=Row("body.0.weight", "params/Conv_0/kernel", SAME))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            SAME_KERNEL,
            r"body.0.weight \[4, 1, 3, 3\] becomes \[4, 1, 3, 3\] by same, but params/Conv_0/kernel is "
            r"\[3, 3, 1, 4\] \(use CONV\)",
        ),
        (
            changed(
                body__0__weight=TABLE[0]._replace(path="params/Conv_1/kernel"),
                body__3__weight=TABLE[2]._replace(path="params/Conv_0/kernel"),
            ),
            r"body.0.weight \[4, 1, 3, 3\] becomes \[3, 3, 1, 4\] by conv, but params/Conv_1/kernel is "
            r"\[3, 3, 4, 4\] \(it fits params/Conv_0/kernel\)",
        ),
        (
            changed(head__weight=TABLE[8]._replace(path="params/Dense_1/kernel")),
            r"head.weight \[3, 64\] goes to params/Dense_1/kernel, which the network does not have; no "
            r"row for params/Dense_0/kernel \[64, 3\]",
        ),
        (
            changed(head__weight=Row("head.weight", "params/Dense_0/bias", DENSE)),
            "two rows for the leaf params/Dense_0/bias",
        ),
        (changed(head__bias=None), r"it has head.bias \[3\], which the network does not know"),
        (
            changed(body__0__bias=TABLE[1]._replace(transform=DENSE)),
            r"body.0.bias \[4\] does not fit dense, but params/Conv_0/bias is \[4\] \(use SAME\)",
        ),
    ],
)
def test_wrong_rows(rows, message, tensors):
    with pytest.raises(UserError, match=message) as error:
        to_variables(tensors, rows, like=NETWORK)
    assert "\n" not in str(error.value)


def test_a_leaf_without_a_row(tensors):
    fewer = {name: w for name, w in tensors.items() if name != "head.bias"}
    with pytest.raises(UserError, match=r"no row for params/Dense_0/bias \[3\]"):
        to_variables(fewer, changed(head__bias=None), like=NETWORK)


def test_dense_for_flat_is_found_by_the_layers_outputs(net, tensors):
    rows = changed(head__weight=TABLE[8]._replace(transform=DENSE))
    found = parity(net, NETWORK, to_variables(tensors, rows, like=NETWORK), SHAPE, rows=rows)
    assert not found.equal
    assert found.layer.startswith("head (Dense_0): by ")
    assert "its row needs flat(height, width, channels)" in found.reason


def test_swapped_leaves_of_one_shape_are_found_where_they_first_matter(net, tensors):
    rows = changed(
        body__4__weight=TABLE[4]._replace(path="params/BatchNorm_0/bias"),
        body__4__bias=TABLE[5]._replace(path="params/BatchNorm_0/scale"),
    )
    found = parity(net, NETWORK, to_variables(tensors, rows, like=NETWORK), SHAPE, rows=rows)
    assert "the first layer whose output differs is body.4 (BatchNorm_0)" in found.reason


def test_variables_of_a_wrong_table_never_end_in_flaxs_errors(net, tensors):
    wrong = to_variables(tensors, SAME_KERNEL)
    with pytest.raises(UserError, match=r"body.0.weight \[4, 1, 3, 3\] becomes"):
        parity(net, NETWORK, wrong, SHAPE, rows=SAME_KERNEL)
    said = r"params/Conv_0/kernel is \[4, 1, 3, 3\], the network's \[3, 3, 1, 4\]"
    with pytest.raises(UserError, match=said):
        parity(net, NETWORK, wrong, SHAPE)
    images = {"image": torch.zeros(6, *SHAPE).numpy(), "label": [0, 1, 2] * 2}
    with pytest.raises(UserError, match=said):
        mcjax.repair_model(jax.random.key(0), NETWORK, wrong, images)
    right = to_variables(tensors, TABLE)
    missing = {**right, "params": {k: v for k, v in right["params"].items() if k != "Dense_0"}}
    with pytest.raises(UserError, match=r"there is no params/Dense_0/bias \[3\]"):
        parity(net, NETWORK, missing, SHAPE)
