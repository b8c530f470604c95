"""Reads and writes the archives of `torch.export.save`, without PyTorch and without unpickling.

A .pt2 file is an uncompressed zip archive. The graph and the shapes of the weights are JSON, the
weights are raw bytes. `torch.export.load` also unpickles the example inputs, and evaluates the
expressions of dynamic shapes; mcjax reads neither. Weights that are pickles (the layout of PyTorch
2.6 and 2.7, and tensor subclasses) are read by PyTorch's restricted reader, as those of .pt files.

    models/NAME.json                        the program
    data/weights/NAME_weights_config.json   dtype, shape and strides of each weight, and its record
    data/weights/weight_0                   a record: the raw bytes of one storage
    data/constants/...                      the same, for constants
    data/sample_inputs/NAME.pt              a pickle, never read

Source: torch/export/pt2_archive/_package.py and torch/_export/serde/schema.py of PyTorch 2.13.
"""

import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from mcjax.core.errors import UserError, shown
from mcjax.core.files import cannot_write
from mcjax.interop import files

SUFFIX = ".pt2"
SCHEMA = 8
"""The major version of the schema that is read here (PyTorch 2.5 to 2.13)."""
LARGEST_JSON = 2**28
"""Maximum bytes of a JSON record."""
LARGEST_EXPANDED = 2**26
"""Bytes by which all tensors together may be larger than their records: expanded tensors."""

_DTYPES: dict[int, Any] = {
    1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 6: np.float16, 7: np.float32,
    8: np.float64, 12: np.bool_, 13: ml_dtypes.bfloat16, 28: np.uint16, 34: np.uint32, 35: np.uint64,
}  # fmt: skip
_OLD = ("serialized_state_dict.pt", "serialized_constants.pt")
_EXPRESSION = re.compile(r"""(?: Symbol\('\w+' (?:,\ \w+=(?:True|False))* \)
    | (?:Integer|FloorDiv|Mod|Max|Min|Add|Mul|Pow|CeilToInt|IntTrueDiv|PythonMod|CleanDiv) (?=\()
    | \d+ | [-+*/(),\s] )*""", re.X)  # fmt: skip


class View(NamedTuple):
    """Where a tensor lies in its record.

    Args:
        record: The record's full name.
        dtype: Type of its elements.
        shape: The tensor's shape.
        strides: Distances of its elements, in elements.
        offset: Index of its first element.
    """

    record: str
    dtype: Any
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


class Archive(NamedTuple):
    """The contents of a .pt2 file.

    Args:
        path: The file.
        program: The program's JSON.
        tensors: Parameters and buffers by name, as numpy arrays.
        constants: Other tensors of the program by name.
        views: Where each of `tensors` is stored; empty in the old layout.
        version: The version of PyTorch that wrote it, or "".
    """

    path: Path
    program: dict[str, Any]
    tensors: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]
    views: dict[str, View]
    version: str


def read(path: Path) -> Archive:
    """Reads an archive; nothing in it is executed.

    Args:
        path: A file written by `torch.export.save`.

    Returns:
        Its contents.

    Raises:
        UserError: The file does not exist, is damaged, is not an exported program or is that of a
            newer PyTorch, holds Python objects, or its tensors do not fit their records.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a .pt2 file of torch.export.save")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_records(path, archive)
            names = [info.filename for info in archive.infolist()]
            if "serialized_exported_program.json" in names:
                return _read_old(path, archive)
            return _read(path, archive, names)
    except UserError:
        raise
    # RuntimeError: encrypted; RecursionError: nested JSON; the others: JSON of another form.
    except (
        OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, ValueError,
        KeyError, IndexError, TypeError, AttributeError, OverflowError, MemoryError,
    ) as error:  # fmt: skip
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> UserError:
    """The message about an archive that does not have the form it should have."""
    reason = " ".join(f"{type(error).__name__} {error}".split())[:120]
    return UserError(
        f"{path} can't be read ({reason}); it is damaged, or not a file of torch.export.save"
    )


def _check_records(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuses compressed records, which could be of any size, and records of doubtful size."""
    total = 0
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED:
            raise UserError(
                f"{path}: {shown(info.filename)} is compressed; write the file with torch.export.save"
            )
        total += info.file_size
    if total > path.stat().st_size:
        raise ValueError("its records are larger than the file")


def _read(path: Path, archive: zipfile.ZipFile, names: list[str]) -> Archive:
    root = names[0].split("/")[0] + "/" if names else ""
    programs = [n for n in names if re.fullmatch(re.escape(root) + r"models/[^/]+\.json", n)]
    if len(programs) != 1:
        kind = "a compiled program (AOTInductor)" if any("aotinductor" in n for n in names) else ""
        found = kind or (f"{len(programs)} programs" if programs else "no exported program")
        raise UserError(
            f"{path} holds {found}; give a file of torch.export.save with one program (a state dict "
            "is a .pt file)"
        )
    if root + "byteorder" in names and archive.read(root + "byteorder").strip() != b"little":
        raise UserError(f"{path} was written on a big-endian machine; export it on another")
    program = _json(archive, programs[0])
    check_program(path, program)
    model = programs[0].removeprefix(root + "models/").removesuffix(".json")
    parts: dict[str, Any] = {}
    for part in ("weights", "constants"):
        folder = f"{root}data/{part}/"
        if f"{folder}{model}.pt" in names:  # PyTorch 2.8
            parts[part] = (_pickled(path, archive, f"{folder}{model}.pt"), {})
        else:
            parts[part] = _payload(path, archive, folder, f"{model}_{part}_config.json")
    (tensors, views), (constants, _) = parts["weights"], parts["constants"]
    return Archive(path, program, tensors, constants, views, _version(program))


def _read_old(path: Path, archive: zipfile.ZipFile) -> Archive:
    """The layout of PyTorch 2.6 and 2.7: everything at the top level, weights as pickles."""
    program = _json(archive, "serialized_exported_program.json")
    check_program(path, program)
    tensors, constants = (_pickled(path, archive, name) for name in _OLD)
    return Archive(path, program, tensors, constants, {}, _version(program))


def _version(program: Mapping[str, Any]) -> str:
    version = program.get("torch_version")
    return version if isinstance(version, str) and re.fullmatch(r"[\w.+-]{1,40}", version) else ""


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > LARGEST_JSON:
        raise ValueError(f"{name} is larger than {LARGEST_JSON >> 20} MiB")
    return json.loads(archive.read(name))


def check_program(path: Path, program: Any) -> None:
    """Checks a program's version, and that its expressions are only arithmetic.

    `torch.export.load` evaluates the expressions, so a repaired file must not have others.
    """
    major = program["schema_version"]["major"]
    if not isinstance(major, int) or major > SCHEMA:
        raise UserError(
            f"{path} was written by PyTorch {_version(program) or '(unknown)'} in schema version "
            f"{shown(major)}, but mcjax reads versions up to {SCHEMA}; export it with an older "
            "PyTorch, or update mcjax"
        )
    if major < SCHEMA:
        raise UserError(
            f"{path} was written by an old PyTorch (schema version {major}, before 2.5); export it again"
        )
    pending = [program]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            text = one.get("expr_str", "")
            if not isinstance(text, str) or not _EXPRESSION.fullmatch(text):
                raise UserError(
                    f"{path}: {shown(text)} is not arithmetic; export the program again"
                )
            pending.extend(one.values())
        elif isinstance(one, list):
            pending.extend(one)


def _payload(
    path: Path, archive: zipfile.ZipFile, folder: str, config: str
) -> tuple[dict[str, np.ndarray], dict[str, View]]:
    views, pickled = {}, {}
    for name, about in _json(archive, folder + config)["config"].items():
        record = folder + about["path_name"]
        if about["use_pickle"] or about["tensor_meta"] is None:
            if about["tensor_meta"] is None:
                raise UserError(
                    f"{path}: {shown(name)} is a Python object, which could run a program when it is "
                    "read; export a module whose constants are tensors"
                )
            pickled[name] = _pickled_tensor(path, archive, record)
            continue
        views[name] = _view(path, name, record, about["tensor_meta"])
    _check_sizes(archive, views)
    storages: dict[str, bytes] = {}
    tensors = {}
    for name, view in views.items():
        if view.record not in storages:
            storages[view.record] = archive.read(view.record)
        tensors[name] = np.array(strided(storages[view.record], view))
    return {**tensors, **pickled}, views


def _view(path: Path, name: str, record: str, meta: Mapping[str, Any]) -> View:
    if meta["dtype"] not in _DTYPES or meta["layout"] != 7:
        raise UserError(
            f"{path}: {shown(name)} is complex, quantised or sparse; export plain float32 tensors"
        )
    shape, strides = (tuple(int(n["as_int"]) for n in meta[k]) for k in ("sizes", "strides"))
    offset = int(meta["storage_offset"]["as_int"])
    if len(shape) != len(strides) or min((*shape, *strides, offset)) < 0:
        raise ValueError(f"{name} has shape {shape} and strides {strides}")
    return View(record, np.dtype(_DTYPES[meta["dtype"]]), shape, strides, offset)


def _check_sizes(archive: zipfile.ZipFile, views: Mapping[str, View]) -> None:
    """Checks, before anything is read, that each tensor lies inside its record."""
    size = {view.record: archive.getinfo(view.record).file_size for view in views.values()}
    total = 0
    for name, view in views.items():
        number = math.prod(view.shape)
        last = sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
        needed = (view.offset + last + 1) * view.dtype.itemsize if number else 0
        if needed > size[view.record]:
            raise ValueError(f"{name} needs {needed} bytes, its record has {size[view.record]}")
        total += number * view.dtype.itemsize
    if total > 2 * sum(size.values()) + LARGEST_EXPANDED:
        raise ValueError(f"its tensors take {total} bytes, its records {sum(size.values())}")


def strided(storage: bytes | bytearray, view: View) -> np.ndarray:
    """The tensor inside its storage; writable if the storage is a bytearray."""
    flat = np.frombuffer(storage, view.dtype, len(storage) // view.dtype.itemsize)
    if not math.prod(view.shape):
        return np.zeros(view.shape, view.dtype)
    steps = tuple(s * view.dtype.itemsize for s in view.strides)
    return np.lib.stride_tricks.as_strided(
        flat[view.offset :], view.shape, steps, writeable=isinstance(storage, bytearray)
    )


def _pickled(path: Path, archive: zipfile.ZipFile, name: str) -> dict[str, np.ndarray]:
    """A pickled state dict, read by PyTorch's restricted reader."""
    held = files.read_pickle(path, io.BytesIO(archive.read(name)))
    if not isinstance(held, Mapping) or not all(isinstance(key, str) for key in held):
        raise UserError(f"{path}: {name} holds no state dict; export the program again")
    return files.arrays(path, held)


def _pickled_tensor(path: Path, archive: zipfile.ZipFile, record: str) -> np.ndarray:
    held = files.read_pickle(path, io.BytesIO(archive.read(record)))
    return files.arrays(path, {record: held})[record]


def write(path: Path, like: Archive, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes an archive with other weights; `torch.export.load` reads it.

    Everything that `torch.export.load` would unpickle or evaluate is left out: the example inputs
    and the code of guards. Tied weights stay tied.

    Args:
        path: A new file.
        like: The archive that the program was read from; its file must still be there.
        tensors: New values of some of its tensors, by name, of the same shapes.

    Raises:
        UserError: A tensor's name or shape is not the archive's; the file can't be written, or the
            old layout needs PyTorch.
    """
    for name, w in tensors.items():
        if name not in like.tensors or like.tensors[name].shape != np.shape(w):
            raise UserError(
                f"{like.path} has no tensor {name} of shape {np.shape(w)}; give its own network's weights"
            )
    try:
        with zipfile.ZipFile(like.path) as old, zipfile.ZipFile(path, "w") as new:
            replaced = _records(old, like, tensors)
            for info in old.infolist():
                name = info.filename
                data = replaced[name] if name in replaced else old.read(name)
                if re.search(r"(^|/)sample_inputs/.*\.pt$", name):
                    data = b""
                elif name == "serialized_example_inputs.pt":  # which may not be empty
                    zeros = np.zeros(_example_shape(like.program), np.float32)
                    data = files.pickled(path, ((zeros,), {}))
                elif re.search(r"(^|/)models/[^/]+\.json$|^serialized_exported_program", name):
                    data = json.dumps({**json.loads(data), "guards_code": []}).encode()
                new.writestr(zipfile.ZipInfo(name), data)
    except (OSError, zipfile.BadZipFile) as error:
        raise cannot_write(path, str(error).splitlines()[0]) from None


def _records(
    old: zipfile.ZipFile, like: Archive, tensors: Mapping[str, np.ndarray]
) -> dict[str, bytes]:
    """The records that change."""
    storages: dict[str, bytearray] = {}
    for name, w in tensors.items():
        if name not in like.views:
            continue
        view = like.views[name]
        storage = storages.setdefault(view.record, bytearray(old.read(view.record)))
        if math.prod(view.shape):
            strided(storage, view)[...] = w
    found = {name: bytes(storage) for name, storage in storages.items()}
    if set(tensors) - set(like.views):
        whole = {**like.tensors, **tensors}
        for info in old.infolist():
            if re.search(r"(^|/)(data/weights/[^/]+|serialized_state_dict)\.pt$", info.filename):
                found[info.filename] = files.pickled(like.path, whole, _parameters(like.program))
    return found


def _parameters(program: Mapping[str, Any]) -> set[str]:
    """Names of the tensors that are parameters and not buffers."""
    specs = program["graph_module"]["signature"]["input_specs"]
    return {spec["parameter"]["parameter_name"] for spec in specs if "parameter" in spec}


def _example_shape(program: Mapping[str, Any]) -> list[int]:
    held = program["graph_module"]
    (spec,) = (s for s in held["signature"]["input_specs"] if "user_input" in s)
    meta = held["graph"]["tensor_values"][spec["user_input"]["arg"]["as_tensor"]["name"]]
    return [n["as_int"] if "as_int" in n else n["as_expr"]["hint"]["as_int"] for n in meta["sizes"]]
