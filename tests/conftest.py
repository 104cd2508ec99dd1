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


def wire(name: str) -> Any:
    """One of Tedee's documented answers."""
    return json.loads((FIXTURES / name).read_text("utf-8"))


def real_part(program: str) -> str:
    """The path of a real program that the tests need. Without it they are skipped; in CI that is a failure."""
    path = shutil.which(program)
    if path is None:
        message = f"{program} is not installed; .ci/install-real-parts installs it on Debian"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path
