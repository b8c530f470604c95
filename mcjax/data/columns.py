"""Images and labels of pyarrow tables as Hugging Face writes them; Parquet and Arrow files share it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mcjax.core.errors import UserError, listed
from mcjax.data.pictures import Labelled, Reading, decode_all, labels_of

IMAGE, LABEL = ("image", "img"), ("label", "labels", "fine_label")
"""Names of the columns; the first that a table has is taken."""


def columns_of(where: str, names: list[str]) -> tuple[str, str]:
    """The names of a table's image and label columns.

    Raises:
        UserError: It lacks one; the message lists the columns.
    """
    chosen = []
    for what in (IMAGE, LABEL):
        found = [name for name in what if name in names]
        if not found:
            raise UserError(
                f"{where} has no column {what[0]} (it has {listed(names, 8) or 'none'}); rename the "
                f"column to {what[0]}"
            )
        chosen.append(found[0])
    return chosen[0], chosen[1]


def read_table(where: str, table: Any, class_names: tuple[str, ...], how: Reading) -> Labelled:
    """Decodes a pyarrow table.

    Args:
        where: Name of the data set in messages.
        table: Columns of images (bytes, or structs with `bytes`) and labels (integers or names).
        class_names: Names of the classes if recorded.
        how: Size, channels and progress.

    Returns:
        The images, in the table's order.

    Raises:
        UserError: A column is missing or has another type, or an image can't be read.
    """
    image, label = columns_of(where, table.column_names)
    values = table[label].to_pylist()
    labels, names = labels_of(where, values)
    encoded = decode_all(where, _images(where, table[image]), table.num_rows, how)
    return Labelled({"image": encoded, "label": labels}, names or class_names)


def _images(where: str, column: Any) -> Iterator[tuple[str, Any]]:
    """(name, bytes) per row, converted one at a time."""
    for i, cell in enumerate(column):
        value = cell.as_py()
        path = value.get("path") if isinstance(value, Mapping) else None
        data = value.get("bytes") if isinstance(value, Mapping) else value
        if isinstance(data, bytes):
            yield f"row {i}" + (f", {path}" if path else ""), data
        elif data is None:
            yield f"row {i}" + (f", {path}" if path else ""), b""
        else:
            raise UserError(
                f"{where}: image has type {column.type}; give the bytes of image files, or an .npz "
                "file of pixels"
            )


def class_names_of(info: Any, label: str) -> tuple[str, ...]:
    """Names of the classes in the features that Hugging Face records; () if there are none.

    Example:
        >>> info = {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}
        >>> class_names_of(info, "label")
        ('cat', 'dog')
    """
    for key in ("features", label, "names"):
        info = info.get(key) if isinstance(info, Mapping) else None
    known = isinstance(info, list) and all(isinstance(name, str) for name in info)
    return tuple(info) if known and info is not None else ()


def recorded_info(metadata: Mapping[bytes, bytes] | None) -> Any:
    """What Hugging Face records in a schema's metadata; {} if there is nothing."""
    try:
        return json.loads((metadata or {}).get(b"huggingface", b"{}")).get("info", {})
    except (ValueError, AttributeError):
        return {}
