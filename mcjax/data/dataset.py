"""An image-classification data set in memory."""

import dataclasses

import numpy as np

from mcjax.core.errors import UserError


@dataclasses.dataclass(frozen=True, repr=False)
class Dataset:
    """The official training and test sets of a data set, as NumPy arrays.

    Args:
        name: The name it was loaded by.
        train: {"image": uint8, or float32 in [0, 1], [N, H, W, C]; "label": int32 [N]}.
        test: The test set, with the same H, W, C and image dtype.
        num_classes: Number of classes; labels are 0 ... num_classes - 1.
        source: One line: where it was loaded from and how it was verified.

    Raises:
        UserError: An array's rank, dtype, length or range is not as above.

    Example:
        >>> import numpy as np
        >>> image, label = np.zeros((3, 8, 8, 1), np.uint8), np.arange(3, dtype=np.int32)
        >>> part = {"image": image, "label": label}
        >>> Dataset("tiny", train=part, test=part, num_classes=3, source="by hand")
        Dataset(tiny: 3 training and 3 test images of 8x8x1, 3 classes)
    """

    name: str
    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    num_classes: int
    source: str

    def __post_init__(self):
        for part in ("train", "test"):
            _check_part(f"data set {self.name!r}, {part}", getattr(self, part), self.num_classes)
        train, test = self.train["image"], self.test["image"]
        if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
            raise UserError(
                f"data set {self.name!r}: train images are {train.dtype}{list(train.shape[1:])} "
                f"but test images {test.dtype}{list(test.shape[1:])}; "
                "give both the same shape and dtype"
            )

    def __repr__(self) -> str:
        """The sizes in one line, not the arrays."""
        shape = "x".join(map(str, self.image_shape))
        return (
            f"Dataset({self.name}: {len(self.train['label'])} training and "
            f"{len(self.test['label'])} test images of {shape}, {self.num_classes} classes)"
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        height, width, channels = self.train["image"].shape[1:]
        return height, width, channels


def check_channels_last(where: str, shape: tuple[int, ...]) -> None:
    """Checks that images are not in PyTorch's layout, [N, C, H, W].

    Images count as such if they are 3 pixels high with more than 4 channels, or 1 pixel high with
    more than 4 channels and as many columns.

    Args:
        where: Their name in the message.
        shape: Shape of the images, [N, H, W, C].

    Raises:
        UserError: The images look like [N, C, H, W].

    Example:
        >>> check_channels_last("images", (10, 3, 32, 32))
        Traceback (most recent call last):
        mcjax.core.errors.UserError: images have shape [10, 3, 32, 32], ...
    """
    _, height, width, channels = shape
    if channels > 4 and width > 4 and (height == 3 or (height == 1 and width == channels)):
        raise UserError(
            f"{where} have shape {list(shape)}, which looks like PyTorch's layout [N, C, H, W]; give "
            "[N, H, W, C]: np.moveaxis(image, 1, -1)"
        )


def _check_part(where: str, part: dict[str, np.ndarray], num_classes: int) -> None:
    if set(part) != {"image", "label"}:
        raise UserError(f"{where}: keys are {sorted(part)}; give exactly 'image' and 'label'")
    image, label = part["image"], part["label"]
    if image.ndim != 4 or 0 in image.shape:
        raise UserError(
            f"{where}: images have shape {image.shape}; give [N, H, W, C], without empty axes"
        )
    check_channels_last(f"{where}: images", image.shape)
    if image.dtype not in (np.uint8, np.float32):
        raise UserError(f"{where}: images are {image.dtype}; give uint8, or float32 in [0, 1]")
    if label.shape != image.shape[:1] or label.dtype != np.int32:
        raise UserError(
            f"{where}: labels are {label.dtype}{list(label.shape)} for {len(image)} images; "
            f"give int32[{len(image)}]"
        )
    if image.dtype == np.float32:
        # NaN fails too.
        low, high = image.min(), image.max()
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"{where}: images lie in [{low}, {high}]; scale them to [0, 1], without NaN or inf"
            )
    if label.min() < 0 or label.max() >= num_classes:
        raise UserError(
            f"{where}: labels lie in [{label.min()}, {label.max()}]; "
            f"with {num_classes} classes give 0 to {num_classes - 1}"
        )
