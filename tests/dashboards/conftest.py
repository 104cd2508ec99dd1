"""A Prometheus that holds the scripted day, and at other times a fleet of 5,000 locks and a lock of two exporters."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require_program
from tests.end_to_end.prometheus import Prometheus, prometheus

from . import corners, day


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    promtool = require_program("promtool")
    folder = tmp_path_factory.mktemp("history")
    for recording in (day.record(folder), day.record_fleet(folder), day.record_twins(folder)):
        backfill(promtool, recording, folder / "data")
    # Its one target is nobody: all that it has is there already.
    with prometheus(folder, "127.0.0.1:9") as running:
        yield running


@pytest.fixture(scope="session")
def rarities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that holds what seldom is."""
    promtool = require_program("promtool")
    folder = tmp_path_factory.mktemp("rarities")
    backfill(promtool, corners.record(folder), folder / "data")
    with prometheus(folder, "127.0.0.1:9") as running:
        yield running


def backfill(promtool: str, recording: Path, folder: Path) -> None:
    """Make Prometheus' own blocks of a recording, as few as there can be."""
    arguments = ["tsdb", "create-blocks-from", "--max-block-duration=168h", "openmetrics", str(recording), str(folder)]
    subprocess.run([promtool, *arguments], check=True, capture_output=True)
