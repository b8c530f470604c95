"""Image files in the forms that people have: folders, Parquet, Arrow as `datasets` writes it."""

import io
import json

import numpy as np
from PIL import Image

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
GREYS = COLOURS[..., :1]
LABELS = [2, 0, 1, 2, 0, 1]
NAMES = ["cat", "dog", "eel"]


def picture(pixels):
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def encoded(pixels, form="PNG"):
    buffer = io.BytesIO()
    picture(pixels).save(buffer, form)
    return buffer.getvalue()


def table(images=COLOURS, labels=LABELS, *, image="image", label="label", plain=False):
    """As `datasets` writes it: structs of bytes and path; or plain bytes."""
    import pyarrow as pa

    cells = [encoded(x) for x in images]
    if not plain:
        cells = [{"bytes": b, "path": f"{i}.png"} for i, b in enumerate(cells)]
    found = pa.table({image: cells, label: labels})
    names = {"features": {label: {"names": NAMES, "_type": "ClassLabel"}}}
    return found.replace_schema_metadata({"huggingface": json.dumps({"info": names})})
