import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import responses
from hypothesis import settings

from testing.clock import FakeClock
from tests.cloud import Recorder, Tedee

# Hypothesis' limit for one example fails on a busy machine.
settings.register_profile("without a limit of time", deadline=None)
settings.load_profile("without a limit of time")

LONGEST_FIRST = (
    "packaging/test_containers.py",
    "alerts/test_end_to_end.py",
    "security/test_process.py",
    "dashboards/test_pictures.py",
    "integration/test_blocked.py",
    "alerts/test_mutations.py",
    "helm/test_values.py",
    "alerts/test_rules.py",
    "integration/test_faults.py",
    "integration/test_reload.py",
    "security/test_stalled.py",
    "security/test_secrets.py",
    "dashboards/test_queries.py",
    "cli/test_refresh_token.py",
    "integration/test_program.py",
    "integration/test_failing_accounts.py",
    "security/test_connections.py",
    "security/test_outbound_connections.py",
    "correctness/test_history.py",
    "packaging/test_release.py",
)
"""Files that take longest. One process runs a whole file, so the run would end late if one of them began late."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def tedee() -> Iterator[Tedee]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield Tedee(mock)


@pytest.fixture
def published() -> Recorder:
    return Recorder()


def require_program(program: str) -> str:
    """Return the path of a program. If it is not installed, skip the test; in CI, fail it."""
    path = shutil.which(program)
    if path is None:
        skip_unless_ci(f"{program} is not installed; .ci/install-test-programs installs it on Debian")
    return path


def skip_unless_ci(reason: str) -> NoReturn:
    """Skip the test, because this machine lacks something. In CI, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
