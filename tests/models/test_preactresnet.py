import jax
import jax.numpy as jnp
import pytest

from mcjax import models
from mcjax.core.errors import UserError


def init_shapes(**options):
    module = models.create("preactresnet18", num_classes=10, **options)
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros([1, 32, 32, 3]))


def test_parameter_count():
    params = init_shapes()["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 11_171_146


def test_the_shortcut_starts_after_the_first_normalisation():
    module = models.create("preactresnet", num_classes=2, blocks=(1, 1), width=1)
    x = jnp.ones([1, 4, 4, 1])
    variables = jax.tree.map(jnp.ones_like, module.init(jax.random.key(0), x))
    # The second block's normalisation gives zero, so its shortcut does too; and the rest is zero.
    variables["params"]["layer2_0"]["bn1"] = {"scale": jnp.zeros(1), "bias": jnp.zeros(1)}
    for layer in ("conv1", "conv2"):
        variables["params"]["layer2_0"][layer]["kernel"] *= 0
    assert module.apply(variables, x).tolist() == [[1.0, 1.0]]  # the last layer's bias alone


def test_stages_halve_the_image():
    params = init_shapes(width=4)["params"]
    assert params["layer4_0"]["shortcut"]["kernel"].shape == (1, 1, 16, 32)
    assert "shortcut" not in params["layer1_0"]
    assert "shortcut" not in params["layer4_1"]


@pytest.mark.parametrize("options", [{"blocks": ()}, {"blocks": (2, 0)}, {"width": 0}])
def test_mistakes(options):
    with pytest.raises(UserError, match="preactresnet"):
        models.create("preactresnet", num_classes=10, **options)
