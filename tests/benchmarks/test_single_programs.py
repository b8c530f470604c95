"""The benchmarks of single programs check what they time, and write what they find."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import chunk, loop_forms, ways
from benchmarks.layers import Layer, distinct, layers
from benchmarks.pieces import Pieces
from mcjax import cpu_convolution, models
from mcjax.models.network import from_linen

TINY = Layer((5, 4, 3), (3, 3, 3, 4), (1, 1), ((1, 1), (1, 1)))
STRIDED = Layer((6, 6, 3), (3, 3, 3, 4), (2, 2), ((1, 1), (1, 1)))
SMALL = Layer((2, 2, 16), (3, 3, 16, 16), (1, 1), ((1, 1), (1, 1)))


@pytest.fixture(autouse=True, scope="module")
def _lowering_off_again():
    yield
    cpu_convolution.disable()


def test_layers_of_the_networks():
    preresnet = layers("preresnet26")
    assert sum(preresnet.values()) == 1 + 24 + 2  # the first, 12 blocks of two, two shortcuts
    assert Layer((32, 32, 16), (3, 3, 16, 16), (1, 1), ((1, 1), (1, 1))) in preresnet
    assert sum(layers("vgg16").values()) == 13
    shared = distinct(["preresnet26", "vgg16"])
    assert len(shared) == len({*preresnet, *layers("vgg16")})
    assert str(STRIDED) == "6x6, 3 -> 4, 3x3 /2"
    assert TINY.output(7) == (7, 5, 4, 4)
    assert TINY.operations(7) == 2 * 7 * 5 * 4 * 9 * 3 * 4


@pytest.mark.parametrize("form", ["forward_weights", "dx", "dw", "dw_both"])
@pytest.mark.slow(compiles=True)
def test_inside_a_loop_equals_outside_and_a_plain_sum(form):
    outside, inside = loop_forms.programs(STRIDED, form, "mcjax", 2, 3, steps=3)
    fn, varied, fixed = loop_forms.operands(STRIDED, form, 2, 3)
    with cpu_convolution.disabled():
        plain = 2 * fn(varied[0], fixed) + fn(varied[1], fixed)
    assert loop_forms.equal(np.asarray(outside()), np.asarray(plain))
    assert loop_forms.equal(np.asarray(inside()), np.asarray(plain))
    assert not loop_forms.equal(1.001 * np.asarray(plain), np.asarray(plain))


def test_a_loop_that_computes_something_else_stops_the_benchmark(monkeypatch):
    def ones(*_, **__):
        return (lambda: jnp.ones(2), lambda: jnp.full(2, 1.001))

    monkeypatch.setattr(loop_forms, "programs", ones)
    with pytest.raises(SystemExit, match="nothing timed"):
        loop_forms.measure(TINY, "dw", "mcjax", 1, 2, steps=1, repeats=1)


@pytest.mark.slow(compiles=True)
def test_forms_with_xlas_own_are_convolutions_and_the_others_not(monkeypatch, tmp_path):
    """Which lowering is timed is which is named; and the page says what is slower in a loop."""
    pieces = Pieces(tmp_path / "forms.json")
    for lowering in ("mcjax", "stock"):
        row = loop_forms.measure(TINY, "dw", lowering, 1, 2, steps=2, repeats=1)
        row["inside"] = 2 * row["outside"] if lowering == "mcjax" else row["outside"]
        pieces.keep(lowering, row)
        with loop_forms.lowered(lowering):
            fn, varied, fixed = loop_forms.operands(TINY, "dw", 1, 2)
            text = jax.jit(fn).lower(varied[0], fixed).as_text()
        assert ("stablehlo.convolution" in text) == (lowering == "stock")
    pieces.write("title", "text", loop_forms.table)
    page = (tmp_path / "forms.md").read_text()
    assert "**2.00**" in page
    assert "by more than 10 %, of 1 with the lowering: 5x4, 3 -> 4, 3x3 dw." in page
    assert set(json.loads(pieces.file.read_text())) == {"mcjax", "stock"}
    assert Pieces(pieces.file).rows == pieces.rows


@pytest.mark.parametrize(
    ("layer", "kind"), [(TINY, "dx"), (TINY, "dw"), (STRIDED, "dw"), (SMALL, "forward")], ids=str
)
def test_every_way_computes_the_convolution(layer, kind):
    cpu_convolution.disable()
    fns, (first, second), chosen = ways.candidates(layer, kind, 3, xla_dw=True)
    assert {"xla", "blocked", chosen} <= set(fns)
    x, w = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate((first, second)))
    if kind == "dx":  # the same as XLA's gradient, with the weights turned round
        like = jax.ShapeDtypeStruct((3, *layer.image), jnp.float32)
        turned = w[::-1, ::-1].transpose(0, 1, 3, 2)
        expected = jax.linear_transpose(lambda x: layer(x, turned), like)(x)[0]
    else:
        expected = layer(x, w) if kind == "forward" else fns["xla"](x, w)
    found = jax.jit(lambda x, w: {way: fn(x, w) for way, fn in fns.items()})(x, w)
    for way, y in found.items():
        assert y.shape == expected.shape, way
        np.testing.assert_allclose(y, expected, atol=2e-5 * np.abs(expected).max(), err_msg=way)


def test_dense_from_many_images_on_is_among_the_ways():
    large = Layer((2, 2, 512), (3, 3, 512, 512), (1, 1), ((1, 1), (1, 1)))
    fns, _, chosen = ways.candidates(large, "forward", 512)
    assert chosen == "dense"
    assert {"dense", "blocked", "winograd", "xla"} <= set(fns)
    assert ways.candidates(large, "forward", 128)[2] != "dense"


def test_ways_are_timed_and_written(tmp_path):
    pieces = Pieces(tmp_path / "ways.json")
    row = ways.measure(SMALL, "forward", 2, steps=1, repeats=1)
    assert {"xla", "blocked", "dense"} <= set(row["seconds"])
    row |= {"seconds": {"blocked": 0.002, "dense": 0.001}, "chosen": "blocked"}
    pieces.keep("one", row)
    pieces.write("title", "text", ways.table)
    assert "| **blocked** | dense |" in (tmp_path / "ways.md").read_text()


@pytest.mark.slow(compiles=True)
def test_chunks_give_the_same_losses(tmp_path):
    net = from_linen(models.create("resnet8", num_classes=10, width=2), (8, 8, 1))
    options = {"num_images": 12, "batch_size": 6, "repeats": 1, "image_shape": (8, 8, 1)}
    (one, a), (two, b) = (chunk.measure(net, c, 3, **options) for c in (1, 2))
    assert (one["points"], two["points"]) == (3, 4)
    np.testing.assert_allclose(a[[0, 2]], b[[0, 3]], rtol=1e-4)  # the ends of both
    assert two["temporary_bytes"] > one["temporary_bytes"] > 0
    pieces = Pieces(tmp_path / "chunk.json")
    for row, seconds in ((one, 2.0), (two, 1.0)):
        pieces.keep(
            str(row["chunk"]), {"network": "n", "dtype": "float32", **row, "seconds": seconds}
        )
    pieces.write("title", "text", chunk.table)
    assert "| 2 | **1.0000** |" in (tmp_path / "chunk.md").read_text()
