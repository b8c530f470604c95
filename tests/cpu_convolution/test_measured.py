"""Measured ways take precedence, on the machine and with the code that they were measured on."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from mcjax import cpu_convolution
from mcjax.cpu_convolution import build, choice, measured

SHAPES = {"x": (128, 32, 32, 16), "w": (3, 3, 16, 17)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    if not build.load():
        pytest.skip("there is no C compiler")
    monkeypatch.setenv("MCJAX_CACHE_DIR", str(tmp_path))
    measured.ways.cache_clear()
    yield tmp_path
    measured.ways.cache_clear()


def forward_way(compiled=True):
    return choice.forward_way(**SHAPES, stride=(1, 1), size=(32, 32), compiled=compiled)


def gradient_way(compiled=True):
    g = (128, 32, 32, 17)
    return choice.weight_gradient_way(SHAPES["x"], g, taps=(3, 3), stride=(1, 1), compiled=compiled)


def test_what_is_written_is_chosen(monkeypatch):
    assert (forward_way(), gradient_way()) == ("direct", "direct")
    layer = ((32, 32), (3, 3, 16, 17), (1, 1))
    measured.write({measured.key("forward", *layer): "xla"})
    measured.write({measured.key("dw", *layer): "crossed"})
    assert (forward_way(), gradient_way()) == ("xla", "crossed")
    assert (forward_way(compiled=False), gradient_way(compiled=False)) == ("xla", "crossed")
    other = choice.forward_way(
        SHAPES["x"], (3, 3, 16, 37), stride=(1, 1), size=(32, 32), compiled=True
    )
    assert other == "direct"
    monkeypatch.setattr(build.jaxlib, "__version__", "99.0")
    measured.ways.cache_clear()
    assert forward_way() == "direct", "of another version"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ways": {}}', "null"])
def test_a_damaged_table_is_none(folder, text):
    (folder / "ways.json").write_text(text)
    measured.ways.cache_clear()
    assert measured.ways() == {}


def test_programs_follow_it():
    def convolve(x, w):
        return lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x, w = jnp.ones((2, 6, 6, 8)), jnp.ones((3, 3, 8, 8))
    cpu_convolution.enable()
    try:
        assert "mcjax_convolution" in jax.jit(convolve).lower(x, w).as_text()
        measured.write({measured.key("forward", (6, 6), w.shape, (1, 1)): "blocked"})
        text = jax.jit(lambda x, w: convolve(x, w)).lower(x, w).as_text()
    finally:
        cpu_convolution.disable()
    assert "mcjax_convolution" not in text
    assert "dot_general" in text
