"""The ranking of repairs, from made-up tables whose means are worked by hand."""

import json

import pytest

from mcjax.cli import ranking
from mcjax.core.errors import UserError

HEAD = "method,bonafide,seed,t,clean_accuracy,attack_success_rate\n"


def run(folder, trigger, lines):
    folder.mkdir()
    config = {"config": {"attack": {"trigger": trigger}}}
    (folder / "config.json").write_text(json.dumps(config))
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
    ranking.main(*map(str, runs))
    first, means, second, legend = capsys.readouterr().out.strip().split("\n\n")
    assert legend.startswith("Score: attack success removed minus clean accuracy lost")
    # fine-tuning: (0.96 + 0.80) / 2; path: ((0.88 + 0.70) / 2 + 0.90) / 2; clp has one attack only.
    assert first.splitlines()[2:] == ["| fine tune | 0.880 |", "| path | 0.845 |", "| clp |  |"]
    # Lost: (0.04 + 0.10) / 2; success: 0; worst of three runs. The seconds are nowhere.
    assert "| fine tune | 0.880 | 0.070 | 0.000 | 0.000 |  |  |" in means
    assert "| path | 0.845 | 0.005 | 0.100 | 0.300 |  |  |" in means
    assert "| suspect | 0.850 / 1.000 (1.000) | 0.900 / 0.900 |" in second
    assert "| path | 0.840 / 0.200 (0.300) | 0.900 / 0.000 |" in second
    assert "oracle" not in second
    assert "t = 0.5" not in second
    assert "clean twin" not in second


def test_a_method_without_images_counts_at_every_size(runs, capsys):
    ranking.main(str(runs[0]))
    first = capsys.readouterr().out.split("\n\n")[0]
    # (1 - 0.5) - (0.90 - 0.70), (1 - 0.5) - (0.80 - 0.70)
    assert "| clp | 0.300 and 0.400 |" in first


def test_the_interval_is_over_seeds_that_all_attacks_have(tmp_path, capsys):
    def of(trigger, rates):
        lines = [f"suspect,0,{seed},,0.9,1.0" for seed in range(len(rates))]
        return [*lines, *(f"path,100,{seed},,0.9,{rate}" for seed, rate in enumerate(rates))]

    two = [run(tmp_path / name, name, of(name, (0.0, 0.2))) for name in ("square", "wanet")]
    ranking.main(*map(str, two))
    assert "| path | 1.000 and 0.800 |" in capsys.readouterr().out
    three = [run(tmp_path / f"{name}3", name, of(name, (0.0, 0.1, 0.2))) for name in ("a", "b")]
    ranking.main(*map(str, three))
    # Student: 4.303 * 0.1 / sqrt(3)
    assert "| path | 0.900 ± 0.248 |" in capsys.readouterr().out


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
    ranking.main(str(tmp_path / "a"), str(tmp_path / "b"))
    _, large, _, small, *_ = capsys.readouterr().out.strip().split("\n\n")
    # Means of two runs, of the largest size.
    assert "| path | 1.000 | 0.000 | 0.000 | 0.000 | 10 | 1.062 (1), 5.062 (5) |" in large
    assert "| fine tune | 1.000 | 0.000 | 0.000 | 0.000 | 30 | 0.163 (1), 0.562 (5) |" in large
    assert "| path | 1.000 | 0.000 | 0.000 | 0.000 | 7 |  |" in small
    assert "| fine tune | 1.000 | 0.000 | 0.000 | 0.000 |  |  |" in small


def test_only_the_first_seed_was_tested_for_re_learning(tmp_path):
    lines = [f"{name},{number},{seed},,0.9,1.0" for seed in (3, 5) for name, number in NAMED]
    folder = run(tmp_path / "a", "square", lines)
    (folder / "figures").mkdir()
    (folder / "figures" / "relearning_methods.csv").write_text("method,m,excess\nd3,10,0.25\n")
    found = {
        (row["bonafide"], row["seed"][0]): row.get("excess") for row in ranking.read_run(folder)
    }
    assert found[100, "3"] == {10: 0.25}
    assert found[100, "5"] is found[50, "3"] is None


NAMED = (("suspect", 0), ("d3", 100), ("d3", 50))


@pytest.mark.parametrize("broken", ["config.json", "table.csv", "both"])
def test_what_is_no_backdoor_run_is_refused(runs, broken):
    if broken == "both":
        (runs[0] / "table.csv").write_text("a,b\n1,2\n")
    else:
        (runs[0] / broken).unlink()
    with pytest.raises(UserError, match=r"cannot read|is not a finished backdoor run"):
        ranking.main(str(runs[0]))
    with pytest.raises(UserError, match="no run was given"):
        ranking.main()
