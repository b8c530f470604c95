import signal

import pytest


@pytest.fixture(autouse=True)
def _interruptible():
    """Restores Ctrl-C: processes in a shell's background ignore it, and so do their children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
