"""SVHN (cropped digits), from the published MATLAB files."""

import io

import numpy as np

from mcjax.data.originals import Original, Part


def parse_mat(data: bytes) -> Part:
    """Reads one .mat file of cropped digits.

    Args:
        data: File contents: `X`, uint8 [32, 32, 3, N], and `y`, [N, 1], where 10 is digit 0.

    Returns:
        {"image": uint8 [N, 32, 32, 3], "label": int32 [N]}.

    Raises:
        Exception: Of any kind, if the contents are not as expected.
    """
    from scipy.io import loadmat  # slow to import

    arrays = loadmat(io.BytesIO(data))
    image, label = arrays["X"], arrays["y"].reshape(-1).astype(np.int32)
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[3] != len(label):
        raise ValueError(f"X {image.dtype}{list(image.shape)} does not go with {len(label)} labels")
    if label.min() < 1 or label.max() > 10:
        raise ValueError(f"labels from {label.min()} to {label.max()} where 1 to 10 are expected")
    return {"image": np.ascontiguousarray(image.transpose(3, 0, 1, 2)), "label": label % 10}


# MD5 as torchvision publishes them. Without the 531,131 "extra" images, as in TFDS.
SVHN_CROPPED = Original(
    name="svhn_cropped",
    image_shape=(32, 32, 3),
    num_classes=10,
    train=("train_32x32.mat",),
    test=("test_32x32.mat",),
    md5={
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
    parse=lambda contents: parse_mat(*contents),
    advice="train_32x32.mat and test_32x32.mat of SVHN (format 2) into the data directory",
    cached=True,
)
