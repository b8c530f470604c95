"""The conclusions of a backdoor report: the best method, and a far better t."""

from types import SimpleNamespace

import numpy as np
import pytest

from mcjax.experiments.repair_study.headline import answer

RATE = "attack_success_rate"


def line(method, bonafide, clean, success):
    return {"method": method, "bonafide": bonafide, "clean_accuracy": clean, RATE: success}


SUSPECT = line("suspect", 0, 0.9, 1.0)


def test_another_method_that_is_better_is_named():
    summary = [
        SUSPECT,
        line("path", 50, 0.85, 0.5),
        line("fine_prune", 50, 0.86, 0.1),
        line("i_bau", 50, 0.88, 0.2),
        line("fine_tune", 250, 0.9, 0.0),  # another size
        line("path at t = 0.5", 50, 0.9, 0.0),  # nobody could have chosen it
    ]
    suspect, path = answer(summary, RATE)
    assert suspect == "The suspect has clean accuracy 0.900 and attack success rate 1.000."
    assert path == (
        "With 50 bonafide images the chosen point of the path has clean accuracy 0.850 and attack success "
        "rate 0.500. The best method by success removed less accuracy lost is fine prune, with clean accuracy "
        "0.860 and attack success rate 0.100."
    )


def test_an_attack_that_hardly_works_is_no_test_of_a_repair():
    says_little = "so how much of it a repair removes says little."
    for success, weak in ((0.4, True), (0.5, False)):
        (first, _) = answer([line("suspect", 0, 0.9, success), line("path", 50, 0.9, 0.0)], RATE)
        assert first.endswith(says_little) == weak


def test_the_path_as_the_best_and_methods_without_images():
    summary = [SUSPECT, line("path", 50, 0.89, 0.1), line("clp", 0, 0.5, 0.0)]
    assert answer(summary, RATE)[1].endswith(
        "It is the best of 2 methods by success removed less accuracy lost; next is clp."
    )
    summary[2] = line("clp", 0, 0.9, 0.0)
    assert "accuracy lost is clp, with" in answer(summary, RATE)[1]


def test_a_far_better_t_is_said_and_a_little_better_one_is_not():
    summary = [SUSPECT, line("path", 50, 0.88, 0.6)]

    def sentence(success):
        path = {
            "t": np.array([0.25, 0.5]),
            "test_accuracy": np.array([0.88, 0.87]),
            RATE: np.array([0.6, success]),
        }
        return answer(summary, RATE, {50: SimpleNamespace(path=path, t=0.25)})[1]

    assert (
        "Another point of this path is far better, t = 0.50 with clean accuracy 0.870"
        in sentence(0.0)
    )
    assert "Another point" not in sentence(0.55)


def test_nothing_is_compared_without_other_methods():
    (_, path) = answer([SUSPECT, line("path", 50, 0.88, 0.6)], RATE)
    assert path.endswith("rate 0.600.")


@pytest.mark.parametrize(
    ("num", "share", "where"),
    [
        (1, 0, ""),
        (5, 0.4, "3 of 5 times "),
        (10, 0.9, "1 of 10 times "),
        (1, 1, None),
        (5, "", None),
    ],
)
@pytest.mark.parametrize("rival", ["fine_prune", "taught_path", "line"])
def test_a_choice_outside_the_tolerance_is_said(num, share, where, rival):
    path, other = (
        line(*values) | {"num": num, "acceptable": share}
        for values in (("taught_line", 50, 0.85, 0.5), (rival, 50, 0.86, 0.1))
    )
    text = answer([SUSPECT, path, other], RATE)[1]
    if where is None:
        assert ";" not in text
        return
    first, _, second = text.partition(". The best method")
    kept = f"; {where}no point was accurate enough on the selection images, so the suspect was kept"
    less = f"; {where}it was less accurate on the selection images than the tolerance allows"
    assert first.endswith(kept)
    assert f"{less if rival == 'fine_prune' else kept}." in second


def test_the_next_best_is_said_to_be_outside_as_well():
    summary = [
        SUSPECT,
        line("path", 50, 0.9, 0.0) | {"num": 1, "acceptable": 1},
        line("d3", 50, 0.8, 0.0) | {"num": 1, "acceptable": 0},
    ]
    assert answer(summary, RATE)[1].endswith(
        "next is d3; it was less accurate on the selection images than the tolerance allows."
    )


def test_a_tie_is_no_win():
    summary = [SUSPECT, line("path", 50, 0.85, 0.5), line("d3", 50, 0.85, 0.5)]
    assert answer(summary, RATE)[1].endswith(
        "No other of 2 methods is better by success removed less accuracy lost; d3 is as good."
    )
