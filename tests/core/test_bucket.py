"""A run in a bucket: files against a bucket in memory, a whole run against an emulator of Google's."""

import importlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mcjax.core import files
from mcjax.core.bucket import in_bucket
from mcjax.core.errors import UserError
from mcjax.runs import config as base
from mcjax.runs import metric_log, workdir

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bucket(monkeypatch):
    """gs://bucket, held in memory by fsspec."""
    pytest.importorskip("fsspec", reason="needs fsspec, of the extra mcjax[gcs]")
    from etils import epath
    from fsspec.implementations.memory import MemoryFileSystem

    class Bucket(MemoryFileSystem):
        protocol = ("gs", "gcs")
        store = {}  # noqa: RUF012
        pseudo_dirs = [""]  # noqa: RUF012

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(os.fspath(path).removeprefix("gs://"))

    registry = importlib.import_module("fsspec.registry")._registry
    for name in Bucket.protocol:
        monkeypatch.setitem(registry, name, Bucket)
    one = Bucket()
    monkeypatch.setattr(epath.backend.fsspec_backend, "_get_filesystem", lambda name: one)
    return files.as_path("gs://bucket/runs/a")


def test_a_path_is_a_folder_or_a_place_in_a_bucket(bucket, tmp_path):
    assert str(bucket / "checkpoints" / "a") == "gs://bucket/runs/a/checkpoints/a"
    assert in_bucket(bucket / "a")
    assert files.as_path(str(tmp_path)) == tmp_path
    assert isinstance(files.as_path(tmp_path), Path)
    assert not in_bucket(tmp_path)


def test_a_bucket_without_its_package():
    if importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    with pytest.raises(UserError, match=r"gs://bucket/a needs .* pip install 'mcjax\[gcs\]'"):
        files.as_path("gs://bucket/a")


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_files_come_and_go_alike(place, tmp_path, bucket):
    root = bucket if place == "bucket" else files.as_path(tmp_path / "a")
    assert not (root / "x.txt").exists()
    files.write(root / "x.txt", "one")
    files.write(root / "x.txt", "two")
    assert (root / "x.txt").read_text() == "two"
    assert files.publish(root / "result.json", "first")
    assert not files.publish(root / "result.json", "second")
    assert (root / "result.json").read_text() == "first"
    workdir.write_csv(root / "deep" / "a.csv", ("t",), [{"t": 0.1}])
    assert workdir.read_csv(root / "deep" / "a.csv") == {"t": [0.1]}
    assert sorted(path.name for path in root.iterdir()) == ["deep", "result.json", "x.txt"]
    files.delete(root / "deep")
    files.delete(root / "deep")
    assert not (root / "deep" / "a.csv").exists()


def test_a_run_belongs_to_one_config_in_a_bucket_too(bucket):
    workdir.open_workdir("gs://bucket/runs/a", base.connect())
    workdir.open_workdir("gs://bucket/runs/a", base.connect())
    files.write(bucket / "checkpoints" / "x", "")
    other = base.connect()
    other.seed = 1
    with pytest.raises(UserError, match=r"gs://bucket/runs/a holds .* \(seed: 0 there, 1 now\)"):
        workdir.open_workdir("gs://bucket/runs/a", other)


def test_the_log_in_a_bucket_is_put_whole_and_rewound(bucket, monkeypatch):
    path = bucket / "metrics.jsonl"
    log = metric_log.MetricLog(path)
    for step in (1, 2, 3):
        log.append(stage="curve", step=step)
    assert not path.exists()  # not a put a line
    log.flush()
    log.append(stage="curve", step=4)
    again = metric_log.MetricLog(path)  # killed before it was put
    again.rewind("curve", 2)
    again.append(stage="curve", step=3)
    monkeypatch.setattr(metric_log, "SECONDS_BETWEEN_PUTS", 0)
    again.append(stage="curve", step=4)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]


def test_a_bucket_that_says_no(bucket, monkeypatch):
    import fsspec

    def refused(*args, **kwargs):
        raise RuntimeError("Forbidden: bucket\nand more")

    monkeypatch.setattr(fsspec.filesystem("gs").__class__, "pipe_file", refused)
    with pytest.raises(
        UserError, match=r"can't write gs://bucket/runs/a/x.txt: Forbidden: bucket;"
    ):
        files.write(bucket / "x.txt", "one")


WHOLE_RUN = """
    import os, sys
    from gcp_storage_emulator.server import create_server
    port = int(sys.argv[1])
    create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket").start()
    where = f"http://127.0.0.1:{port}"
    os.environ |= {"STORAGE_EMULATOR_HOST": where, "TENSORSTORE_GCS_HTTP_URL": where}
    from mcjax.runs import config as base, workdir
    from mcjax.experiments import connect
    config = base.quick(base.connect())
    config.model.name = "mlp"
    config.evaluation.plane_points = 0
    config.run.checkpoint_seconds = 1e-3
    first = connect.run_experiment(config, "gs://bucket/runs/a")
    place = files.as_path("gs://bucket/runs/a")
    assert connect.run_experiment(config, "gs://bucket/runs/a") == first
    files.delete(place / "checkpoints" / ".walks")
    (place / "result.json").unlink()
    again = connect.run_experiment(config, "gs://bucket/runs/a")
    assert again["metrics"] == first["metrics"]  # from the checkpoints
    names = {str(p.relative_to(place)) for p in (*place.iterdir(), *(place / "figures").iterdir())}
    print(*sorted(names))
    os._exit(0)
"""


def test_a_whole_run_in_an_emulated_bucket():
    for name in ("gcsfs", "gcp_storage_emulator"):
        pytest.importorskip(name, reason="needs gcsfs and gcp-storage-emulator")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WHOLE_RUN), str(port)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [
        "checkpoints",
        "config.json",
        "figures",
        "figures/line.csv",
        "figures/path.png",
        "metrics.jsonl",
        "path.csv",
        "report.html",
        "result.json",
        "table.csv",
    ]
