"""Parquet files with the bytes of images, as on the Hugging Face Hub: columns `image` and `label`."""

import re
from pathlib import Path
from typing import Any

from mcjax.core.errors import UserError, listed
from mcjax.core.extras import need
from mcjax.data.columns import class_names_of, columns_of, read_table, recorded_info
from mcjax.data.pictures import Labelled, Reading

SHARD = re.compile(r"-\d+-of-\d+$")


def fits(path: Path) -> bool:
    """Whether a path can be read: a .parquet file, a pattern like train-*.parquet, or a folder of files."""
    return path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet")))


def read(path: Path, how: Reading) -> Labelled:
    """Reads Parquet files.

    Args:
        path: A file, a pattern of files, or a folder of the files of one split.
        how: Size, channels and progress.

    Returns:
        The images of the files in sorted order, and class names if the files record them.

    Raises:
        UserError: Files are missing, damaged or of several splits, or have no `image` and `label`.
    """
    files = _files(path)
    splits = sorted({SHARD.sub("", file.stem) for file in files})
    if len(splits) > 1 and any(SHARD.search(file.stem) for file in files):
        options = [str(files[0].parent / f"{split}-*.parquet") for split in splits]
        raise UserError(f"{path} holds several splits; give one of {listed(options)}")
    need("pyarrow.parquet", "images", f"{path}: reading Parquet files")
    import pyarrow as pa

    tables = [_table(file) for file in files]
    try:
        table = pa.concat_tables([table for table, _ in tables], promote_options="default")
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: its files have different columns ({reason}); give them one by one"
        ) from None
    return read_table(str(path), table, tables[0][1], how)


def _files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    files = files or sorted(path.parent.glob(path.name))
    if not files:
        raise UserError(f"{path}: no such file; give a .parquet file, or a folder of them")
    return files


def _table(file: Path) -> tuple[Any, tuple[str, ...]]:
    """The two columns of a file, and the names of its classes."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(file)
        columns = columns_of(str(file), schema.names)
        table = parquet.read_table(file, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: not a readable Parquet file ({reason}); give another") from None
    return table, class_names_of(recorded_info(schema.metadata), columns[1])
