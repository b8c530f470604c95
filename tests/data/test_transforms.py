"""Transforms of torchvision and timm, taken apart; with stand-ins, and with the real ones if installed."""

import numpy as np
import pytest
from image_files import COLOURS, picture

from mcjax.core.errors import UserError
from mcjax.data.transforms import Normalisation, read_transform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def step(name, package="torchvision.transforms.transforms", call=lambda self, x: x, **fields):
    """A step with the class's name and module that the real one has."""
    cls = type(name, (), {"__module__": package, "__call__": call})
    made = cls()
    made.__dict__.update(fields)
    return made


def compose(*steps):
    return step("Compose", transforms=list(steps))


NORMALIZE = step("Normalize", mean=list(MEAN), std=np.float32(STD))


def test_the_normalisation_is_taken_off_and_the_rest_applied_in_order():
    double = step("Resize", call=lambda self, x: 2 * x)
    one_more = step("ToTensor", call=lambda self, x: x + 1)
    found = read_transform(compose(compose(double), one_more, NORMALIZE, step("ToPureTensor")))
    assert found.normalisation == Normalisation(MEAN, STD)  # float32's 0.229 is 0.22900000214576721
    assert found.pixels(10) == 21
    assert read_transform(double).normalisation is None


def test_the_transform_of_torchvisions_weights():
    def call(self, x):
        return (x - np.array(self.mean)) / np.array(self.std)

    made = step("ImageClassification", call=call, mean=list(MEAN), std=list(STD))
    found = read_transform(made)
    assert found.normalisation == Normalisation(MEAN, STD)
    np.testing.assert_array_equal(found.pixels(np.ones(3)), np.ones(3))
    assert made.mean == list(MEAN)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (compose(step("RandomCrop"), NORMALIZE), "RandomCrop"),
        (compose(step("Resize", "albumentations.resize")), "Resize"),
        (compose(NORMALIZE, step("Resize")), "Normalize is not its last step"),
        (step("ResizeKeepRatio", "timm.data", random_scale_prob=0.5), "is random"),
        (step("Normalize", mean=[0.5], std=[0.0]), "one positive std"),
        (lambda x: x, "not a step"),
    ],
)
def test_other_steps_are_named(transform, message):
    with pytest.raises(UserError, match=message):
        read_transform(transform)


def test_one_number_for_all_channels():
    assert Normalisation((0.5,), (0.25,)).per_channel(3) == Normalisation((0.5,) * 3, (0.25,) * 3)
    assert str(Normalisation((0.5, 0.25), (0.1, 0.2))) == "0.5,0.25/0.1,0.2"
    with pytest.raises(UserError, match="for 3 channels, but images have 1"):
        Normalisation(MEAN, STD).per_channel(1)


def real(transform):
    """What the network sees, computed by the library and in two parts here."""
    torch = pytest.importorskip("torch")
    image = picture(np.random.default_rng(0).integers(0, 256, (40, 51, 3), np.uint8))
    expected = transform(image)
    found = read_transform(transform)
    pixels = torch.as_tensor(np.asarray(found.pixels(image)))
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in found.normalisation)
    torch.testing.assert_close((pixels - mean) / std, expected, rtol=1e-5, atol=1e-5)


def test_of_torchvision():
    transforms = pytest.importorskip("torchvision.transforms", exc_type=ImportError)
    from torchvision.transforms import v2

    torch = pytest.importorskip("torch")
    real(
        transforms.Compose(
            [
                transforms.Resize(32),
                transforms.CenterCrop(28),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )
    )
    real(
        v2.Compose(
            [
                v2.ToImage(),
                v2.Resize((32, 30)),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )
    )
    real(transforms._presets.ImageClassification(crop_size=24, resize_size=32))
    with pytest.raises(UserError, match="RandomHorizontalFlip"):
        read_transform(v2.Compose([v2.RandomHorizontalFlip(), v2.ToImage()]))


def test_of_timm():
    timm_data = pytest.importorskip("timm.data", exc_type=ImportError)
    config = {"input_size": (3, 28, 28), "interpolation": "bicubic", "mean": MEAN, "std": STD}
    for mode in ("center", "squash", "border"):
        real(timm_data.create_transform(**config, crop_pct=0.9, crop_mode=mode))
    with pytest.raises(UserError, match="is not a step"):
        read_transform(timm_data.create_transform(**config, is_training=True))


def test_pixels_are_those_of_the_file():
    found = read_transform(compose(step("ToTensor"), NORMALIZE))
    np.testing.assert_array_equal(np.asarray(found.pixels(picture(COLOURS[0]))), COLOURS[0])
