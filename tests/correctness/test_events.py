"""Events of the activity log are counted once each, whatever the order in which they arrive and pages are read."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any, NamedTuple, cast

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from structlog.testing import capture_logs

from exporter.state.responses import CachedResponse, pack, unpack
from exporter.sync import event_log
from exporter.sync import events as module
from exporter.sync.event_log import OVERLAP, PRESET, EventLog, Pass
from exporter.sync.events import MAX_REFUSALS, RETRY_REFUSED, LockEvents
from exporter.sync.resource import ResourceOptions
from exporter.tedee.errors import CallError, Forbidden, NotFound, ServerFailed, TimedOut, Unauthorized
from exporter.tedee.events import Activity, EventKind
from exporter.tedee.models import DeviceState, SyncedLock
from exporter.tedee.rows import ParseResult, Timestamp
from testing.clock import FakeClock

PAGE = 5
"""Events in a page of the fake activity log."""
INTERVAL = 60.0
LOCKED, UNLOCKED, WRONG_PIN, UNKNOWN = 36, 33, 62, 95
ZEROS = dict.fromkeys(map(tuple, PRESET), 0)


class FakeLog(NamedTuple):
    """The activity log of one lock at Tedee: (id, milliseconds, number) of each delivered event."""

    items: list[tuple[int, int, int]]

    def page(self, before: str | None) -> list[Activity]:
        end = None if before is None else round(datetime.fromisoformat(before).replace(tzinfo=UTC).timestamp() * 1000)
        older = [each for each in self.items if end is None or each[1] < end]
        newest = sorted(older, key=lambda each: -each[1])[:PAGE]
        return [Activity(event_id, number, Timestamp(ms / 1000)) for event_id, ms, number in newest]


class FakeClient:
    """A client whose calls for an activity log fail as scripted."""

    account = "home"

    def __init__(self) -> None:
        self.logs: dict[int, FakeLog] = {}
        self.asked: list[int] = []
        """Lock of each request."""
        self.faults: dict[int, type[CallError]] = {}
        """Error by lock."""
        self.next_fault: type[CallError] | None = None
        self._numbers = count()

    def new_id(self) -> int:
        """Return an id of a new event. Ids are not in the order of dates."""
        return next(self._numbers) * 7919 % 1_000_003

    def log(self, lock_id: int) -> list[tuple[int, int, int]]:
        return self.logs.setdefault(lock_id, FakeLog([])).items

    def activities(self, lock_id: int, before: str | None) -> ParseResult[int, Activity]:
        self.asked.append(lock_id)
        fault, self.next_fault = self.next_fault or self.faults.get(lock_id), None
        if fault:
            raise fault("refused", account=self.account, endpoint="my/deviceactivity")
        page = self.logs.setdefault(lock_id, FakeLog([])).page(before)
        return ParseResult({each.id: each for each in page}, {}, (), [b"{}"] * len(page))


class Process:
    """One run of the exporter, which continues with what the previous one stored."""

    def __init__(self, client: FakeClient, clock: FakeClock, stored: CachedResponse | None = None) -> None:
        self.client, self.clock, self.stored = client, clock, stored
        self.logs: dict[int, EventLog] = {}
        self.events = self.create(INTERVAL)
        if stored:
            read = unpack(pack(stored))
            assert read
            assert self.events.restore(read, 0.0)

    def create(self, interval: float | None) -> LockEvents:
        return LockEvents(self.logs, ResourceOptions(300.0, events_interval=interval), self.clock)

    def sync(self, *ids: int, **states: float) -> None:
        """Report the locks, whose last state changes were at these times."""
        at = {int(key.removeprefix("_")): value for key, value in states.items()}
        self.events.sync_succeeded(
            [SyncedLock(each, True, DeviceState(last_state_changed_date=Timestamp(at.get(each, 1.0)))) for each in ids]
        )

    def fetch(self, *, is_killed: bool = False) -> None:
        """Fetch a page as soon as one is due."""
        self.clock.advance(self.events.time_until_due(self.clock.monotonic()))
        response = self.events.fetch(cast("Any", self.client), self.clock.monotonic())
        if response and not is_killed:
            self.stored = response

    def read(self, passes: int = 1) -> None:
        """Fetch pages until the end of some passes."""
        for _ in range(passes):
            self.fetch()
            while self.events._pass:
                self.fetch()

    def counted(self, lock_id: int) -> dict[tuple[str, ...], int]:
        """Return the numbers of events that are not 0."""
        return {kind: count for kind, count in self.events.counts(lock_id).items() if count}

    def restarted(self) -> "Process":
        return Process(self.client, self.clock, self.stored)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_SIZE", PAGE)


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def process(client: FakeClient, clock: FakeClock) -> Process:
    """A process that has asked for the events of lock 1, which has no event yet."""
    started = Process(client, clock)
    started.sync(1)
    started.read()
    clock.advance(2 * INTERVAL)
    return started


def happened(process: Process, lock_id: int, *events: tuple[float, int]) -> None:
    """Add events to a log: seconds relative to the present time, and number."""
    items = process.client.log(lock_id)
    for seconds, number in events:
        items.append((process.client.new_id(), round((process.clock.wall() + seconds) * 1000), number))


# The start


def test_events_before_the_start_are_not_counted(client: FakeClient, clock: FakeClock) -> None:
    process = Process(client, clock)
    happened(process, 1, *[(-60.0, WRONG_PIN)] * 3, (-86_400.0, LOCKED))
    process.sync(1)
    process.read()
    assert process.events.counts(1) == ZEROS
    clock.advance(INTERVAL)
    happened(process, 1, (-1.0, WRONG_PIN))
    process.read()
    assert process.counted(1) == {("wrong_pin", "pin"): 1}


def test_kinds_with_alerts_start_at_zero_for_all_locks(process: Process) -> None:
    process.sync(1, 2)
    assert process.events.counts(2) == ZEROS
    assert ("wrong_pin", "pin") in ZEROS


def test_new_lock_does_not_bring_old_events(process: Process, clock: FakeClock) -> None:
    happened(process, 2, (-30.0, WRONG_PIN))
    process.sync(1, 2)
    process.read(2)
    assert process.counted(2) == {}
    happened(process, 2, (0.0, UNKNOWN))
    process.read(2)
    assert process.counted(2) == {("code_95", "unknown"): 1}


def test_nothing_is_counted_before_the_credential_is_permitted(client: FakeClient, clock: FakeClock) -> None:
    client.faults = {1: Forbidden, 2: Forbidden}
    process = Process(client, clock)
    process.sync(1, 2)
    process.fetch()
    assert process.events.is_permitted is False
    assert process.events.counts(1) == {}
    clock.advance(3600)
    happened(process, 1, (-1.0, WRONG_PIN))
    happened(process, 2, (-1.0, WRONG_PIN))
    client.faults = {}
    process.events.retry()
    process.read(2)
    assert process.events.counts(1) == process.events.counts(2) == ZEROS


# Pages


def test_events_are_read_over_several_pages(process: Process, client: FakeClient) -> None:
    happened(process, 1, *((-30 + number, LOCKED) for number in range(3 * PAGE + 1)))
    process.read()
    assert process.counted(1) == {("locked", "auto"): 3 * PAGE + 1}


@pytest.mark.parametrize("before", range(PAGE + 1))
def test_events_with_one_date_at_a_page_border(process: Process, before: int) -> None:
    newer = [(float(-number), UNLOCKED) for number in range(before)]
    happened(process, 1, *newer, *[(-20.0, LOCKED)] * PAGE, (-25.0, UNLOCKED))
    process.read()
    assert process.counted(1).get(("locked", "auto")) == PAGE
    assert process.counted(1).get(("unlocked", "app")) == before + 1


def test_more_events_with_one_date_than_a_page_end_the_pass(process: Process, client: FakeClient) -> None:
    happened(process, 1, *[(-20.0, LOCKED)] * (3 * PAGE), (-25.0, UNLOCKED))
    client.asked.clear()
    process.read()
    assert process.counted(1) == {("locked", "auto"): PAGE, ("unlocked", "app"): 1}
    assert len(client.asked) <= 4


@pytest.mark.parametrize(("events", "requests"), [(0, 1), (1, 1), (PAGE - 1, 1), (PAGE, 2)])
def test_requests_for_a_log_without_older_events(
    process: Process, client: FakeClient, events: int, requests: int
) -> None:
    happened(process, 1, *((-float(number), LOCKED) for number in range(events)))
    client.asked.clear()
    process.read()
    assert len(client.asked) == requests


def test_known_log_needs_one_request(process: Process, client: FakeClient, clock: FakeClock) -> None:
    happened(process, 1, (0.0, LOCKED))
    process.read()
    clock.advance(OVERLAP + 1)
    happened(process, 1, (0.0, LOCKED))
    process.read()
    client.asked.clear()
    process.read(10)
    assert len(client.asked) == 10


@pytest.mark.parametrize("digits", [0, 3, 6])
def test_pages_go_back_whatever_the_precision_of_dates(digits: int) -> None:
    reading = Pass(EventLog(1, 0.0))
    page_ends: list[str] = []
    for _ in range(20):
        end = datetime.fromisoformat(reading.before).replace(tzinfo=UTC).timestamp() if reading.before else 2e9
        date = round(min(end, 1_764_262_800.123456) - 10**-digits / 2, digits)
        if reading.add([Activity(1, LOCKED, Timestamp(date))] * PAGE, 2e9, is_full=True):
            break
        page_ends.append(reading.before or "")
    assert page_ends == sorted({*page_ends}, reverse=True)


def test_row_that_cannot_be_used_does_not_end_the_pass() -> None:
    reading = Pass(EventLog(1, 0.0))
    assert not reading.add([Activity(1, LOCKED, None), Activity(2, LOCKED, Timestamp(100.0))], 200.0, is_full=True)
    assert reading.add([Activity(3, LOCKED, None)], 200.0, is_full=False)
    assert reading.log.counts["locked auto"] == 1


# Late events and wrong clocks


def test_late_batch_is_counted_once(process: Process, clock: FakeClock) -> None:
    happened(process, 1, (0.0, LOCKED))
    process.read()
    happened(process, 1, *((-OVERLAP + 1 + number, WRONG_PIN) for number in range(2 * PAGE)))
    for _ in range(3):
        process.read()
    assert process.counted(1) == {("locked", "auto"): 1}  # they are older than the start
    clock.advance(2 * OVERLAP)
    happened(process, 1, (0.0, LOCKED))
    process.read()
    happened(process, 1, *((-OVERLAP + 1 + number, WRONG_PIN) for number in range(2 * PAGE)))
    for _ in range(3):
        process.read()
    assert process.counted(1) == {("locked", "auto"): 2, ("wrong_pin", "pin"): 2 * PAGE}


def test_batch_older_than_the_overlap_is_counted_if_nothing_newer_is_known(process: Process, clock: FakeClock) -> None:
    happened(process, 1, (0.0, LOCKED))
    process.read()
    clock.advance(7 * 86_400)
    happened(process, 1, (-6 * 86_400.0, UNLOCKED), (-10.0, LOCKED))
    process.read()
    assert process.counted(1) == {("locked", "auto"): 2, ("unlocked", "app"): 1}


def test_date_in_the_future_does_not_hide_later_events(process: Process, clock: FakeClock) -> None:
    happened(process, 1, (30 * 86_400.0, LOCKED))
    process.read()
    for _ in range(3):
        clock.advance(INTERVAL)
        happened(process, 1, (-1.0, UNLOCKED))
        process.read()
    assert process.counted(1) == {("locked", "auto"): 1, ("unlocked", "app"): 3}


def test_corrected_date_is_not_another_event(process: Process, clock: FakeClock) -> None:
    happened(process, 1, (-1.0, LOCKED))
    process.read()
    event_id, date, number = process.client.log(1)[0]
    for days in range(1, 4):
        clock.advance(86_400)
        process.client.log(1)[:] = [(event_id, date + days * 86_400_000, number)]
        happened(process, 1, (0.0, UNLOCKED))
        process.read()
    assert process.counted(1) == {("locked", "auto"): 1, ("unlocked", "app"): 3}


def test_unknown_kinds_use_bounded_memory(process: Process) -> None:
    for start in range(0, 1_000, 100):
        happened(process, 1, *((float(number) / 1000, 20_000 + start + number) for number in range(100)))
        process.read()
    assert len(process.events.counts(1)) <= 151
    assert sum(process.counted(1).values()) == 1_000


# The order of the locks


def test_locks_are_asked_in_turn(process: Process, client: FakeClient) -> None:
    process.sync(1, 2, 3)
    client.asked.clear()
    for _ in range(6):
        process.read()
    assert client.asked == [1, 2, 3, 1, 2, 3]


def test_changed_lock_is_asked_first(process: Process, client: FakeClient, clock: FakeClock) -> None:
    process.sync(*range(1, 10))
    process.read(9)
    clock.advance(INTERVAL)
    process.sync(*range(1, 10), _5=2.0)
    happened(process, 5, (0.0, LOCKED))
    client.asked.clear()
    process.read()
    assert client.asked[0] == 5


def test_changed_lock_without_an_event_is_asked_once_more(
    process: Process, client: FakeClient, clock: FakeClock
) -> None:
    process.sync(*range(1, 101))
    process.read(100)
    clock.advance(INTERVAL)
    process.sync(*range(1, 101), _50=2.0)
    client.asked.clear()
    for _ in range(20):
        process.read()
        clock.advance(INTERVAL / 4)
    assert client.asked.count(50) == 2
    assert client.asked[0] == 50


def test_locks_that_change_all_the_time_do_not_starve_the_others(process: Process, client: FakeClient) -> None:
    process.sync(*range(1, 101))
    client.asked.clear()
    for number in range(120):
        process.sync(*range(1, 101), **{f"_{lock_id}": float(number) for lock_id in range(1, 80)})
        process.read()
    asked = Counter(client.asked)
    assert sum(asked[lock_id] for lock_id in range(80, 101)) >= 5
    assert client.asked.count(1) <= 4


def test_each_lock_is_asked_at_most_once_in_the_interval(process: Process, clock: FakeClock) -> None:
    process.sync(1, 2)
    process.read(2)
    assert process.events.time_until_due(clock.monotonic()) == INTERVAL
    process.sync(1, 2, _1=2.0)
    assert process.events.time_until_due(clock.monotonic()) == INTERVAL


def test_restart_continues_the_turn(process: Process, client: FakeClient) -> None:
    process.sync(1, 2, 3, 4)
    client.asked.clear()
    process.read(2)
    next_process = process.restarted()
    next_process.sync(1, 2, 3, 4)
    next_process.read(2)
    assert client.asked == [1, 2, 3, 4]


# Locks that leave


def test_lock_that_returns_continues_its_count(process: Process) -> None:
    happened(process, 1, (0.0, LOCKED))
    process.read()
    process.sync(2)
    process.read()
    happened(process, 1, (0.0, UNLOCKED))
    process.sync(1, 2)
    process.read(2)
    assert process.counted(1) == {("locked", "auto"): 1, ("unlocked", "app"): 1}


def test_lock_that_leaves_during_a_pass_is_not_asked(process: Process, client: FakeClient) -> None:
    process.sync(1, 2)
    happened(process, 1, *((float(number), LOCKED) for number in range(3 * PAGE)))
    process.fetch()
    process.sync(2)
    client.asked.clear()
    process.read()
    assert client.asked == [2]
    process.sync(1, 2)
    process.read(2)
    assert process.counted(1) == {("locked", "auto"): 3 * PAGE}


def test_absent_locks_use_bounded_memory(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ABSENT_LOCKS", 10)
    for lock_id in range(2, 200):
        process.sync(1, lock_id)
    assert len(process.logs) <= 12
    assert len(process.events._counts) <= 12
    process.read(2)


# Errors


def test_lock_that_tedee_does_not_know_does_not_block_others(process: Process, client: FakeClient) -> None:
    client.faults = {2: NotFound}
    process.sync(1, 2, 3)
    for _ in range(9):
        happened(process, 3, (0.0, LOCKED))
        process.fetch()
        while process.events._pass:
            process.fetch()
    assert process.events.is_permitted
    assert client.asked.count(2) >= 2
    assert process.counted(3)


def test_failing_lock_does_not_block_others(process: Process, client: FakeClient) -> None:
    client.faults = {2: ServerFailed}
    process.sync(1, 2, 3)
    client.asked.clear()
    for _ in range(9):
        with suppress(ServerFailed):
            process.fetch()
    assert {1, 2, 3} == {*client.asked[:3]} == {*client.asked[3:6]}


@pytest.mark.parametrize(("failures", "requests"), [(1, 3 + 1), (2, 3 + 2), (3, 1 + 3 + 3)])
def test_pass_continues_after_a_failure(process: Process, client: FakeClient, failures: int, requests: int) -> None:
    happened(process, 1, *((-float(number), LOCKED) for number in range(2 * PAGE)))
    client.asked.clear()
    process.fetch()
    for _ in range(failures):
        client.next_fault = ServerFailed
        with suppress(ServerFailed):
            process.fetch()
    process.read()
    assert len(client.asked) == requests
    assert process.counted(1) == {("locked", "auto"): 2 * PAGE}


def test_refusal_of_one_lock_does_not_stop_the_others(process: Process, client: FakeClient) -> None:
    process.sync(1, 2)
    process.read(2)
    client.faults = {2: Forbidden}
    happened(process, 1, (0.0, LOCKED))
    for _ in range(3):
        process.read(2)
    assert process.events.is_permitted
    assert process.counted(1) == {("locked", "auto"): 1}


def test_log_that_no_lock_has_is_a_failure(client: FakeClient, clock: FakeClock) -> None:
    client.faults = {1: NotFound}
    started = Process(client, clock)
    started.sync(1)
    with pytest.raises(NotFound):
        started.fetch()


def test_single_wrong_date_does_not_end_a_pass(process: Process) -> None:
    page = [Activity(number, LOCKED, Timestamp(2e9 - number)) for number in range(PAGE)]
    page[PAGE // 2] = Activity(99, LOCKED, Timestamp(1.0))
    assert not Pass(EventLog(1, 1e9)).add(page, 2e9, is_full=True)


def test_server_that_ignores_the_page_ends_the_pass() -> None:
    reading = Pass(EventLog(1, 1e9))
    page = [Activity(number, LOCKED, Timestamp(1.9e9 - number)) for number in range(PAGE)]
    assert not reading.add(page, 2e9, is_full=True)
    assert not reading.add([*page[-1:], *page[1:-1], Activity(7, LOCKED, Timestamp(1.8e9))], 2e9, is_full=True)
    assert reading.add(page, 2e9, is_full=True)


def test_future_event_is_counted_but_not_recent(process: Process, clock: FakeClock) -> None:
    happened(process, 1, (86_400.0, UNLOCKED), (0.0, LOCKED))
    process.read()
    assert process.counted(1) == {("locked", "auto"): 1, ("unlocked", "app"): 1}
    assert [each.event for each in process.events.recent_events()] == ["locked"]


def test_events_that_are_kept_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "MAX_SEEN", 10)
    log = EventLog(1, 0.0)
    Pass(log).add([Activity(number, LOCKED, Timestamp(3e9)) for number in range(50)], 2e9, is_full=False)
    assert len(log.seen) == 10


def test_forbidden_stops_events_for_an_hour_with_one_log_line(
    process: Process, client: FakeClient, clock: FakeClock
) -> None:
    client.faults = {1: Forbidden}
    for _ in range(MAX_REFUSALS - 1):
        process.fetch()
        assert process.events.is_permitted
    with capture_logs() as logs:
        for _ in range(3):
            process.fetch()
            assert process.events.is_permitted is False
            assert process.events.counts(1) == {}
            assert process.events.time_until_due(clock.monotonic()) == RETRY_REFUSED
    assert [each["event"] for each in logs] == ["events are not permitted"]
    process.events.retry()
    assert process.events.time_until_due(clock.monotonic()) <= INTERVAL


def test_unauthorized_stops_events_only_if_syncs_succeed(
    process: Process, client: FakeClient, clock: FakeClock
) -> None:
    client.faults = {1: Unauthorized}
    process.fetch()
    assert process.events.is_permitted
    assert process.events.time_until_due(clock.monotonic()) == float("inf")
    process.sync(1)
    client.faults = {}
    process.read()
    client.faults = {1: Unauthorized}
    process.fetch()
    assert process.events.is_permitted
    process.sync(1)
    process.fetch()
    assert process.events.is_permitted is False


def test_counts_continue_after_a_refusal(process: Process, client: FakeClient) -> None:
    happened(process, 1, (0.0, LOCKED))
    process.read()
    client.faults = {1: Forbidden}
    process.fetch()
    happened(process, 1, (0.0, LOCKED))
    client.faults = {}
    process.read()
    assert process.counted(1) == {("locked", "auto"): 2}


def test_stored_response_of_another_version_is_not_used(process: Process) -> None:
    assert not process.events.restore(CachedResponse([b'{"since": 1.0}']), 0.0)


def test_events_are_off_without_an_interval(process: Process, clock: FakeClock) -> None:
    process.events.configure(ResourceOptions(300.0))
    process.sync(1, 2)
    assert process.events.time_until_due(clock.monotonic()) == float("inf")
    assert process.events.counts(1) == {}
    process.events.configure(ResourceOptions(300.0, events_interval=INTERVAL))
    assert process.events.counts(1) == ZEROS


def test_new_credential_continues_the_counts(process: Process, client: FakeClient) -> None:
    happened(process, 1, (0.0, LOCKED))
    process.read()
    process.events = process.create(INTERVAL)
    happened(process, 1, (1.0, UNLOCKED))
    process.sync(1)
    process.read()
    assert process.counted(1) == {("locked", "auto"): 1, ("unlocked", "app"): 1}


def test_stored_response_has_no_text_of_tedee(process: Process) -> None:
    happened(process, 1, (0.0, LOCKED), (0.0, UNKNOWN))
    process.read()
    assert process.stored
    (row,) = process.stored.rows or ()
    kinds = [" ".join(each) for each in (*PRESET, EventKind("locked", "auto"), EventKind("code_95", "unknown"))]
    assert {*msgspec.json.decode(row)} == {"lock_id", "since", "newest", "seen", "counts", "recent"}
    assert {name for _, name in msgspec.json.decode(row)["recent"]} == {"locked auto", "code_95 unknown"}
    assert {*msgspec.json.decode(row)["counts"]} == {*kinds}


# Model check

SECONDS = st.integers(0, 40) | st.integers(0, int(OVERLAP) - 1)
"""Age of a late event. The first ones collide often."""
FAULTS: Sequence[type[CallError]] = (ServerFailed, TimedOut, NotFound, Unauthorized)


class EventHistory(RuleBasedStateMachine):
    """Any history of deliveries, requests, failures and restarts, and the numbers that must be counted."""

    LOCKS = (1, 2, 3)

    @initialize(pages=st.booleans())
    def start(self, pages: bool) -> None:
        self.clock = FakeClock()
        self.client = FakeClient()
        self.process = Process(self.client, self.clock)
        self.expected: dict[int, Counter[tuple[str, ...]]] = {lock_id: Counter() for lock_id in self.LOCKS}
        self.newest = dict.fromkeys(self.LOCKS, 0.0)
        self.served: dict[int, dict[tuple[str, ...], int]] = {}
        self.sync(self.LOCKS)
        self.process.read(3)
        if pages:
            for lock_id in self.LOCKS:
                happened(self.process, lock_id, *((-1e6 - number, LOCKED) for number in range(PAGE)))
        self.since = self.clock.wall()

    def sync(self, locks: Iterable[int]) -> None:
        self.process.events.sync_succeeded([SyncedLock(each, True, None) for each in locks])

    def deliver(self, lock_id: int, date: float, number: int) -> None:
        at = round(date * 1000) / 1000
        items = self.client.log(lock_id)
        if sum(each[1] == round(at * 1000) for each in items) >= PAGE or at < self.since:
            return
        items.append((self.client.new_id(), round(at * 1000), number))
        self.expected[lock_id][tuple(EventKind.of(number))] += 1
        if at <= self.clock.wall():
            self.newest[lock_id] = max(self.newest[lock_id], at)

    @rule(
        lock_id=st.sampled_from(LOCKS),
        late=st.lists(SECONDS, min_size=1, max_size=12),
        number=st.sampled_from([36, 62, 95]),
    )
    def deliver_batch(self, lock_id: int, late: list[int], number: int) -> None:
        """Deliver events that are not older than the newest one by more than the overlap."""
        oldest = self.newest[lock_id] - OVERLAP
        for seconds in late:
            self.deliver(lock_id, max(self.clock.wall() - seconds, oldest), number)

    @rule(lock_id=st.sampled_from(LOCKS), days=st.integers(10, 12))
    def deliver_event_of_the_future(self, lock_id: int, days: int) -> None:
        self.deliver(lock_id, self.clock.wall() + days * 86_400, UNLOCKED)

    @rule(requests=st.integers(1, 4))
    def request(self, requests: int) -> None:
        for _ in range(requests):
            if self.process.events.time_until_due(self.clock.monotonic()) == float("inf"):
                self.sync(self.LOCKS)
            self.process.fetch()

    @rule(fault=st.sampled_from(FAULTS))
    def failing_request(self, fault: type[CallError]) -> None:
        if self.process.events.time_until_due(self.clock.monotonic()) == float("inf"):
            self.sync(self.LOCKS)
        self.client.next_fault = fault
        with suppress(fault):
            self.process.fetch()
        self.process.events.retry()

    @rule(is_during_request=st.booleans())
    def restart(self, is_during_request: bool) -> None:
        if is_during_request:
            if self.process.events.time_until_due(self.clock.monotonic()) == float("inf"):
                self.sync(self.LOCKS)
            self.process.fetch(is_killed=True)
        self.process = self.process.restarted()
        self.sync(self.LOCKS)

    @rule()
    def change_credential(self) -> None:
        self.process.events = self.process.create(INTERVAL)
        self.sync(self.LOCKS)

    @rule(absent=st.sampled_from(LOCKS))
    def sync_without_a_lock(self, absent: int) -> None:
        self.sync(set(self.LOCKS) - {absent})

    @rule()
    def sync_with_all_locks(self) -> None:
        self.sync(self.LOCKS)

    @rule(seconds=st.floats(0, 20_000))
    def advance_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def no_event_is_counted_twice(self) -> None:
        for lock_id, expected in self.expected.items():
            assert Counter(self.process.counted(lock_id)) <= expected

    def teardown(self) -> None:
        if not hasattr(self, "process"):
            return
        self.client.next_fault = None
        self.sync(self.LOCKS)
        self.clock.advance(INTERVAL)
        self.process.read(4 * len(self.LOCKS))
        for lock_id, expected in self.expected.items():
            assert self.process.counted(lock_id) == expected


def _model(case: type[RuleBasedStateMachine]) -> Any:
    case.TestCase.settings = settings(
        max_examples=150,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    return case.TestCase


TestEventHistory = _model(EventHistory)
