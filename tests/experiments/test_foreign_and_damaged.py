"""Checkpoints of other runs, missing or damaged ones, in all four experiments: equal bytes or a refusal."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny_runs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_runs import run

from mcjax.cli import evaluate
from mcjax.core.errors import UserError
from mcjax.experiments import connect, evasion
from mcjax.experiments import result as results
from mcjax.experiments.stages import path as path_stages
from mcjax.runs import checkpoint
from mcjax.runs import config as base
from mcjax.runs.metric_log import MetricLog
from mcjax.runs.seal import sealed
from mcjax.runs.workdir import open_workdir, read_config


# The others' stages look for their files in the same places of the code.
@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow(compiles=True) if name != "connect" else ())
        for name in tiny_runs.CHANGES
    ],
)
def finished(request, tmp_path_factory):
    return request.param, tiny_runs.finished(request.param, tmp_path_factory)


@pytest.fixture
def copy(finished, tmp_path):
    name, workdir = finished
    shutil.copytree(workdir, tmp_path / "run")
    return name, tmp_path / "run"


def checkpoints(workdir):
    return sorted(path.parent for path in (workdir / "checkpoints").rglob("_CHECKPOINT_METADATA"))


def tables(workdir):
    names = [p for p in workdir.rglob("*.csv") if p.name != "seconds.csv"]
    return {str(p.relative_to(workdir)): p.read_bytes() for p in names}


def test_every_checkpoint_of_another_run_is_refused(copy):
    name, workdir = copy
    found = checkpoints(workdir)
    assert len(found) >= 3
    fields = ("config_hash", "data_hash", "stage")
    for i, place in enumerate(found):
        tree, metadata = checkpoint.restore(place)
        kept = {k: v for k, v in metadata.items() if k != "digest"}
        for field in fields if i == 0 else fields[i % 3 :][:1]:  # all stages look in one place
            checkpoint.save(place, tree, **{**kept, field: "another"})
            with pytest.raises(
                UserError, match=rf"{place.name} was computed by another run \({field} another"
            ):
                run(name, workdir)
        checkpoint.save(place, tree, **kept)
    place = found[-1]
    checkpoint.save(place, tree, **{k: v for k, v in kept.items() if k != "config_hash"})
    with pytest.raises(UserError, match=r"another run \(config_hash None"):
        run(name, workdir)


def test_another_stages_checkpoint_is_refused(copy):
    name, workdir = copy
    a, b = [place for place in checkpoints(workdir) if place.name.endswith(("_a", "_b"))][:2]
    shutil.rmtree(b)
    shutil.copytree(a, b)
    with pytest.raises(UserError, match=r"was computed by another run \(stage"):
        run(name, workdir)


def test_what_is_missing_is_computed_again_to_equal_bytes(copy):
    name, workdir = copy
    before = tables(workdir)
    assert "table.csv" in before
    for place in checkpoints(workdir)[::2]:
        shutil.rmtree(place)
    shutil.rmtree(workdir / "checkpoints" / ".walks")
    for path in [
        *workdir.rglob("*.csv"),
        *workdir.rglob("* transfer.json"),
        workdir / "result.json",
    ]:
        path.unlink()
    run(name, workdir)
    assert tables(workdir) == before


def test_a_damaged_checkpoint_is_refused_and_damaged_points_are_computed_again(copy, capsys):
    name, workdir = copy
    before = tables(workdir)
    walks = sorted((workdir / "checkpoints" / ".walks").rglob("*.npz"))
    content = bytearray(walks[0].read_bytes())
    content[len(content) // 2] ^= 255
    walks[0].write_bytes(content)
    walks[-1].write_bytes(walks[-1].read_bytes()[:100])
    run(name, workdir)
    assert capsys.readouterr().err.count("is damaged") == len({walks[0], walks[-1]})
    assert tables(workdir) == before
    place = checkpoints(workdir)[0]
    for path in (place / "tree").rglob("*"):
        if path.is_file():
            middle = path.stat().st_size // 2
            content = path.read_bytes()
            path.write_bytes(content[: middle - 32] + b"damaged" + content[middle - 25 :])
    with pytest.raises(UserError, match=rf"{place.name} is damaged"):
        run(name, workdir)


def test_points_of_another_run_are_refused(copy):
    name, workdir = copy
    path = next((workdir / "checkpoints" / ".walks").rglob("*.npz"))
    with np.load(path) as file:
        arrays = dict(file)
    about = json.loads(str(arrays["about"]))
    np.savez(path, **{**arrays, "about": np.array(json.dumps({**about, "config_hash": "another"}))})
    with pytest.raises(UserError, match=r"npz was computed by another run \(config_hash another"):
        run(name, workdir)


def test_files_without_a_config_are_refused(copy):
    name, workdir = copy
    (workdir / "config.json").unlink()
    (workdir / "result.json").unlink()
    with pytest.raises(UserError, match=r"holds checkpoints but no config.json"):
        run(name, workdir)


@pytest.mark.slow(compiles=True)
def test_a_result_is_never_another_ones(copy, capsys):
    name, workdir = copy
    file = workdir / "result.json"
    good = json.loads(file.read_text())
    wrong = {
        "status": "failed",
        "metrics": {**good["metrics"], "added": 0.5},
        "experiment": "other",
        "data": {},
    }
    texts = [json.dumps({**good, field: value}) for field, value in wrong.items()]
    texts += ["", "{", "[]", "null", file.read_text()[:-20], file.read_text().replace("0.", "NaN")]
    for text in texts[:: 2 if name == "connect" else 9]:
        file.write_text(text)
        result = run(name, workdir)
        assert "writing it again" in capsys.readouterr().err
        assert result["metrics"] == good["metrics"]
        assert json.loads(file.read_text()) == result
    del good["checksum"]
    file.write_text(json.dumps(sealed({**good, "config_hash": "another"})))
    with pytest.raises(UserError, match=r"result of another run \(config another"):
        run(name, workdir)


@pytest.fixture(scope="module")
def connected(tmp_path_factory):
    return tiny_runs.finished("connect", tmp_path_factory)


def check_one_line(error):
    assert "\n" not in str(error)


bytewise = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def damage(content, draw):
    """Some bytes changed, cut off or put in; perhaps none."""
    content = bytearray(content)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        how = draw(st.sampled_from(["change", "cut", "insert", "zeros"]))
        if how == "change" and content:
            content[place] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del content[place:]
        elif how == "insert":
            content[place:place] = draw(st.binary(max_size=8))
        else:
            content[place : place + 16] = bytes(len(content[place : place + 16]))
    return bytes(content)


@bytewise
@given(data=st.data())
def test_a_checkpoint_of_any_bytes_is_itself_or_refused(connected, tmp_path_factory, data):
    place = connected / "checkpoints" / "endpoint_a"
    tree, _ = checkpoint.restore(place)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    file = data.draw(st.sampled_from(files))
    other = tmp_path_factory.mktemp("damaged") / "endpoint_a"
    shutil.copytree(place, other)
    (other / file.relative_to(place)).write_bytes(damage(file.read_bytes(), data.draw))
    try:
        found, _ = checkpoint.restore(other, tree)
    except UserError as error:
        check_one_line(error)
    else:
        jax.tree.map(np.testing.assert_array_equal, found, tree)


@bytewise
@given(data=st.data())
def test_points_of_any_bytes_are_themselves_or_nothing(connected, tmp_path_factory, data):
    file = connected / "checkpoints" / ".walks" / "path.npz"
    with np.load(file) as arrays:
        whole = {k: v for k, v in arrays.items() if k not in ("ts", "about")}
        ts, about = arrays["ts"], json.loads(str(arrays["about"]))
    about.pop("digest")
    other = tmp_path_factory.mktemp("damaged") / "path.npz"
    other.write_bytes(damage(file.read_bytes(), data.draw))
    try:
        found = path_stages._read(other, ts, about)
    except UserError as error:
        check_one_line(error)
    else:
        assert not found or (found.keys() == whole.keys())
        for name, values in found.items():
            np.testing.assert_array_equal(values, whole[name])


@bytewise
@given(data=st.data())
def test_a_config_of_any_bytes_is_the_runs_or_refused(connected, tmp_path_factory, data):
    workdir = tmp_path_factory.mktemp("damaged")
    (workdir / "checkpoints").mkdir()
    (workdir / "config.json").write_bytes(
        damage((connected / "config.json").read_bytes(), data.draw)
    )
    try:
        open_workdir(workdir, tiny_runs.config("connect"))
    except UserError as error:
        check_one_line(error)
    else:
        assert read_config(workdir)["hash"] == base.config_hash(tiny_runs.config("connect"))


@bytewise
@given(data=st.data())
def test_a_result_of_any_bytes_says_the_same_or_is_none(connected, tmp_path_factory, data):
    good = json.loads((connected / "result.json").read_text())
    file = tmp_path_factory.mktemp("damaged") / "result.json"
    file.write_bytes(damage((connected / "result.json").read_bytes(), data.draw))
    try:
        found = results.kept(file, good)
    except UserError as error:
        check_one_line(error)
    else:
        assert found is None or results._agree(found["metrics"], good["metrics"])


@bytewise
@given(data=st.data())
def test_a_log_of_any_bytes_is_gone_through(connected, tmp_path_factory, data):
    file = tmp_path_factory.mktemp("damaged") / "metrics.jsonl"
    file.write_bytes(damage((connected / "metrics.jsonl").read_bytes(), data.draw))
    MetricLog(file).rewind("curve", 1)
    for line in file.read_text().splitlines():
        row = json.loads(line)
        assert row.get("stage") != "curve" or row.get("step", 0) <= 1


@bytewise
@given(data=st.data())
def test_transfers_of_any_bytes_are_numbers_or_nothing(tmp_path_factory, data):
    identity = {"config_hash": "a", "stage": "b"}
    kept = {"ensemble": dict.fromkeys(evasion.ENSEMBLE, 0.5), "identity": identity}
    file = tmp_path_factory.mktemp("damaged") / "transfer.json"
    file.write_bytes(damage(json.dumps(kept).encode(), data.draw))
    try:
        found = evasion._read_transfers(file, identity)
    except UserError as error:
        check_one_line(error)
    else:
        assert found is None or found.keys() == set(evasion.ENSEMBLE)


def test_a_half_trained_network_of_another_run_is_refused(connected, tmp_path):
    shutil.copytree(connected, tmp_path / "run")
    place = tmp_path / "run" / "checkpoints" / "endpoint_a"
    tree, metadata = checkpoint.restore(place)
    shutil.rmtree(place)
    kept = {k: v for k, v in metadata.items() if k in ("config_hash", "data_hash", "stage")}
    partial = tmp_path / "run" / "checkpoints" / ".partial" / "endpoint_a"
    checkpoint.save_partial(partial, tree, step=1, **{**kept, "config_hash": "another"})
    with pytest.raises(UserError, match=r"another run \(config_hash another"):
        run("connect", tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("config"), "is a run of the experiment None"),
        (lambda record: record["config"].pop("curve"), "is damaged, or of another version"),
        (lambda record: record["config"]["curve"].update(num_bends="x"), "config.curve.num_bends"),
        (lambda record: record.update(config=[]), "was not written by mcjax.train"),
        (lambda record: record["config"].update(experiment="backdoor"), "experiment backdoor"),
    ],
)
def test_evaluate_on_a_config_that_is_none(connected, tmp_path, change, message):
    record = json.loads((connected / "config.json").read_text())
    change(record)
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=message) as caught:
        evaluate.evaluate(tmp_path, 3)
    check_one_line(caught.value)


def test_connect_is_what_the_fuzzed_files_are_of(connected):
    """The fuzz tests read what a run really leaves."""
    assert connect.trained(connect.open_run(tiny_runs.config("connect"), connected))[0]
