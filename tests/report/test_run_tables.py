"""What a ranking reads of a run's folder."""

from mcjax.report.run_tables import read_repairs

HEAD = "method,bonafide,seed,t,clean_accuracy,attack_success_rate\n"


def test_only_the_first_seed_was_tested_for_re_learning(tmp_path):
    lines = [
        f"{name},{number},{seed},,0.9,1.0"
        for seed in (3, 5)
        for name, number in (("suspect", 0), ("d3", 100), ("d3", 50))
    ]
    (tmp_path / "table.csv").write_text(HEAD + "\n".join(lines) + "\n")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "relearning_methods.csv").write_text("method,m,excess\nd3,10,0.25\n")
    found = {
        (row["bonafide"], row["seed"][0]): row.get("excess_10")
        for row in read_repairs(tmp_path, "square")
    }
    assert found[100, "3"] == 0.25
    assert found[100, "5"] is found[50, "3"] is None
