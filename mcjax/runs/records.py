"""Reads the files of a run, and checks every value.

Reports and launchers read result.json, config.json and table.csv only here. A file may be truncated,
edited by hand, written by another program, or missing: each reader returns values of the types that it
documents, or raises `Damaged` with the file and the reason in one line. No JAX is imported here.
"""

import csv
import dataclasses
import io
import json
import math
import os
import re
import stat
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcjax.core.bucket import in_bucket
from mcjax.runs.csv_text import unescape
from mcjax.runs.seal import is_sealed

Row = dict[str, Any]

NUM_SEEDS = 2**32
MiB = 2**20
# Far more than a run writes; a larger file is something else, and would fill the memory.
LARGEST_JSON, LARGEST_TABLE, LARGEST_SWEEP = 16 * MiB, 256 * MiB, 1024 * MiB
MOST_COLUMNS = 1000
DEEPEST = 8  # lists within lists of a config's value
LONGEST_LINE = 400  # letters of a log's line in a note

# table.csv: columns of text, columns of integers, and the columns that each experiment must have.
TEXT = ("method", "path")
WHOLE = ("seed", "fold", "bonafide")
REPAIR = ("method", "bonafide", "seed", "t", "clean_accuracy")
COLUMNS = {
    "backdoor": (*REPAIR, "attack_success_rate"),
    "injection": (*REPAIR, "injection_success"),
    "evasion": ("path", "seed"),
}
NOT_EMPTY = (*TEXT, *WHOLE)  # in the columns that an experiment must have


class Damaged(ValueError):
    """A file is not what it should be; the message is one line with the file and the reason."""


@dataclasses.dataclass(frozen=True)
class Result:
    """The contents of result.json.

    Args:
        config_hash: The hash of the run's config.
        metrics: Finite numbers by name, None for an undefined one; None if the file has no metrics.
        seconds: How long the run took; None if the file does not say.
        experiment: The experiment's name; None if the file does not say.
        attempt: The attempt that published it; None for a plain run.
        exit_code: 0, or 3 for a run without an acceptable answer.
        code: The version of mcjax; {} if unknown.
    """

    config_hash: str
    metrics: Mapping[str, int | float | None] | None = None
    seconds: float | None = None
    experiment: str | None = None
    attempt: str | None = None
    exit_code: int = 0
    code: Mapping[str, str | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The contents of config.json.

    Args:
        config_hash: The config's hash.
        fields: The fields that decide the result, by dotted name.
        where: "git_revision", "device_kind" and "num_devices" of the run.
    """

    config_hash: str
    fields: Mapping[str, Any]
    where: Mapping[str, Any]


PUBLISHED = ("attempt", "exit_code", "code")  # what a sweep adds to a run's result


def read_result(path: Path) -> Result:
    """Reads the result.json of a run, or of a sweep's job.

    Raises:
        Damaged: It is not a valid result.
    """
    found = read_object(path)
    own = {name: value for name, value in found.items() if name not in PUBLISHED}
    if "checksum" in own and not is_sealed(own):
        raise Damaged(f"{path}: its contents do not match their checksum")
    if found.get("status", "complete") != "complete":
        raise Damaged(f"{path}: status is {_shown(found['status'])}, not 'complete'")
    metrics = found.get("metrics")
    if metrics is not None:
        _object(metrics, f"{path}: metrics")
        for name, value in metrics.items():
            if value is not None:
                _number(value, f"{path}: metrics[{_shown(name)}]")
    seconds, experiment, attempt = (found.get(x) for x in ("seconds", "experiment", "attempt"))
    if seconds is not None and _number(seconds, f"{path}: seconds") < 0:
        raise Damaged(f"{path}: seconds is {seconds}, less than 0")
    if experiment is not None:
        _experiment(experiment, f"{path}: experiment")
    if attempt is not None and not (isinstance(attempt, str) and is_attempt(attempt)):
        raise Damaged(f"{path}: attempt is {_shown(attempt)}, not the name of one")
    return Result(
        config_hash=_text(found.get("config_hash"), f"{path}: config_hash"),
        metrics=metrics,
        seconds=seconds,
        experiment=experiment,
        attempt=attempt,
        exit_code=_whole(found.get("exit_code", 0), f"{path}: exit_code"),
        code=_texts(found.get("code") or {}, f"{path}: code"),
    )


def read_config(path: Path) -> RunConfig:
    """Reads a run's config.json.

    Raises:
        Damaged: It is not a valid config.json.
    """
    found = read_object(path)
    if not isinstance(found.get("hashed"), dict):
        raise Damaged(f'{path} lacks the run\'s fields ("hashed")')
    where = _texts({k: found.get(k) for k in ("git_revision", "device_kind")}, str(path))
    num_devices = found.get("num_devices")
    if num_devices is not None:
        _whole(num_devices, f"{path}: num_devices")
    return RunConfig(
        config_hash=_text(found.get("hash"), f"{path}: hash"),
        fields=checked_fields(found["hashed"], str(path)),
        where={**where, "num_devices": num_devices},
    )


def checked_fields(fields: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Checks the fields of a config, and returns them.

    Args:
        fields: Values by dotted name.
        where: Their file, for the message.

    Raises:
        Damaged: The experiment's name or a seed is invalid, or a value is nested too deep.
    """
    if "experiment" in fields:
        _experiment(fields["experiment"], f"{where}: experiment")
    if "seed" in fields:
        _seed(fields["seed"], f"{where}: seed")
    seeds = fields.get("seeds", [])
    if not isinstance(seeds, list | tuple):
        raise Damaged(f"{where}: seeds is {_shown(seeds)}, not a list")
    for seed in seeds:
        _seed(seed, f"{where}: seeds")
    for name, value in fields.items():
        if _is_nested(value, DEEPEST):
            raise Damaged(f"{where}: {_shown(name)} is nested more than {DEEPEST} deep")
    return fields


def read_table(path: Path, experiment: str) -> list[Row]:
    """Reads the rows of table.csv: text, numbers, and None for empty cells. NaN stays NaN.

    Args:
        path: The file.
        experiment: The experiment's name, which decides which columns the table must have.

    Raises:
        Damaged: It has no rows, lacks a column, has rows of different lengths, or text for a number.
    """
    content = read_bytes(path, LARGEST_TABLE)
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        names = next(lines, [])
        if len(names) > MOST_COLUMNS or len(set(names)) < len(names):
            raise Damaged(f"{path} can't be read (two columns of one name, or too many)")
        if lacking := [name for name in COLUMNS.get(experiment, ()) if name not in names]:
            raise Damaged(f"{path} lacks the column {lacking[0]}")
        required = {name for name in COLUMNS.get(experiment, ()) if name in NOT_EMPTY}
        rows = []
        for cells in lines:
            if not cells:
                continue
            where = f"{path}, line {lines.line_num}"
            if len(cells) != len(names):
                raise Damaged(f"{where}: {len(cells)} cells, not {len(names)}")
            row: Row = {}
            for name, cell in zip(names, cells, strict=True):
                if name in TEXT:
                    row[name] = unescape(cell) or None
                else:
                    row[name] = _cell(name, cell.strip(string.whitespace), where)
                if row[name] is None and name in required:
                    raise Damaged(f"{where}: {name} is empty")
            rows.append(row)
    except UnicodeDecodeError as error:
        raise Damaged(f"{path} can't be read ({error})") from None
    except csv.Error as error:
        raise Damaged(f"{path} can't be read ({error})") from None
    if not rows:
        raise Damaged(f"{path} can't be read (it has no rows)")
    return rows


def read_object(path: Path, limit: int = LARGEST_JSON) -> dict[str, Any]:
    """Reads the object in a JSON file.

    Raises:
        Damaged: The file cannot be read, is larger than `limit` bytes, or contains something else.
    """
    content = read_bytes(path, limit)
    try:
        found = json.loads(content.decode())
        if rb"\ud" in content.lower():
            json.dumps(found, ensure_ascii=False).encode()  # a lone surrogate is not text
    except RecursionError:
        raise Damaged(f"{path} can't be read (it is nested too deep)") from None
    except ValueError as error:
        reason = str(error).partition(":")[0] if len(str(error)) > LONGEST_LINE else error
        raise Damaged(f"{path} can't be read ({reason})") from None
    if not isinstance(found, dict):
        raise Damaged(f"{path} can't be read (it holds no object)")
    return found


def read_bytes(path: Path, limit: int) -> bytes:
    """Reads the bytes of a file.

    Raises:
        Damaged: It does not exist, is not a regular file (reading a pipe would block), or is larger
            than `limit`.
    """
    try:
        about: Any = path.stat()
        if not (path.is_file() if in_bucket(path) else stat.S_ISREG(about.st_mode)):
            raise Damaged(f"{path} can't be read (it is no file)")
        if (length := about.length if in_bucket(path) else about.st_size) > limit:
            size, most = length / MiB, limit // MiB
            raise Damaged(f"{path} can't be read ({size:.0f} MiB are more than {most} MiB)")
        return path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} can't be read ({error.strerror or error})") from None


def last_line(*paths: Path) -> str:
    """The last line of the first text file that has a line that is not blank; "" without one."""
    return next(filter(None, map(_last_line, paths)), "")


def _last_line(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return ""
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return printable(last[:LONGEST_LINE])


def printable(text: str) -> str:
    r"""Text in one line, with characters that are not printable escaped.

    Example:
        >>> printable("red " + chr(27)) == "red " + r"\x1b"
        True
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def is_attempt(name: str) -> bool:
    """Whether a folder's name is the name of an attempt."""
    return re.fullmatch(r"[0-9]{1,9}", name) is not None


def is_folder_name(name: Any) -> bool:
    """Whether a job's id is a valid folder name on any file system."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= 200
        and name.isprintable()
        and not set(name) & set("/\\")
        and name not in (".", "..")
    )


def _cell(name: str, cell: str, where: str) -> int | float | None:
    if not cell:
        return None
    try:
        if "_" in cell or not cell.isascii():  # Python allows both in numbers
            raise ValueError
        whole = re.fullmatch(r"[+-]?[0-9]+", cell)
        value: int | float = int(cell) if whole else float(cell)
        if math.isinf(float(value)) and "inf" not in cell.lower():
            raise OverflowError
    except (ValueError, OverflowError):
        raise Damaged(f"{where}: {name} is {_shown(cell)}, not a number") from None
    if name == "seed":
        return _seed(value, f"{where}: seed")
    return _whole(value, f"{where}: {name}") if name in WHOLE else value


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Damaged(f"{what} is {_shown(value)}, not an object")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise Damaged(f"{what} is {_shown(value)}, not text")
    return value


def _texts(values: Any, what: str) -> dict[str, str | None]:
    for name, value in _object(values, what).items():
        if value is not None and not isinstance(value, str):
            raise Damaged(f"{what}: {_shown(name)} is {_shown(value)}, not text")
    return values


def _experiment(value: Any, what: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", value):
        raise Damaged(f"{what} is {_shown(value)}, not the name of one")
    return value


def _number(value: Any, what: str) -> float:
    """A finite number: JSON has no others, and writes undefined values as null."""
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer too large for a float
        pass
    raise Damaged(f"{what} is {_shown(value)}, not a finite number")


def _whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise Damaged(f"{what} is {_shown(value)}, not a whole number of at least 0")
    return value


def _seed(value: Any, what: str) -> int:
    if _whole(value, what) >= NUM_SEEDS:
        raise Damaged(f"{what} is {_shown(value)}; seeds end at 2^32 - 1, others repeat them")
    return value


def _is_nested(value: Any, depth: int) -> bool:
    """Whether lists or objects are nested deeper than `depth`."""
    children = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list | tuple):
        return False
    return not depth or any(_is_nested(child, depth - 1) for child in children)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits or brackets
        text = f"a {type(value).__name__} too large to show"
    return printable(text if len(text) <= 60 else text[:57] + "...")
