"""The end of every experiment: the page, and last of all result.json, whose presence says complete."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mcjax.errors import UserError
from mcjax.experiments.run import Run, describe
from mcjax.logs import say
from mcjax.report import page
from mcjax.report.figures import chart_figure
from mcjax.report.panels import Chart
from mcjax.runs.records import Damaged, read_object, read_result
from mcjax.workdir import publish, write


def finish(
    run: Run,
    metrics: Mapping[str, Any],
    *,
    question: str,
    answer: Sequence[str],
    charts: Sequence[Chart],
    tables: Mapping[str, page.Rows],
) -> dict[str, Any]:
    """Writes report.html and result.json, or reads the result of a run that is complete.

    A result that is damaged, or that differs from what the checkpoints say, is written anew.

    Args:
        run: The run.
        metrics: Its numbers by name.
        question: What the run asks.
        answer: What came out, in sentences.
        charts: Figures of lines; they are written to figures/ and shown on the page.
        tables: Tables to show on the page: their rows by title.

    Returns:
        The contents of result.json.

    Raises:
        UserError: There is a result of another run.
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
        "metrics": {name: defined(value) for name, value in metrics.items()},
        "data": describe(run),
        "batch_stats": run.config.evaluation.batch_stats if run.network.has_batch_stats else None,
    }
    before = kept(result_file, result) if result_file.exists() else None
    if before is not None:
        return before
    page.write_page(
        run.workdir, result, question=question, answer=answer, charts=charts, tables=tables
    )
    content = json.dumps(result, indent=2) + "\n"
    if not publish(result_file, content):
        before = kept(result_file, result)  # another attempt of the same run was first, or damage
        if before is not None:
            return before
        write(result_file, content)
    return result


def kept(path: Path, computed: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result that is there, if it is this run's and says what its checkpoints say.

    Args:
        path: result.json.
        computed: The result as it is computed now.

    Returns:
        Its contents, or None where it is damaged or says something else.

    Raises:
        UserError: It is another run's.
    """
    try:
        whose = read_result(path).config_hash
        found = read_object(path)
    except Damaged as error:
        say(f"{error}: written anew")
        return None
    if whose != computed["config_hash"]:
        raise UserError(
            f"{path} is the result of another run (config {whose}, this run's is "
            f"{computed['config_hash']}); delete it and run again, or give another --workdir"
        )
    same = ("experiment", "status", "metrics", "data", "batch_stats")
    # Through JSON, as the file's contents came.
    now = json.loads(json.dumps({name: computed[name] for name in same}))
    different = [name for name in same if not _agree(found.get(name), now[name])]
    if different or not isinstance(found.get("seconds"), int | float):
        say(f"{path} is not what this run has computed ({', '.join(different)}): written anew")
        return None
    return found


def _agree(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal, numbers up to another processor's rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_agree(a[name], b[name]) for name in a)
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-7)
    return a == b


def defined(value: Any) -> Any:
    """A number, or None for one that is not defined: JSON has no NaN and no infinity.

    Example:
        >>> defined(0.5), defined(float("nan"))
        (0.5, None)
    """
    return None if isinstance(value, float) and not math.isfinite(value) else value
