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
    first, second = capsys.readouterr().out.strip().split("\n\n")
    # fine-tuning: (0.96 + 0.80) / 2; path: ((0.88 + 0.70) / 2 + 0.90) / 2; clp has one attack only.
    assert first.splitlines()[2:] == ["| fine tune | 0.880 |", "| path | 0.845 |", "| clp |  |"]
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
