"""The handwritten 8 x 8 digits of scikit-learn: real data without a download."""

import numpy as np

from mcjax.data.dataset import Dataset
from mcjax.data.stratify import holdout

NUM_TEST = 500
_SPLIT_SEED = 0  # part of the data set's definition, not an experiment's seed


def load() -> Dataset:
    """Loads scikit-learn's digits: 1,297 training and 500 test images [8, 8, 1].

    There is no official test set; mcjax uses a fixed split, stratified by class, the same on every
    machine. Pixels, 0 to 16 in the original, are scaled to float32 in [0, 1].

    Returns:
        The data set, 10 classes.

    Example:
        >>> load().train["image"].shape
        (1297, 8, 8, 1)

    Source:
        Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (its test set).
    """
    from sklearn.datasets import load_digits  # slow to import

    image, label = load_digits(return_X_y=True)
    image = (image.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    label = label.astype(np.int32)
    train, test = holdout(label, num_test=NUM_TEST, seed=_SPLIT_SEED)
    return Dataset(
        name="digits",
        train={"image": image[train], "label": label[train]},
        test={"image": image[test], "label": label[test]},
        num_classes=10,
        source=f"scikit-learn load_digits, fixed stratified split {len(train)}/{len(test)}",
    )
