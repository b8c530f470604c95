"""The accelerator script: what it plans, keeps and writes, and all of it on the smallest sizes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accelerator import __main__ as command
from benchmarks.accelerator import beside, marked_tests, numbers, profile, right, table, wheels
from benchmarks.accelerator.plan import Piece, pieces
from benchmarks.accelerator.record import Record
from benchmarks.worker import Worker

ROOT = Path(__file__).parents[2]
PYTHON = sys.executable


def run(*args, timeout=600):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.accelerator", *map(str, args)],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


def test_every_piece_has_rows_and_a_line():
    assert len({piece.name for piece in pieces()}) == len(pieces())
    for piece in (*pieces(), *pieces(tiny=True)):
        assert callable(piece.rows)
        assert piece.what


def test_a_record_adds_up_visits(tmp_path):
    before = Record(tmp_path / "before.json")
    before.keep("card", "one", {"name": "a", "x": 1})
    before.keep("card", "one", {"name": "b", "error": "no memory"})
    before.close("card", "one", "cut")
    now = Record(tmp_path / "now.json", [tmp_path / "before.json"])
    assert now.names("card", "one") == ["a"]  # b is to be tried again
    assert now.names("other card", "one") == []
    now.keep("card", "one", {"name": "b", "x": 2})
    now.close("card", "one", "complete")
    again = Record(tmp_path / "now.json")
    assert again.names("card", "one") == ["a", "b"]
    assert again.status("card", "one") == "complete"
    assert again.pieces["card | one"]["attempts"] == 2
    (tmp_path / "now.json").write_text("[]")
    with pytest.raises(ValueError, match="no record"):
        Record(tmp_path / "now.json")


def test_what_no_card_has_comes_first_and_what_fails_twice_is_left(tmp_path):
    chosen = [Piece(name, "", "", 1, "") for name in "abc"]
    record = Record(tmp_path / "r.json")
    record.close("H100", "a", "complete")
    record.close("H200", "b", "failed")

    def order(*only):
        return [piece.name for piece in command.order(chosen, record, "H200", list(only))]

    assert order() == ["b", "c", "a"]
    record.close("H200", "b", "failed")
    assert order() == ["c", "a"]
    assert order("b") == ["b"]
    record.close("H200", "a", "complete")
    assert order() == ["c"]


def piece_of(tmp_path, monkeypatch, code, seconds):
    """Runs a piece whose process is the code; returns its record."""
    monkeypatch.setattr(command.sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text(f"#!{PYTHON}\n{code}\n")
    (tmp_path / "python").chmod(0o755)
    record = Record(tmp_path / "r.json")
    with (tmp_path / "log").open("w") as log:
        piece = Piece("p", "", "", 9, "")
        command.run(piece, record, "card", log, seconds=seconds, tiny=True)
    return record


def ended(pid):
    """Whether a process is gone, or only waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_piece_past_its_time_is_ended_and_keeps_its_rows(tmp_path, monkeypatch):
    code = f"""
import subprocess, sys, time
print('ROW {{"name": "a", "speedup": 2}}', flush=True)
child = subprocess.Popen([{PYTHON!r}, "-c", "import time; time.sleep(60)"])
open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
time.sleep(60)"""
    record = piece_of(tmp_path, monkeypatch, code, seconds=3)
    assert record.names("card", "p") == ["a"]
    assert record.status("card", "p") == "cut"
    assert record.pieces["card | p"]["seconds"] < 30  # its child, which has the pipe, lives 60 s
    child = int((tmp_path / "child").read_text())
    for _ in range(100):  # a killed process takes a moment to go
        if ended(child):
            break
        time.sleep(0.1)
    assert ended(child)


def test_a_piece_that_fails_says_why(tmp_path, monkeypatch):
    code = "print('a library speaks'); raise SystemExit(3)"
    record = piece_of(tmp_path, monkeypatch, code, seconds=60)
    assert record.pieces["card | p"]["status"] == "failed"
    assert record.pieces["card | p"]["why"] == "a library speaks"
    assert "a library speaks" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "nothing"], "unknown piece nothing"),
        (["--tiny", "--budget", "0"], "--budget is 0"),
    ],
)
def test_mistakes_are_one_line(tmp_path, flags, message):
    answer = run("--out", tmp_path, *flags)
    assert answer.returncode == 2
    assert message in answer.stderr.splitlines()[-1]


def test_without_an_accelerator_nothing_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    answer = run("--out", tmp_path)
    assert answer.returncode == 2
    assert "no accelerator here" in answer.stderr
    assert not (tmp_path / "accelerator.json").exists()


@pytest.mark.slow
def test_the_whole_script_on_the_smallest_sizes(tmp_path, monkeypatch):
    """All pieces run, both frameworks agree, and a second call has nothing left to do."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    answer = run("--tiny", "--out", tmp_path, "--budget", 900, timeout=900)
    kept = json.loads((tmp_path / "accelerator.json").read_text())
    status = {piece["piece"]: piece["status"] for piece in kept["pieces"].values()}
    log = (tmp_path / "log.txt").read_text()[-2000:]
    assert status == {piece.name: "complete" for piece in pieces(tiny=True)}, answer.stderr + log
    rows = list(kept["rows"].values())
    for row in rows:
        assert row["card"] == "cpu"
        assert not row.get("failed")
        if row["piece"] == "right":  # the CPU beside the CPU: nothing may differ
            assert row["worst"] == 0
        if row["piece"] == "tiny":
            assert max(row["worst"].values(), default=0) <= row["tolerance"]
            assert row["seconds"]["mcjax"] > 0
        if row["piece"] == "tests":
            assert row["passed"] > 0
            assert row["failed"] == 0
        if row["piece"] == "autoattack":
            assert row["robust"] <= row["correct"] <= row["images"]
        if row["piece"] == "sweep":
            assert row["worst"] < 1e-4
    (cold, warm) = (row for row in rows if row["piece"] == "compile")
    assert warm["step"] < cold["step"]
    page = (tmp_path / "accelerator.md").read_text()
    for title in ("Is it right there?", "Ceilings", "Networks side by side", "Where the time goes"):
        assert title in page
    assert "Still to be measured" not in answer.stdout
    again = run("--tiny", "--out", tmp_path)
    assert again.returncode == 0
    assert json.loads((tmp_path / "accelerator.json").read_text()) == kept


def test_the_page_names_the_fastest_variant_and_what_differs(tmp_path):
    record = Record(tmp_path / "r.json")
    record.keep("H100", "ceilings", {"name": "product tf32", "operations_per_second": 4e12})
    row = {
        "name": "step tf32", "network": "vgg16", "work": "step", "precision": "tf32", "units": 2,
        "seconds": {"mcjax": 1.0, "torch eager": 4.0, "torch graphs": 2.0}, "all_seconds": {},
        "operations": 1e12, "worst": {"torch eager": 0.5}, "tolerance": 0.1,
        "failed": {"torch compiled": "no | compiler"},
    }  # fmt: skip
    record.keep("H100", "vgg16", row)
    record.keep("H100", "vgg16", {"name": "pgd tf32", "error": "out of memory"})
    broken = {"torch eager": 0.0, "torch graphs": float("nan")}
    record.keep("H100", "vgg16", {**row, "name": "path tf32", "work": "path", "worst": broken})
    page = table.page(record)
    assert "| 1 s | 500 ms | 1.00 | 0.25 | 2 s (graphs) | **2.00** | 4.00 |" in page
    assert page.count("**beyond tolerance**") == 2  # NaN is beyond every tolerance
    assert "no / compiler" in page
    assert "out of memory" in page
    assert "vgg16 (not measured)" in page
    assert "Not measured" in table.page(Record(tmp_path / "none.json"))


def test_numbers_are_the_same_in_every_process_and_differ_between_points():
    shapes = {"params/a/kernel": [3, 3, 2, 4], "batch_stats/b/var": [4], "params/b/bias": [4]}
    first, again = (numbers.variables(shapes, "start") for _ in range(2))
    other = numbers.variables(shapes, "end")
    for name, value in first.items():
        assert list(value.shape) == shapes[name]
        np.testing.assert_array_equal(value, again[name])
    assert (first["params/a/kernel"] != other["params/a/kernel"]).all()
    assert (first["batch_stats/b/var"] == 1).all()
    x, y = numbers.images(numbers.TINY, "train")
    assert x.shape == (24, 8, 8, 3)
    assert (x != numbers.images(numbers.TINY, "test")[0][:1]).any()
    assert y.tolist() == [i % 10 for i in range(24)]


def test_differences():
    a, b = {"loss": np.array([1.0, 2.0])}, {"loss": np.array([1.0, 2.2]), "seconds": 1}
    assert beside.difference(a, b) == pytest.approx(0.1)
    a, b = {"eigenvalue": np.array([1.0, 3.0])}, {"eigenvalue": np.array([3.0, 1.1])}
    assert beside.difference(a, b) == pytest.approx(0.025)


def test_tables_and_paths_of_two_devices(tmp_path):
    (a, b), (c, d) = ([tmp_path / f"{x}{i}.csv" for i in (0, 1)] for x in "tp")
    a.write_text("method,seed,clean_accuracy,t\nsuspect,0,0.5,0.2\nline_worst,0,0.9,\n")
    b.write_text("method,seed,clean_accuracy,t\nsuspect,0,0.75,0.9\nline_worst,0,0.1,\n")
    assert right.apart(a, b, skip=("line_worst",)) == 0.25
    assert right.apart(a, b) == pytest.approx(0.8)
    c.write_text("t,train_loss,train_accuracy\n0.0,0.99,1\n")
    d.write_text("t,train_loss,train_accuracy\n0.0,0.89,0\n")
    assert right.losses_apart(c, d) == pytest.approx(0.1)
    b.write_text("method,seed,clean_accuracy,t\n")
    with pytest.raises(RuntimeError, match="2 rows"):
        right.apart(a, b)


def test_failures_among_the_marked_tests_are_named(monkeypatch):
    lines = [
        "tests/a.py::test_x PASSED [ 1%]\n",
        "tests/a.py::test_y[1-2] FAILED [ 2%]\n",
        "tests/b.py::test_z PASSED [ 3%]\n",
    ]

    class Process:
        stdout, returncode = lines, 1

        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(marked_tests.subprocess, "Popen", Process)
    a, b = marked_tests.rows("", set(), False)
    assert a == {"name": "tests/a.py", "passed": 1, "failed": 1, "failures": ["test_y[1-2]"]}
    assert b["passed"] == 1
    Process.returncode = 2
    with pytest.raises(RuntimeError, match="ended with 2"):
        list(marked_tests.rows("", set(), False))


def test_kernels_of_one_kind_add_up():
    assert profile.kind("fusion.1") == profile.kind("fusion.23") == "fusion"


def test_a_worker_survives_a_failing_work_and_its_own_death(tmp_path, monkeypatch):
    module = tmp_path / "work_of_a_test.py"
    module.write_text(
        "import os\n"
        "def prepare(x):\n"
        "    return {'add': lambda y: x + y, 'fail': lambda: 1 / 0, 'die': lambda: os._exit(1)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = Worker("work_of_a_test", 1)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        worker.time("fail")
    assert worker.call("add", 2) == 3
    with pytest.raises(RuntimeError, match="has ended"):
        worker.time("die")
    with pytest.raises(RuntimeError, match="has ended"):
        worker.time("add", 2)
    worker.close()


def test_what_the_host_has():
    assert wheels.packages("a==1\nb @ file:///x\n-e .\nC_d\n") == {"a": "1", "c-d": ""}
    with pytest.raises(ValueError, match="is no NAME"):
        wheels.packages("Package    Version\n")
    names = {r.name for r in wheels.requirements()}
    assert {"jax", "ml_collections", "pytest"} <= names


def test_the_hosts_versions_are_kept_where_mcjax_admits_them(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(wheels, "_pip", lambda *args: asked.append(args))
    present = {"jax": "0.11.2", "flax": "0.1.0", "torch": "2.11.0+cu130", "chex": ""}
    wheels.download(wheels.requirements(), present, "3.12", tmp_path)
    assert (tmp_path / "constraints.txt").read_text() == "jax==0.11.2"  # flax is too old for mcjax
    assert (asked[0][0], asked[0][-1]) == ("wheel", "promise")
    assert "--python-version" in asked[1]
    assert asked[1][asked[1].index("--python-version") + 1] == "3.12"
