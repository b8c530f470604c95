"""Every mistake on the command line: exit code 2 and one line; --help that helps."""

import shutil
import subprocess
import sys
from pathlib import Path

import in_process
import jax
import pytest
import tiny_runs

from mcjax.cli.evaluate import evaluate
from mcjax.core.errors import UserError
from mcjax.core.sharding import make_mesh

ROOT = Path(__file__).parents[2]
DIGITS = "--config configs/digits.py"

MISTAKES = {
    "": "no config was given; add --config",
    "--config configs/digit.py": "there is no file configs/digit.py (did you mean digits?)",
    "--config configs/nope.py": "there is no file configs/nope.py; give a file, or one of",
    "--config mcjax/core/keys.py": "has no attribute 'get_config'",
    f"{DIGITS} --config.foo=1": "the config has no field foo",
    f"{DIGITS} --config.curve.num_bend=2": 'no field curve.num_bend. Did you mean "num_bends"',
    f"{DIGITS} --config.curve.num_bends=two": "the value must be an integer",
    f"{DIGITS} --config.curve.kind=spline": "must be one of bezier, polychain",
    f"{DIGITS}:fast": "unknown config argument 'fast'",
    f"{DIGITS} --config.experiment=party": "config.experiment is 'party'; it must be one of connect",
    f"{DIGITS} --config.model.name=vgg99": "unknown network 'vgg99'",
    f"{DIGITS} --config.data.name=npz:nope.npz": "nope.npz",
    f"{DIGITS} --config.data.name=cifar10 --config.data.dir=docs": "cifar-10-python.tar.gz",
    f"{DIGITS} --workdir /proc/mcjax": "can't write",
    f"{DIGITS} helpdesk": "unexpected argument 'helpdesk'",
    f"{DIGITS} --nope=1": "Unknown command line flag 'nope'",
    f"{DIGITS} surplus": "unexpected argument 'surplus'",
}


def runs():
    """The runs in the repository."""
    return sorted(ROOT.glob("runs/*"))


RUNS = runs()


def check_one_line(done, message):
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("python -m mcjax.train: error: ")
    assert message in done.stderr
    assert runs() == RUNS  # not none: the main job may have run here


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes_end_in_one_line(arguments):
    check_one_line(in_process.run("mcjax.train", *arguments.split()), MISTAKES[arguments])


def test_a_mistake_in_a_process_of_its_own():
    arguments = f"{DIGITS} --config.model.name=vgg99"
    check_one_line(in_process.apart("mcjax.train", *arguments.split()), MISTAKES[arguments])


def test_a_reader_that_leaves_ends_a_command_in_silence():
    arguments = ("launch.sweep", "--sweep", "configs/sweeps/backdoor_digits.py", "--dry_run")
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 141


def test_help_names_every_field():
    done = in_process.run("mcjax.train", *f"{DIGITS} --help".split())
    assert done.returncode == 0
    for text in ("Runs an experiment", "--workdir", "--config.curve.num_bends=1"):
        assert text in done.stdout
    assert "mcjax.evaluate" in in_process.run("mcjax.evaluate", "--help").stdout


@pytest.mark.slow(compiles=True)
def test_evaluate(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setattr("mcjax.runs.run.make_mesh", lambda: make_mesh(jax.devices()[:1]))
    tmp_path = tmp_path / "run"
    shutil.copytree(tiny_runs.finished("connect", tmp_path_factory), tmp_path)
    before = (tmp_path / "path.csv").read_bytes()
    words = ["mcjax.evaluate", "--workdir", str(tmp_path), "--num_points", "5"]
    done = in_process.run(*words)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "evaluations" / "points_5"
    lines = (folder / "path.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["t", "0.0", "0.25", "0.5", "0.75", "1.0"]
    assert (folder / "path.png").exists()
    page = (folder / "report.html").read_text()
    worst = min(float(line.split(",")[-1]) for line in lines[1:])
    assert f"The worst point of the curve has test accuracy {worst:.4f}" in page
    assert "5 points of a trained path" in page
    assert '<figure class="chart"' in page
    assert (tmp_path / "path.csv").read_bytes() == before
    assert not (folder / "autoattack.csv").exists()
    attack = "--attack autoattack --eps 0.1 --num_images 5 --num_steps 2 --num_queries 3"
    done = in_process.run(*words, *attack.split())
    assert done.returncode == 0, done.stderr
    lines = (folder / "autoattack.csv").read_text().splitlines()
    assert lines[0].startswith("t,accuracy,pgd_accuracy,autoattack_accuracy,after_apgd_ce")
    assert len(lines) == 6
    assert "under AutoAttack" in (folder / "report.html").read_text()

    (tmp_path / "checkpoints" / "curve" / "tree" / "manifest.ocdbt").write_bytes(b"x")
    # In a process of its own, where Orbax's threads could add tracebacks.
    done = in_process.apart(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("python -m mcjax.evaluate: error: checkpoint ")
    assert last.endswith("delete it and run again")


def test_evaluate_without_a_run(tmp_path):
    for arguments, message in (
        ("", "no run was given"),
        (f"--workdir {tmp_path}", "is not a run"),
        (f"--workdir {tmp_path} --num_points 1", "must be at least 2"),
        (f"--workdir {tmp_path} --attack autoattack", "--attack autoattack and --eps EPS together"),
        (f"--workdir {tmp_path} --eps 0.1", "--attack autoattack and --eps EPS together"),
        (f"--workdir {tmp_path} --attack autoattack --eps=-1", "--eps is -1.0; it must be above 0"),
        (
            f"--workdir {tmp_path} --attack autoattack --eps 1 --num_images 0",
            "--num_images is 0; it must be at least 1",
        ),
    ):
        done = in_process.run("mcjax.evaluate", *arguments.split())
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_evaluate_of_another_experiment(tmp_path):
    (tmp_path / "config.json").write_text('{"config": {"experiment": "backdoor"}}')
    with pytest.raises(UserError, match=r"is a run of the experiment backdoor, whose paths"):
        evaluate(tmp_path, 3)
