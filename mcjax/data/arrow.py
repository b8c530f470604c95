"""Data sets that Hugging Face's `save_to_disk` wrote: a folder with Arrow files, and its state as JSON."""

import json
from pathlib import Path
from typing import Any

from mcjax.core.errors import UserError, listed, shown
from mcjax.core.extras import need
from mcjax.data.columns import class_names_of, columns_of, read_table, recorded_info
from mcjax.data.pictures import Labelled, Reading

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"


def fits(path: Path) -> bool:
    """Whether a path can be read: an .arrow file, or a folder that `save_to_disk` wrote."""
    known = (path / name for name in (STATE, INFO, SPLITS))
    return path.suffix == ".arrow" or (path.is_dir() and any(file.is_file() for file in known))


def read(path: Path, how: Reading) -> Labelled:
    """Reads a data set without the package `datasets`.

    Args:
        path: The folder, or one .arrow file. Of several splits, the folder of one.
        how: Size, channels and progress.

    Returns:
        The images in the data set's order, and class names if it records them.

    Raises:
        UserError: Files are missing or damaged, there are several splits, or no `image` and `label`.
    """
    need("pyarrow", "images", f"{path}: reading Arrow files")
    import pyarrow as pa

    if (path / SPLITS).is_file():
        splits = _json(path / SPLITS).get("splits", [])
        if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
            raise UserError(f"{path / SPLITS} is damaged; save the data set again")
        if len(splits) != 1:
            options = [str(path / name) for name in splits]
            raise UserError(f"{path} holds several splits; give one of {listed(options)}")
        path = path / splits[0]
    files = _files(path)
    tables = [_table(file) for file in files]
    try:
        table = pa.concat_tables(tables, promote_options="default")
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: its files have different columns ({reason})") from None
    label = columns_of(str(path), table.column_names)[1]
    names = class_names_of(recorded_info(table.schema.metadata), label)
    if path.is_dir() and (path / INFO).is_file():
        names = names or class_names_of(_json(path / INFO), label)
    return read_table(str(path), table, names, how)


def _files(path: Path) -> list[Path]:
    """The data set's files, in order: those of its state, or all."""
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.arrow"))
    if (path / STATE).is_file():
        state = _json(path / STATE)
        try:
            names = [str(entry["filename"]) for entry in state["_data_files"]]
        except (KeyError, TypeError):
            raise UserError(f"{path / STATE} is damaged; save the data set again") from None
        if state.get("_indices_data_files"):
            raise UserError(
                f"{path} is a selection of rows in an old format; save it again with a newer datasets"
            )
        files = [path / Path(name).name for name in names]  # nothing outside the folder
    if not files:
        raise UserError(f"{path} has no .arrow files; give a folder that save_to_disk wrote")
    return files


def _table(file: Path) -> Any:
    """The table of a file, as a stream (`save_to_disk`) or as a file with an index."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as source:
            try:
                return pa.ipc.open_stream(source).read_all()
            except pa.ArrowInvalid:
                source.seek(0)
                return pa.ipc.open_file(source).read_all()
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; give an existing data set") from None
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: not a readable Arrow file ({reason}); save it again") from None


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read ({shown(error)}); save the data set again") from None
    if not isinstance(found, dict):
        raise UserError(f"{file} is damaged; save the data set again")
    return found
