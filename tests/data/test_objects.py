"""Data sets as objects: torchvision's kind, Subset and ConcatDataset, Hugging Face's kind."""

import copy
import types

import numpy as np
import pytest
from image_files import COLOURS, GREYS, LABELS, NAMES, picture
from test_transforms import MEAN, NORMALIZE, STD, compose, step

from mcjax.core.errors import UserError
from mcjax.data import objects
from mcjax.data.examples import read_examples
from mcjax.data.given import given_examples
from mcjax.data.pictures import Reading
from mcjax.data.transforms import Normalisation


class Standard:
    """torchvision's StandardTransform."""

    def __init__(self, transform):
        self.transform = transform

    def __call__(self, image, label):
        return self.transform(image), label


class Vision:
    """A data set of torchvision: PIL images and labels."""

    classes = NAMES

    def __init__(self, transform=None, images=COLOURS):
        self.images, self.transform = images, transform
        self.transforms = Standard(transform) if transform else None

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image, label = picture(self.images[i]), LABELS[i]
        return self.transforms(image, label) if self.transforms else (image, label)


class Subset:
    def __init__(self, dataset, indices):
        self.dataset, self.indices = dataset, indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, i):
        return self.dataset[self.indices[i]]


def to_tensor(image):
    """Like ToTensor of another library: float [H, W, C]."""
    return np.asarray(image, np.float32) / 255


TO_TENSOR = step("ToTensor", call=lambda self, x: to_tensor(x))
NORMALIZING = compose(
    TO_TENSOR,
    step("Normalize", call=lambda self, x: (x - MEAN) / np.array(STD), mean=MEAN, std=STD),
)


def test_a_data_set_of_torchvision():
    found = read_examples(Vision())
    np.testing.assert_array_equal(found.examples["image"], COLOURS)
    np.testing.assert_array_equal(found.examples["label"], LABELS)
    assert found.class_names == tuple(NAMES)
    assert read_examples(Vision(images=GREYS), channels=3).examples["image"].shape == COLOURS.shape


def test_its_normalisation_is_not_applied():
    given = Vision(NORMALIZING)
    found = read_examples(given)
    np.testing.assert_array_equal(found.examples["image"], COLOURS)
    assert found.examples["image"].dtype == np.uint8
    assert found.normalisation == Normalisation(MEAN, STD)
    assert given.transform is NORMALIZING  # the user's object is unchanged
    assert given.transforms.transform is NORMALIZING


@pytest.mark.parametrize("networks", [None, (MEAN, STD), ((0.5,) * 3, (0.5,) * 3)])
def test_the_network_must_normalise_alike(networks):
    own = networks and Normalisation(*networks)
    if networks and networks[0] == MEAN:
        found = given_examples("bonafide", Vision(NORMALIZING), own)
        np.testing.assert_array_equal(found["image"], COLOURS)
        return
    with pytest.raises(
        UserError, match=r"bonafide images have a transform .* give the network the same"
    ):
        given_examples("bonafide", Vision(NORMALIZING), own)


def test_parts_and_unions():
    part = Subset(Vision(NORMALIZING), [4, 1])
    union = types.SimpleNamespace(datasets=[part, Subset(Vision(NORMALIZING), [0])])

    class Union:
        def __init__(self, datasets):
            self.datasets = datasets

        def __len__(self):
            return sum(map(len, self.datasets))

        def __getitem__(self, i):
            return [x for one in self.datasets for x in (one[j] for j in range(len(one)))][i]

    found = read_examples(Union(union.datasets))
    np.testing.assert_array_equal(found.examples["image"], COLOURS[[4, 1, 0]])
    assert found.normalisation == Normalisation(MEAN, STD)
    with pytest.raises(UserError, match="normalised differently"):
        read_examples(Union([part, Vision()]))


def test_a_transform_beside_the_data(tmp_path):
    half = step("CenterCrop", call=lambda self, x: x.crop((0, 0, 2, 2)))
    transform = compose(half, TO_TENSOR, NORMALIZE)
    for source in (Vision(), tmp_path):
        if source is tmp_path:
            (tmp_path / "cat").mkdir()
            picture(COLOURS[0]).save(tmp_path / "cat" / "0.png")
        found = read_examples(source, transform=transform)
        np.testing.assert_array_equal(found.examples["image"][0], COLOURS[0][:2, :2])
        assert found.normalisation == Normalisation(MEAN, STD)
    with pytest.raises(UserError, match="leave out one of the transforms"):
        read_examples(
            Vision(compose(step("Normalize", mean=[0.5], std=[0.5]))), transform=transform
        )
    with pytest.raises(UserError, match="leave out resize"):
        read_examples(Vision(), transform=transform, resize=(2, 2))


class Rows:
    """A data set of Hugging Face: dicts, features, formats."""

    column_names = ("img", "label")
    features = {"label": types.SimpleNamespace(names=NAMES)}  # noqa: RUF012
    format = "torch"

    def __len__(self):
        return len(COLOURS)

    def with_format(self, form):
        made = copy.copy(self)
        made.format = form
        return made

    def __getitem__(self, i):
        assert self.format is None
        return {"img": picture(COLOURS[i]), "label": LABELS[i], "idx": i}


def test_a_data_set_of_hugging_face():
    found = read_examples(Rows())
    np.testing.assert_array_equal(found.examples["image"], COLOURS)
    np.testing.assert_array_equal(found.examples["label"], LABELS)
    assert found.class_names == tuple(NAMES)
    splits = types.SimpleNamespace
    with pytest.raises(UserError, match=r"several splits \(train, test\)"):
        objects.read(
            "x",
            splits(column_names={"train": [], "test": []}, features={}, with_format=len),
            Reading(),
        )


def pairs(*items):
    class Given:
        def __len__(self):
            return len(items)

        def __getitem__(self, i):
            if isinstance(items[i], Exception):
                raise items[i]
            return items[i]

    return Given()


HALF = np.full((2, 2, 1), 0.5, np.float32)


def test_floats_stay_floats():
    found = read_examples(pairs((np.uint8(255 * HALF), np.int64(1)), (HALF, 0))).examples
    assert found["image"].dtype == np.float32
    np.testing.assert_allclose(found["image"][:, 0, 0, 0], [127 / 255, 0.5])
    assert found["label"].dtype == np.int32


class Tensor:
    """What is used of PyTorch's."""

    def __init__(self, array):
        self.array = array

    def numpy(self):
        return self.array

    def __array__(self, dtype=None, copy=None):
        return self.array


def test_tensors_have_their_channels_first():
    x = np.arange(24, dtype=np.uint8).reshape(3, 2, 4)
    for given in (x, np.float32(x) / 255):
        found = read_examples(pairs((Tensor(given), np.array(2)))).examples
        np.testing.assert_array_equal(found["image"][0], x.transpose(1, 2, 0))
        assert found["label"].tolist() == [2]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pairs(), "no images"),
        (pairs((3 * HALF - 2, 0)), r"image 0 \(values from -0.5 to -0.5, not in \[0, 1\]"),
        (pairs((HALF, 0), OSError("truncated file")), r"1 of 2 images: image 1 \(truncated file\)"),
        (pairs((HALF, "cat"), (HALF, 0)), "label of image 0 is 'cat'"),
        (pairs((HALF, 0), (HALF[:1], 0)), "differ in size"),
        (pairs(HALF), "give pairs of an image and a label"),
        (pairs((HALF[..., 0, :], 0)), None),
        (pairs(({}, 0)), "not an image"),
        (iter([]), "is not a path or a data set"),
    ],
)
def test_what_cannot_be_read(data, message):
    if message is None:
        assert read_examples(data).examples["image"].shape == (1, 2, 1, 1)
        return
    with pytest.raises(UserError, match=message):
        read_examples(data)


def test_arrays_are_not_resized():
    with pytest.raises(UserError, match="are taken as they are"):
        read_examples(pairs((HALF, 0)), resize=(4, 4))
