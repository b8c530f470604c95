"""CLP: its constants against matrices written out, and a channel that is far too strong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_case

from mcjax.core.tree import by_name
from mcjax.repair.methods import clp


def filled(case, seed=0):
    """Weights without zeros, and positive variances."""
    rng = np.random.default_rng(seed)
    variables = jax.tree.map(lambda w: jnp.float32(rng.normal(size=w.shape)), case.suspect)
    variables["batch_stats"] = jax.tree.map(lambda v: jnp.abs(v) + 0.1, variables["batch_stats"])
    return variables


@pytest.mark.parametrize(
    ("model", "options", "norms"),
    [
        ("cnn", {"width": 2}, {f"conv{i}": "" for i in (1, 2, 3)}),
        ("cnn", {"width": 2, "batch_norm": True}, {f"conv{i}": f"bn{i}" for i in (1, 2, 3)}),
        (
            "resnet8",
            {"width": 2},
            {
                "conv1": "",
                **{f"layer{i}_0/conv1": f"layer{i}_0/bn2" for i in (1, 2, 3)},
                **{f"layer{i}_0/conv2": "" for i in (1, 2, 3)},
                **{f"layer{i}_0/shortcut": "" for i in (2, 3)},
            },
        ),
        (
            "resnet",
            {"blocks": (1, 1), "width": 2, "stem": "cifar"},
            {
                "conv1": "bn1",
                **{f"layer{i}_0/conv{j}": f"layer{i}_0/bn{j}" for i in (1, 2) for j in (1, 2)},
                "layer2_0/shortcut": "layer2_0/shortcut_bn",
            },
        ),
    ],
)
def test_constants_are_singular_values_with_their_normalisation(model, options, norms):
    case = tiny_case.case(model, **options)
    variables = filled(case)
    found = clp.lipschitz_constants(variables, model_name=model)
    assert set(found) == set(norms)
    params, stats = by_name(variables["params"]), by_name(variables["batch_stats"])
    for layer, norm in norms.items():
        kernel = np.asarray(params[f"{layer}/kernel"], np.float64)
        for k in range(kernel.shape[-1]):
            matrix = np.stack([kernel[:, :, i, k].ravel() for i in range(kernel.shape[2])])
            expected = np.sqrt(np.linalg.eigvalsh(matrix @ matrix.T)[-1])
            if norm:
                scale, var = float(params[f"{norm}/scale"][k]), float(stats[f"{norm}/var"][k])
                expected *= abs(scale) / np.sqrt(var + 1e-5)
            assert found[layer][k] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_an_outlier_goes_with_its_normalisation(batch_norm):
    case = tiny_case.case(width=8, batch_norm=batch_norm)
    params = jax.tree.map(jnp.copy, case.suspect["params"])
    # 16 channels of equal strength, and one ten times as strong: (16 - 1) / sqrt(15) = 3.87 std.
    params["conv2"]["kernel"] = jnp.ones_like(params["conv2"]["kernel"]).at[..., 5].mul(10.0)
    if batch_norm:
        params["bn2"] = jax.tree.map(lambda v: v + 0.5, params["bn2"])
    case.suspect["params"].update(params)
    family = clp.run(case)
    assert family.setting == "u"
    assert family.values[0] > family.values[-1]
    for i, u in enumerate(family.values):
        pruned = family.networks(i)["params"]
        layers = ("conv2", "bn2") if batch_norm else ("conv2",)
        for name, leaf in by_name({layer: pruned[layer] for layer in layers}).items():
            before = by_name(params)[name]
            expected = before.at[..., 5].set(0.0) if u < 3.87 else before
            np.testing.assert_array_equal(leaf, expected, err_msg=f"{name} at {u}")


def test_equal_channels_all_stay():
    np.testing.assert_array_equal(clp.outliers(np.full(4, 2.0)), np.zeros(4))
