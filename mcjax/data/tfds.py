"""Image-classification sets of TensorFlow Datasets (TFDS), read without TensorFlow."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.data.dataset import Dataset
from mcjax.data.stratify import holdout
from mcjax.errors import UserError
from mcjax.extras import need

_TEST_SHARE = 0.2
_SPLIT_SEED = 0


class UnknownNameError(LookupError):
    """Raised if TFDS has no data set of that name."""


def load(name: str, *, data_dir: Path | None = None, advice: str | None = None) -> Dataset:
    """Loads a prepared TFDS set, or lets TFDS prepare it if TensorFlow is installed.

    The parts are TFDS's "train" and "test", or "validation" if there is no "test". If there is only
    "train", a fixed fifth of it, stratified by class, becomes the test set.

    Args:
        name: TFDS name, e.g. "cifar10" or "emnist/digits".
        data_dir: TFDS's data folder; None for $TFDS_DATA_DIR or ~/tensorflow_datasets.
        advice: Another way to get the data, for the error message.

    Returns:
        The data set.

    Raises:
        UnknownNameError: TFDS has no set of that name.
        UserError: The set does not have images of one size with one class label each, or it is
            neither prepared nor can be prepared.
    """
    builder = _builder(name, data_dir, advice)
    features = _features(name, builder)
    num_classes = features["label"].num_classes
    prepared = "prepared TFDS set"
    # builder.is_prepared() would log a needless warning.
    if not (Path(builder.data_dir) / "dataset_info.json").is_file():
        _check_one_size(name, features)
        _prepare(name, builder, data_dir, advice)
        prepared = "TFDS set downloaded and prepared"
    train = _read(name, builder, "train")
    if test_split := next((s for s in ("test", "validation") if s in builder.info.splits), None):
        test, how = _read(name, builder, test_split), f"parts train and {test_split}"
    else:
        num_test = round(_TEST_SHARE * len(train["label"]))
        index = holdout(train["label"], num_test=num_test, seed=_SPLIT_SEED)
        train, test = ({key: value[i] for key, value in train.items()} for i in index)
        how = f"fixed stratified split {len(index[0])}/{len(index[1])} of its part train"
    return Dataset(
        name=name,
        train=train,
        test=test,
        num_classes=num_classes,
        source=f"{prepared} in {builder.data_dir}, {how}; verified by TFDS when prepared",
    )


def shape(name: str, *, data_dir: Path | None = None) -> tuple[tuple[int, int, int], int]:
    """The image shape and number of classes of a TFDS set, which need not be prepared.

    Args:
        name: TFDS name.
        data_dir: TFDS's data folder; None for its default.

    Returns:
        (height, width, channels), and the number of classes.

    Raises:
        UnknownNameError: TFDS has no set of that name.
        UserError: The set does not have images of one fixed size with one class label each.
    """
    features = _features(name, _builder(name, data_dir))
    _check_one_size(name, features)
    height, width, channels = features["image"].shape
    return (height, width, channels), features["label"].num_classes


def _builder(name: str, data_dir: Path | None, advice: str | None = None) -> Any:
    other = f"put {advice}; or" if advice else f"{name!r} is no data set of mcjax's own, and"
    tfds = need("tensorflow_datasets", "tfds", f"{other} reading it by TFDS")  # slow to import

    try:
        return tfds.builder(name, data_dir=data_dir)
    # TFDS raises many types for an unknown name, configuration or version.
    except Exception as error:
        raise UnknownNameError(_one_line(error)) from error


def _features(name: str, builder: Any) -> Any:
    features = builder.info.features
    if not {"image", "label"} <= set(features or ()) or not hasattr(
        features["label"], "num_classes"
    ):
        raise UserError(
            f"{name}: has the features {', '.join(features or ()) or 'none'}; choose a TFDS set with "
            "an 'image' and a class 'label'"
        )
    return features


def _check_one_size(name: str, features: Any) -> None:
    """Checks for a fixed image size before anything is downloaded or prepared."""
    if None in features["image"].shape:
        raise UserError(
            f"{name}: images have different sizes ({features['image'].shape}); choose a set with one "
            "size, or resize the images and use npz:FILE"
        )


def _prepare(name: str, builder: Any, data_dir: Path | None, advice: str | None) -> None:
    ways = [f"put {advice}"] if advice else []
    ways.append(f"let TFDS prepare it in {builder.data_dir} as array_record")
    if importlib.util.find_spec("tensorflow") is None:
        ways.append("pip install 'mcjax[tfds]' to do so here")
        where = f"in {data_dir}" if data_dir else "(no data directory given)"
        raise UserError(f"{name}: no data found {where}; {', or '.join(ways)}")
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:
        raise UserError(
            f"{name}: TFDS could not download and prepare it ({_one_line(error)}); {ways[0]}"
        ) from error


def _read(name: str, builder: Any, split: str) -> dict[str, np.ndarray]:
    try:
        examples = list(builder.as_data_source(split=split))
    except Exception as error:
        raise UserError(
            f"{name}: the prepared set in {builder.data_dir} cannot be read ({_one_line(error)}); "
            "prepare it again as array_record"
        ) from error
    shapes = {example["image"].shape for example in examples}
    if len(shapes) != 1:
        raise UserError(
            f"{name}: images of {len(shapes)} shapes in {split}; choose a set with one size"
        )
    return {
        "image": np.stack([example["image"] for example in examples]),
        "label": np.array([example["label"] for example in examples], np.int32),
    }


def _one_line(error: Exception) -> str:
    """The first line of an error from TFDS, which can be very long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
