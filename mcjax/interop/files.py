"""Reads and writes state dicts: .safetensors without PyTorch, .pt without executing its code.

A .pt file is a pickle, which can execute arbitrary code when it is read. It is therefore read by
PyTorch's restricted unpickler (`weights_only=True`), which only allows tensors and plain Python
values; numpy arrays are allowed too, because BackdoorBench stores indices in them.
"""

import importlib
import io
import pickle
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from mcjax.core.errors import UserError, shown
from mcjax.core.files import cannot_write
from mcjax.interop.rows import is_counter

SAFETENSORS = ".safetensors"
SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".tar", SAFETENSORS)
PREFIXES = ("module.", "_orig_mod.")
AVERAGED = ("n_averaged",)  # from torch.optim.swa_utils.AveragedModel
DEEPEST = 8  # nested keys around a state dict
LONGEST_NAME = 500  # characters
LARGEST_EXPANDED = 2**26  # bytes of repeated values in all tensors of a file
WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model", "net", "network", "weights")
"""Keys under which checkpoints store their state dict, in search order."""


class StateDict(NamedTuple):
    """The contents of a file.

    Attributes:
        tensors: The arrays, by name without `prefix`; floating-point arrays are float32.
        keys: The keys of the state dict in the file: () at the top level, ("model_state",), ...
        prefix: Common prefix of the names, such as "module." of DataParallel.
        beside: Plain values stored with the state dict: an epoch, a model's name.
        counts: Tensors without the prefix: "n_averaged" of an averaged model.
        normalise: The normalisation of images recorded in the file, or "".
        notes: Sentences for the user about changes made in reading.
    """

    tensors: dict[str, np.ndarray]
    keys: tuple[str, ...] = ()
    prefix: str = ""
    beside: Mapping[str, Any] = {}
    notes: tuple[str, ...] = ()
    counts: Mapping[str, np.ndarray] = {}
    normalise: str = ""


def is_file_of_tensors(path: Path) -> bool:
    """Whether a path names a file of tensors and not an mcjax checkpoint folder."""
    return path.suffix in SUFFIXES and not path.is_dir()


def read_state_dict(path: Path) -> StateDict:
    """Reads a state dict.

    It may be stored under a key (`WRAPPERS`), its names may start with "module." and "_orig_mod." in
    any order, and half or double precision is converted to float32, with a note.

    Args:
        path: A .safetensors file, or a file written by torch.save.

    Returns:
        The contents.

    Raises:
        UserError: The file does not exist, is damaged, contains objects other than tensors and plain
            values, or has no state dict; or PyTorch is needed and not installed.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a file with a state dict")
    held = _read_safetensors(path) if path.suffix == SAFETENSORS else read_pickle(path)
    keys: tuple[str, ...] = ()
    beside: dict[str, Any] = {}
    for _ in range(DEEPEST):  # bounded, because a dict can contain itself
        if not isinstance(held, Mapping) or _is_state_dict(held):
            break
        key = next((k for k in WRAPPERS if isinstance(held.get(k), Mapping)), None)
        if key is None:
            break
        if not keys:
            plain = (str, int, float, bool)
            beside = {k: v for k, v in held.items() if isinstance(k, str) and type(v) in plain}
        held, keys = held[key], (*keys, key)
    if not isinstance(held, Mapping) or not _is_state_dict(held):
        found = f"keys {', '.join(map(_word, list(held)[:6]))}" if isinstance(held, Mapping) else ""
        raise UserError(
            f"{path} holds no state dict ({found or type(held).__name__}); save model.state_dict()"
        )
    for name in held:
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise UserError(
                f"{path}: a tensor's name is {shown(name)}; it must be at most {LONGEST_NAME} "
                "printable characters; rename it"
            )
    tensors, notes = _floats(arrays(path, held))
    counts = {n: tensors.pop(n) for n in AVERAGED if _is_count(tensors.get(n)) and len(tensors) > 1}
    if counts:
        notes = (*notes, f"it is an average of {int(counts['n_averaged'])} networks")
    prefix = _prefix(tensors)
    tensors = {name.removeprefix(prefix): w for name, w in tensors.items()}
    normalise = _metadata(path).get("normalise", "") if path.suffix == SAFETENSORS else ""
    return StateDict(tensors, keys, prefix, beside, notes, counts, normalise)


def _word(key: Any) -> str:
    return key if isinstance(key, str) and key.isprintable() and len(key) <= 80 else shown(key)


def _is_count(w: np.ndarray | None) -> bool:
    return w is not None and w.shape == () and w.dtype.kind in "iu" and int(w) >= 0


def _prefix(names: Iterable[str]) -> str:
    """The common prefix from wrappers (DataParallel, torch.compile), which may be nested."""
    names, prefix = list(names), ""
    while True:
        more = next((b for b in PREFIXES if all(n.startswith(prefix + b) for n in names)), "")
        if not more:
            return prefix
        prefix += more


def write_state_dict(path: Path, state: StateDict) -> None:
    """Writes a state dict so that the program that wrote the original file can read it.

    Names, prefix, keys and plain values are kept; optimizer states and data are not. A .safetensors
    file has only names and tensors, so keys and plain values are dropped.

    Args:
        path: A new file; its suffix sets the format.
        state: The state dict.

    Raises:
        UserError: The file can't be written, or PyTorch is needed and not installed.
    """
    tensors = {state.prefix + name: _whole(w) for name, w in state.tensors.items()}
    tensors = {**{name: _whole(w) for name, w in state.counts.items()}, **tensors}
    try:
        if path.suffix == SAFETENSORS:
            metadata = {"format": "pt", "normalise": state.normalise}
            kept = {name: text for name, text in metadata.items() if text}
            # `save_file` would make a file that only its owner can read.
            path.write_bytes(safetensors.numpy.save(tensors, metadata=kept))
            return
        torch = _torch(path)
        held: dict[str, Any] = {name: torch.from_numpy(w.copy()) for name, w in tensors.items()}
        for i, key in reversed(list(enumerate(state.keys))):
            held = {**(state.beside if i == 0 else {}), key: held}
        torch.save(held, path)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise cannot_write(path, str(error).splitlines()[0]) from None


def _whole(w: np.ndarray) -> np.ndarray:
    return np.array(w, order="C", copy=None)  # ascontiguousarray would make a scalar a vector


def _is_state_dict(held: Mapping[Any, Any]) -> bool:
    return bool(held) and all(isinstance(name, str) and _is_array(w) for name, w in held.items())


def _is_array(w: Any) -> bool:
    return all(hasattr(type(w), name) for name in ("dtype", "shape"))  # a nested one's shape raises


def _floats(tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Converts floating-point tensors to float32; also returns notes about it."""
    kinds = sorted({str(w.dtype) for w in tensors.values() if _is_floating(w)} - {"float32"})
    notes = (f"its tensors are {' and '.join(kinds)}; mcjax computes in float32",) if kinds else ()
    with np.errstate(over="ignore"):
        return {
            n: w.astype(np.float32) if _is_floating(w) else w for n, w in tensors.items()
        }, notes


def _is_floating(w: np.ndarray) -> bool:
    return np.issubdtype(w.dtype, np.floating) or w.dtype == ml_dtypes.bfloat16


def arrays(path: Path, held: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a state dict as numpy arrays.

    Raises:
        UserError: One is not a plain tensor of numbers.
    """
    of_numpy = {n: np.asarray(w) for n, w in held.items() if isinstance(w, np.ndarray | np.generic)}
    for name, array in of_numpy.items():
        _check_real(path, name, array)
    tensors = {name: w for name, w in held.items() if name not in of_numpy}
    for name, tensor in tensors.items():
        _check_plain(path, name, tensor)
    _check_repeated(path, tensors)
    return {
        name: of_numpy[name] if name in of_numpy else _array(path, name, w)
        for name, w in held.items()
    }


def _check_real(path: Path, name: str, array: np.ndarray) -> None:
    """Rejects text, dates, records and complex numbers; integers and bools may be buffers."""
    if _is_floating(array) or array.dtype.kind in "iub":
        return
    kinds = {"U": "text", "S": "bytes", "V": "a record"}
    raise UserError(
        f"{path}: {name} is {kinds.get(array.dtype.kind, array.dtype)}; save it as float32, or "
        "remove it from the state dict"
    )


def _check_plain(path: Path, name: str, tensor: Any) -> None:
    """Rejects PyTorch tensors that are not plain arrays."""
    unfit = {
        "nested": tensor.is_nested,
        "sparse": tensor.layout != _torch(path).strided,
        "quantised": tensor.is_quantized,
        "complex": tensor.is_complex(),
    }
    kind = next((kind for kind, is_it in unfit.items() if is_it), None)
    if kind:
        raise UserError(f"{path}: {name} is {kind}; save it as a plain float32 tensor")
    if tensor.is_meta:
        raise UserError(f"{path}: {name} has no data (device meta); save real tensors")


def _check_repeated(path: Path, tensors: Mapping[str, Any]) -> None:
    """Rejects small files with large tensors, which would all be copied.

    An expanded tensor repeats few values, and many names can share one tensor. Two names per tensor
    are common.
    """
    places = {name: w.untyped_storage().data_ptr() for name, w in tensors.items()}
    stored = {places[name]: w.untyped_storage().nbytes() for name, w in tensors.items()}
    needed = dict.fromkeys(stored, 0)
    for name, w in tensors.items():
        needed[places[name]] += w.numel() * w.element_size()
    read, held = sum(needed.values()), sum(stored.values())
    if read > 2 * held + LARGEST_EXPANDED:
        worst = max(stored, key=lambda place: needed[place] - stored[place])
        name = next(name for name, place in places.items() if place == worst)
        raise UserError(
            f"{path}: {name} repeats few values (the tensors take {read / 2**30:.3g} GiB, the file "
            f"{held / 2**30:.3g}); save w.clone() of each tensor w"
        )


def _array(path: Path, name: str, tensor: Any) -> np.ndarray:
    torch = _torch(path)
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise UserError(f"{path}: {name} is of type {kind}; save float32 tensors") from None


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        held = dict(safetensors.deserialize(path.read_bytes()))
        for name, w in held.items():
            if w["dtype"] not in _DTYPES:
                raise UserError(f"{path}: {name} is of type {w['dtype']}; save float32 tensors")
        # safetensors.numpy.load does not support bfloat16. Its order is arbitrary; sorted by name the
        # first convolution comes first, as in a .pt file.
        return {
            name: np.frombuffer(w["data"], _DTYPES[w["dtype"]]).reshape(w["shape"])
            for name, w in sorted(held.items())
        }
    except UserError:
        raise
    except (OSError, ValueError, OverflowError, MemoryError, safetensors.SafetensorError) as error:
        raise _unreadable(path, str(error)) from None


def _metadata(path: Path) -> Mapping[str, str]:
    """The metadata of a .safetensors file."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise _unreadable(path, str(error)) from None


_DTYPES: dict[str, Any] = {**safetensors.numpy._TYPES, "BF16": ml_dtypes.bfloat16}


def read_pickle(path: Path, stream: IO[bytes] | None = None) -> Any:
    """Reads what torch.save wrote: tensors, numpy arrays and plain values only.

    Args:
        path: The file.
        stream: Its contents, if they are inside another archive; `path` then only names it.

    Raises:
        UserError: It is damaged or holds other objects; or PyTorch is not installed.
    """
    torch = _torch(path)
    instead = "ask for torch.save(model.state_dict(), FILE), or for .safetensors"
    try:
        with _arrays_allowed(torch), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # errors are reported in one line below
            return torch.load(stream or path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error:")[2] or str(error)
        reason = reason.partition("Check the documentation")[0].strip()
        refused = re.search(r"GLOBAL ([\w.]+)", reason)
        if refused is None and "Can only build" not in reason:
            raise _unreadable(path, reason) from None
        raise UserError(
            f"{path} holds {f'the Python object {refused[1]}' if refused else 'Python objects'}, "
            "which could run a program when it is read; mcjax reads tensors and plain values only: "
            + instead
        ) from None
    except Exception as error:  # a damaged archive or pickle can raise anything
        if "TorchScript" in str(error):
            raise UserError(
                f"{path} is a TorchScript program, not a state dict; {instead}"
            ) from None
        said = f"{type(error).__name__} {error}".strip()  # some messages are only a number
        raise _unreadable(path, said) from None


def _arrays_allowed(torch: Any) -> AbstractContextManager[None]:
    """Allows numpy arrays and scalars; constructing them executes no code from the file."""
    multiarray: Any = importlib.import_module("numpy._core.multiarray")
    dtypes = [getattr(np.dtypes, name) for name in np.dtypes.__all__ if "Object" not in name]
    makers = [
        (getattr(multiarray, name), f"{module}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for module in ("numpy.core", "numpy._core")  # numpy 1 and 2
    ]
    return torch.serialization.safe_globals([np.ndarray, np.dtype, *dtypes, *makers])


def _unreadable(path: Path, reason: str) -> UserError:
    reason = " ".join(reason.partition(". This is an internal")[0].split())[:150]
    return UserError(f"{path} can't be read ({reason}); it is damaged, or not a file of tensors")


def pickled(path: Path, held: Any, parameters: Collection[str] = ()) -> bytes:
    """What torch.save writes for plain values and arrays in tuples and dicts, as tensors.

    Args:
        path: The file, for messages.
        held: The values.
        parameters: Names of arrays that are written as parameters.

    Raises:
        UserError: PyTorch is not installed.
    """
    torch = _torch(path)

    def tensors(one: Any) -> Any:
        if isinstance(one, tuple):
            return tuple(map(tensors, one))
        if isinstance(one, Mapping):
            return {name: tensors(w) for name, w in one.items()}
        return torch.from_numpy(np.array(one)) if isinstance(one, np.ndarray) else one

    held = tensors(held)
    for name in parameters:
        if name in held:
            held[name] = torch.nn.Parameter(held[name])
    stream = io.BytesIO()
    torch.save(held, stream)
    return stream.getvalue()


def _torch(path: Path) -> Any:
    try:
        import torch
    except ModuleNotFoundError:
        raise UserError(
            f"{path}: {path.suffix} files need PyTorch; pip install 'mcjax[torch]', or convert the "
            "file to .safetensors"
        ) from None
    return torch


def with_tensors(state: StateDict, tensors: Mapping[str, np.ndarray]) -> StateDict:
    """Replaces tensors of a state dict.

    Args:
        state: The state dict.
        tensors: New arrays by name; other tensors are kept.

    Returns:
        The state dict, its tensors in the file's order.
    """
    new = {name: tensors.get(name, w) for name, w in state.tensors.items()}
    return state._replace(tensors={**new, **tensors})


def fresh(tensors: Mapping[str, np.ndarray]) -> StateDict:
    """A state dict of tensors, with the batch counts that PyTorch's strict loading requires."""
    full: dict[str, np.ndarray] = {}
    for name, w in tensors.items():
        full[name] = w
        if name.endswith("running_var"):
            full[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    assert all(is_counter(name) or name in tensors for name in full)
    return StateDict(full)
