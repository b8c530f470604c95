"""The CPU lowering of convolutions against float64 sums, XLA's own, and itself under transforms."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from slow import SLOW

from mcjax import cpu_convolution
from mcjax.cpu_convolution import blocked, build, choice, few, winograd

NHWC = ("NHWC", "HWIO", "NHWC")
SAME3 = ((1, 1), (1, 1))


@pytest.fixture(
    autouse=True, scope="module", params=["compiled", pytest.param("in_jax", marks=SLOW)]
)
def lowering(request):
    cpu_convolution.enable(compiled=request.param == "compiled")
    yield request.param
    cpu_convolution.disable()


@pytest.fixture
def in_jax(lowering):
    if lowering != "in_jax":
        pytest.skip("of the methods written in JAX")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def windows(x, taps, size, stride, padding):
    """The slices of padded x under each tap, in float64; negative padding crops."""
    x = np.pad(
        x.astype(np.float64), ((0, 0), *[(max(a, 0), max(b, 0)) for a, b in padding], (0, 0))
    )
    (a, b), (c, d) = padding
    x = x[:, max(-a, 0) : x.shape[1] - max(-b, 0), max(-c, 0) : x.shape[2] - max(-d, 0)]
    (h, w), (s, t) = size, stride
    for p in range(taps[0]):
        for q in range(taps[1]):
            yield p, q, x[:, p : p + (h - 1) * s + 1 : s, q : q + (w - 1) * t + 1 : t]


def output_size(x, w, stride, padding):
    return [
        (n + sum(p) - k) // s + 1
        for n, p, k, s in zip(x.shape[1:3], padding, w.shape[:2], stride, strict=True)
    ]


def sum64(x, w, stride, padding):
    size = output_size(x, w, stride, padding)
    seen = windows(x, w.shape[:2], size, stride, padding)
    return sum(np.einsum("nhwi,io->nhwo", z, w[p, q].astype(np.float64)) for p, q, z in seen)


def weight_gradient64(x, g, taps, stride, padding):
    dw = np.zeros((*taps, x.shape[-1], g.shape[-1]))
    for p, q, z in windows(x, taps, g.shape[1:3], stride, padding):
        dw[p, q] = np.einsum("nhwi,nhwo->io", z, g.astype(np.float64))
    return dw


def close(actual, expected, tolerance=4e-6):
    """Equal to float32 rounding: relative to the largest number of the sum."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def compiled(fn, *args, **options):
    """One program; op by op each of its many would be compiled alone."""
    return jax.jit(partial(fn, **options))(*args)


def convolution(x, w, stride=(1, 1), padding=SAME3, **options):
    return lax.conv_general_dilated(x, w, stride, padding, dimension_numbers=NHWC, **options)


# batch, h, w, in, out, kh, kw, stride, padding
GRID = {
    "XLA's own": (2, 6, 7, 8, 16, 3, 3, (1, 1), SAME3),
    "Winograd 3x3": (3, 8, 8, 32, 64, 3, 3, (1, 1), SAME3),
    "Winograd 3x3, odd and uneven": (5, 9, 7, 32, 64, 3, 3, (1, 1), ((0, 2), (1, 1))),
    "Winograd 3x3, several blocks": (11, 32, 16, 64, 32, 3, 3, (1, 1), SAME3),
    "Winograd 5x5": (2, 9, 8, 64, 128, 5, 5, (1, 1), ((2, 2), (2, 2))),
    "4x4 images": (3, 4, 4, 64, 64, 3, 3, (1, 1), SAME3),
    "2x2 images, Winograd": (3, 2, 2, 64, 32, 3, 3, (1, 1), SAME3),
    "crossed": (9, 32, 33, 16, 24, 3, 3, (1, 1), ((0, 2), (1, -1))),
    "2x2 images": (3, 2, 2, 16, 8, 3, 3, (1, 1), SAME3),
    "2x2 images, dense": (513, 2, 2, 4, 3, 3, 3, (1, 1), SAME3),
    "1x1 images": (3, 1, 1, 64, 128, 3, 3, (1, 1), SAME3),
    "2x2 images, stride 2": (3, 2, 2, 64, 128, 3, 3, (2, 2), SAME3),
    "nothing but padding": (2, 1, 2, 3, 4, 2, 3, (1, 1), ((2, -1), (4, 4))),
    "few channels": (2, 9, 7, 3, 16, 3, 3, (1, 1), SAME3),
    "few channels, 5x5": (1, 10, 9, 1, 8, 5, 5, (1, 1), ((2, 2), (2, 2))),
    "1x1": (7, 5, 4, 3, 6, 1, 1, (1, 1), ((0, 0), (0, 0))),
    "1x1, stride 2": (2, 8, 7, 8, 16, 1, 1, (2, 2), ((0, 0), (0, 0))),
    "3x3, stride 2": (2, 8, 8, 8, 16, 3, 3, (2, 2), ((0, 1), (0, 1))),
    "3x3, uneven strides": (2, 9, 10, 4, 5, 3, 3, (2, 3), SAME3),
    "even taps": (2, 7, 6, 5, 4, 2, 4, (1, 1), ((0, 1), (1, 2))),
    "stride larger than the taps": (1, 9, 9, 3, 4, 2, 2, (3, 3), ((0, 0), (0, 0))),
    "negative padding": (2, 9, 8, 4, 5, 3, 3, (1, 1), ((-1, 1), (0, -2))),
    "batch of one": (1, 6, 6, 32, 64, 3, 3, (1, 1), SAME3),
}


@pytest.mark.parametrize("case", GRID.values(), ids=GRID.keys())
def test_convolution_and_both_gradients_equal_float64(case):
    batch, h, wd, i, o, kh, kw, stride, padding = case
    x, w = normal(batch, h, wd, i), normal(kh, kw, i, o, seed=1)
    expected = sum64(x, w, stride, padding)
    g = normal(*expected.shape, seed=2)

    @jax.jit
    def run(x, w, g):
        y, back = jax.vjp(partial(convolution, stride=stride, padding=padding), x, w)
        return y, *back(g)

    y, dx, dw = run(x, w, g)
    close(y, expected)
    close(dw, weight_gradient64(x, g, (kh, kw), stride, padding))
    # d/dx is the adjoint: <g, conv(v)> = <dx, v> for directions v that are single pixels.
    directions = np.zeros((min(24, x[0].size), *x[0].shape), np.float32)
    chosen = np.random.default_rng(3).permutation(x[0].size)[: len(directions)]
    directions.reshape(len(directions), -1)[range(len(directions)), chosen] = 1
    products = np.einsum("vhwo,hwo->v", sum64(directions, w, stride, padding), g[0])
    scale = np.abs(dx).max() / max(np.abs(products).max(), 1e-30)
    close(np.asarray(dx[0]).ravel()[chosen], products, 4e-6 * max(scale, 1))


@settings(max_examples=8, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(3, 9),
    st.integers(3, 9),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(-1, 2),
)
def test_any_shape_equals_float64(batch, h, wd, i, o, kh, kw, stride, low):
    x, w, padding = normal(batch, h, wd, i), normal(kh, kw, i, o, seed=1), ((low, 1), (1, 0))
    expected = sum64(x, w, (stride, 1), padding)
    g = normal(*expected.shape, seed=2)

    @jax.jit
    def run(x, w, g):
        y, back = jax.vjp(lambda w: convolution(x, w, (stride, 1), padding), w)
        return y, back(g)[0]

    y, dw = run(x, w, g)
    close(y, expected)
    close(dw, weight_gradient64(x, g, (kh, kw), (stride, 1), padding))


@pytest.mark.parametrize(("tile", "r"), winograd.FORMS)
@pytest.mark.parametrize("images", [1, 2, 5])
def test_every_winograd_form_in_blocks_with_a_remainder(tile, r, images):
    x, w = normal(5, 9, 10, 4), normal(r, r, 4, 3, seed=1)
    padding = ((r // 2, r // 2), (1, 2))
    y = compiled(winograd.forward, x, w, padding=padding, tile=tile, images=images)
    g = normal(*y.shape, seed=2)
    dw = compiled(winograd.weight_gradient, x, g, taps=r, padding=padding, tile=tile, images=images)
    close(y, sum64(x, w, (1, 1), padding))
    close(dw, weight_gradient64(x, g, (r, r), (1, 1), padding))


@pytest.mark.parametrize("images", [1, 3, 7])
def test_blocks_with_a_remainder(images):
    x, w, stride = normal(7, 6, 5, 3), normal(3, 2, 3, 4, seed=1), (2, 1)
    y = compiled(blocked.forward, x, w, stride=stride, padding=SAME3, images=images)
    g = normal(*y.shape, seed=2)
    dw = compiled(
        blocked.weight_gradient, x, g, taps=(3, 2), stride=stride, padding=SAME3, images=images
    )
    close(y, sum64(x, w, stride, SAME3))
    close(dw, weight_gradient64(x, g, (3, 2), stride, SAME3))


@pytest.mark.parametrize("images", [1, 3, 7])
@pytest.mark.parametrize("taps", [(3, 2), (1, 5)])
def test_crossed_weight_gradient_in_blocks_with_a_remainder(taps, images):
    x, padding = normal(7, 6, 5, 3), ((0, 1), (2, 1))
    g = normal(7, 8 - taps[0], 9 - taps[1], 4, seed=2)
    dw = compiled(blocked.crossed_weight_gradient, x, g, taps=taps, padding=padding, images=images)
    close(dw, weight_gradient64(x, g, taps, (1, 1), padding))


def test_dense_with_a_stride():
    x, w = normal(4, 4, 3, 2), normal(3, 3, 2, 5, seed=1)
    close(compiled(few.dense, x, w, stride=(2, 1), padding=SAME3), sum64(x, w, (2, 1), SAME3))


@pytest.mark.parametrize(
    ("x", "w", "stride", "size", "way"),
    [
        ((128, 32, 32, 64), (3, 3, 64, 64), (1, 1), (32, 32), "winograd"),
        ((128, 2, 2, 512), (3, 3, 512, 512), (1, 1), (2, 2), "winograd"),
        ((128, 32, 32, 64), (3, 3, 64, 3), (1, 1), (32, 32), "winograd"),
        ((128, 2, 2, 16), (3, 3, 16, 16), (1, 1), (2, 2), "blocked"),
        ((1000, 2, 2, 512), (3, 3, 512, 512), (1, 1), (2, 2), "dense"),
        ((128, 32, 32, 3), (5, 5, 3, 32), (1, 1), (32, 32), "wide"),
        ((128, 32, 32, 16), (1, 1, 16, 32), (2, 2), (16, 16), "product"),
        ((128, 32, 32, 16), (3, 3, 16, 16), (1, 1), (32, 32), "xla"),
    ],
)
def test_the_way_chosen_for_the_networks_layers(x, w, stride, size, way):
    assert choice.forward_way(x, w, stride=stride, size=size) == way


@pytest.mark.parametrize(
    ("x", "o", "taps", "stride", "way"),
    [
        ((128, 32, 32, 16), 16, (3, 3), 1, "crossed"),
        ((128, 16, 16, 32), 32, (3, 3), 1, "winograd4"),
        ((128, 15, 15, 32), 64, (5, 5), 1, "winograd2"),
        ((128, 2, 2, 512), 512, (3, 3), 1, "winograd2"),
        ((128, 32, 32, 3), 32, (5, 5), 1, "wide"),
        ((128, 32, 32, 3), 64, (3, 3), 1, "blocked"),
        ((128, 32, 32, 16), 32, (3, 3), 2, "blocked"),
    ],
)
def test_the_way_chosen_for_the_networks_weight_gradients(x, o, taps, stride, way):
    g = (x[0], x[1] // stride, x[2] // stride, o)
    assert choice.weight_gradient_way(x, g, taps=taps, stride=(stride, stride)) == way


@pytest.mark.parametrize(
    ("x", "o", "stride", "forward", "gradient"),
    [
        ((32, 8, 8, 64), 64, 1, "fused", "fused"),
        ((32, 2, 2, 512), 512, 1, "fused", "fused"),
        ((1, 4, 4, 128), 128, 1, "direct", "blocked"),
        ((32, 8, 8, 64), 41, 1, "direct", "direct"),
        ((32, 16, 16, 128), 256, 2, "direct", "direct"),
        ((32, 8, 8, 256), 512, 2, "direct", "blocked"),
        ((32, 4, 4, 128), 256, 2, "blocked", "blocked"),
        ((32, 4, 4, 8), 16, 2, "direct", "direct"),
        ((32, 2, 2, 16), 16, 2, "blocked", "blocked"),
    ],
)
def test_the_way_chosen_beside_compiled_ones(x, o, stride, forward, gradient, lowering):
    if lowering != "compiled":
        pytest.skip("of the compiled ones")
    size = (x[1] // stride, x[2] // stride)
    ways = (
        choice.forward_way(x, (3, 3, x[3], o), stride=(stride, stride), size=size, compiled=True),
        choice.weight_gradient_way(
            x, (x[0], *size, o), taps=(3, 3), stride=(stride, stride), compiled=True
        ),
    )
    assert ways == (forward, gradient)


def loss(x, w, stride=(1, 1)):
    return jnp.sum(jnp.sin(0.1 * convolution(x, w, stride)))


TRANSFORMS = {
    "jvp of grad": lambda x, w: jax.jvp(jax.grad(loss, (0, 1)), (x[0], w[0]), (x[1], w[1])),
    "jvp of grad, stride 2": lambda x, w: jax.jvp(
        jax.grad(partial(loss, stride=(2, 2)), (0, 1)), (x[0], w[0]), (x[1], w[1])
    ),
    "vmap over weights": lambda x, w: jax.vmap(jax.grad(loss, (0, 1)), (None, 0))(x[0], w),
    "vmap over images": lambda x, w: jax.vmap(jax.grad(loss, (0, 1)), (0, None))(x, w[0]),
    "vmap over both": lambda x, w: jax.vmap(jax.grad(loss, (0, 1)))(x, w),
    "grad of vmap over both": lambda x, w: jax.grad(
        lambda x, w: jax.vmap(loss)(x, w).sum(), (0, 1)
    )(x, w),
    "inside a scan": lambda x, w: lax.scan(
        lambda w, x: (w - 0.01 * jax.grad(loss, 1)(x, w), loss(x, w)), w[0], x
    ),
    "transposed convolution": lambda x, w: jax.value_and_grad(
        lambda x, w: jnp.sin(lax.conv_transpose(x, w, (2, 2), "SAME")).sum(), (0, 1)
    )(x[0], 0.1 * w[0]),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_transforms_equal_xlas_own(transform):
    x, w = normal(2, 3, 6, 5, 8), normal(2, 3, 3, 8, 6, seed=1)
    ours = jax.jit(transform)(x, w)
    with cpu_convolution.disabled():
        theirs = jax.jit(transform)(x, w)
    jax.tree.map(partial(close, tolerance=1e-5), ours, theirs)


# Twenty images of 16x16 make several blocks: a loop whose carry varies over the mesh axis.
SHARDED = {  # images, weights of one device, stride
    "crossed": ((20, 16, 16, 4), (3, 3, 4, 4), 1),
    "wide": ((20, 16, 16, 3), (5, 5, 3, 8), 1),
    "strided": ((20, 16, 16, 4), (3, 3, 4, 4), 2),
    "winograd": ((2, 8, 8, 64), (3, 3, 64, 128), 1),
    "dense": ((512, 2, 2, 4), (3, 3, 4, 4), 1),
    "1x1": ((2, 8, 8, 4), (1, 1, 4, 8), 1),
}


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("case", SHARDED.values(), ids=SHARDED.keys())
def test_inside_shard_map(case, check_vma):
    """Each device has images and weights of its own; gradients with respect to both."""
    images, weights, stride = case
    x, w = normal(2, *images), normal(2, *weights, seed=1)
    mesh = jax.make_mesh((2,), ("t",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    both = jax.grad(partial(loss, stride=(stride, stride)), (0, 1))
    specs = {"in_specs": P("t"), "out_specs": P("t"), "check_vma": check_vma}
    sharded = jax.jit(jax.shard_map(lambda x, w: both(x[0], w[0]), mesh=mesh, **specs))(x, w)
    alone = [jax.jit(both)(*operands) for operands in zip(x, w, strict=True)]
    jax.tree.map(lambda y, *parts: close(y, jnp.concatenate(parts)), sharded, *alone)


@pytest.mark.parametrize("taps", [3, 5])
def test_gradient_of_replicated_weights_inside_shard_map(taps):
    """The images are split, the weights not: their gradient is a sum over the devices."""
    x, w = normal(16, 16, 16, 3), normal(taps, taps, 3, 8, seed=1)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    padding = 2 * [2 * [taps // 2]]

    def mean(w, x):
        return jnp.square(convolution(x, w, padding=padding)).mean()

    def gradient(w, x):
        return jax.grad(lambda w: lax.pmean(mean(w, x), "d"))(w)

    specs = {"in_specs": (P(), P("d")), "out_specs": P()}
    sharded = jax.jit(jax.shard_map(gradient, mesh=mesh, **specs))(w, x)
    close(sharded, jax.jit(jax.grad(mean))(w, x))


def operations(fn, *args):
    return jax.jit(fn).lower(*args).as_text().count("stablehlo.convolution")


def test_weight_gradients_and_winograd_leave_no_convolution():
    x, w = jnp.ones((2, 8, 8, 32)), jnp.ones((3, 3, 32, 64))
    assert operations(convolution, x, w) == 0
    assert operations(jax.grad(loss, 1), x, w) == 0
    assert operations(jax.grad(loss, 0), x, w) == 0
    with cpu_convolution.disabled():
        assert operations(jax.grad(loss, 1), x, w) == 2


def test_input_gradient_is_a_plain_forward_convolution(in_jax):
    """Other layouts than NHWC and HWIO are slow in a loop."""
    x, w = jnp.ones((2, 8, 8, 8)), jnp.ones((3, 3, 8, 8))
    text = jax.jit(jax.grad(loss)).lower(x, w).as_text()
    assert text.count("[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]") == 2
    assert "[0, 1, o, i]" not in text


@pytest.mark.parametrize(
    "unrecognised",
    [
        lambda: (
            partial(convolution, stride=(2, 2), rhs_dilation=(2, 2)), jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 3, 4))
        ),
        lambda: (
            lambda x, w: lax.conv_general_dilated(x, w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")),
            jnp.ones((2, 6, 3)), jnp.ones((3, 3, 4)),
        ),
    ],
    ids=["dilated with a stride", "one spatial axis"],
)  # fmt: skip
def test_what_is_not_recognised_is_left_as_it_is(unrecognised):
    fn, x, w = unrecognised()
    text = jax.jit(fn).lower(x, w).as_text()
    with cpu_convolution.disabled():
        assert jax.jit(fn).lower(x, w).as_text() == text
    assert "stablehlo.convolution" in text


def test_depthwise_is_left_to_xla_without_the_compiled_one(lowering):
    fn = partial(convolution, feature_group_count=4)
    left = operations(fn, jnp.ones((2, 6, 6, 4)), jnp.ones((3, 3, 1, 4)))
    assert left == (lowering == "in_jax" or not build.load())


def test_bfloat16_is_summed_in_float32_and_rounded_at_the_end(lowering):
    x, w, g = (
        jnp.asarray(normal(*shape, seed=i), jnp.bfloat16)
        for i, shape in enumerate(((3, 6, 6, 32), (3, 3, 32, 64), (3, 6, 6, 64)))
    )
    wide = [z.astype(jnp.float32) for z in (x, w, g)]

    def both(x, w, g):
        y, back = jax.vjp(convolution, x, w)
        return y, *back(g.astype(y.dtype))

    found, expected = compiled(both, x, w, g), compiled(both, *wide)
    assert operations(both, x, w, g) == 0 or lowering == "in_jax"
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == jnp.bfloat16
        close(a.astype(np.float32), b, 2**-8)
    exact = compiled(convolution, x, w, preferred_element_type=jnp.float32)
    assert exact.dtype == jnp.float32
    close(exact, expected[0])


def test_float64_is_left_to_xla():
    with jax.enable_x64(True):
        x, w = jnp.ones((2, 2, 2, 4), jnp.float64), jnp.ones((3, 3, 4, 4), jnp.float64)
        assert operations(convolution, x, w) == 1


def test_automatically_partitioned_programs_are_left_to_xla():
    """Blocks of a batch that XLA itself splits would be gathered on every device."""
    mesh = jax.make_mesh((8,), ("n",), axis_types=(AxisType.Auto,))
    x = jax.device_put(jnp.ones((8, 2, 2, 4)), jax.NamedSharding(mesh, P("n")))
    assert operations(convolution, x, jnp.ones((3, 3, 4, 4))) == 1


def test_a_jitted_function_follows_the_switch(lowering):
    x, w = normal(2, 2, 2, 4), normal(3, 3, 4, 4, seed=1)
    traces = []

    @jax.jit
    def fn(x, w):
        traces.append(1)
        return convolution(x, w)

    fn(x, w)
    cpu_convolution.enable(compiled=lowering == "compiled")  # so nothing compiled is forgotten
    fn(x, w)
    assert len(traces) == 1
    with cpu_convolution.disabled():
        fn(x, w)
        assert operations(fn, x, w) == 1
        with cpu_convolution.disabled():
            pass
        assert operations(fn, x, w) == 1
    assert operations(fn, x, w) == 0
    with pytest.raises(ZeroDivisionError), cpu_convolution.disabled():
        raise ZeroDivisionError
    assert operations(fn, x, w) == 0


def test_a_jax_without_the_hook_warns_once_and_convolves_as_xla(lowering, monkeypatch):
    cpu_convolution.disable()
    monkeypatch.setitem(cpu_convolution.hook.ORIGINAL, cpu_convolution.hook.CONVOLUTION, None)
    cpu_convolution._warn.cache_clear()
    with pytest.warns(UserWarning, match="leaves them to XLA"):
        cpu_convolution.enable()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cpu_convolution.enable()
    x, w = normal(2, 2, 2, 4), normal(3, 3, 4, 4, seed=1)
    assert operations(convolution, x, w) == 1
    with cpu_convolution.disabled():
        pass
    monkeypatch.undo()
    cpu_convolution.enable(compiled=lowering == "compiled")
    assert operations(convolution, x, w) == 0


def test_what_jax_keeps_elsewhere_is_no_error(monkeypatch):
    monkeypatch.setattr(cpu_convolution.hook, "mlir", object())
    assert cpu_convolution.hook._original(cpu_convolution.hook.CONVOLUTION) is None
