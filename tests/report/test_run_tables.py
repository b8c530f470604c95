"""What a ranking reads of a run's folder."""

import pytest

from mcjax.report.run_tables import read_networks, read_paths, read_repairs

HEAD = "method,bonafide,seed,fold,clean_accuracy,attack_success_rate"


@pytest.fixture
def folder(tmp_path):
    """Two seeds, one of them with two folds; a method whose name a spreadsheet would evaluate."""
    places = [(3, 0), (5, 0), (5, 1)]
    names = (("suspect", 0), ("'=noise", 0), ("d3", 100), ("d3", 50))
    lines = [f"{name},{size},{s},{f},0.875,{f}.75" for s, f in places for name, size in names]
    write(tmp_path / "table.csv", HEAD, *lines)
    return tmp_path


def write(file, *lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


def column(folder, name):
    rows = read_repairs(folder, "square")
    return {
        (row["method"], row["bonafide"], *row["seed"]): row[name] for row in rows if name in row
    }


def test_only_the_first_seed_was_tested_for_re_learning(folder):
    file = folder / "figures" / "relearning_methods.csv"
    write(file, "method,m,excess", "d3,10,0.25", "'=noise,10,0.5", "d3,5,0.125")
    # Of the largest size; a method without images has no size.
    expected = {("d3", 100, "3", "0"): 0.25, ("=noise", 0, "3", "0"): 0.5}
    assert column(folder, "excess_10") == expected
    assert column(folder, "excess_5") == {("d3", 100, "3", "0"): 0.125}


def test_the_seconds_are_those_of_the_same_seed_and_fold(folder):
    lines = ["d3,50,3,0,1.5", "d3,50,5,1,2.5", "'=noise,0,5,0,0.5"]
    write(folder / "figures" / "seconds.csv", "method,bonafide,seed,fold,seconds", *lines)
    expected = {("d3", 50, "3", "0"): 1.5, ("d3", 50, "5", "1"): 2.5, ("=noise", 0, "5", "0"): 0.5}
    assert column(folder, "seconds") == expected


def test_the_best_point_is_of_the_path_of_the_same_seed_and_fold(folder):
    file = folder / "paths" / "seed_5" / "fold_1" / "d3_50.csv"
    write(file, "t,test_accuracy,attack_success_rate", "0,0.875,1.75", "0.5,0.75,0.25")
    # 1.75 - 0.25 of the backdoor, less 0.125 of accuracy.
    assert column(folder, "best_score") == {("d3", 50, "5", "1"): 1.375}


def test_a_network_has_the_margin_of_the_form_that_says_most(tmp_path):
    head = "network,bonafide,seed,class,attacked_class,anomaly,threshold,evident"
    rows = ["suspect,9,0,1,1,5.0,2.0,1", "suspect,9,0,3,1,1.0,2.0,0", "twin,9,0,3,1,1.0,2.0,0"]
    write(tmp_path / "evidence.csv", head, *rows, "suspect,9,1,3,1,3.0,2.0,1")
    found = [(row["seed"], row["margin"], row["right"]) for row in read_networks(tmp_path)]
    assert found == [(("0", ""), 2.5, True), (("0", ""), 0.5, False), (("1", ""), 1.5, False)]


def test_a_path_without_images_counts(tmp_path):
    head = "t,attack_success_rate,estimated_attack_success"
    write(tmp_path / "paths" / "seed_0" / "line.csv", head, "0,1.0,0.5", "1,0.0,0.25")
    assert read_paths(tmp_path) == [
        {"method": "line", "bonafide": 0, "spearman": 1.0, "bias": -0.125}
    ]
