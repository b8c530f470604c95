"""Drafts of tables: what shapes, names and order tell, and what stays open."""

import jax
import numpy as np
import pytest
from flax import linen
from own_networks import SHAPE, TABLE, InJax, in_torch

from mcjax import models
from mcjax.interop.draft import draft, draft_alone
from mcjax.interop.layouts import find
from mcjax.interop.layouts.layout import rows_of
from mcjax.interop.rows import to_tensors
from mcjax.models.network import from_linen


def plain(rows):
    return sorted((row.torch, row.path, row.transform.name) for row in rows)


def test_the_table_of_a_network_of_ones_own():
    pytest.importorskip("torch")
    tensors = {name: w.numpy() for name, w in in_torch().state_dict().items()}
    found = draft(tensors, from_linen(InJax(), SHAPE), SHAPE)
    assert found.complete
    assert plain(found.rows) == plain(TABLE)
    assert "flat(4, 4, 4)" in found.lines()[-3]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("preresnet", {"depth": 14, "width": 2}),  # equal blocks: by name
        ("cnn", {"width": 2, "hidden": 6, "batch_norm": True}),
    ],
)
def test_the_known_tables_are_drafted_again(name, options):
    shape = (17, 9, 3)
    module = models.create(name, num_classes=7, **options)
    rows = rows_of(find(name)[0], module, shape)
    network = from_linen(module, shape)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    found = draft(to_tensors(zeros, rows), network, shape)
    assert found.complete
    assert plain(found.rows) == plain(rows)


class Twins(linen.Module):
    """Layers of one shape."""

    number: int = 3

    @linen.compact
    def __call__(self, x, train=False):
        x = x.reshape(len(x), -1)
        for _ in range(self.number):
            x = linen.Dense(4)(x)
        return x


def twins(names):
    return {
        f"{name}.{kind}": np.zeros((4, 4) if kind == "weight" else 4)
        for name in names
        for kind in ("weight", "bias")
    }


def test_layers_of_one_shape_go_by_order_if_there_are_as_many():
    network = from_linen(Twins(), (2, 2, 1))
    found = draft(twins("zya"), network, (2, 2, 1))
    assert [row.path for row in found.rows[::2]] == [f"params/Dense_{i}/kernel" for i in range(3)]
    assert found.reasons[0] == "order, 1 of 3"


def test_what_is_not_unique_stays_open_with_its_candidates():
    network = from_linen(Twins(), (2, 2, 1))
    found = draft(twins(["dense_0", "other"]), network, (2, 2, 1))
    assert not found.complete
    text = "\n".join(found.lines())
    assert 'Row("dense_0.weight", "params/Dense_0/kernel"' in text
    assert "# open: other.weight [4, 4]: params/Dense_1/kernel or params/Dense_2/kernel" in text
    assert "# open: params/Dense_2/bias [4] has no tensor" in text


def test_a_tensor_that_fits_nowhere():
    network = from_linen(Twins(1), (2, 2, 1))
    found = draft({**twins("a"), "b.weight": np.zeros((9, 9))}, network, (2, 2, 1))
    assert found.open == {"b.weight": ()}
    assert "b.weight [9, 9]: no layer of the network has these shapes" in "\n".join(found.lines())


def test_ten_layers_keep_their_order_without_calls():
    network = from_linen(Twins(11), (2, 2, 1))._replace(layer_outputs=None)
    found = draft(twins([f"fc{i}" for i in range(11)]), network, (2, 2, 1))
    assert [row.path for row in found.rows[::2]] == [f"params/Dense_{i}/kernel" for i in range(11)]


def test_without_a_network_leaves_are_open():
    lines = draft_alone({"n.running_var": np.ones(2), "n.num_batches_tracked": np.array(1)})
    assert lines == [
        "TABLE = [",
        '    Row("n.running_var", "batch_stats/?/var", SAME),  # [2]',
        "]",
    ]
