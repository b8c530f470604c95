"""The benchmark's made-up results are what the launcher counts as done and the report gathers."""

import csv

import pytest

from benchmarks import thousand_jobs
from mcjax.cli.report import gather
from mcjax.sweeps import declare, store


@pytest.mark.slow
def test_what_it_leaves(tmp_path):
    sweep = tmp_path / "many.py"
    sweep.write_text(thousand_jobs.SWEEP.format(num_settings=2))
    declared = declare.load(sweep)
    thousand_jobs.leave(tmp_path / "sweep", declared)
    states = store.scan(tmp_path / "sweep", declared)
    assert [s.status for s in states.values()] == ["done"] * 10
    gather([tmp_path / "sweep"], tmp_path / "gathered")
    with (tmp_path / "gathered" / "means.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["quantity"] == "attack_success_rate"]
    assert {row["num_seeds"] for row in rows} == {"5"}
    first = [float(row["mean"]) for row in rows if row["method"] == "path"]
    assert first == pytest.approx([0.002] * 5 + [0.007] * 5)  # jobs 0 to 4 and 5 to 9, thousandths
