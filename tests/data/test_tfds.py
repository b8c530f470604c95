import builtins
import io
import sys

import numpy as np
import pytest
from data_files import write_mnist
from PIL import Image

from mcjax import data
from mcjax.core.errors import UserError


def png(image):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


def images(shape, size, seed):
    return np.random.default_rng(seed).integers(0, 256, (size, *shape), np.uint8)


def prepare(
    folder,
    name,
    *,
    version="1.0.0",
    shape=(6, 5, 3),
    num_classes=3,
    sizes=None,
    several_sizes=False,
):
    """Has TFDS prepare a small set; given the images as PNG files it needs no TensorFlow for it."""
    tfds = pytest.importorskip("tensorflow_datasets")
    sizes = sizes or {"train": 9, "test": 6}
    with tfds.core.registered.skip_registration():

        class Small(tfds.core.GeneratorBasedBuilder):
            # In a package, as this file's folder looks, TFDS would need importlib_resources.
            __module__ = "small"
            VERSION = tfds.core.Version(version)
            pkg_dir_path = folder

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=(None, None, 3) if several_sizes else shape),
                    "label": tfds.features.ClassLabel(num_classes=num_classes),
                }
                return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

            def _split_generators(self, manager):
                return {split: self._generate_examples(split) for split in sizes}

            def _generate_examples(self, split):
                size = sizes[split]
                for i, image in enumerate(images(shape, size, size)):
                    image = image[: 3 + i % 2] if several_sizes else image
                    yield i, {"image": png(image), "label": i % num_classes}

        Small.name = name
        Small(data_dir=folder, file_format="array_record").download_and_prepare()


def rows(part):
    return sorted((x.tobytes(), int(y)) for x, y in zip(part["image"], part["label"], strict=True))


def expected(shape, size, num_classes=3):
    return sorted((x.tobytes(), i % num_classes) for i, x in enumerate(images(shape, size, size)))


@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 5, 1)])
@pytest.mark.parametrize("prefix", ["", "tfds:"])
def test_a_prepared_set_reads_as_written_without_tensorflow(tmp_path, shape, prefix):
    prepare(tmp_path, "small_shapes", shape=shape)
    dataset = data.load(f"{prefix}small_shapes", data_dir=tmp_path)
    assert rows(dataset.train) == expected(shape, 9)
    assert rows(dataset.test) == expected(shape, 6)
    assert (dataset.num_classes, dataset.image_shape) == (3, shape)
    assert str(tmp_path) in dataset.source
    assert "prepared TFDS set" in dataset.source


@pytest.mark.parametrize("sizes", [{"train": 20}, {"train": 15, "validation": 5}])
def test_a_set_without_a_test_part(tmp_path, sizes):
    prepare(tmp_path, "small_shapes", sizes=sizes)
    dataset = data.load("small_shapes", data_dir=tmp_path)
    whole = {key: np.concatenate([dataset.train[key], dataset.test[key]]) for key in dataset.train}
    every = sorted(row for size in sizes.values() for row in expected((6, 5, 3), size))
    assert rows(whole) == every
    if "validation" in sizes:
        assert rows(dataset.test) == expected((6, 5, 3), 5)
    else:
        assert len(dataset.test["label"]) == 4
        assert "split 16/4" in dataset.source


def test_a_named_set_falls_back_to_tfds_and_prefers_its_original_files(tmp_path):
    prepare(tmp_path, "mnist", version="3.0.1", shape=(28, 28, 1), num_classes=10)
    prepared = data.load("mnist", data_dir=tmp_path)
    assert "TFDS" in prepared.source
    assert rows(prepared.train) == expected((28, 28, 1), 9, 10)
    written = write_mnist(tmp_path)
    original = data.load("mnist", data_dir=tmp_path, verify=False)
    assert "original files" in original.source
    np.testing.assert_array_equal(original.train["image"], written["train"]["image"])
    assert "TFDS" in data.load("tfds:mnist", data_dir=tmp_path).source


def test_images_of_several_sizes_are_refused(tmp_path):
    prepare(tmp_path, "small_shapes", several_sizes=True)
    for name in ("small_shapes", "fake:small_shapes"):
        with pytest.raises(UserError, match="choose a set with one size"):
            data.load(name, data_dir=tmp_path)


def test_damaged_prepared_set_is_refused_in_one_line(tmp_path):
    prepare(tmp_path, "small_shapes")
    (record,) = (tmp_path / "small_shapes" / "1.0.0").glob("*train*")
    record.unlink()
    with pytest.raises(UserError, match=r"cannot be read.*prepare it again") as caught:
        data.load("small_shapes", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["nope", "cifar-10", "CIFAR 10", "fake:nope", "tfds:", "emnist/nope", "mnist:9.9.9"]
)
def test_an_unknown_name_gets_the_list(tmp_path, name):
    with pytest.raises(UserError, match=r"unknown data set.*give digits, mnist") as caught:
        data.load(name, data_dir=tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_set_that_is_not_images_with_a_class_is_refused(tmp_path):
    with pytest.raises(UserError, match="'image' and a class 'label'"):
        data.load("ag_news_subset", data_dir=tmp_path)


def test_without_data_and_tensorflow_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, advice in (
        ("cifar10", r"cifar-10-python\.tar\.gz"),
        ("svhn_cropped", "train_32x32.mat"),
    ):
        with pytest.raises(UserError, match=rf"{advice}.*mcjax\[tfds\]") as caught:
            data.load(name, data_dir=tmp_path)
        assert "\n" not in str(caught.value)


def test_a_failed_download_is_said_in_one_line(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(self, **options):
        assert options == {"file_format": "array_record"}
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(UserError, match=r"could not.*no route.*cifar-10-python\.tar\.gz"):
        data.load("cifar10", data_dir=tmp_path)


def test_what_needs_no_tfds_does_not_import_it(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorflow_datasets", raising=False)
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        assert not name.startswith("tensorflow"), "imported TFDS"
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    data.load("digits")
    data.load("fake:cifar10")
    data.load("mnist", data_dir=tmp_path, verify=False)
