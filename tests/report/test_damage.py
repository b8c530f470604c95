"""Damaged files of a job: the job is marked, with the reason, and other jobs are not affected."""

import csv
import io
import json
import math
import os
import shutil

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from made_runs import COLUMNS, CONFIG, FIELDS, RESULT

from mcjax.cli.report import gather
from mcjax.runs import csv_text, records
from mcjax.runs.records import Damaged
from mcjax.sweeps.gathered import groups, page, tidy_tables
from mcjax.sweeps.gathered.jobs import find

TABLE = "suspect,0,0,,0.9,0.99\npath,50,0,0.5,0.8,0.1\n"


def leave(folder, seed=0):
    """Writes what mcjax.train writes."""
    folder.mkdir(parents=True)
    config_hash = f"h{seed}"
    config = {**CONFIG, "hash": config_hash, "hashed": {**FIELDS, "seed": seed}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "result.json").write_text(json.dumps({**RESULT, "config_hash": config_hash}))
    table = TABLE.replace(",0,,", f",{seed},,").replace("50,0,", f"50,{seed},")
    (folder / "table.csv").write_text(",".join(COLUMNS) + "\n" + table)
    return folder


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two good runs, and one to damage."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("bad", 0), ("good", 1), ("better", 2)):
        leave(folder / name, seed)
    return folder


def damaged(runs, file, content):
    """Gives a file of the bad run some content; returns the run's job."""
    path = runs / "bad" / file
    before = path.read_bytes()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        jobs, _ = find([runs])
    finally:
        path.write_bytes(before)
    found = groups.of(jobs)
    for rows in (tidy_tables.job_rows(jobs), tidy_tables.table_rows(jobs), groups.means(found)):
        table = tidy_tables.arrow(rows)
        csv_text.to_csv(table.column_names, zip(*table.to_pydict().values(), strict=True)).encode()
    page._jobs_table(runs, jobs).encode()
    page.remarks(jobs, found)
    assert [job.status for job in jobs if job.id != "bad"] == ["done", "done"]
    means = groups.means([group for group in found if group.experiment == "backdoor"])
    (bad,) = (job for job in jobs if job.id == "bad")
    if bad.status != "done":
        assert {(row["num"], row["num_seeds"]) for row in means} == {(2, 2)}
        assert bad.note.isprintable()
        assert not bad.rows
        assert not bad.metrics
    return bad


def result(**fields):
    return json.dumps({**RESULT, **fields})


def config(**fields):
    return json.dumps({**CONFIG, **fields})


def hashed(**fields):
    return config(hashed={**FIELDS, **fields})


def table(*lines, columns=COLUMNS):
    return "\n".join([",".join(columns), *lines]) + "\n"


HUGE = "1" + "0" * 400
DAMAGES = {
    "result.json": {
        "seconds is 'abc'": result(seconds="abc"),
        "seconds is nan": result(seconds=math.nan),
        "seconds is -1": result(seconds=-1),
        "seconds is True": result(seconds=True),
        "metrics['a'] is inf": result(metrics={"a": math.inf}),
        "metrics['a'] is nan": result(metrics={"a": math.nan}),
        "metrics['a'] is '1'": result(metrics={"a": "1"}),
        "metrics['a'] is [1]": result(metrics={"a": [1]}),
        "metrics['a'] is 1000": result().replace("0.5", HUGE).replace("path_50_clean_accuracy", "a"),
        "metrics is [1]": result(metrics=[1]),
        "has no metrics": result(metrics=None),
        "config_hash is ['h0']": result(config_hash=["h0"]),
        "config_hash is None": result(config_hash=None),
        "experiment is '../evil'": result(experiment="../evil"),
        "experiment is 3": result(experiment=3),
        "is of experiment connect, its config.json of backdoor": result(experiment="connect"),
        "attempt is '../../x'": result(attempt="../../x"),
        "exit_code is '0'": result(exit_code="0"),
        "code is [1]": result(code=[1]),
        "git_revision' is 7": result(code={"git_revision": 7}),
        "status is 'begun'": result(status="begun"),
        "holds no object": "[]",
        "nested too deep": "[" * 100_000,
        "Expecting value": "",
        "can't decode byte": b"\xff\xfe{}",
        "surrogates not allowed": '{"config_hash": "\\ud800"}',
        "Exceeds the limit": result().replace("1.5", "1" + "0" * 5000),
    },
    "config.json": {
        "seed is 1180591620717411303424": hashed(seed=2**70),
        "seed is 4294967296; seeds end at": hashed(seed=2**32),
        "seed is '1'": hashed(seed="1"),
        "seed is -1": hashed(seed=-1),
        "seed is 1.5": hashed(seed=1.5),
        "seed is True": hashed(seed=True),
        "seed is None": hashed(seed=None),
        "seeds is 3": hashed(seeds=3),
        "seeds is [1]": hashed(seeds=[[1]]),
        "experiment is ['backdoor']": hashed(experiment=["backdoor"]),
        "experiment is 'a/b'": hashed(experiment="a/b"),
        "nested more than 8 deep": hashed(x=[[[[[[[[[1]]]]]]]]]),
        "lacks the run's fields": config(hashed=[1]),
        "hash is 5": config(hash=5),
        "device_kind' is ['cpu']": config(device_kind=["cpu"]),
        "num_devices is 'many'": config(num_devices="many"),
        "Expecting": "{",
    },
    "table.csv": {
        "lacks the column clean_accuracy": table("path,50,0,0.5,0.1", columns=[c for c in COLUMNS if c != "clean_accuracy"]),
        "line 3: 5 cells, not 6": table("suspect,0,0,,0.9,0.9", "path,50,0,0.5,0.8"),
        "line 2: 7 cells, not 6": table("path,50,0,0.5,0.8,0.1,9"),
        "clean_accuracy is 'good', not a number": table("path,50,0,0.5,good,0.1"),
        r"t is '\x1c0', not a number": table("path,50,0,\x1c0,0.9,0.1"),
        "clean_accuracy is '1_0'": table("path,50,0,0.5,1_0,0.1"),
        "clean_accuracy is '2024-01-01'": table("path,50,0,0.5,2024-01-01,0.1"),
        "clean_accuracy is 'true'": table("path,50,0,0.5,true,0.1"),
        f"clean_accuracy is '{HUGE[:20]}": table(f"path,50,0,0.5,{HUGE},0.1"),
        "seed is 1180591620717411303424": table(f"path,50,{2**70},0.5,0.8,0.1"),
        "seed is 'x'": table("path,50,x,0.5,0.8,0.1"),
        "clean_accuracy is '1e400'": table("path,50,0,0.5,1e400,0.1"),
        "seed is 0.5": table("path,50,0.5,0.5,0.8,0.1"),
        "seed is empty": table("path,50,,0.5,0.8,0.1"),
        "bonafide is -50": table("path,-50,0,0.5,0.8,0.1"),
        "method is empty": table(",50,0,0.5,0.8,0.1"),
        "two columns of one name": table("path,50,0,0.5,0.8,0.1,9", columns=(*COLUMNS, "t")),
        "it has no rows": table(),
        "lacks the column method": "",
        "can't decode byte": b"method\n\xff\xff\n",
        "unexpected end of data": table('path,50,0,0.5,0.8,"0.1'),
        "too many": ",".join(map(str, range(2000))),
    },
}  # fmt: skip


@pytest.mark.parametrize("file", DAMAGES)
def test_damage_is_marked_with_its_reason(runs, file):
    for reason, content in DAMAGES[file].items():
        bad = damaged(runs, file, content)
        assert (bad.status, reason in bad.note) == ("damaged", True), (reason, bad)
        assert len(bad.note) < 1000


def test_a_result_of_another_config_is_foreign(runs):
    assert damaged(runs, "result.json", result(config_hash="h1")).status == "other config"
    assert damaged(runs, "config.json", config(hash="h1")).status == "other config"


def test_an_attempt_of_another_config_is_foreign(tmp_path):
    """The published result is the job's own, but the folder with the table is not."""
    job = tmp_path / "jobs" / "a"
    leave(job / "attempts" / "0001", seed=1)
    (job / "result.json").write_text(result(attempt="0001"))
    row = {"id": "a", "overrides": {"seed": 0}, "config_hash": "h0", "config": FIELDS}
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": [row]}))
    (found,) = find([tmp_path])[0]
    assert found.status == "other config"
    assert found.note == "the folder is of config h1, the job of h0"


def test_what_is_undefined_is_no_damage(runs):
    bad = damaged(runs, "result.json", result(metrics={"pearson": None}))
    assert (bad.status, bad.metrics) == ("done", {"pearson": None})
    bad = damaged(runs, "table.csv", table("path,50,0,,nan,inf"))
    assert bad.status == "done"
    assert np.isnan(bad.rows[0]["clean_accuracy"])
    assert bad.rows[0]["t"] is None


def test_what_is_no_file(runs, tmp_path):
    """A pipe does not block, and a huge file is not read into memory."""
    path = runs / "bad" / "result.json"
    before = path.read_bytes()
    try:
        path.unlink()
        os.mkfifo(path)
        assert "it is no file" in find([runs])[0][0].note
        path.unlink()
        path.mkdir()
        assert "it is no file" in find([runs])[0][0].note
        path.rmdir()
        with path.open("wb") as file:
            file.truncate(2**40)  # a sparse file: nothing is written
        assert "MiB are more than 16 MiB" in find([runs])[0][0].note
        path.unlink()
        path.symlink_to(tmp_path / "nowhere")
        assert "No such file" in find([runs])[0][0].note
    finally:
        path.unlink()
        path.write_bytes(before)


def test_gathering_goes_on_and_the_page_says_why(tmp_path):
    """Three kinds of damage at once, with every gathered file."""
    for name, seed in (("text", 0), ("huge", 1), ("seed", 2), ("good", 3), ("better", 4)):
        leave(tmp_path / name, seed)
    (tmp_path / "text" / "result.json").write_text(result(seconds="abc"))
    huge = result(config_hash="h1").replace("0.5", HUGE)
    (tmp_path / "huge" / "result.json").write_text(huge)
    (tmp_path / "seed" / "config.json").write_text(hashed(seed=2**70))
    gather([tmp_path], tmp_path / "out")
    rows = {row["id"]: row for row in read(tmp_path / "out" / "jobs.csv")}
    states = {name: row["state"] for name, row in rows.items()}
    assert states == {
        "better": "done",
        "good": "done",
        "huge": "damaged",
        "seed": "damaged",
        "text": "damaged",
    }
    page = (tmp_path / "out" / "index.html").read_text()
    assert "seconds is &#39;abc&#39;, not a finite number" in page
    assert "5 jobs: 2 done, 3 damaged" in page
    means = read(tmp_path / "out" / "means.csv")
    assert {row["num"] for row in means} == {"2"}


def test_settings_beyond_64_bits_are_written_as_text(tmp_path):
    """A setting may be any number; no table depends on it."""
    leave(tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text(hashed(x=2**70, y=10**400))
    leave(tmp_path / "b", 1)
    gather([tmp_path], tmp_path / "out")
    (row, _) = read(tmp_path / "out" / "jobs.csv")
    assert (row["state"], row["config.x"], row["config.y"]) == ("done", str(2**70), str(10**400))


def test_metrics_can_not_take_the_place_of_a_jobs_own_columns(tmp_path):
    leave(tmp_path / "a")
    (tmp_path / "a" / "result.json").write_text(result(metrics={"state": 1, "note": 2, "b": 3}))
    gather([tmp_path], tmp_path / "out")
    (row,) = read(tmp_path / "out" / "jobs.csv")
    assert (row["state"], row["note"], row["b"]) == ("done", "", "3")


def test_seeds_of_a_metric_are_those_of_the_config(tmp_path):
    """The metrics of a run cannot change its seed."""
    for name in ("a", "b"):
        leave(tmp_path / name)
        fields = hashed(experiment="connect")
        (tmp_path / name / "config.json").write_text(fields)
        metrics = {"seed": int(name == "b"), "worst": 0.5}
        (tmp_path / name / "table.csv").write_text("method,t\nstart,0.0\n")
        text = result(experiment="connect", metrics=metrics)
        (tmp_path / name / "result.json").write_text(text)
    (group,) = groups.of(find([tmp_path])[0])
    assert [(row["num"], row["num_seeds"]) for row in groups.means([group])] == [(1, 1)]


def test_the_same_run_counts_once_however_it_is_given(tmp_path):
    """A copy, a link, and a sweep with its attempt count as one seed; the page names what is left out."""
    leave(tmp_path / "runs" / "a")
    shutil.copytree(tmp_path / "runs" / "a", tmp_path / "runs" / "copy")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "runs" / "a")
    leave(tmp_path / "runs" / "other", 1)
    for name in ("a", "copy"):
        (tmp_path / "runs" / name / "table.csv").write_text(table("path,50,0,nan,0.8,nan"))
    gather([tmp_path / "runs", tmp_path / "runs" / "a"], tmp_path / "out")
    means = read(tmp_path / "out" / "means.csv")
    (mean,) = (r for r in means if (r["method"], r["quantity"]) == ("path", "clean_accuracy"))
    assert (mean["num"], mean["num_seeds"], float(mean["mean"])) == ("2", "2", 0.8)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "1 rows repeat a seed that is counted already" in page
    assert "Left out are rows of copy (of a)." in page
    assert "Of these, other numbers" not in page  # NaN does not conflict with NaN
    assert page.count("was given twice") == 2


def test_a_damaged_sweep_file_is_a_mistake_in_one_line(tmp_path):
    good = {"id": "a", "overrides": {}, "config_hash": "h", "config": {}}
    for row in (
        [],
        {**good, "id": "../a"},
        {**good, "id": ""},
        {**good, "id": "a\0"},
        {**good, "id": "a" * 300},
        {**good, "config": [1]},
        {**good, "overrides": ["seed"]},
        {**good, "config_hash": 3},
    ):
        (tmp_path / "sweep.json").write_text(json.dumps({"jobs": [row]}))
        with pytest.raises(ValueError, match="is not a list of jobs") as caught:
            find([tmp_path])
        assert "\n" not in str(caught.value)
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": {"a": good}}))
    with pytest.raises(ValueError, match="is not a list of jobs"):
        find([tmp_path])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**70, 10**400, -(2**63), "abc", "=1", "0001", "\ud800", ""])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
FILES = {"result.json": RESULT, "config.json": CONFIG}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_wrong_values_in_json(runs, data):
    """Any value of a file is replaced: the job is damaged, or has the numbers of the file."""
    file = data.draw(st.sampled_from(sorted(FILES)))
    content = json.loads(json.dumps(FILES[file]))
    inside = content["metrics"] if file == "result.json" else content["hashed"]
    node = data.draw(st.sampled_from([content, inside]))
    node[data.draw(st.sampled_from(sorted(node)))] = data.draw(JSON)
    bad = damaged(runs, file, json.dumps(content))
    if bad.status == "done":
        assert bad.metrics == content.get("metrics", RESULT["metrics"])
        assert [row["clean_accuracy"] for row in bad.rows] == [0.9, 0.8]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*FILES, "table.csv"]), st.data())
def test_damaged_bytes(runs, file, data):
    """Bytes are changed, cut or added: the job is damaged, or has the numbers of the file."""
    content = bytearray((runs / "bad" / file).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["change", "cut", "add"])):
        case "change":
            content[at] = data.draw(st.integers(0, 255))
        case "cut":
            del content[at:]
        case "add":
            content[at:at] = data.draw(st.binary(max_size=4))
    bad = damaged(runs, file, bytes(content))
    if bad.status == "done" and file == "table.csv":
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        rows = list(csv.DictReader(text))
        assert [str(r["method"]) for r in bad.rows] == [
            csv_text.unescape(r["method"]) for r in rows
        ]
        for got, want in zip(bad.rows, rows, strict=True):
            for name in set(want) - {"method", None}:
                value = float(want[name]) if want[name].strip() else None
                assert got[name] == value or math.isnan(value)


NUMBER = st.floats() | st.sampled_from([-1e308, 1e308, 5e-324, math.inf, math.nan, None, 10**300])


@pytest.mark.slow(compiles=True)
@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
@example([(0.5, 0.5, 0.0), (0.5, 0.5, 1e154), (0.5, 0.5, 0.0), (0.5, math.nan, -1e308)])
@example([(None, None, None)] * 4)
@example([(0.5, math.nan, math.inf)] * 4)
@given(st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=4, max_size=4))
def test_numbers_of_any_size_are_gathered_and_drawn(tmp_path_factory, numbers):
    folder = tmp_path_factory.mktemp("numbers")
    for seed in range(2):
        leave(folder / f"run{seed}", seed)
        rows = [
            f"{method},{size},{seed}," + ",".join("" if v is None else repr(v) for v in values)
            for (method, size), values in zip(
                (("suspect", 0), ("path", 50)), numbers[2 * seed :], strict=False
            )
        ]
        (folder / f"run{seed}" / "table.csv").write_text(table(*rows))
    gather([folder], folder / "out")
    assert [row["state"] for row in read(folder / "out" / "jobs.csv")] == ["done", "done"]


def test_every_reader_names_its_file(tmp_path):
    for reader in (records.read_result, records.read_config, lambda p: records.read_table(p, "x")):
        with pytest.raises(Damaged, match=f"{tmp_path}/nothing can't be read \\(No such file"):
            reader(tmp_path / "nothing")
