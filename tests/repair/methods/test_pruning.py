"""Exactly the smallest filters go, they are silent, and they stay away in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import all_but

from mcjax import models
from mcjax.core.errors import UserError
from mcjax.data import augmentation
from mcjax.models.network import from_linen
from mcjax.repair.methods import pruning
from mcjax.training import init_state, sgd, train_steps
from mcjax.training.objectives import endpoint_loss

NETWORKS = {
    "cnn": ("cnn", {"width": 4, "hidden": 8}),
    "convfc": ("convfc", {}),
    "vgg16": ("vgg16", {}),
    "vgg16_bn": ("vgg16_bn", {}),
    "resnet8": ("resnet8", {"width": 6}),
    "bottleneck": ("preresnet", {"depth": 11, "block": "bottleneck", "width": 4}),
    "wide_resnet": ("wide_resnet", {"depth": 10, "width": 1}),
    "resnet": ("resnet", {"blocks": (1, 1), "width": 4, "stem": "cifar"}),
    "preactresnet": ("preactresnet", {"blocks": (1, 1), "width": 4}),
}


def shapes(name):
    model, options = NETWORKS[name]
    network = from_linen(models.create(model, num_classes=4, **options), (8, 8, 1))
    return model, network, jax.eval_shape(network.init, jax.random.key(0))


def random_params(tree, seed=0):
    """Weights without the compilation of a random start, no two filters equal."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape), jnp.float32), tree)


def by_path(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


PRUNED = {
    "cnn": {"conv1": None, "conv2": None, "conv3": None},
    "convfc": {"conv1": None, "conv2": None, "conv3": None},
    "resnet8": {f"layer{i}_0/conv1": f"layer{i}_0/bn2" for i in (1, 2, 3)},
    "bottleneck": {f"layer{i}_0/conv1": f"layer{i}_0/bn2" for i in (1, 2, 3)},
    "wide_resnet": {f"layer{i}_0/conv1": f"layer{i}_0/bn2" for i in (1, 2, 3)},
    "resnet": {f"layer{i}_0/conv1": f"layer{i}_0/bn1" for i in (1, 2)},
    "preactresnet": {f"layer{i}_0/conv1": f"layer{i}_0/bn2" for i in (1, 2)},
    "vgg16": {
        f"conv{b}_{i}": None for b, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)
    },
}
PRUNED["vgg16_bn"] = {layer: layer.replace("conv", "bn") for layer in PRUNED["vgg16"]}


@pytest.mark.parametrize("name", all_but(("convfc", "resnet"), NETWORKS))
@pytest.mark.parametrize("fraction", [0.3, 0.5])
def test_exactly_the_smallest_filters_go(name, fraction):
    model, _, like = shapes(name)
    params = random_params(like["params"])
    masks = pruning.smallest_filters(params, fraction=fraction, model_name=model)
    assert jax.tree.structure(masks) == jax.tree.structure(params)
    found, weights = by_path(masks), by_path(params)
    expected = {path: np.ones_like(w) for path, w in weights.items()}
    for layer, norm in PRUNED[name].items():
        w = weights[f"{layer}/kernel"]
        size = [np.abs(w[..., j]).sum() for j in range(w.shape[-1])]
        for j in sorted(range(w.shape[-1]), key=size.__getitem__)[: round(fraction * w.shape[-1])]:
            for part in (f"{layer}/kernel", f"{layer}/bias", f"{norm}/scale", f"{norm}/bias"):
                if part in expected:
                    expected[part][..., j] = 0
    assert found.keys() == expected.keys()
    for path in expected:
        np.testing.assert_array_equal(found[path], expected[path], err_msg=path)


def test_fractions_by_layer():
    _, _, like = shapes("vgg16_bn")
    masks = pruning.smallest_filters(random_params(like["params"]), fraction=pruning.VGG16_A)
    channels = [int(masks[layer]["bias"].sum()) for layer in PRUNED["vgg16"]]
    # The published network, with its pools left out.
    assert channels == [32, 64, 128, 128, 256, 256, 256, 256, 256, 256, 256, 256, 256]


def test_of_equals_the_first_goes_and_one_is_always_kept():
    params = {"conv": {"kernel": jnp.ones((1, 1, 1, 3))}}
    masks = pruning.smallest_filters(params, fraction=1 / 3)
    np.testing.assert_array_equal(masks["conv"]["kernel"].ravel(), [0, 1, 1])
    masks = pruning.smallest_filters(params, fraction=0.99)
    np.testing.assert_array_equal(masks["conv"]["kernel"].ravel(), [0, 0, 1])


@pytest.mark.parametrize(
    "name", all_but(("resnet", "cnn"), ["resnet8", "wide_resnet", "resnet", "preactresnet", "cnn"])
)
def test_pruned_filters_are_silent(name):
    """Whatever their statistics, nothing that follows hears of them."""
    model, network, like = shapes(name)
    variables = random_params(like)
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    masks = pruning.smallest_filters(variables["params"], fraction=0.5, model_name=model)
    pruned = {**variables, "params": pruning.apply_masks(variables["params"], masks)}
    outputs = network.layer_outputs(pruned, jnp.full((2, 8, 8, 1), 0.3))
    for layer, norm in PRUNED[name].items():
        gone = by_path(masks)[f"{layer}/kernel"].max((0, 1, 2)) == 0
        assert gone.any()
        assert (np.asarray(outputs[norm or layer])[..., gone] == 0).all()
        assert (np.asarray(outputs[norm or layer])[..., ~gone] != 0).any()


@pytest.mark.slow(compiles=True)
def test_pruned_filters_stay_at_zero_in_training():
    model, network, _ = shapes("resnet8")
    variables = network.init(jax.random.key(0))
    masks = pruning.smallest_filters(variables["params"], fraction=0.5, model_name=model)
    start = pruning.apply_masks(variables["params"], masks)
    optimizer = sgd(0.1, 5, momentum=0.9, weight_decay=1e-2)
    examples = {
        "image": jax.random.uniform(jax.random.key(1), (8, 8, 8, 1)),
        "label": jnp.arange(8) % 4,
    }
    copy = jax.tree.map(jnp.copy, start)
    state, _ = train_steps(
        jax.random.key(2),
        init_state(copy, variables["batch_stats"], optimizer),
        masks,
        examples,
        jnp.int32(5),
        capacity=5,
        loss_fn=pruning.masked(endpoint_loss(network)),
        optimizer=optimizer,
        batch_size=4,
        augment_fn=augmentation.get("none"),
    )
    before, after, kept = by_path(start), by_path(state.params), by_path(masks)
    assert sum((mask == 0).sum() for mask in kept.values()) > 0
    for path in after:
        np.testing.assert_array_equal(after[path][kept[path] == 0], 0, err_msg=path)
    moved = [path for path in after if np.any(after[path] != before[path])]
    assert len(moved) == len(after)


def test_a_masked_loss_is_one_object_a_loss():
    loss_fn = endpoint_loss(shapes("cnn")[1])
    assert pruning.masked(loss_fn) == pruning.masked(loss_fn)


def test_mistakes():
    params = {"conv": {"kernel": jnp.ones((1, 1, 1, 3))}}
    with pytest.raises(UserError, match="no convolution 'cnov'; there are conv"):
        pruning.smallest_filters(params, fraction={"cnov": 0.5})
    with pytest.raises(UserError, match="0 <= fraction < 1"):
        pruning.smallest_filters(params, fraction=1.0)
    with pytest.raises(UserError, match="no convolution to prune"):
        pruning.smallest_filters({"fc": {"kernel": jnp.ones((2, 2))}}, fraction=0.5)
