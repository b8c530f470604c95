import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import SLOW

from mcjax import models
from mcjax.core import named_options as spec
from mcjax.core.errors import UserError
from mcjax.models.network import from_linen

SMALL = {
    "mlp": {"hidden": (16,)},
    "cnn": {"width": 4, "hidden": 16},
    "resnet8": {"width": 4},
    "convfc": {},
    "wide_resnet": {"depth": 10, "width": 1},
    "preactresnet": {"blocks": (1, 1), "width": 4},
    "resnet": {"blocks": (1, 1), "width": 4, "stem": "cifar"},
}
FAMILIES = (
    "mlp",
    "cnn",
    "convfc",
    "vgg",
    "preresnet",
    "wide_resnet",
    "preactresnet",
    "resnet",
    "vgg_torchvision",
)


# Nearly all the time here is compiling, and little of that is needed.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def images(count, seed=0):
    return np.random.default_rng(seed).uniform(size=(count, 8, 8, 1)).astype(np.float32)


DEEP = ("preresnet110", "preresnet164")  # of the blocks of preresnet56


@pytest.mark.parametrize(
    ("name", "image_shape"),
    [
        pytest.param(name, (32, 32, 3), marks=SLOW) if name in DEEP else (name, (32, 32, 3))
        for name in models.names()
    ]
    + [(name, shape) for name in FAMILIES for shape in [(28, 28, 1), (8, 8, 1)]],
)
def test_every_network_maps_images_to_logits(name, image_shape):
    module = models.create(name, num_classes=7)
    x = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    logits, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
    assert logits.shape == (2, 7)
    assert logits.dtype == jnp.float32
    assert set(variables) <= {"params", "batch_stats"}


@pytest.fixture(params=SMALL, scope="module")
def small(request):
    network = from_linen(
        models.create(request.param, num_classes=3, **SMALL[request.param]), (8, 8, 1)
    )
    return network, network.init(jax.random.key(0))


def test_evaluation_does_not_depend_on_the_rest_of_the_batch(small):
    network, variables = small
    apply = jit(network.apply)
    x = images(5)
    logits = apply(variables, x)
    mixed = apply(variables, np.concatenate([x[:2], images(3, seed=1)]))
    np.testing.assert_allclose(logits[:2], mixed[:2], rtol=1e-5, atol=1e-6)
    assert np.all(np.any(logits[2:] != mixed[2:], axis=1))


def test_training_reaches_every_parameter_and_statistic(small):
    network, variables = small
    x = images(5)

    @jit
    def gradient(params):
        def loss(params):
            variables_ = {**variables, "params": params}
            logits, stats = network.apply_train(jax.random.key(2), variables_, x)
            return jax.nn.log_softmax(logits)[:, 0].sum(), stats

        return jax.grad(loss, has_aux=True)(params)

    gradients, stats = gradient(variables["params"])
    assert all(np.any(g) for g in jax.tree.leaves(gradients))

    old = variables.get("batch_stats", {})
    assert network.has_batch_stats == bool(old)
    assert jax.tree.structure(stats) == jax.tree.structure(old)
    pairs = zip(jax.tree.leaves(stats), jax.tree.leaves(old), strict=True)
    assert all(np.any(new != before) for new, before in pairs)


def test_logits_are_piecewise_linear_in_the_image(small):
    network, variables = small
    assert network.piecewise_linear
    x, v = images(3), images(3, seed=1)

    @jit
    def gradient_and_curvature(x, v):
        return jax.jvp(jax.grad(lambda x: network.apply(variables, x)[:, 0].sum()), (x,), (v,))

    gradient, hessian_v = gradient_and_curvature(x, v)
    assert np.any(gradient)
    np.testing.assert_array_equal(hessian_v, np.zeros_like(x))


@pytest.mark.parametrize("name", FAMILIES)
def test_families_say_that_they_are_piecewise_linear(name):
    assert models.create(name, num_classes=3).piecewise_linear


def test_names_are_families_and_their_usual_members():
    assert models.names()[: len(FAMILIES)] == FAMILIES
    assert len(set(models.names())) == len(models.names())


def test_a_member_is_its_family_with_options():
    member = models.create("vgg19_bn", num_classes=10, dropout_rate=0.5)
    family = models.create("vgg", num_classes=10, depth=19, batch_norm=True, dropout_rate=0.5)
    assert member == family
    assert models.create("preresnet164", num_classes=10)._bottleneck


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("preresnet26", "preresnet", {}),
        ("resnet8:width=4", "preresnet", {"depth": 8, "width": 4}),
        ("vgg19_bn:published=True", "vgg", {"depth": 19, "batch_norm": True, "published": True}),
        ("preactresnet18", "preactresnet", {}),
        ("mlp:hidden=4x5", "mlp", {"hidden": (4, 5)}),
    ],
)
def test_a_network_is_described_by_what_makes_it_again(text, name, options):
    module = models.create(name, num_classes=3, **options)
    assert models.describe(module) == text
    again, given = spec.parse(text)
    assert models.create(again, num_classes=3, **given) == module
    assert models.family(again) == name


def test_a_list_stands_for_a_tuple_and_an_int_for_a_float():
    assert models.create("mlp", num_classes=2, hidden=[4, 5]).hidden == (4, 5)
    assert models.create("vgg", num_classes=2, dropout_rate=0).dropout_rate == 0
    hash(models.create("mlp", num_classes=2, hidden=[4, 5]))
    assert models.create("mlp", num_classes=2, hidden=48).hidden == (48,)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("prersnet26", {}, "did you mean preresnet26"),
        ("alexnet9000", {}, "choose from mlp, cnn"),
        ("preresnet", {"deepth": 26}, "options are: depth, width, block"),
        ("convfc", {"width": 2}, "options are: none"),
        ("vgg16", {"depth": 19}, "options are: batch_norm, wide, width, dropout_rate"),
        ("preresnet", {"depth": "26"}, "type int"),
        ("preresnet", {"depth": True}, "type int"),
        ("vgg", {"batch_norm": 1}, "type bool"),
        ("preresnet", {"depth": 27}, "e.g. 26"),
        ("preresnet", {"depth": 2}, "e.g. 8"),
        ("preresnet", {"depth": 168}, "e.g. 164"),
        ("preresnet", {"block": "wide"}, "one of auto, basic, bottleneck"),
        ("preresnet", {"width": 0}, "width"),
        ("wide_resnet", {"depth": 26}, "e.g. 28"),
        ("wide_resnet", {"width": 0}, "width"),
        ("wide_resnet", {"dropout_rate": 1.0}, "dropout_rate"),
        ("vgg", {"depth": 11}, "16 or 19"),
        ("vgg", {"dropout_rate": -0.1}, "dropout_rate"),
        ("vgg", {"published": True}, "batch_norm"),
        ("mlp", {"hidden": (4, 0)}, "hidden"),
        ("mlp", {"hidden": ("4",)}, "hidden"),
        ("cnn", {"width": 0}, "width"),
        ("cnn", {"num_classes": 1}, "num_classes"),
        ("cnn", {"num_classes": "10"}, "num_classes"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(name, options, message):
    with pytest.raises(UserError, match=message) as error:
        models.create(name, **{"num_classes": 10, **options})
    assert "\n" not in str(error.value)


NAN, INF = float("nan"), float("inf")
ABSURD = {
    int: [
        10**8,
        6 * 10**7 + 4,
        9 * 10**6 + 2,
        2**63,
        10**400,
        10**5000,
        -1,
        0,
        1.5,
        NAN,
        "8",
        None,
    ],
    float: [-1, 1.0, NAN, INF, "a", None, True, 10**400, 10**5000],
    bool: [1, None, "True"],
    str: [1, None, "x" * 1000, "a\nb", ["basic"]],
    tuple: [
        (0,),
        (1.5,),
        (NAN,),
        (True,),
        ("4",),
        None,
        "4",
        10**8,
        (10**8,),
        (10**5000,),
        ((4,),),
    ],
}
ABSURD[tuple] += [(1,) * 10**5, (2**62,) * 70, np.array([4, 5])]
OPTIONS = [
    (family, field.name, type(field.default))
    for family, module in models.FAMILIES.items()
    for field in dataclasses.fields(module)
    if field.name not in ("num_classes", "parent", "name")
]


@pytest.mark.parametrize(("family", "option", "kind"), OPTIONS)
def test_absurd_options_of_every_family_are_one_line_at_once(family, option, kind):
    for value in ABSURD[kind]:
        began = time.perf_counter()
        with pytest.raises(UserError, match=f"^{family}: {option} is ") as error:
            models.create(family, num_classes=10, **{option: value})
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 250
        assert time.perf_counter() - began < 5


@pytest.mark.parametrize("family", models.FAMILIES)
def test_absurd_names_and_numbers_of_classes_are_one_line(family):
    for value in (10**8, 10**5000, -1, 1.5, NAN, "a", None, True, [3]):
        with pytest.raises(UserError, match=f"^{family}: num_classes is .*; it must be an integer"):
            models.create(family, num_classes=value)
    for option in ("a\nb", "x" * 1000, "parent", "name"):
        with pytest.raises(UserError, match=f"^{family}: unknown option ") as error:
            models.create(family, num_classes=10, **{option: 3})
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", [None, 3, ["mlp"], np.array(["mlp", "cnn"]), "a\nb" * 100, b"mlp"])
def test_names_that_are_none_are_one_line(name):
    with pytest.raises(UserError, match=r"^unknown network ") as error:
        models.create(name, num_classes=10)
    assert str(error.value).isprintable()


def test_numbers_of_numpy_are_numbers():
    given = models.create("cnn", num_classes=np.int64(3), width=np.int32(4), batch_norm=np.True_)
    assert given == models.create("cnn", num_classes=3, width=4, batch_norm=True)
    sizes = models.create("mlp", num_classes=3, hidden=[np.int64(4)])
    assert sizes == models.create("mlp", num_classes=3, hidden=(4,))


def test_networks_that_no_memory_could_hold_are_refused_before_they_are_made():
    module = models.create("resnet", num_classes=3, blocks=(1,) * 10, width=2**16)
    with pytest.raises(UserError, match=r"has 2.* parameters, more than .* smaller") as error:
        from_linen(module, (32, 32, 3))
    assert "\n" not in str(error.value)


def test_sizes_of_thousands_of_digits_in_a_command():
    name, options = spec.parse(f"mlp:hidden={'9' * 5000}x")
    with pytest.raises(UserError, match=r"^mlp: hidden is '999.*; give a value of type tuple"):
        models.create(name, num_classes=3, **options)


@pytest.mark.parametrize("option", ["name", "num_classes", "image_shape"])
def test_what_the_data_decide_on_is_no_option_of_a_command(option):
    with pytest.raises(UserError, match=f"^mlp:{option}=3: {option} is determined by the data"):
        spec.parse(f"mlp:{option}=3")
