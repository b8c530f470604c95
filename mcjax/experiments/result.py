"""The end of every experiment: writes the page and, last, result.json."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcjax.core.errors import UserError
from mcjax.core.files import publish, write
from mcjax.core.progress import say
from mcjax.report import page
from mcjax.report.figures import chart_figure
from mcjax.report.panels import Chart
from mcjax.runs.records import Damaged, read_object, read_result
from mcjax.runs.run import Run, describe
from mcjax.runs.seal import is_sealed, sealed


def write_result(
    run: Run,
    metrics: Mapping[str, Any],
    *,
    question: str,
    answer: Sequence[str],
    charts: Sequence[Chart],
    tables: Mapping[str, page.Rows],
    problems: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes report.html and result.json, or reads the result of a complete run.

    A result that is damaged, or that contradicts the checkpoints, is written again.

    Args:
        run: The run.
        metrics: Its numbers by name.
        question: The question that the run answers.
        answer: The conclusions, in sentences.
        charts: Line charts, written to figures/ and shown on the page.
        tables: Tables on the page: rows by title.
        problems: What the run failed to reach, in sentences; the command prints them and exits
            with code 3.

    Returns:
        The contents of result.json.

    Raises:
        UserError: The directory has the result of another run.
    """
    for chart in charts:
        chart_figure(run.workdir / "figures", chart)
    run.log.close()
    result_file = run.workdir / "result.json"
    result = {
        "experiment": run.config.experiment,
        "config_hash": run.config_hash,
        "status": "complete",
        "seconds": round(time.monotonic() - run.began, 3),
        "answer": list(answer),
        "metrics": {name: defined(value) for name, value in metrics.items()},
        "data": describe(run),
        "batch_stats": run.config.evaluation.batch_stats if run.network.has_batch_stats else None,
        **({"problems": list(problems)} if problems else {}),
    }
    result = sealed(json.loads(json.dumps(result)))  # as the file will have it
    replace = result_file.exists()
    before = kept(result_file, result) if replace else None
    if before is not None:
        return before
    page.write_page(
        run.workdir, result, question=question, answer=answer, charts=charts, tables=tables
    )
    content = json.dumps(result, indent=2) + "\n"
    if replace:
        write(result_file, content)
    elif not publish(result_file, content):  # another attempt of this run was faster
        before = kept(result_file, result)
        if before is not None:
            return before
        write(result_file, content)
    return result


def kept(path: Path, computed: Mapping[str, Any]) -> dict[str, Any] | None:
    """The existing result, if it belongs to this run and agrees with its checkpoints.

    Args:
        path: result.json.
        computed: The result computed now.

    Returns:
        Its contents, or None if it is damaged or differs.

    Raises:
        UserError: It belongs to another run.
    """
    try:
        whose = read_result(path).config_hash
        found = read_object(path)
    except Damaged as error:
        say(f"{error}: writing it again")
        return None
    if whose != computed["config_hash"]:
        raise UserError(
            f"{path} is the result of another run (config {whose}, this run's is "
            f"{computed['config_hash']}); delete it and run again, or give another workdir"
        )
    same = ("experiment", "status", "metrics", "data", "batch_stats", "problems")
    different = [name for name in same if not _agree(found.get(name), computed.get(name))]
    if not is_sealed(found):
        different.append("checksum")
    if different or not isinstance(found.get("seconds"), int | float):
        say(f"{path} differs from this run ({', '.join(different)}): writing it again")
        return None
    return found


def _agree(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal, floats up to rounding on another processor."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_agree(a[name], b[name]) for name in a)
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-7)
    return a == b


def defined(value: Any) -> Any:
    """The value, or None for NaN and infinity, which JSON does not have.

    Example:
        >>> defined(0.5), defined(float("nan"))
        (0.5, None)
    """
    return None if isinstance(value, float) and not math.isfinite(value) else value
