"""Declaring jobs: ids, checks, and configs that survive job.json."""

import importlib.util
import json
import time
from pathlib import Path

import numpy as np
import pytest

from mcjax.cli.sweep import write_sweep
from mcjax.core.errors import UserError
from mcjax.runs import config as base
from mcjax.runs.config import config_hash, flat
from mcjax.sweeps import declare, store
from mcjax.sweeps.declare import Sweep
from mcjax.sweeps.job_config import get_config

ROOT = Path(__file__).parents[2]
HEAD = """
from mcjax.sweeps.declare import Sweep, grid
from mcjax.runs import config as base

def get_sweep():
    """


def sweep_file(folder, body):
    path = folder / "some_sweep.py"
    path.write_text(HEAD + body)
    return path


def test_a_grid_is_declared_in_order_with_hashes_of_the_whole_config(tmp_path):
    declared = declare.load(
        sweep_file(
            tmp_path,
            'return Sweep(base.connect(), grid({"seed": range(2), "curve.num_bends": (1, 3)}))',
        )
    )
    assert [dict(j.overrides) for j in declared] == [
        {"seed": s, "curve.num_bends": b} for s in (0, 1) for b in (1, 3)
    ]
    config = base.connect()
    config.seed, config.curve.num_bends = 1, 3
    assert declared[3].config_hash == config_hash(config)
    assert declared[3].config == flat(config)
    assert declared[3].id == f"seed_1-num_bends_3-{config_hash(config)}"
    assert base.connect().seed == 0


def test_several_bases_and_a_base_from_a_file_seen_from_the_sweep_file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from mcjax.runs import config as base\n"
        "def get_config(arg=None):\n    return base.variant(base.backdoor(), arg)\n"
    )
    path = sweep_file(
        tmp_path,
        'return [Sweep("mine.py:quick", [{}]), Sweep(base.evasion(), grid({"seed": (4,)}))]',
    )
    monkeypatch.chdir("/")
    declared = declare.load(path)
    assert declared[0].id.startswith("base-")
    assert declared[0].config["data.name"] == "fake:digits"
    assert [j.config["experiment"] for j in declared] == ["backdoor", "evasion"]


def test_numpy_values_and_lists_are_as_good_as_numbers_and_tuples(tmp_path):
    def of(overrides):
        return declare._declare(Sweep(base.backdoor(), [overrides]), tmp_path)[0]

    assert of({"seed": np.int64(3)}) == of({"seed": 3})
    assert of({"repair.sizes": [100, 50]}) == of({"repair.sizes": (100, 50)})
    assert of({"attack.fraction": np.float64(0.2)}) == of({"attack.fraction": 0.2})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            'return Sweep(base.connect(), [{"curve.num_bend": 1}])',
            "did you mean 'curve.num_bends'?",
        ),
        ('return Sweep(base.connect(), [{"party": 1}])', "no field 'party' to override"),
        ('return Sweep(base.connect(), [{"curve": 1}])', "no field 'curve' to override"),
        ('return Sweep(base.connect(), [{"seed": "one"}])', "override {'seed': 'one'}"),
        ('return Sweep(base.connect(), [{"curve.kind": "spline"}])', "must be one of bezier"),
        ('return Sweep(base.connect(), [{"experiment": "party"}])', "config.experiment 'party'"),
        ('return Sweep(base.connect(), [{"seed": 1}, {}, {"seed": 1}])', "jobs 0 and 2 of "),
        ("return Sweep(base.connect(), [])", "declares no jobs"),
        ("return 1 / 0", "some_sweep.py, line 6: ZeroDivisionError: division by zero"),
        ('return Sweep("nope.py", [{}])', "there is no file "),
        ("return base.connect()", "returned ConfigDict; return a Sweep or a list"),
        ("return (", "SyntaxError"),
    ],
)
def test_mistakes(tmp_path, body, message):
    with pytest.raises(UserError) as caught:
        declare.load(sweep_file(tmp_path, body))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [3, "01"])
def test_a_grid_wants_lists(value):
    with pytest.raises(UserError, match=r"grid: seed is .*; give a list"):
        declare.grid({"seed": value})


def test_a_missing_file_and_one_without_get_sweep(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        declare.load(tmp_path / "nope.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match=r"has no get_sweep\(\)"):
        declare.load(tmp_path / "empty.py")


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "configs").glob("*.py")))
def test_every_config_comes_back_from_its_job_file_as_it_was(name, tmp_path):
    spec = importlib.util.spec_from_file_location("some_config", ROOT / "configs" / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    (job,) = declare._declare(Sweep(config, [{}]), tmp_path)
    write_sweep(tmp_path, "some_sweep", [job])
    read = get_config(str(tmp_path / "jobs" / job.id / "job.json"))
    assert config_hash(read) == job.config_hash
    assert read.to_dict() == config.copy_and_resolve_references().to_dict()  # tuples stay tuples


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "sweeps").glob("*.py")), ids=str)
def test_every_sweep_of_configs_can_be_declared(path):
    assert len(declare.load(path)) > 1


@pytest.mark.slow(compiles=True)
def test_a_thousand_jobs_are_declared_and_scanned_in_seconds(tmp_path):
    path = sweep_file(
        tmp_path,
        'return Sweep(base.backdoor(), grid({"seed": range(250), "attack.target": range(4)}))',
    )
    began = time.process_time()
    declared = declare.load(path)
    loaded = time.process_time()
    states = store.scan(tmp_path, declared)
    assert len(states) == 1000
    assert {s.status for s in states.values()} == {"missing"}
    write_sweep(tmp_path, "some_sweep", declared)
    for job in declared[:500]:
        folder = tmp_path / "jobs" / job.id / "attempts" / "0001"
        folder.mkdir(parents=True)
        result = {"config_hash": job.config_hash, "attempt": "0001"}
        (folder.parent.parent / "result.json").write_text(json.dumps(result))
    written = time.process_time()
    states = store.scan(tmp_path, declared)
    scanned = time.process_time()
    assert sum(s.status == "done" for s in states.values()) == 500
    print(f"declared in {loaded - began:.1f} s, scanned in {scanned - written:.1f} s")
    assert loaded - began + scanned - written < 10


def test_sweep_files_may_import_from_the_former_place():
    from launch import jobs

    assert (jobs.Sweep, jobs.grid) == (declare.Sweep, declare.grid)
