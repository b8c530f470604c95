"""Records of runs: what is kept, and which runs do not belong together."""

import dataclasses
import json
import math
import re

import pytest

from mcjax.core.errors import UserError
from mcjax.repair.evidence.control import THRESHOLDS
from mcjax.report import run_record
from mcjax.report.run_record import RunRecord

RATES = {"clean_accuracy": 0.9, "attack_success_rate": 0.0, "accuracy_lost": 0.0, "score": 0.5}
PATHS = (("path", 100), ("path at t = 0.5", 100), ("path", 50))
NEW, FALLBACK = THRESHOLDS["path"], THRESHOLDS["away"]


def record(name, *, fields=None, thresholds=(NEW, NEW), **row):
    rows = [
        {"method": method, "attack": "square", "bonafide": size, "seed": ("0", ""), **RATES} | row
        for method, size in (("suspect", 0), ("clean twin", 0), ("clp", 0), *PATHS)
    ]
    whose = {"bonafide": 100, "seed": rows[0]["seed"], "evident": True, "margin": 2.0}
    networks = [
        {"network": network, **whose, "threshold": threshold, "right": None}
        for network, threshold in zip(("suspect", "clean twin"), thresholds, strict=True)
    ]
    paths = [{"method": "path", "bonafide": 100, "spearman": math.nan, "bias": 0.25}]
    fields = {"seed": 0, "attack.trigger": "square", "repair.tune": True} | (fields or {})
    return RunRecord(name, fields, rows, networks, paths)


def test_a_file_gives_back_what_it_was_given(tmp_path):
    file = tmp_path / "study.json"
    records = [record("a"), record("b", fields={"seed": 1}, seed=("1", "2"), score=math.nan)]
    run_record.save(file, records)
    for number, (kept, one) in enumerate(zip(run_record.load(file), records, strict=True), 1):
        assert kept.name == f"run {number} of {file}"
        assert kept.fields == one.fields
        # All but the settings that nobody without the trigger would choose.
        assert repr(kept.rows) == repr([row for row in one.rows if " at " not in row["method"]])
        assert kept.networks == one.networks
        assert repr(kept.paths) == repr(one.paths)
    text = file.read_text()
    assert text.count("repair.tune") == 1  # what all runs share is written once
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    run_record.save(file, run_record.load(file))
    assert file.read_text() == text


def without(part, key):
    def change(content):
        del content["runs"][0][part][0][key]

    return change


BROKEN = {
    "no runs": lambda content: content["runs"].clear(),
    "no rate": without("rows", "score"),
    "no method": without("rows", "method"),
    "no size": without("networks", "bonafide"),
    "no bias": without("paths", "bias"),
    "a word as a rate": lambda content: content["runs"][0]["rows"][0].update(score="high"),
    "no seed's fold": lambda content: content["runs"][0]["rows"][0].update(seed=["1"]),
    "a number as a path": lambda content: content["runs"][0]["paths"].append(1),
    "a word as a size": lambda content: content["runs"][0]["rows"][0].update(bonafide="x"),
    "no size at all": lambda content: content["runs"][0]["rows"][0].update(bonafide=None),
    "a word as an answer": lambda content: content["runs"][0]["rows"][0].update(acceptable="yes"),
    "a word as seconds": lambda content: content["runs"][0]["rows"][0].update(seconds="a"),
    "no repairs": lambda content: content["runs"][0]["rows"].clear(),
    "a list of fields": lambda content: content.update(fields=[]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_refused(tmp_path, name):
    file = tmp_path / "study.json"
    run_record.save(file, [record("a")])
    content = json.loads(file.read_text())
    BROKEN[name](content)
    file.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match="is damaged, or neither a run's folder nor a file that --keep wrote"
    ):
        run_record.read(file)


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 10**5, "a,b", "\udc80"])
def test_another_file_is_refused(tmp_path, content):
    file = tmp_path / "study.json"
    file.write_text(content, errors="surrogateescape")
    with pytest.raises(
        UserError, match="is damaged, or neither a run's folder nor a file that --keep wrote"
    ):
        run_record.read(file)
    with pytest.raises(UserError, match=r"none\.json does not exist"):
        run_record.read(tmp_path / "none.json")


def test_runs_that_differ_in_what_was_asked_do_not_compare():
    free = {"seed": 1, "repair.sizes": [7], "attack.trigger": "wanet", "seeds": [1, 2]}
    free["repair.methods"] = ["path"]
    run_record.check_comparable([record("a"), record("b", fields=free, bonafide=7)])
    pair, values = (record("a"), record("c", fields={"repair.tune": False})), ("True", "False")
    for (first, other), said in ((pair, values), (pair[::-1], values[::-1])):
        message = f"{first.name} and {other.name} differ in config.repair.tune ({', '.join(said)})"
        with pytest.raises(UserError, match=re.escape(message)):
            run_record.check_comparable([first, record("b", fields=first.fields), other])


def test_the_fields_of_a_new_method_do_not_matter(tmp_path):
    study = [record("a"), record("b", fields={"repair.learning_rate.mine": 0.5})]
    for both in (study, study[::-1]):
        run_record.check_comparable(both)
        run_record.save(tmp_path / "study.json", both)
        kept = run_record.load(tmp_path / "study.json")
        assert [one.fields for one in kept] == [one.fields for one in both]


def test_a_new_method_has_the_same_fields_in_all_of_its_runs():
    mine = [
        record(name, fields={"repair.learning_rate.mine": v}) for name, v in (("b", 1), ("c", 2))
    ]
    with pytest.raises(UserError, match=r"^b and c differ in config\.repair\.learning_rate\.mine"):
        run_record.check_comparable([record("a"), *mine])


def test_a_run_is_given_once():
    with pytest.raises(UserError, match=r"^b is given twice; give each run once"):
        run_record.check_comparable([record("a"), record("b"), record("b")])


def named(name, method, **row):
    """A run of one method, with a path of it."""
    one = record(name, **row)
    rows = [{**row, "method": row["method"].replace("path", method)} for row in one.rows]
    paths = [{**path, "method": method} for path in one.paths]
    return dataclasses.replace(one, rows=rows, paths=paths)


def test_a_repair_counts_once():
    both = record("b", score=0.125)
    both = dataclasses.replace(both, rows=[*both.rows, *named("b", "d3").rows])
    (first, second), notes = run_record.each_once([record("a"), both])
    assert notes == ["b: path does not count; an earlier run has the same repair"]
    assert first == record("a")
    assert {row["method"] for row in second.rows} == {"d3", "d3 at t = 0.5"}
    assert not second.paths
    for other in ({"attack": "wanet"}, {"bonafide": 7}, {"seed": ("0", "1")}, {"seed": ("1", "")}):
        kept, notes = run_record.each_once([record("a"), record("b", **other)])
        assert kept[1].rows == record("b", **other).rows
        assert not notes


def test_what_is_in_every_run_of_a_suspect_counts_once_too():
    several, notes = run_record.each_once([record("a"), named("b", "d3")])
    assert not notes
    assert [path["method"] for one in several for path in one.paths] == ["path", "d3"]
    shown = run_record.tables(several)
    assert "| suspect | 0.900 / 0.000 |" in shown  # no highest rate in brackets: one suspect
    assert "| clp | 0.900 / 0.000 |" in shown
    assert "| d3 | 0.900 / 0.000 |" in shown
    assert "| 100 | 1 of 1 |  | 2.00 | 1 of 1 | 2.00 |" in shown
    # Other seeds are other networks, and another attack has another suspect.
    wanet = record("d", fields={"attack.trigger": "wanet"}, attack="wanet")
    shown = run_record.tables([*several, record("c", seed=("1", "")), wanet])
    assert "| 100 | 3 of 3 |  | 2.00 | 2 of 2 | 2.00 |" in shown


def test_verdicts_are_of_one_version():
    # In one version a network can have another control than the next, with another threshold.
    new = record("a", thresholds=(NEW, FALLBACK))
    old = record("b", thresholds=(NEW + 0.125, FALLBACK + 0.125), seed=("1", ""))
    run_record.check_comparable([new])
    run_record.check_comparable([old])
    said = f"verdicts of b have a threshold of {NEW + 0.125:g}, those of a of {NEW:g}, so they are"
    for both in ([new, old], [old, new]):
        with pytest.raises(UserError, match=re.escape(said)):
            run_record.check_comparable(both)
