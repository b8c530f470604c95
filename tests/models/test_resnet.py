import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcjax import models
from mcjax.core.errors import UserError


def count(num_classes, **options):
    module = models.create("resnet18", num_classes=num_classes, **options)
    x = jnp.zeros([1, 64, 64, 3])
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_parameter_counts_as_published():
    assert count(1000) == 11_689_512  # torchvision
    assert count(10, stem="cifar") == 11_173_962  # pytorch-cifar


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 8), ("cifar", 32)])
def test_what_the_first_stage_sees(stem, side):
    module = models.create("resnet", num_classes=2, blocks=(1,), width=2, stem=stem)
    jaxpr = jax.make_jaxpr(module.init_with_output)(jax.random.key(0), jnp.zeros([1, 32, 32, 3]))
    convolutions = [e for e in jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    assert convolutions[-1].outvars[0].aval.shape == (1, side, side, 2)


def test_zeros_beside_the_image_win_over_no_pixel():
    """The stem's pool, by hand: a network whose last layer shows the mean of the pooled image."""
    module = models.create("resnet", num_classes=2, blocks=(1,), width=1)
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 0, 0, 0] = 1.0
    variables = jax.tree.map(jnp.zeros_like, module.init(jax.random.key(0), x))
    params, stats = variables["params"], variables["batch_stats"]
    params["conv1"]["kernel"] = params["conv1"]["kernel"].at[3, 3].set(1.0)  # the middle: a copy
    params["bn1"] = {"scale": jnp.ones(1), "bias": jnp.ones(1)}  # 2 at one pixel, 1 elsewhere
    params["fc"]["kernel"] = jnp.ones([1, 2])
    stats["bn1"]["var"] = jnp.full(1, 1 - 1e-5)
    # conv1 and the pool keep every other pixel: 2x2, then one window of which one pixel is 2.
    np.testing.assert_allclose(module.apply(variables, x), [[2.0, 2.0]], rtol=1e-6)


@pytest.mark.parametrize(
    "options", [{"blocks": ()}, {"blocks": (0,)}, {"width": 0}, {"stem": "tiny"}]
)
def test_mistakes(options):
    with pytest.raises(UserError, match="resnet"):
        models.create("resnet", num_classes=10, **options)
