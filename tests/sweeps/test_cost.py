"""Hours from counted work: a case computed by hand, and the command."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import in_process
import pytest

from mcjax.repair.methods.method import Work
from mcjax.sweeps import counted_work, declare
from mcjax.sweeps.cost import CHIPS, Assumptions, Chip, bound, expected, job_seconds, makespan
from mcjax.sweeps.counted_work import Size
from mcjax.sweeps.job_config import from_flat

ROOT = Path(__file__).parents[2]
SWEEP = "configs/sweeps/backdoor_paper.py"
CHIP = Chip(operations=1e12, bandwidth=1e11, per_slice=4)
PLAIN = Size(operations=1e9, activations=1e5, parameters=1e6, has_batch_stats=False)
NORMALISED = PLAIN._replace(has_batch_stats=True, operations=1e7)


def test_a_step_by_hand():
    train = Work("train", 1000, 128, 3, 8, "batch")
    assumed = Assumptions(slowdown=2, step_seconds=1e-3)
    # Operations: 128 * 3 * 1e9 / 1e12 = 0.384 s. Bytes: 128 * 3 * 1e5 * 2 * 2 + 8 * 4e6 = 186 MB, 1.9 ms.
    assert bound(train, PLAIN, CHIP, assumed) == pytest.approx(384)
    assert expected(train, PLAIN, CHIP, assumed) == pytest.approx(2 * 384 + 1)
    # With BatchNorm, and a hundredth of the operations: 128 * 3 * 1e5 * 8 + 32e6 bytes, 3.392 ms < 3.84.
    assert bound(train, NORMALISED, CHIP, assumed) == pytest.approx(3.84)
    in_float32 = Assumptions(bytes_per_number=4)  # 128 * 3 * 1e5 * 16 + 32e6 bytes
    assert bound(train, NORMALISED, CHIP, in_float32) == pytest.approx(6.464)


def test_what_chips_share():
    four = Assumptions(chips_a_job=4, slowdown=1, step_seconds=1e-3)
    one = Assumptions(slowdown=1, step_seconds=1e-3)
    batch, points, alone = (Work(s, 80, 100, 1, 0, s) for s in ("batch", "points", ""))
    for stage in (batch, points, alone):
        assert expected(stage, PLAIN, CHIP, one) == pytest.approx(80 * (0.1 + 1e-3))
    assert expected(batch, PLAIN, CHIP, four) == pytest.approx(80 * (0.025 + 1e-3))
    assert expected(points, PLAIN, CHIP, four) == pytest.approx(20 * (0.1 + 1e-3))
    assert expected(alone, PLAIN, CHIP, four) == pytest.approx(80 * (0.1 + 1e-3))


def test_the_slowdown_follows_batch_norm():
    stage, assumed = Work("", 1, 100, 1, 0, ""), Assumptions(step_seconds=0)
    for size, slowdown in ((PLAIN, 2), (NORMALISED, 4)):
        least = bound(stage, size, CHIP, assumed)
        assert expected(stage, size, CHIP, assumed) == pytest.approx(slowdown * least)


def test_the_makespan_is_near_the_best():
    jobs, places = [5.0, 4.0, 3.0, 3.0, 2.0, 2.0], 3
    best = min(
        max(sum(s for s, p in zip(jobs, where, strict=True) if p == i) for i in range(places))
        for where in itertools.product(range(places), repeat=len(jobs))
    )
    assert best <= makespan(jobs, places) <= 4 / 3 * best  # Graham 1969
    assert makespan(jobs, 6) == 5.0
    assert makespan(jobs, 1) == sum(jobs)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "launch.cost", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow(compiles=True)
def test_the_command():
    done = command("--sweep", SWEEP, "--slices=1", "--slices=2", "--chip_hour_price=3")
    assert done.returncode == 0, done.stderr
    assert "A job: vgg on cifar10, 1 chip(s) of v4" in done.stdout
    assert "A job: preresnet on svhn_cropped" in done.stdout
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")][-2:]
    assert [row[1:3] for row in rows] == [[" 1 ", " 4 "], [" 2 ", " 8 "]]
    for row in rows:
        number, *_, hours, chip_hours, price = (float(cell) for cell in row[1:-1])
        assert chip_hours == pytest.approx(hours * 4 * number, abs=0.1)
        assert price == pytest.approx(3 * hours * 4 * number, abs=0.1)


MISTAKES = {
    "": "no sweep was given",
    f"--sweep={SWEEP} --chips_a_job=5": "--chips_a_job is 5; it must be 1 to 4",
    f"--sweep={SWEEP} --slices=0": "--slices is 0",
}


def test_mistakes_end_in_one_line():
    for arguments, message in MISTAKES.items():
        done = in_process.run("launch.cost", *arguments.split())
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_docs_have_these_numbers():
    """docs/scale.md was printed by this code; this fails if either changes."""
    text = (ROOT / "docs" / "scale.md").read_text().split("## What a sweep costs")[1]
    totals = re.findall(
        r"\*\*all, with setup\*\* \| \| \*\*(.+?)\*\* \| \*\*(.+?)\*\* \| \*\*(.+?)\*\*", text
    )
    declared = [from_flat(job.config) for job in declare.load(ROOT / SWEEP)]
    found, seconds = [], {1: [], 4: []}
    for config in declared:
        size = counted_work.size(config)
        for chips, rows in seconds.items():
            rows.append(job_seconds(config, size, CHIPS["v4"], Assumptions(chips_a_job=chips)))
        stages = counted_work.stages(config, has_batch_stats=size.has_batch_stats)
        operations = sum(s.num_steps * s.images * s.passes for s in stages) * size.operations
        hours = (f"{s / 3600:.2f}" for s in seconds[1][-1])
        found.append((f"{operations / 1e15:.0f}", *hours))
    assert totals == sorted(set(found), reverse=True, key=lambda row: float(row[0]))
    tables = re.findall(r"^\| (\d) \| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$", text, re.M)
    assert len(tables) == 7
    for number, places, least, likely, chip_hours in tables:
        rows = seconds[4 if number == places else 1]
        assert least == f"{makespan([s[0] for s in rows], int(places)) / 3600:.2f}"
        hours = makespan([s[1] for s in rows], int(places)) / 3600
        assert likely == f"{hours:.1f}"
        assert chip_hours == f"{hours * 4 * int(number):.1f}"
