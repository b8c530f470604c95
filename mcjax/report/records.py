"""What the files of a run say: a record of checked values, or the reason why there is none.

Reports and launchers read result.json, config.json and table.csv here and nowhere else. A file may be
cut, edited by hand, of another program, or no file at all: each reader returns values of the types it
names, or raises `Damaged` with the file and the reason in one line.
"""

import csv
import dataclasses
import io
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcjax.core.bucket import in_bucket
from mcjax.runs.csv_text import unescape

Row = dict[str, Any]

NUM_SEEDS = 2**32
MiB = 2**20
# Far above what a run writes; a larger file is something else, and would take all memory.
LARGEST_JSON, LARGEST_TABLE, LARGEST_SWEEP = 16 * MiB, 256 * MiB, 1024 * MiB
MOST_COLUMNS = 1000
DEEPEST = 8  # lists within lists of a config's value
LONGEST_LINE = 400  # of a log, as a note

# table.csv: columns of text, of whole numbers, and those that each experiment's tables are made of.
TEXT = ("method", "path")
WHOLE = ("seed", "fold", "bonafide")
REPAIR = ("method", "bonafide", "seed", "t", "clean_accuracy")
COLUMNS = {
    "backdoor": (*REPAIR, "attack_success_rate"),
    "injection": (*REPAIR, "injection_success"),
    "evasion": ("path", "seed"),
}
NOT_EMPTY = (*TEXT, *WHOLE)  # where an experiment's tables have them


class Damaged(ValueError):
    """A file that is not what it should be; one line: which, and why."""


@dataclasses.dataclass(frozen=True)
class Result:
    """result.json; a record.

    Args:
        config_hash: Of the config that it is the result of.
        metrics: Finite numbers by name, None for one that is not defined; None where the file has
            no metrics at all.
        seconds: How long the run took; None where the file does not say.
        experiment: Its name, likewise.
        attempt: Name of the attempt that it was published from; None for a plain run's.
        exit_code: 0, or 3 for a run without an acceptable answer.
        code: The version of mcjax, {} where it is not known.
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
    """config.json; a record.

    Args:
        config_hash: The config's.
        fields: The fields that decide the result, by dotted name.
        where: What it ran on and with: "git_revision", "device_kind", "num_devices".
    """

    config_hash: str
    fields: Mapping[str, Any]
    where: Mapping[str, Any]


def read_result(path: Path) -> Result:
    """A run's result, or the one that a sweep's job has published.

    Raises:
        Damaged: It is not one.
    """
    found = read_object(path)
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
    """What a run was to be, and where it ran.

    Raises:
        Damaged: The file is not a run's config.json.
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
    """The fields of a config, if they can be those of a run.

    Args:
        fields: Values by dotted name.
        where: What they are of, for the message.

    Raises:
        Damaged: The experiment's name or a seed is impossible, or a value is nested without end.
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
    """table.csv's rows: text, numbers, and None where a cell is empty. NaN stays NaN.

    Args:
        path: The file.
        experiment: Whose it is; says which columns it must have.

    Raises:
        Damaged: It has no rows, a row of another length, lacks a column, or has text for a number.
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
                    row[name] = _cell(name, cell.strip(), where)
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
    """A JSON file's object.

    Raises:
        Damaged: The file can't be read, is larger than `limit` bytes, or holds something else.
    """
    content = read_bytes(path, limit)
    try:
        found = json.loads(content.decode())
        if rb"\ud" in content.lower():
            json.dumps(found, ensure_ascii=False).encode()  # half a pair of UTF-16 is no text
    except RecursionError:
        raise Damaged(f"{path} can't be read (it is nested too deep)") from None
    except ValueError as error:
        reason = str(error).partition(":")[0] if len(str(error)) > LONGEST_LINE else error
        raise Damaged(f"{path} can't be read ({reason})") from None
    if not isinstance(found, dict):
        raise Damaged(f"{path} can't be read (it holds no object)")
    return found


def read_bytes(path: Path, limit: int) -> bytes:
    """A file's bytes.

    Raises:
        Damaged: It is not there, no ordinary file (a pipe would be waited for), or larger than `limit`.
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


def last_line(path: Path) -> str:
    """The last line of a text file that is not empty; "" where there is none."""
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
    r"""Text of a file or a file's name in one line, whatever bytes it came from.

    Example:
        >>> printable("red " + chr(27)) == "red " + r"\x1b"
        True
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def is_attempt(name: str) -> bool:
    """Whether a folder's name is that of an attempt."""
    return re.fullmatch(r"[0-9]{1,9}", name) is not None


def is_folder_name(name: Any) -> bool:
    """Whether a job's id names a folder right below another, on any file system."""
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
        if "_" in cell or not cell.isascii():  # Python's own way of writing numbers
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
    """A finite number: JSON has no others, and what is not defined is null there."""
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    except OverflowError:  # a whole number beyond every float
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
    """Whether lists or objects are nested more than so deep."""
    children = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list | tuple):
        return False
    return not depth or any(_is_nested(child, depth - 1) for child in children)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        text = f"a {type(value).__name__} too large to show"
    return printable(text if len(text) <= 60 else text[:57] + "...")
