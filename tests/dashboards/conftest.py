"""Fixtures: Prometheus servers with recorded data."""

from collections.abc import Iterator

import pytest

from tests.end_to_end.prometheus import Prometheus, prometheus

from . import scripted_day
from .recordings import NO_TARGET, backfill, copy_recording
from .scenarios import SCENARIOS, running


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with the scripted day and, at other times, 5,000 locks and a lock that two exporters report."""
    folder = tmp_path_factory.mktemp("history")
    copy_recording("day", scripted_day.record, folder / "data")
    for recording in (scripted_day.record_many_locks(folder), scripted_day.record_duplicate_lock(folder)):
        backfill(recording, folder / "data")
    with prometheus(folder, NO_TARGET) as running:
        yield running


@pytest.fixture(scope="session")
def rare_history() -> Iterator[Prometheus]:
    """Prometheus with the rare cases."""
    with running("rare", SCENARIOS["rare"]) as server:
        yield server
