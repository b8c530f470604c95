"""The page of a search for evidence, from a made-up result."""

import re

import pytest
from made_runs import repaired

from mcjax.report.evidence_page import how_sure, write_evidence


@pytest.mark.parametrize(("accuracy", "doubted"), [(0.3, True), (0.9, False)])
def test_a_low_accuracy_is_doubted_before_the_verdict(tmp_path, accuracy, doubted):
    report = {**repaired(0.5).report, "accuracy": accuracy, "num_images": 40}
    answer = write_evidence(tmp_path, report, {"arch": "mlp"})
    assert ("gives only 30 % of your images their label" in answer[0]) == doubted
    assert answer[int(doubted)].startswith("There is evidence of a backdoor: class 3")
    assert ("gives only 30 %" in (tmp_path / "report.html").read_text()) == doubted


@pytest.mark.parametrize(
    ("control", "said"),
    [
        ("path", "36 of 40 tampered ones of digits .* the middle of a path"),
        ("away", "32 of 40 tampered ones of digits .* trained away from its own last layer"),
        ("", "36 of 40 tampered ones of digits .* This network has none \\(too few steps\\)"),
    ],
)
def test_the_rates_are_those_of_the_kind_of_control(control, said):
    assert re.search(said, how_sure(searched(control=control)))


def searched(**changes):
    """A search as long as those whose rates are known."""
    steps = {"num_forms": 5, "inversion_steps": 100, "control_steps": 1000}
    report = {"control": "path", **steps, **changes}
    return {"no_control": "" if report["control"] else "too few steps", **report}


@pytest.mark.parametrize(
    "shorter", [{"num_forms": 4}, {"inversion_steps": 99}, {"control_steps": 999}]
)
def test_a_shorter_search_is_told(shorter):
    told = "This search was shorter"
    assert told not in how_sure(searched())
    assert told not in how_sure(searched(control="", control_steps=0))
    ((_, number),) = shorter.items()
    assert f": {number}" in how_sure(searched(**shorter)).partition(told)[2]
