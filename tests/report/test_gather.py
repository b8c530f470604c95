"""Gathered sweeps and runs: no job is dropped, each seed counts once, means are right, bytes repeat."""

import csv
import json
import math
import re
import time
from pathlib import Path

import in_process
import pyarrow.parquet
import pytest

from mcjax.cli.report import default_out, gather
from mcjax.core.errors import UserError
from mcjax.evaluation.intervals import mean_interval
from mcjax.report.chart import BOTTOM, TOP, chart
from mcjax.report.means import mean, summarise
from mcjax.report.panels import Chart
from mcjax.sweeps.gathered import figures, groups, tables
from mcjax.sweeps.gathered.jobs import find
from mcjax.sweeps.gathered.overlaid import overlaid

COLUMNS = ("method", "bonafide", "seed", "t", "clean_accuracy", "attack_success_rate")


def config(**fields):
    base = {"experiment": "backdoor", "seed": 0, "attack.trigger": "square", "repair.sizes": [50]}
    return {**base, **{k.replace("__", "."): v for k, v in fields.items()}}


def table(seed, sizes=(50,), success=0.1):
    """A suspect, and a path whose accuracy grows with the size and the seed."""
    lines = [("suspect", 0, seed, "", 0.9 + seed / 100, 0.99)]
    lines += [("path", n, seed, 0.5, 0.8 + n / 1000 + seed / 100, success) for n in sizes]
    return "\n".join(",".join(map(str, line)) for line in (COLUMNS, *lines)) + "\n"


def leave_run(folder, fields, rows, *, metrics=None, result=True):
    """Writes what mcjax.train writes."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"hash of {json.dumps(fields)}"
    record = {"hash": name, "hashed": fields, "git_revision": "r", "device_kind": "cpu"}
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "table.csv").write_text(rows)
    (folder / "report.html").write_text("a report")
    done = {"config_hash": name, "seconds": 1.5, "metrics": metrics or {"path_50": 0.5}}
    if result:
        (folder / "result.json").write_text(json.dumps(done))
    return done


def leave_sweep(folder, jobs):
    """Writes what launch.sweep writes; jobs is {id: (fields, outcome)}."""
    declared = []
    for name, (fields, fate) in jobs.items():
        config_hash = f"hash of {json.dumps(fields)}"
        overrides = {k: v for k, v in fields.items() if k in ("seed", "attack.trigger")}
        declared.append(
            {"id": name, "overrides": overrides, "config_hash": config_hash, "config": fields}
        )
        job, attempt = folder / "jobs" / name, folder / "jobs" / name / "attempts" / "0001"
        if fate == "missing":
            continue
        seed = fields["seed"]
        done = leave_run(attempt, fields, table(seed, fields["repair.sizes"]), result=False)
        (attempt / "log.txt").write_text("began\nout of memory\n\n")
        (attempt / "attempt.json").write_text(json.dumps({"exit_code": 1}))
        if fate == "done":
            (job / "result.json").write_text(json.dumps({**done, "attempt": "0001"}))
    (folder / "sweep.json").write_text(json.dumps({"name": "s", "code": {}, "jobs": declared}))


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def means(folder, **about):
    rows = read(folder / "means.csv")
    return [row for row in rows if all(row[k] == str(v) for k, v in about.items())]


def test_every_declared_job_is_listed(tmp_path):
    jobs = {f"seed_{i}": (config(seed=i), "done") for i in range(3)}
    jobs |= {"late": (config(seed=3), "missing"), "broken": (config(seed=4), "failed")}
    leave_sweep(tmp_path, jobs)
    gather([tmp_path], tmp_path / "gathered")
    rows = read(tmp_path / "gathered" / "jobs.csv")
    assert [(row["id"], row["state"]) for row in rows] == [
        ("seed_0", "done"),
        ("seed_1", "done"),
        ("seed_2", "done"),
        ("late", "missing"),
        ("broken", "failed"),
    ]
    assert rows[4]["note"] == "out of memory"
    assert [row["config.seed"] for row in rows] == list("01234")
    assert (rows[0]["seconds"], rows[0]["path_50"], rows[3]["path_50"]) == ("1.5", "0.5", "")
    page = (tmp_path / "gathered" / "index.html").read_text()
    assert 'href="../jobs/seed_1/attempts/0001/report.html"' in page
    assert "3 of 5 jobs done; not in the means: late (missing), broken (failed)" in page
    (mean,) = means(tmp_path / "gathered", method="path", quantity="clean_accuracy")
    value, half = mean_interval([0.85, 0.86, 0.87])
    assert float(mean["mean"]) == pytest.approx(value)
    assert float(mean["interval"]) == pytest.approx(half)
    assert (mean["num"], mean["num_seeds"]) == ("3", "3")


def test_parquet_holds_what_csv_holds(tmp_path):
    leave_sweep(tmp_path, {f"s{i}": (config(seed=i), "done") for i in range(2)})
    gather([tmp_path], tmp_path / "out")
    for name in ("jobs", "rows", "means"):
        rows = read(tmp_path / "out" / f"{name}.csv")
        typed = pyarrow.parquet.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist()
        assert list(typed[0]) == list(rows[0])
        for got, want in zip(typed, rows, strict=True):
            for column, value in want.items():
                number = isinstance(got[column], float)
                assert (
                    float(value) == got[column]
                    if number
                    else value == str("" if got[column] is None else got[column])
                )


def test_seeds_within_a_run_and_across_jobs_count_alike(tmp_path):
    one = "\n".join([table(0).strip(), *table(1).splitlines()[1:], *table(2).splitlines()[1:]])
    leave_run(tmp_path / "one" / "run", config(seeds=[0, 1, 2]), one + "\n")
    for seed in range(3):
        leave_run(tmp_path / "many" / f"s{seed}", config(seed=seed), table(seed))
    found = [groups.means(groups.of(find([tmp_path / name])[0])) for name in ("one", "many")]
    assert found[0] == found[1]
    assert {row["num_seeds"] for row in found[0]} == {3}


def test_a_seed_counts_once(tmp_path):
    for name, size, success in (("a", 50, 0.1), ("b", 100, 0.1), ("c", 50, 0.3)):
        leave_run(tmp_path / name, config(repair__sizes=[size]), table(0, [size], success=success))
    (group,) = groups.of(find([tmp_path])[0])
    assert {(r["num"], r["num_seeds"]) for r in groups.means([group])} == {(1, 1)}
    assert [(row["method"], row["bonafide"]) for row in group.rows] == [
        ("suspect", 0),
        ("path", 50),
        ("path", 100),
    ]
    assert group.num_repeats == 3  # two suspects with equal numbers, one path with others
    assert group.conflicts == [
        "method path, bonafide 50, seed 0: the numbers of a count, not those of c"
    ]


def test_groups_are_what_differs_apart_from_seeds(tmp_path):
    for trigger in ("square", "blended"):
        for seed in range(2):
            fields = config(seed=seed, attack__trigger=trigger, run__chunk=seed)
            leave_run(tmp_path / f"{trigger}{seed}", fields, table(seed))
    found = groups.of(find([tmp_path])[0])
    assert [group.title for group in found] == [
        "attack.trigger = blended",
        "attack.trigger = square",
    ]
    assert all(len(group.jobs) == 2 for group in found)
    gather([tmp_path], tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "backdoor_path.png").exists()


def test_the_papers_layout(tmp_path):
    rows = [table(0, (400, 50)), table(1, (400, 50)), table(2, (400,))]
    for seed, content in enumerate(rows):
        leave_run(tmp_path / str(seed), config(seed=seed), content)
    (group,) = groups.of(find([tmp_path])[0])
    networks, repairs, chosen = tables.of_group(group)
    assert networks.title.endswith("n = 3 seeds")
    half = mean_interval([0.90, 0.91, 0.92])[1]
    assert networks.rows == [["suspect", f"0.910 ± {half:.3f} / 0.990 ± 0.000"]]
    assert repairs.head == ["method", "400", "50"]
    ((name, first, second),) = repairs.rows
    assert (name, first) == ("path", f"1.210 ± {half:.3f} / 0.100 ± 0.000")
    assert second.endswith(" (n = 2 seeds)")
    assert [cell.split(" and ") for cell in second[:-14].split(" / ")] == [
        ["0.850", "0.860"],
        ["0.100", "0.100"],
    ]
    assert repairs.title.endswith("n = 3 seeds unless said otherwise")
    assert chosen.rows[2] == ["2", "0.50", ""]


def test_folds(tmp_path):
    head, *lines = table(0).splitlines()
    content = [f"{head},fold", *(f"{line},{fold}" for fold in range(3) for line in lines)]
    leave_run(tmp_path / "a", config(), "\n".join(content) + "\n")
    (group,) = groups.of(find([tmp_path])[0])
    assert {(row["num"], row["num_seeds"]) for row in groups.means([group])} == {(3, 1)}
    assert tables.of_group(group)[0].title.endswith("n = 3 (folds of 1 seed)")


def test_other_experiments_have_sections_of_their_own(tmp_path):
    leave_run(tmp_path / "b", config(), table(0))
    for seed in range(2):
        metrics = {"curve_worst_test_accuracy": 0.5 + seed, "line_worst_test_accuracy": 0.25}
        rows = "method,bonafide,seed,t,clean_accuracy\nstart,,0,0.0,0.9\n"
        leave_run(
            tmp_path / f"c{seed}",
            {"experiment": "connect", "seed": seed},
            rows,
            metrics=metrics,
        )
    barriers = "path,seed,robust_loss_barrier,pearson,pearson_low\nregular,{0},1.5,0.5,0.1\n"
    for seed in range(2):
        fields = {"experiment": "evasion", "seed": seed}
        leave_run(tmp_path / f"e{seed}", fields, barriers.format(seed))
    gather([tmp_path], tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    for title in ("Backdoor", "Connect", "Evasion"):
        assert f">{title}</h2>" in page
    (worst,) = means(tmp_path / "out", quantity="curve_worst_test_accuracy")
    assert (worst["experiment"], worst["mean"], worst["num_seeds"]) == ("connect", "1.0", "2")
    (barrier,) = means(tmp_path / "out", quantity="robust_loss_barrier")
    assert (barrier["path"], barrier["mean"], barrier["interval"]) == ("regular", "1.5", "0.0")
    assert not means(tmp_path / "out", quantity="pearson_low")


def test_damaged_files_are_named_and_the_others_go_on(tmp_path, capsys):
    for name in ("good", "cut_result", "cut_table", "no_table", "cut_config"):
        leave_run(tmp_path / name, config(), table(0))
    (tmp_path / "cut_result" / "result.json").write_text('{"metrics": {"a"')
    (tmp_path / "cut_table" / "table.csv").write_text("method,seed\npath,0\nsu")
    (tmp_path / "no_table" / "table.csv").unlink()
    (tmp_path / "cut_config" / "config.json").write_text("{")
    gather([tmp_path], tmp_path / "out")
    rows = {row["id"]: row for row in read(tmp_path / "out" / "jobs.csv")}
    assert rows["good"]["state"] == "done"
    said = capsys.readouterr().err
    for name, file in (
        ("cut_result", "result.json"),
        ("cut_table", "table.csv"),
        ("no_table", "table.csv"),
        ("cut_config", "config.json"),
    ):
        assert rows[name]["state"] == "damaged"
        assert str(tmp_path / name / file) in rows[name]["note"]
        assert f"{name} is damaged" in said


def test_a_result_of_another_config_is_left_out(tmp_path):
    leave_sweep(tmp_path, {"a": (config(), "done")})
    path = tmp_path / "jobs" / "a" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "config_hash": "other"}))
    (job,) = find([tmp_path])[0]
    assert job.status == "other config"
    assert not groups.of([job])[0].rows


def test_rates_end_at_0_and_100_percent(tmp_path):
    """The interval of three seeds can exceed 100 %; the axis and the bars do not."""
    for seed, success in ((0, 0.0), (1, 0.0), (2, 1.0)):
        leave_run(tmp_path / str(seed), config(seed=seed), table(seed, success=success))
    (group,) = groups.of(find([tmp_path])[0])
    assert mean_interval([0.0, 0.0, 1.0])[1] > 1
    _, success = figures.rates(summarise(group.rows, group.measure), group.measure)
    assert success.ylim == (-2, 102)
    (bar,) = re.findall(
        r'class="bar" d="M[\d.]+,([\d.]+)V([\d.]+)"', chart(Chart("a", [success], ""))
    )
    assert list(map(float, bar)) == [TOP, BOTTOM]


def test_of_two_seeds_the_range_is_shown():
    found = mean([{"seed": 0, "a": 0.30}, {"seed": 1, "a": 0.32}], "a")
    assert (found.value, found.half) == pytest.approx((0.31, 0.01))


def test_equal_bytes(tmp_path):
    leave_sweep(tmp_path, {f"s{i}": (config(seed=i), "done") for i in range(2)})
    for name in ("a", "b"):
        gather([tmp_path], tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) >= 8
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        find([tmp_path / "nope"])
    with pytest.raises(UserError, match="contains no run and no sweep"):
        find([tmp_path])
    (tmp_path / "sweep.json").write_text("[")
    with pytest.raises(UserError, match=r"sweep\.json can't be read"):
        find([tmp_path])
    (tmp_path / "sweep.json").write_text('{"jobs": [{"id": "a"}]}')
    with pytest.raises(UserError, match="not a list of jobs"):
        find([tmp_path])


def test_a_folder_given_twice_counts_once(tmp_path):
    leave_run(tmp_path / "a", config(), table(0))
    jobs, notes = find([tmp_path / "a", tmp_path])
    assert len(jobs) == 1
    assert "was given twice" in notes[0]


def test_equal_names_are_told_apart(tmp_path):
    for parent in ("x", "y"):
        leave_run(tmp_path / parent / "a", config(), table(0))
    jobs, _ = find([tmp_path / "x", tmp_path / "y"])
    assert [Path(job.id).parent.name for job in jobs] == ["x", "y"]


def test_undeclared_jobs_are_mentioned(tmp_path):
    leave_sweep(tmp_path, {"a": (config(), "done")})
    (tmp_path / "jobs" / "old").mkdir()
    _, notes = find([tmp_path])
    assert "1 in " in notes[0]
    assert notes[0].endswith("left out: old")


def test_nan_stays_visible(tmp_path):
    rows = f"{','.join(COLUMNS)}\nsuspect,0,0,,nan,0.5\n"
    leave_run(tmp_path / "a", config(), rows)
    (job,) = find([tmp_path])[0]
    assert math.isnan(job.rows[0]["clean_accuracy"])
    assert job.rows[0]["t"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "no folder was given"),
        ("nope", "there is no folder nope"),
        (".", "contains no run and no sweep"),
        ("a --out a/config.json", "give another --out"),
    ],
)
def test_the_command_ends_mistakes_in_one_line(words, message, tmp_path):
    if words.startswith("a "):
        leave_run(tmp_path / "a", config(), table(0))
    run = in_process.apart if words == "." else in_process.run
    done = run("mcjax.report", *words.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_where_it_is_left(tmp_path):
    leave_sweep(tmp_path / "sweep", {"a": (config(), "done")})
    attempt = tmp_path / "sweep" / "jobs" / "a" / "attempts" / "0001"
    assert default_out([tmp_path / "sweep"]) == tmp_path / "sweep" / "gathered"
    assert default_out([attempt, tmp_path]) == Path("gathered")


def test_the_tables_of_a_single_run_are_printed_and_nothing_is_written(tmp_path):
    leave_run(tmp_path / "a", config(), table(0))
    done = in_process.run("mcjax.report", "a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| path | 0.850 / 0.100 |" in done.stdout
    assert "its page is a/report.html; add --out FOLDER" in done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


LONG = "npz:/home/somebody/a/long/way/to/{}.npz"


def test_long_paths_are_shown_by_their_last_part_if_that_tells_them_apart(tmp_path):
    for i, name in enumerate((LONG.format("mine"), "digits")):
        leave_run(tmp_path / "some" / str(i), config(data__name=name), table(0))
    jobs, _ = find([tmp_path / "some"])
    assert [g.title for g in groups.of(jobs)] == ["data.name = npz:mine.npz", "data.name = digits"]
    for i, name in enumerate(("npz:/a/mine.npz", "npz:/b/mine.npz")):
        leave_run(tmp_path / "same" / str(i), config(data__name=name), table(0))
    jobs, _ = find([tmp_path / "same"])
    assert [g.title for g in groups.of(jobs)] == [
        "data.name = npz:/a/mine.npz",
        "data.name = npz:/b/mine.npz",
    ]


PATH = "t,test_accuracy,test_loss,attack_success_rate\n0,0.9,0.1,1\n0.5,{},0.2,0.1\n1,0.9,0.1,1\n"


def test_runs_that_differ_by_seed_get_overlaid_paths(tmp_path):
    for seed in range(3):
        leave_run(tmp_path / str(seed), config(seed=seed), table(seed))
        (tmp_path / str(seed) / "path.csv").write_text(PATH.format(0.8 - seed / 10))
    (group,) = groups.of(find([tmp_path])[0])
    found = overlaid("seeds", group)
    assert [panel.ylabel for panel in found.panels] == [
        "cross-entropy, test (nats)",
        "test error (%)",
        "attack success rate (%)",
    ]
    error = found.panels[1]
    assert [line.label for line in error.lines] == ["seed 0", "seed 1", "seed 2"]
    assert [line.y[1] for line in error.lines] == pytest.approx([20, 30, 40])
    (tmp_path / "0" / "path.csv").write_text("damaged")
    (tmp_path / "1" / "path.csv").unlink()
    assert overlaid("seeds", group) is None


def test_labels_of_any_length_leave_room_for_the_panels(tmp_path):
    """Layout warnings are errors in tests."""
    names = [f"data.name = npz:{'photographs_of_numbers_' * 5}{i}.npz" for i in range(6)]
    means = [mean([{"seed": 0, "x": 0.5}], "x")] * 6
    dots = [figures.Dots("worst", {"curve": means, "line": means})] * 2
    figures._dots_figure(tmp_path / "a.png", names, dots)
    height = int.from_bytes((tmp_path / "a.png").read_bytes()[20:24])
    assert height > 180 * 6 * 3 * 0.15  # three lines per label


def test_a_thousand_jobs(tmp_path):
    """300 settings of three seeds and 100 missing jobs are gathered in seconds; the bound is generous."""
    triggers = [f"blended:alpha={i}" for i in range(300)]
    jobs = {
        f"{trigger}_{seed}": (config(seed=seed, attack__trigger=trigger), "done")
        for trigger in triggers
        for seed in range(3)
    }
    jobs |= {f"late_{i}": (config(seed=i + 3), "missing") for i in range(100)}
    leave_sweep(tmp_path, jobs)
    began = time.process_time()
    gather([tmp_path], tmp_path / "gathered")
    assert time.process_time() - began < 30
    assert len(read(tmp_path / "gathered" / "jobs.csv")) == 1000
    assert len(means(tmp_path / "gathered", method="path", quantity="clean_accuracy")) == 300
