import os
import shutil

import pytest

from testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def require_program(program: str) -> str:
    """Return the path of a program. If it is not installed, skip the test; in CI, fail it."""
    path = shutil.which(program)
    if path is None:
        message = f"{program} is not installed; .ci/install-test-programs installs it on Debian"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path
