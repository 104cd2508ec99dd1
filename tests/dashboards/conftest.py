"""Fixtures: Prometheus servers with recorded data."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require_program
from tests.end_to_end.prometheus import Prometheus, prometheus

from . import rare_cases, scripted_day

NO_TARGET = "127.0.0.1:9"
"""Target of a Prometheus that has all its data already: nothing listens on the discard port."""


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with the scripted day and, at other times, 5,000 locks and a lock that two exporters report."""
    promtool = require_program("promtool")
    folder = tmp_path_factory.mktemp("history")
    for recording in (
        scripted_day.record(folder),
        scripted_day.record_many_locks(folder),
        scripted_day.record_duplicate_lock(folder),
    ):
        backfill(promtool, recording, folder / "data")
    with prometheus(folder, NO_TARGET) as running:
        yield running


@pytest.fixture(scope="session")
def rare_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with the rare cases."""
    promtool = require_program("promtool")
    folder = tmp_path_factory.mktemp("rare-cases")
    backfill(promtool, rare_cases.record(folder), folder / "data")
    with prometheus(folder, NO_TARGET) as running:
        yield running


def backfill(promtool: str, recording: Path, folder: Path) -> None:
    """Write a recording to Prometheus' storage, in as few blocks as possible."""
    arguments = ["tsdb", "create-blocks-from", "--max-block-duration=168h", "openmetrics", str(recording), str(folder)]
    subprocess.run([promtool, *arguments], check=True, capture_output=True)
