"""Lines of progress."""

from mcjax.core import progress as module
from mcjax.core.progress import progress


def test_progress_lines(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress("curve", 100, 20, unit="step") as bar:
        for seconds in (6.0, 4.0, 4.0):
            now[0] += seconds
            bar.advance(10, images=640, loss=0.5)
    # Nothing is estimated from the first steps, which compile: 20 more in 8 s, so the last 50 take 20 s.
    assert capsys.readouterr().err.splitlines() == [
        "curve: step 30/100  loss 0.5",
        "curve: step 50/100  loss 0.5  images/s 160  0:20 left",
    ]
