import signal

import pytest


@pytest.fixture(autouse=True)
def _interruptible():
    """A test run in a shell's background ignores Ctrl-C, and what it starts would, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
