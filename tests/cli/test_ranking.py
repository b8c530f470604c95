"""The ranking of repairs, from made-up tables whose means are worked by hand."""

import json

import in_process
import pytest

from mcjax.cli import ranking
from mcjax.core.errors import UserError

HEAD = "method,bonafide,seed,t,clean_accuracy,attack_success_rate\n"


def show(*names):
    print(ranking.ranked(names))


def config_of(folder, trigger, **others):
    fields = {"attack.trigger": trigger, "repair.sizes": [100]} | others
    (folder / "config.json").write_text(json.dumps({"hashed": fields}))


def run(folder, trigger, lines):
    folder.mkdir()
    config_of(folder, trigger)
    (folder / "table.csv").write_text(HEAD + "\n".join(lines) + "\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    square = run(
        tmp_path / "a",
        "square",
        [
            "suspect,0,0,,0.90,1.0",
            "suspect,0,1,,0.80,1.0",
            "clean twin,0,0,,0.91,0.0",
            "clp,0,0,,0.70,0.5",
            "clp,0,1,,0.70,0.5",
            "path,100,0,0.5,0.88,0.10",  # removes 0.90, loses 0.02
            "path,100,1,0.5,0.80,0.30",  # 0.70, 0
            "path at t = 0.5,100,0,0.5,0.9,0.0",
            "fine_tune,100,0,,0.86,0.0",  # 1.0, 0.04
            "fine_tune,100,1,,0.76,0.0",
        ],
    )
    warp = run(
        tmp_path / "b",
        "wanet",
        ["suspect,0,0,,0.90,0.9", "path,100,0,0.5,0.90,0.0", "fine_tune,100,0,,0.80,0.0"],
    )
    return square, warp


def test_scores_are_means_over_attacks_of_means_over_seeds(runs, capsys):
    show(*map(str, runs))
    first, means, second, legend = capsys.readouterr().out.strip().split("\n\n")
    assert legend.startswith("Score: attack success removed minus clean accuracy lost")
    # fine-tuning: (0.96 + 0.80) / 2; path: ((0.88 + 0.70) / 2 + 0.90) / 2; clp has one attack only.
    assert first.splitlines()[2:] == ["| fine tune | 0.880 |", "| path | 0.845 |", "| clp |  |"]
    # Lost: (0.04 + 0.10) / 2; success: 0; worst of three runs. The seconds are nowhere.
    assert "| fine tune | 0.880 |  |  | 0.070 | 0.000 | 0.000 |  |  |" in means
    assert "| path | 0.845 |  |  | 0.005 | 0.100 | 0.300 |  |  |" in means
    assert "| suspect | 0.850 / 1.000 (1.000) | 0.900 / 0.900 |" in second
    assert "| path | 0.840 / 0.200 (0.300) | 0.900 / 0.000 |" in second
    assert "oracle" not in second
    assert "t = 0.5" not in second
    assert "clean twin" not in second


def test_a_method_without_images_counts_at_every_size(runs, capsys):
    show(str(runs[0]))
    first = capsys.readouterr().out.split("\n\n")[0]
    # (1 - 0.5) - (0.90 - 0.70), (1 - 0.5) - (0.80 - 0.70)
    assert "| clp | 0.300 and 0.400 |" in first


def test_the_oracles_setting_and_the_best_stand_beside_the_chosen_one(tmp_path, capsys):
    lines = [
        "suspect,0,0,,0.9,1.0",
        "d3,100,0,,0.8,0.0",  # 0.9
        "d3 at strength = 1,100,0,,0.8,0.0",
        "d3 at the oracle's strength,100,0,,0.82,0.0",  # 0.92
        "d3 at strength = 2,100,0,,0.85,0.01",  # 0.94
        "d3,50,0,,0.8,0.5",
        "nad,100,0,,0.9,0.0",
        "noise at t = 0,100,0,,0.9,0.0",
    ]
    show(str(run(tmp_path / "a", "square", lines)))
    out = capsys.readouterr().out
    assert "| 100 images | score | oracle's | best | accuracy lost |" in out
    assert "| d3 | 0.900 | 0.920 | 0.940 | 0.100 |" in out
    assert "| d3 | 0.400 |  |  | 0.100 |" in out  # of 50 images
    assert "| nad | 1.000 |  |  | 0.000 |" in out


def test_the_best_point_of_a_path_is_any_of_its_points(tmp_path, capsys):
    folder = run(tmp_path / "a", "square", ["suspect,0,0,,0.9,1.0", "path,100,0,0.5,0.8,0.0"])
    (folder / "paths" / "seed_0").mkdir(parents=True)
    points = ["t,test_accuracy,attack_success_rate", "0,0.9,1.0", "0.5,0.8,0.0", "1,0.85,0.01"]
    (folder / "paths" / "seed_0" / "path_100.csv").write_text("\n".join(points) + "\n")
    show(str(folder))
    # 1 - 0.01 - (0.9 - 0.85)
    assert "| path | 0.900 |  | 0.940 | 0.100 |" in capsys.readouterr().out


def test_the_interval_is_over_seeds_that_all_attacks_have(tmp_path, capsys):
    def of(trigger, rates):
        lines = [f"suspect,0,{seed},,0.9,1.0" for seed in range(len(rates))]
        return [*lines, *(f"path,100,{seed},,0.9,{rate}" for seed, rate in enumerate(rates))]

    two = [run(tmp_path / name, name, of(name, (0.0, 0.2))) for name in ("square", "wanet")]
    show(*map(str, two))
    assert "| path | 1.000 and 0.800 |" in capsys.readouterr().out
    three = [run(tmp_path / f"{name}3", name, of(name, (0.0, 0.1, 0.2))) for name in ("a", "b")]
    show(*map(str, three))
    # Student: 4.303 * 0.1 / sqrt(3)
    scores, means, *_ = capsys.readouterr().out.split("\n\n")
    assert "| path | 0.900 ± 0.248 |" in scores
    assert "| path | 0.900 ± 0.248 |  |  | 0.000 ± 0.000 | 0.100 ± 0.248 | 0.200 |  |" in means


def test_seconds_and_the_re_learning_test_stand_beside_the_rates(tmp_path, capsys):
    lines = ["suspect,0,0,,0.9,1.0", "path,100,0,0.3,0.9,0.0", "path,50,0,0.3,0.9,0.0"]
    lines += ["fine_tune,100,0,,0.9,0.0", "fine_tune,50,0,,0.9,0.0"]
    for name, add in (("a", 0), ("b", 0.125)):
        figures = run(tmp_path / name, name, lines) / "figures"
        figures.mkdir()
        seconds = [f"path,100,0,{10 + 8 * add}", "path,50,0,7", f"fine_tune,100,0,{30 + 8 * add}"]
        text = "\n".join(["method,bonafide,seed,seconds", *seconds])
        (figures / "seconds.csv").write_text(text + "\n")
        tested = [
            f"{method},{m},{m / per + add}"
            for m in (1, 5)
            for method, per in (("path", 1), ("fine_tune", 10))
        ]
        text = "\n".join(["method,m,excess", *tested])
        (figures / "relearning_methods.csv").write_text(text + "\n")
    show(str(tmp_path / "a"), str(tmp_path / "b"))
    _, large, _, small, *_ = capsys.readouterr().out.strip().split("\n\n")
    # Means of two runs, of the largest size.
    assert "worst | acceptable | re-learned excess (1) | re-learned excess (5) | seconds |" in large
    assert "| path | 1.000 |  |  | 0.000 | 0.000 | 0.000 |  | 1.062 | 5.062 | 10 |" in large
    assert "| fine tune | 1.000 |  |  | 0.000 | 0.000 | 0.000 |  | 0.163 | 0.562 | 30 |" in large
    assert "| path | 1.000 |  |  | 0.000 | 0.000 | 0.000 |  | 7 |" in small
    assert "| fine tune | 1.000 |  |  | 0.000 | 0.000 | 0.000 |  |  |" in small


@pytest.mark.parametrize("broken", ["config.json", "table.csv", "both"])
def test_what_is_no_backdoor_run_is_refused(runs, broken):
    if broken == "both":
        (runs[0] / "table.csv").write_text("a,b\n1,2\n")
    else:
        (runs[0] / broken).unlink()
    with pytest.raises(
        UserError, match=r"is not a finished backdoor run.*run an unfinished one again"
    ):
        show(str(runs[0]))
    with pytest.raises(UserError, match="no run was given"):
        show()


EVIDENCE = "network,bonafide,seed,form,class,attacked_class,anomaly,threshold,success,evident\n"


def with_evidence(folder, trigger, lines):
    run(folder, trigger, ["suspect,0,4,,0.9,1.0", "path,100,4,0.5,0.9,0.0"])
    (folder / "evidence.csv").write_text(EVIDENCE + "\n".join(lines) + "\n")
    return folder


def test_the_verdicts_are_counted_once_per_network(tmp_path, capsys):
    # The form that says most comes first; the clean twin does not depend on the attack.
    twin = ["clean twin,100,4,warp,3,1,2.5,2.0,0.9,1", "clean twin,100,4,patch,3,1,1.0,2.0,0.9,0"]
    found = ["suspect,100,4,patch,1,1,5.0,2.0,0.9,1", "suspect,100,4,warp,7,1,3.0,2.0,0.9,1"]
    wrong = ["suspect,100,4,patch,7,1,2.2,2.0,0.9,1"]
    missed = ["suspect,100,4,patch,1,1,1.5,2.0,0.9,0"]
    all_to_all = ["suspect,100,4,patch,1,,4.0,2.0,0.9,1"]
    runs = [
        with_evidence(tmp_path / name, name, [*lines, *twin])
        for name, lines in zip("abcd", (found, wrong, missed, all_to_all), strict=True)
    ]
    show(*map(str, runs))
    assert "| 100 | 3 of 4 | 1 | 0.75 | 1 of 1 | 1.25 |" in capsys.readouterr().out
    # With other sizes the images are others, and so is the search.
    config_of(runs[0], "a", **{"repair.sizes": [100, 50]})
    show(*map(str, runs))
    assert "| 100 | 3 of 4 | 1 | 0.75 | 2 of 2 | 1.25 |" in capsys.readouterr().out


def test_the_estimate_is_compared_along_every_path_with_evidence(tmp_path, capsys):
    folder = with_evidence(tmp_path / "a", "square", [])
    paths = folder / "paths" / "seed_4"
    paths.mkdir(parents=True)
    head = "t,test_accuracy,attack_success_rate,estimated_attack_success"

    def write(name, *pairs):
        lines = [f"{i},0.9,{a},{b}" for i, (a, b) in enumerate(pairs)]
        (paths / f"{name}.csv").write_text("\n".join([head, *lines]) + "\n")

    write("taught_line_100", (1.0, 0.5), (0.5, 0.25), (0.0, 0.0))  # ranks agree; 0.25 too low
    write("line", (1.0, 0.0), (0.5, 0.5), (0.0, 1.0))
    write("path_100", (1.0, 0.0), (0.5, 0.0), (0.0, 0.0))  # no evidence
    (paths / "other.csv").write_text("t,test_loss\n0,1\n")
    show(str(folder))
    out = capsys.readouterr().out
    assert "| taught line, 100 images | 1 | 1.00 (1.00 to 1.00) | -0.25 (-0.25 to -0.25) |" in out
    assert "| line | 1 | -1.00 (-1.00 to -1.00) | +0.00 (+0.00 to +0.00) |" in out
    assert "path, 100 images |" not in out.replace("taught line, ", "")


def test_a_damaged_table_of_evidence_is_refused(tmp_path):
    folder = with_evidence(tmp_path / "a", "square", ["suspect,100,4,patch,1,1,nothing,2,0.9,1"])
    with pytest.raises(UserError, match="is not a finished backdoor run"):
        show(str(folder))


def test_how_many_choices_were_accurate_enough(tmp_path, capsys):
    folder = tmp_path / "a"
    run(folder, "square", [])
    rows = [
        "suspect,0,0,,0.9,1.0,",
        "d3,9,0,,0.8,0.0,0",
        "suspect,0,1,,0.9,1.0,",
        "d3,9,1,,0.9,0.0,1",
    ]
    (folder / "table.csv").write_text("\n".join([f"{HEAD.strip()},acceptable", *rows]) + "\n")
    show(str(folder))
    assert "| 0.000 | 1 of 2 |" in capsys.readouterr().out


def test_kept_records_stand_for_their_runs(runs, tmp_path):
    file = str(tmp_path / "study.json")
    assert ranking.ranked([str(runs[0])], keep=file) == ranking.ranked([file])
    both = ranking.ranked([*map(str, runs)])
    assert ranking.ranked([file, str(runs[1])], keep=file) == both
    assert ranking.ranked([file]) == both


def test_the_command_prints_and_keeps(runs, tmp_path):
    file = tmp_path / "study.json"
    done = in_process.run("mcjax.report.ranking", str(runs[0]), f"--keep={file}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ranking.ranked([str(file)]) + "\n"
    assert f"wrote the records of 1 runs to {file}" in done.stderr
    # What the file has already counts once.
    done = in_process.run("mcjax.report.ranking", str(file), str(runs[0]), f"--keep={file}")
    assert done.stdout == ranking.ranked([str(file)]) + "\n"
    assert f"{runs[0]}: path, fine_tune does not count; an earlier run has the same" in done.stderr


def test_no_file_is_lost_by_keeping(runs, tmp_path):
    file = tmp_path / "study.json"
    ranking.ranked([str(runs[0])], keep=str(file))
    before = file.read_text()
    with pytest.raises(UserError, match=r"study\.json exists; add it to the runs"):
        ranking.ranked([str(runs[1])], keep=str(file))
    with pytest.raises(UserError, match=r"config\.json exists; add it"):
        ranking.ranked([str(runs[0])], keep=str(runs[0] / "config.json"))
    with pytest.raises(UserError, match="is given twice"):  # refused, so nothing is kept
        ranking.ranked([str(file), str(file)], keep=str(file))
    assert file.read_text() == before
    with pytest.raises(UserError, match=r"does not end in \.json"):
        ranking.ranked([str(runs[0])], keep=str(tmp_path / "study.csv"))
