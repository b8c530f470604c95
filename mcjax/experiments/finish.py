"""The end of every experiment: the page, and last of all result.json, whose presence says complete."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mcjax.experiments.run import Run, describe
from mcjax.report import page
from mcjax.report.figures import chart_figure
from mcjax.report.panels import Chart
from mcjax.workdir import publish


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

    Args:
        run: The run.
        metrics: Its numbers by name.
        question: What the run asks.
        answer: What came out, in sentences.
        charts: Figures of lines; they are written to figures/ and shown on the page.
        tables: Tables to show on the page: their rows by title.

    Returns:
        The contents of result.json.
    """
    for chart in charts:
        chart_figure(run.workdir / "figures", chart)
    run.log.close()
    result_file = run.workdir / "result.json"
    if result_file.exists():
        return json.loads(result_file.read_text())
    result = {
        "experiment": run.config.experiment,
        "config_hash": run.config_hash,
        "status": "complete",
        "seconds": round(time.monotonic() - run.began, 3),
        "metrics": {name: defined(value) for name, value in metrics.items()},
        "data": describe(run),
        "batch_stats": run.config.evaluation.batch_stats if run.network.has_batch_stats else None,
    }
    page.write_page(
        run.workdir, result, question=question, answer=answer, charts=charts, tables=tables
    )
    if not publish(result_file, json.dumps(result, indent=2) + "\n"):
        return json.loads(result_file.read_text())  # another attempt of the same run was first
    return result


def defined(value: Any) -> Any:
    """A number, or None for one that is not defined: JSON has no NaN and no infinity.

    Example:
        >>> defined(0.5), defined(float("nan"))
        (0.5, None)
    """
    return None if isinstance(value, float) and not math.isfinite(value) else value
