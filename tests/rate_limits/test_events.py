"""Events of accounts: refused, disabled, after a restart or a kill, by several processes, and with OAuth."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import responses
from structlog.testing import capture_logs

from exporter.sync.events import RETRY_REFUSED
from testing.clock import FakeClock
from testing.stores import open_store
from tests.cloud import URL, Tedee, synced
from tests.correctness.test_exposition import expose, samples

from .test_accounts import Program, account, key_file

EVENTS = {"enabled": True}
UNLOCKED, WRONG_PIN = 33, 62
TOKEN_URL = "https://login.test/token"
ACCESS_LIFETIME = 737.0


@pytest.fixture
def mock() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def tedee(clock: FakeClock, mock: responses.RequestsMock) -> Tedee:
    tedee = Tedee(mock)
    tedee.clock = clock
    tedee.has(synced(1))
    return tedee


class Process(Program):
    """A run of the exporter, and what it serves."""

    def __init__(self, clock: FakeClock, path: Path) -> None:
        super().__init__(clock, open_store(path, clock))
        self.exposition = expose(self.registry, clock)

    def value(self, metric: str, **labels: str) -> float | None:
        """Return the sum of the samples with these labels; None without a sample."""
        found = [
            value
            for (name, given), value in samples(self.exposition).items()
            if name == metric and labels.items() <= dict(given).items()
        ]
        return sum(found) if found else None

    def unlocked(self, account: str = "home") -> float | None:
        return self.value("lock_events_total", account=account, event="unlocked")

    def permitted(self, account: str = "home") -> float | None:
        return self.value("tedee_events_permitted", account=account)


Start = Callable[[], Process]


@pytest.fixture
def start(clock: FakeClock, tmp_path: Path) -> Start:
    """Start a process with the state file that all of them share."""
    return lambda: Process(clock, tmp_path / "state.db")


class Log:
    """The activity log of lock 1."""

    def __init__(self, tedee: Tedee, clock: FakeClock) -> None:
        self._tedee, self._clock = tedee, clock

    def add(self, number: int = UNLOCKED) -> None:
        """Add an event that happens now."""
        date = datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="milliseconds")[:-6]
        row = {"id": len(self._tedee.activities) + 1, "deviceId": 1, "event": number, "date": date}
        self._tedee.activities.insert(0, row)


@pytest.fixture
def log(tedee: Tedee, clock: FakeClock) -> Log:
    return Log(tedee, clock)


def gaps(tedee: Tedee, key: str = "key-of-home") -> set[float]:
    return {round(gap, 6) for gap in tedee.gaps(key)}


# Refused


def test_forbidden_events_stop_for_one_account(tedee: Tedee, start: Start, log: Log) -> None:
    tedee.keys_without_events = {"key-of-home"}
    process = start()
    with capture_logs() as logs:
        process.configure(account("home"), account("hotel"), events=EVENTS)
        process.run(600)
        log.add()
        process.run(2800)
    lines = [each for each in logs if each["log_level"] == "warning"]
    assert [(each["event"], each["account"]) for each in lines] == [("events are not permitted", "home")]
    assert lines[0]["error"] == "my/deviceactivity: HTTP 403 Forbidden"
    assert lines[0]["advice"] == "events need a key with the scope DeviceActivity.Read"
    assert (process.permitted("home"), process.permitted("hotel")) == (0, 1)
    assert (process.unlocked("home"), process.unlocked("hotel")) == (None, 1)
    assert process.value("lock_events_total", account="home") is None
    assert process.value("tedee_up", account="home") == 1
    assert tedee.activities_keys.count("key-of-home") == 1
    assert gaps(tedee) == gaps(tedee, "key-of-hotel") == {20.0}
    assert tedee.endpoints().count("details") == tedee.endpoints().count("door_sensors") == 2 * 6


def test_forbidden_events_are_tried_again_after_an_hour(tedee: Tedee, start: Start, clock: FakeClock, log: Log) -> None:
    tedee.keys_without_events = {"key-of-home"}
    process = start()
    process.configure(account("home"), events=EVENTS)
    process.run(20)
    clock.advance(RETRY_REFUSED - 60)
    process.run(30)
    assert len(tedee.activities_keys) == 1
    tedee.keys_without_events = set()
    log.add()
    process.run(60)
    assert len(tedee.activities_keys) == 2
    assert (process.permitted(), process.unlocked()) == (1, None)
    log.add()
    process.run(120)
    assert process.unlocked() == 1


def test_forbidden_events_are_tried_again_after_a_reload(tedee: Tedee, start: Start, log: Log) -> None:
    tedee.keys_without_events = {"key-of-home"}
    process = start()
    process.configure(account("home"), events=EVENTS)
    process.run(300)
    tedee.keys_without_events = set()
    process.configure(account("home"), events=EVENTS)
    process.run(20)
    assert len(tedee.activities_keys) == 2
    assert process.permitted() == 1
    log.add()
    process.run(120)
    assert process.unlocked() == 1


def test_forbidden_events_are_tried_again_with_another_key(
    tedee: Tedee, start: Start, log: Log, tmp_path: Path
) -> None:
    file = key_file(tmp_path, "key", "key-without-events")
    tedee.keys_without_events = {"key-without-events"}
    process = start()
    process.configure(account("home", file), events=EVENTS)
    process.run(300)
    assert process.permitted() == 0
    file.write_text("key-with-events")
    process.run(60)
    assert tedee.activities_keys[:2] == ["key-without-events", "key-with-events"]
    assert process.permitted() == 1
    log.add()
    process.run(120)
    assert process.unlocked() == 1


def test_key_that_loses_its_permission_continues_its_count(
    tedee: Tedee, start: Start, log: Log, tmp_path: Path
) -> None:
    file = key_file(tmp_path, "key", "key-with-events")
    tedee.keys_without_events = {"key-without-events"}
    process = start()
    process.configure(account("home", file), events=EVENTS)
    process.run(60)
    log.add()
    process.run(120)
    file.write_text("key-without-events")
    process.run(300)
    assert (process.permitted(), process.unlocked()) == (0, None)
    log.add()
    file.write_text("another-key-with-events")
    process.run(120)
    assert (process.permitted(), process.unlocked()) == (1, 2)


def test_unauthorized_events_alone_do_not_affect_syncs(tedee: Tedee, start: Start) -> None:
    tedee.activities_status = 401
    process = start()
    with capture_logs() as logs:
        process.configure(account("home"), events=EVENTS)
        process.run(3400)
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["events are not permitted"]
    assert process.permitted() == 0
    assert process.value("tedee_up") == 1
    assert len(tedee.activities_keys) == 2
    assert gaps(tedee) == {20.0}
    assert tedee.endpoints().count("details") == tedee.endpoints().count("door_sensors") == 6


# Disabled and enabled again


@pytest.mark.parametrize("is_restarted", [False, True])
def test_disabled_events_have_no_series_and_missed_ones_are_counted(
    tedee: Tedee, start: Start, log: Log, is_restarted: bool
) -> None:
    process = start()
    process.configure(account("home"), events=EVENTS)
    process.run(60)
    log.add()
    process.run(120)
    assert (process.permitted(), process.unlocked()) == (1, 1)
    process.configure(account("home"))
    process.run(20)
    asked = len(tedee.activities_keys)
    for _ in range(3):
        log.add()
        process.run(600)
    assert len(tedee.activities_keys) == asked
    if is_restarted:
        process = start()
        process.configure(account("home"))
        process.run(60)
    assert process.value("lock_events_total") is process.permitted() is None
    process.configure(account("home"), events=EVENTS)
    process.run(120)
    assert (process.permitted(), process.unlocked()) == (1, 4)
    process.run(600)
    assert process.unlocked() == 4


def test_events_enabled_by_a_reload_count_from_then_on(tedee: Tedee, start: Start, log: Log) -> None:
    process = start()
    process.configure(account("home"))
    process.run(60)
    log.add()
    process.run(60)
    process.configure(account("home"), events=EVENTS)
    process.run(60)
    assert (process.permitted(), process.value("lock_events_total")) == (1, 0)
    log.add()
    process.run(120)
    assert process.unlocked() == 1


# Several processes


@pytest.mark.parametrize("end", ["close", "kill"])
def test_takeover_counts_nothing_twice(tedee: Tedee, start: Start, log: Log, end: str) -> None:
    served: dict[Process, list[float]] = {}

    def run(*processes: Process, seconds: int) -> None:
        for second in range(seconds):
            if second % 45 == 7:
                log.add()
            for process in processes:
                process.run(0)
                served.setdefault(process, []).append(process.unlocked() or 0)
            processes[0].clock.advance(1)

    def joins() -> Process:
        process = start()
        process.configure(account("home"), events=EVENTS)
        return process

    processes = [joins(), joins()]
    run(*processes, seconds=400)
    for _ in range(3):
        if end == "close":
            processes[0].store.close()
        del processes[0]
        run(*processes, seconds=100)
        processes.append(joins())
        run(*processes, seconds=400)
    happened = len(tedee.activities)
    for process in processes:
        process.run(200)
        assert process.unlocked() == happened
    assert len(served) == 5
    for counts in served.values():
        assert all(earlier <= later for earlier, later in pairwise(counts))
    assert {*tedee.gaps("key-of-home")} <= {float(gap) for gap in range(20, 60)}


# OAuth


class Login:
    """A token endpoint that replaces the refresh token at each use."""

    def __init__(self, mock: responses.RequestsMock, clock: FakeClock, folder: Path) -> None:
        self.takes = 0.0
        """Seconds of a response."""
        self.exchanges: list[float] = []
        """Monotonic seconds of each exchange."""
        self.file = key_file(folder, "refresh-token", "refresh-token-0")
        self._clock = clock
        mock.add_callback(responses.POST, TOKEN_URL, self._respond)

    @property
    def account(self) -> dict[str, Any]:
        oauth = {"client_id": "client", "refresh_token_file": str(self.file), "token_url": TOKEN_URL}
        return {"name": "home", "oauth": oauth}

    def _respond(self, request: Any) -> tuple[int, dict[str, str], str]:
        (token,) = parse_qs(request.body)["refresh_token"]
        assert token == f"refresh-token-{len(self.exchanges)}"
        self.exchanges.append(self._clock.monotonic())
        self._clock.advance(self.takes)
        number = len(self.exchanges)
        tokens = {"access_token": f"access-token-{number}", "refresh_token": f"refresh-token-{number}"}
        return 200, {}, json.dumps({**tokens, "token_type": "Bearer", "expires_in": ACCESS_LIFETIME})


@pytest.fixture
def login(mock: responses.RequestsMock, clock: FakeClock, tmp_path: Path) -> Login:
    return Login(mock, clock, tmp_path)


class Killed(BaseException):
    """The process ended during a call."""


@pytest.mark.parametrize("status", [200, 503])
def test_kill_after_a_rotation_keeps_the_counts(
    tedee: Tedee, start: Start, log: Log, login: Login, status: int
) -> None:
    """The process is killed during the call after the sync for which the refresh token was exchanged."""
    process = start()
    process.configure(login.account, events=EVENTS)
    process.run(60)
    log.add()
    log.add(WRONG_PIN)
    process.run(120)
    assert process.unlocked() == 1
    calls = []

    def on_call(endpoint: str) -> None:
        if len(login.exchanges) == 2:
            calls.append(endpoint)
            tedee.sync_status = status
        if len(calls) == 2:
            raise Killed

    tedee.on_call = on_call
    with pytest.raises(Killed):
        process.run(ACCESS_LIFETIME)
    assert calls[0] == "sync"
    tedee.on_call, tedee.sync_status = lambda endpoint: None, 200
    restarted = start()
    restarted.configure(login.account, events=EVENTS)
    assert restarted.unlocked() == 1
    log.add()
    restarted.run(300)
    assert restarted.unlocked() == 2
    assert restarted.value("lock_events_total", event="wrong_pin") == 1


@pytest.mark.parametrize("takes", [0.5, 9.9, 30.0])
@pytest.mark.parametrize("seconds", [20, 45, 600])
def test_slow_token_endpoint_delays_only_its_own_sync(
    tedee: Tedee, start: Start, login: Login, takes: float, seconds: int
) -> None:
    """An exchange before a call of another endpoint would delay the next sync by the time of both."""
    login.takes = takes
    durations = cycle([0.1, 10.0, 4.0, 1.0, 7.0])
    process = start()
    tedee.on_call = lambda endpoint: process.clock.advance(0.1 if endpoint == "sync" else next(durations))
    api = {"url": URL, "timeout": f"{max(10.0, takes):g}s"}
    process.configure(login.account, api=api, sync={"interval": f"{seconds}s"}, events=EVENTS)
    process.run(20_000)
    assert len(login.exchanges) >= 8
    assert len(tedee.activities_keys) > 20
    for earlier, later in pairwise(tedee.times):
        exchange = takes if any(abs(at + takes - later) < 0.001 for at in login.exchanges) else 0.0
        assert later - earlier - exchange == pytest.approx(seconds + 0.1)
