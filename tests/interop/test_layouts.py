"""Names: those of the tables are those of PyTorch networks, whole, for every network there is."""

import numpy as np
import pytest

from mcjax import models
from mcjax.interop import layouts
from mcjax.interop.layouts import vgg
from mcjax.interop.layouts.layout import rows_of, shapes_of
from mcjax.interop.layouts.shared import halved

SHAPE = (32, 32, 3)


def named(name, code=None, *, curve=False, num_classes=10, **options):
    module = models.create(name, num_classes=num_classes, **options)
    layout = next(
        lay for lay in layouts.find(models.family(name), curve=curve) if code in (None, lay.code)
    )
    return [row.torch for row in rows_of(layout, module, SHAPE)]


@pytest.mark.parametrize(
    ("name", "code", "curve", "some", "tensors"),  # tensors: without the counts of batches
    [
        ("vgg16", None, False, ["layer_blocks.0.0.weight", "layer_blocks.4.2.bias"], 32),
        ("vgg16", None, False, ["classifier.1.weight", "classifier.6.bias"], 32),
        ("vgg16_bn", None, False, ["layer_blocks.2.4.weight", "layer_blocks.4.5.running_var"], 84),
        ("vgg19", None, True, ["layer_blocks.4.3.bias", "fc1.weight", "fc3.bias"], 38),
        ("preresnet26", None, False, ["layer2.0.downsample.0.weight", "bn.bias", "fc.bias"], 129),
        ("preresnet164", None, True, ["layer3.17.conv3.weight", "layer1.0.downsample.weight"], 820),
        ("wide_resnet28x10", None, False, ["layer1.0.shortcut.0.bias", "bn1.bias"], 158),
        ("convfc", None, False, ["conv_part.6.weight", "fc_part.4.bias"], 12),
        ("convfc", None, True, ["conv3.weight", "fc4.weight", "fc6.bias"], 12),
        ("resnet18", "torchvision", False, ["layer4.0.downsample.1.running_mean", "fc.bias"], 102),
        ("resnet18", "pytorch-cifar", False, ["layer4.0.shortcut.1.weight", "linear.bias"], 102),
        ("preactresnet18", None, False, ["layer2.0.shortcut.0.weight", "linear.weight"], 86),
        ("vgg16_torchvision", None, False, ["features.28.bias", "classifier.3.weight"], 32),
        ("vgg16_bn_torchvision", None, False, ["features.40.weight", "features.41.bias"], 84),
        (
            "vgg19_bn_torchvision",
            None,
            False,
            ["features.50.running_var", "classifier.6.bias"],
            102,
        ),
    ],
)
def test_names_of_published_code(name, code, curve, some, tensors):
    names = named(name, code, curve=curve)
    assert set(some) <= set(names)
    assert len(names) == len(set(names)) == tensors


@pytest.mark.parametrize(
    "layout", layouts.LAYOUTS, ids=lambda lay: f"{lay.code}-{lay.family}-{lay.curve}"
)
def test_tables_have_the_names_and_shapes_of_the_reference(layout):
    torch = pytest.importorskip("torch")
    from mcjax.interop import reference

    deep = ("preresnet56", "preresnet110", "preresnet164")  # more of the same
    members = [name for name in models.names() if models.family(name) == layout.family]
    for name in members:
        if name in deep:
            continue
        module = models.create(name, num_classes=10)
        with torch.device("meta"):
            net = reference.build(module, layout, SHAPE)
        expected = {
            key: tuple(w.shape) for key, w in net.state_dict().items() if "num_batches" not in key
        }
        shapes = shapes_of(module, SHAPE)
        rows = {}
        for row in rows_of(layout, module, SHAPE):
            leaf = shapes
            for key in row.path.split("/"):
                leaf = leaf[key]
            if row.transform.name == "conv":
                rows[row.torch] = tuple(leaf.shape[i] for i in (3, 2, 0, 1))
            else:
                rows[row.torch] = tuple(reversed(leaf.shape))
        assert rows == expected, name


def test_normalisations_that_were_never_run():
    def tensors(run, skipped):
        return {
            f"layer_blocks.{block}.{i}.{kind}": np.full(4, value + (kind == "running_var"))
            for block in (0, 1)
            for i, value in ((1, run), (3, skipped))
            for kind in ("running_mean", "running_var")
        }

    assert vgg.never_run(tensors(0.5, 0.0))
    assert not vgg.never_run(tensors(0.5, 0.5))
    assert not vgg.never_run(tensors(0.0, 0.0))  # a network that was never trained


def test_images_are_halved_down_to_one_pixel():
    assert halved(2)(9, 4) == (2, 1)
    assert halved(5)(4, 2) == (2, 1)  # a side of one pixel is not pooled
