"""Tests that the night of the example begins and ends by local time, also in summer."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
import requests

from testing.program import TIMEOUT
from tests.alerts.rules import NIGHT, rules
from tests.alerts.stack import prometheus
from tests.end_to_end.prometheus import Prometheus

BERLIN = ZoneInfo("Europe/Berlin")
RECORDED = {rule["record"]: str(rule["expr"]) for rule in rules(NIGHT) if "record" in rule}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus without data, which evaluates expressions."""
    with prometheus(tmp_path_factory.mktemp("night") / "prometheus") as running:
        yield running


def moments() -> list[datetime]:
    """Return times around each change of the clocks, and random times."""
    rng = random.Random(1)
    times = [datetime.fromtimestamp(rng.randrange(1_750_000_000, 2_500_000_000), UTC) for _ in range(60)]
    for year in range(2026, 2040):
        for month in (3, 10):
            sunday = max(day for day in range(25, 32) if datetime(year, month, day, tzinfo=UTC).weekday() == 6)
            times += [datetime(year, month, sunday, *time, tzinfo=UTC) for time in ((0, 59), (1, 0), (23, 0))]
            times += [datetime(year, month, day, 12, tzinfo=UTC) for day in (1, 24, sunday - 1)]
    return times


def value(server: Prometheus, expression: str, at: datetime) -> float | None:
    query = {"query": expression, "time": str(at.timestamp())}
    response = requests.get(f"{server.url}/api/v1/query", params=query, timeout=TIMEOUT).json()
    result = response["data"]["result"]
    return float(result[0]["value"][1]) if result else None


def test_utc_offset_is_that_of_central_europe(server: Prometheus) -> None:
    for at in moments():
        offset = at.astimezone(BERLIN).utcoffset()
        assert offset
        assert value(server, RECORDED["tedee:utc_offset:hours"], at) == offset.total_seconds() / 3600, at


@pytest.mark.parametrize(("begin", "end"), [(23, 6), (0, 6), (22, 24), (1, 2), (6, 6), (0, 24)])
def test_night_lasts_from_first_to_last_hour(server: Prometheus, begin: int, end: int) -> None:
    expression = RECORDED["tedee:night:hours"].replace("tedee:utc_offset:hours", "vector(2)")
    expression = expression.replace("tedee:night_hour:begin", f"vector({begin})")
    expression = expression.replace("tedee:night_hour:end", f"vector({end % 24})")
    for hour in range(24):
        local = (hour + 2) % 24
        is_night = begin <= local < end if begin < end else local >= begin or local < end
        at = datetime(2026, 7, 1, hour, 30, tzinfo=UTC)
        assert (value(server, expression, at) is not None) == is_night, hour
