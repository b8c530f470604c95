"""Lines of progress."""

from mcjax.core import progress as module
from mcjax.core.progress import progress


def test_progress_lines(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("curve", 100, 20, unit="step") as bar:
        for _ in range(2):
            now[0] += 4.0
            bar.advance(10, images=640, loss=0.5)
    # One line after 8 s: 20 of the 80 steps left in 8 s, so 60 more take 24 s.
    assert capsys.readouterr().err.splitlines() == [
        "curve: step 40/100  loss 0.5  images/s 160  0:24 left"
    ]
