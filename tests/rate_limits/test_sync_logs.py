"""Log lines of the syncs of one account: whether it works, since when not, and what happens next."""

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.clock import format_duration
from testing.clock import FakeClock
from tests.cloud import KEY, Recorder, Tedee, account_sync, run_for, synced

Line = MutableMapping[str, Any]


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    with capture_logs() as lines:
        yield lines


def without(lines: Sequence[Line], level: str) -> list[Line]:
    return [line for line in lines if line["log_level"] != level]


def test_first_sync_is_logged_once(tedee: Tedee, clock: FakeClock, lines: list[Line]) -> None:
    tedee.has(synced(1), synced(2))
    tedee.on_call = lambda endpoint: clock.advance(0.21) if endpoint == "sync" else None
    run_for(account_sync(clock, Recorder()), clock, 90)
    assert tedee.endpoints().count("sync") == 5
    assert without(lines, "debug") == [
        {"event": "first sync succeeded", "log_level": "info", "account": "home", "locks": 2, "duration": "0.21s"}
    ]


def test_each_sync_is_logged_at_debug_with_its_changes(tedee: Tedee, clock: FakeClock, lines: list[Line]) -> None:
    account = account_sync(clock, Recorder())
    for locks in ([synced(1), synced(2)], [synced(1), synced(2)], [synced(1, state=2), synced(2), synced(3)]):
        tedee.has(*locks)
        run_for(account, clock, 20)
    synced_lines = [line for line in lines if line["event"] == "synced"]
    assert [(each["locks"], each["changed"]) for each in synced_lines] == [(2, 2), (2, 0), (2, 0), (3, 2)]
    assert {each["next_in"] for each in synced_lines} == {"20s"}
    assert {each["log_level"] for each in synced_lines} == {"debug"}


def test_repeated_failure_has_its_advice_once(tedee: Tedee, clock: FakeClock, lines: list[Line]) -> None:
    tedee.sync_status = 500
    run_for(account_sync(clock, Recorder()), clock, 65)
    tedee.sync_status = 503
    run_for(account_sync(clock, Recorder(), name="hotel"), clock, 1)
    failed = [line for line in lines if line["event"] == "sync failed"]
    assert [(each["account"], each.get("failures"), each["retry_in"]) for each in failed] == [
        ("home", None, "20s"),
        ("home", 2, "40s"),
        ("home", 3, "1m20s"),
        ("hotel", None, "20s"),
    ]
    advice = "Tedee or a gateway in front of it has a problem"
    assert [each.get("advice") for each in failed] == [advice, None, None, advice]
    assert {each["error"] for each in failed[:3]} == {"my/lock/sync: HTTP 500 Internal Server Error"}


def test_failure_has_the_correlation_id_of_tedee(tedee: Tedee, clock: FakeClock, lines: list[Line]) -> None:
    published = Recorder()
    tedee.sync_status, tedee.sync_headers = 500, {"X-Correlation-ID": "c0ffee"}
    run_for(account_sync(clock, published), clock, 1)
    (failed,) = without(lines, "debug")
    assert (failed["correlation_id"], "c0ffee" in failed["error"]) == ("c0ffee", False)
    failure = published.last.failure
    assert failure
    assert "[X-Correlation-ID c0ffee]" in failure.message


def test_another_failure_has_its_advice(tedee: Tedee, clock: FakeClock, lines: list[Line]) -> None:
    account = account_sync(clock, Recorder())
    for status in (500, 500, 403):
        tedee.sync_status = status
        run_for(account, clock, 25)
    failed = [line for line in lines if line["event"] == "sync failed"]
    assert [(each["reason"], "advice" in each) for each in failed] == [
        ("server", True),
        ("server", False),
        ("forbidden", True),
    ]


def test_recovery_is_logged_with_its_duration_and_failures(tedee: Tedee, clock: FakeClock, lines: list[Line]) -> None:
    tedee.has(synced(1))
    account = account_sync(clock, Recorder())
    run_for(account, clock, 10)
    tedee.sync_status = 500
    run_for(account, clock, 100)
    tedee.sync_status = 200
    run_for(account, clock, 200)
    (recovered,) = [line for line in lines if line["event"] == "sync succeeds again"]
    failures = [line for line in lines if line["event"] == "sync failed"]
    assert len(failures) == recovered["failures"] == 3
    # 20, 40 and 80 seconds after the failures.
    assert (recovered["failed_for"], recovered["locks"], recovered["log_level"]) == ("2m20s", 1, "info")


def test_first_sync_after_failures_has_their_number(tedee: Tedee, clock: FakeClock, lines: list[Line]) -> None:
    tedee.wrong_keys = {KEY}
    account = account_sync(clock, Recorder())
    run_for(account, clock, 1)
    tedee.wrong_keys = set()
    run_for(account, clock, 30)
    assert [line["event"] for line in without(lines, "debug")] == ["sync failed", "first sync succeeded"]
    assert (lines[-1]["event"], [line.get("failures") for line in without(lines, "debug")]) == ("synced", [None, 1])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.2149, "0.21s"),
        (9.99, "9.99s"),
        (9.999, "10s"),
        (19.7, "20s"),
        (59.7, "1m0s"),
        (140.0, "2m20s"),
        (3599.6, "1h0m"),
        (90_061.0, "25h1m"),
    ],
)
def test_duration_is_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
