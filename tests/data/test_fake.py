import numpy as np
import pytest

from mcjax import data


@pytest.mark.parametrize(
    ("name", "shape", "num_classes"),
    [
        ("digits", (8, 8, 1), 10),
        ("fashion_mnist", (28, 28, 1), 10),
        ("cifar10", (32, 32, 3), 10),
        ("cifar100", (32, 32, 3), 100),
        ("svhn_cropped", (32, 32, 3), 10),
        ("tfds:emnist/letters", (28, 28, 1), 37),
    ],
)
def test_fake_sets_have_the_real_shape_and_can_be_learnt(name, shape, num_classes):
    dataset = data.load(f"fake:{name}")
    assert dataset.image_shape == shape
    assert dataset.num_classes == num_classes
    assert dataset.train["image"].dtype == (np.float32 if name == "digits" else np.uint8)
    count = np.bincount(dataset.train["label"], minlength=num_classes)
    assert count.max() - count.min() <= 1
    # The nearest class mean, the simplest of classifiers, is nearly always right on test images.
    train, test = (
        part["image"].reshape(len(part["image"]), -1).astype(np.float64)
        for part in (dataset.train, dataset.test)
    )
    means = np.stack([train[dataset.train["label"] == c].mean(0) for c in range(num_classes)])
    score = test @ means.T - 0.5 * np.square(means).sum(1)
    assert (score.argmax(1) == dataset.test["label"]).mean() > 0.95
    # Yet the images are not copies of each other.
    assert (
        sum(data.split(dataset, seed=0, num_bonafide=0, num_selection=0).duplicates.values()) == 0
    )


def test_fake_sets_are_the_same_at_every_call_and_differ_by_name():
    first, again = data.load("fake:cifar10"), data.load("fake:cifar10")
    assert np.array_equal(first.train["image"], again.train["image"])
    assert not np.array_equal(first.train["image"], data.load("fake:svhn_cropped").train["image"])


def test_fake_of_a_users_file(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, image=np.zeros((30, 7, 5), np.uint8), label=np.arange(30) % 3)
    dataset = data.load(f"fake:npz:{path}")
    assert (dataset.image_shape, dataset.num_classes) == ((7, 5, 1), 3)
