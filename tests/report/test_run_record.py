"""Records of runs: what is kept, and which runs do not belong together."""

import json
import math

import pytest

from mcjax.core.errors import UserError
from mcjax.report import run_record
from mcjax.report.run_record import RunRecord


def record(name, *, fields=None, threshold=2.0, **row):
    rows = [
        {"method": method, "attack": "square", "bonafide": 100, "seed": ("0", ""), "score": 0.5}
        | row
        for method in ("suspect", "path", "path at t = 0.5")
    ]
    networks = [{"network": "suspect", "seed": ("0", ""), "threshold": threshold, "right": None}]
    paths = [{"method": "path", "bonafide": 100, "spearman": math.nan, "bias": 0.25}]
    fields = {"seed": 0, "repair.tune": True} | (fields or {})
    return RunRecord(name, fields, rows, networks, paths)


def test_a_file_gives_back_what_it_was_given(tmp_path):
    file = tmp_path / "study.json"
    records = [record("a"), record("b", fields={"seed": 1}, seed=("1", "2"))]
    run_record.save(file, records)
    for number, (kept, one) in enumerate(zip(run_record.load(file), records, strict=True), 1):
        assert kept.name == f"run {number} of {file}"
        assert kept.fields == one.fields
        # All but the settings that nobody without the trigger would choose.
        assert kept.rows == one.rows[:2]
        assert kept.networks == one.networks
        assert math.isnan(kept.paths[0]["spearman"])
        assert kept.paths[0]["bias"] == 0.25
    text = file.read_text()
    assert text.count("repair.tune") == 1  # what all runs share is written once
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    run_record.save(file, run_record.load(file))
    assert file.read_text() == text


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"fields": {}, "runs": [{}]}', "a,b", "\udc80"]
)
def test_another_file_is_refused(tmp_path, content):
    file = tmp_path / "study.json"
    file.write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match="is neither a run's folder nor a file that --keep wrote"):
        run_record.read(file)


def test_runs_of_different_questions_do_not_compare():
    free = {"seed": 1, "repair.sizes": [50], "attack.trigger": "wanet", "seeds": [1, 2]}
    run_record.check_comparable([record("a"), record("b", fields=free, bonafide=50)])
    for changed, said in (({"repair.tune": False}, "True, False"), ({"new": 1}, "None, 1")):
        name = next(iter(changed))
        with pytest.raises(UserError, match=rf"a and c differ in config.{name} \({said}\)"):
            run_record.check_comparable(
                [record("a"), record("b", seed=("1", "")), record("c", fields=changed, seed="2 ")]
            )


def test_a_repair_counts_once():
    with pytest.raises(
        UserError, match="a and b both have path with 100 images for square, seed 0"
    ):
        run_record.check_comparable([record("a"), record("b")])
    with pytest.raises(UserError, match=r"^a is given twice; give each run once"):
        run_record.check_comparable([record("a"), record("a")])
    for other in ({"attack": "wanet"}, {"bonafide": 50}, {"seed": ("0", "1")}, {"seed": ("1", "")}):
        run_record.check_comparable([record("a"), record("b", **other)])
    # Methods of one suspect may be measured in several runs, which all have the suspect.
    one, other = record("a"), record("b")
    rows = [{**row, "method": row["method"].replace("path", "d3")} for row in other.rows]
    run_record.check_comparable([one, RunRecord("b", other.fields, rows, [], [])])


def test_thresholds_are_the_same():
    with pytest.raises(UserError, match=r"of a and b have different thresholds \(2, 2.25\)"):
        run_record.check_comparable(
            [record("a"), record("b", threshold=2.25, seed=("1", "")), record("c", seed=("2", ""))]
        )
