import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.clock import FakeClock

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def load_fixture(name: str) -> Any:
    """Return a response from Tedee's documentation."""
    return json.loads((FIXTURES / name).read_text("utf-8"))


def require_program(program: str) -> str:
    """Return the path of a program. If it is not installed, skip the test; in CI, fail it."""
    path = shutil.which(program)
    if path is None:
        message = f"{program} is not installed; .ci/install-test-programs installs it on Debian"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path
