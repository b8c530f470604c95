"""What the tests of direct.c share."""

import pytest

from mcjax.cpu_convolution import build


@pytest.fixture(scope="session")
def c_compiler():
    """Skips the tests where there is no C compiler."""
    try:
        build.find_compiler()
    except build.NotBuilt as reason:
        pytest.skip(str(reason))
