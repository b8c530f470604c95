"""The Markdown of summary.csv: its cells are the file's numbers, and other files are refused."""

import subprocess
import sys

import numpy as np
import pytest

from mcjax.cli.markdown import markdown, read_summary
from mcjax.core.errors import UserError
from mcjax.report.means import summarise
from mcjax.runs.workdir import write_csv


def summary(path, seeds, measure="attack_success_rate"):
    rows = [
        {"method": method, "bonafide": size, "seed": seed, "t": "", "clean_accuracy": a, measure: s}
        for seed, (a, s) in enumerate(seeds)
        for method, size in (("suspect", 0), ("path", 200), ("path", 400), ("i_bau", 400))
    ]
    lines = summarise(rows, measure)
    write_csv(path, lines[0], lines)
    return path


def test_one_seed_has_no_interval_and_missing_sizes_are_empty(tmp_path):
    file = summary(tmp_path / "summary.csv", [(0.9764, 0.5)])
    assert markdown(read_summary(file)) == "\n".join(
        [
            "| network | clean accuracy / success of the attack |",
            "|---|---|",
            "| suspect | 0.976 / 0.500 |",
            "",
            "| method | 400 | 200 |",
            "|---|---|---|",
            "| path | 0.976 / 0.500 | 0.976 / 0.500 |",
            "| i-bau | 0.976 / 0.500 |  |",
        ]
    )


@pytest.mark.parametrize("measure", ["attack_success_rate", "injection_success"])
def test_intervals_are_those_of_student(tmp_path, measure):
    accuracy = np.array([0.90, 0.92, 0.94])
    file = summary(tmp_path / "summary.csv", [(a, 0.25) for a in accuracy], measure)
    half = 4.302653 * accuracy.std(ddof=1) / np.sqrt(3)
    cell = f"0.920 ± {half:.3f} / 0.250 ± 0.000"
    assert f"| suspect | {cell} |" in markdown(read_summary(file)).splitlines()


def test_two_seeds_are_both_shown(tmp_path):
    file = summary(tmp_path / "summary.csv", [(0.90, 0.5), (0.95, 0.25)])
    assert "| suspect | 0.900 to 0.950 / 0.250 to 0.500 |" in markdown(read_summary(file))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "t,test_accuracy\n0.0,0.9\n",
        "method,bonafide,clean_accuracy,attack_success_rate\npath,400,0.9,0.1\n",
        "method,bonafide,clean_accuracy,clean_accuracy_interval,attack_success_rate,"
        "attack_success_rate_interval\npath,400,much,nan,0.1,nan\n",
        "method,bonafide,clean_accuracy,clean_accuracy_interval,attack_success_rate,"
        "attack_success_rate_interval\npath,400\n",
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, text):
    file = tmp_path / "table.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=r"table\.csv is not the summary\.csv of a") as caught:
        read_summary(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none\.csv: No such file"):
        read_summary(tmp_path / "none.csv")


@pytest.mark.slow(compiles=True)
def test_the_command_prints_every_file_and_ends_with_code_2_on_a_mistake(tmp_path):
    command = [sys.executable, "-m", "mcjax.report.markdown"]
    file = str(summary(tmp_path / "summary.csv", [(0.9, 0.1)]))
    done = subprocess.run([*command, file, file], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.count("| suspect | 0.900 / 0.100 |") == 2
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no file was given" in done.stderr
