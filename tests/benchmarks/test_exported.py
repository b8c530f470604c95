"""The page of imported architectures, from made-up rows."""

from benchmarks import exported

ERRORS = ("logits", "gradient", "rounding", "train_logits", "statistics", "train_rounding")


def row(*, passed=True, **times):
    of_all = {"package": "timm", "size": 32, "parameters": 1234, "passed": passed}
    return of_all | dict.fromkeys(ERRORS, 1e-6) | times


def test_rows_that_fail_stand_out_and_times_are_ratios():
    times = {"forward": 0.2, "forward_pytorch": 0.1, "gradient": 0.3, "gradient_pytorch": 0.6}
    times = {f"seconds_{name}": value for name, value in times.items()}  # no error is overwritten
    rows = {"resnet18": row(**times), "swin": row(passed=False)}
    lines = exported.page(rows, "here").splitlines()
    assert lines[2].startswith("1 of 2 architectures")
    assert any(
        line.startswith("| resnet18 | timm | 32 | 1,234 | 1.0e-06 | 1.0e-06 |") for line in lines
    )
    assert any(line.startswith("| **swin** | timm | 32 | 1,234 | 1.0e-06 |") for line in lines)
    assert "| resnet18 | 32 | 0.200 | 0.100 | 2.00 | 0.300 | 0.600 | 0.50 |" in lines
    assert "## Time" not in exported.page({"swin": row()}, "here")
    assert lines[-1] == "here"


def test_times_are_taken_by_turns_and_leave_out_the_first_call():
    called = []
    found = exported._fastest(
        {name: lambda n=name: called.append(n) for name in ("ours", "theirs")}
    )
    assert called == ["ours", "theirs"] * 8
    assert all(seconds >= 0 for seconds in found.values())
