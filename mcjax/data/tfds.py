"""Any image-classification set of TensorFlow Datasets, read without TensorFlow."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from mcjax.core.errors import UserError
from mcjax.core.extras import need
from mcjax.data.dataset import Dataset
from mcjax.data.stratify import holdout

_TEST_SHARE = 0.2
_SPLIT_SEED = 0


class UnknownNameError(LookupError):
    """TFDS has no data set of that name."""


def load(name: str, *, data_dir: Path | None = None, advice: str | None = None) -> Dataset:
    """Loads a set that TFDS has prepared, or lets TFDS prepare it where TensorFlow is installed.

    The parts are TFDS's "train" and "test", or "validation" where there is no "test"; where "train"
    is alone, a fifth of it, a fixed draw stratified by class, becomes the test set.

    Args:
        name: TFDS name, e.g. "cifar10" or "emnist/digits".
        data_dir: TFDS's data folder; None for $TFDS_DATA_DIR or ~/tensorflow_datasets.
        advice: Another way to get the data, for the message when there are none.

    Returns:
        The data set.

    Raises:
        UnknownNameError: TFDS has no set of that name.
        UserError: not a set of equal-sized images with one class label each, or neither prepared
            nor possible to prepare.
    """
    builder = _builder(name, data_dir, advice)
    features = _features(name, builder)
    num_classes = features["label"].num_classes
    prepared = "prepared TFDS set"
    # Not builder.is_prepared(), which logs a warning where nothing is wrong.
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
        source=f"{prepared} in {builder.data_dir}, {how}; checked by TFDS alone, when prepared",
    )


def shape(name: str, *, data_dir: Path | None = None) -> tuple[tuple[int, int, int], int]:
    """What TFDS says of a set that need not be there.

    Args:
        name: TFDS name.
        data_dir: TFDS's data folder; None for its default.

    Returns:
        (height, width, channels), and the number of classes.

    Raises:
        UnknownNameError: TFDS has no set of that name.
        UserError: not images of one fixed size with one class label each.
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
    # TFDS raises many kinds for a name, configuration or version that it does not have.
    except Exception as error:
        raise UnknownNameError(_one_line(error)) from error


def _features(name: str, builder: Any) -> Any:
    features = builder.info.features
    if not {"image", "label"} <= set(features or ()) or not hasattr(
        features["label"], "num_classes"
    ):
        raise UserError(
            f"{name}: has {', '.join(features or ()) or 'no features'}; choose a TFDS set with an "
            "'image' and a class 'label'"
        )
    return features


def _check_one_size(name: str, features: Any) -> None:
    """Known before anything is downloaded, prepared or installed."""
    if None in features["image"].shape:
        raise UserError(
            f"{name}: its images have many sizes ({features['image'].shape}), and mcjax needs "
            "one; choose a set with one size, or resize them and give npz:FILE"
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
    """The first line of what TFDS says, which can be pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
