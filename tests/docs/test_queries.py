"""Tests of the queries in docs/queries.md against a real Prometheus with a recorded week."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from exporter.metrics import catalogue
from exporter.metrics.catalogue import LOCK_METRICS, AnyMetric
from exporter.sync.snapshot import Lock
from exporter.tedee.models import DeviceState, SyncedLock
from exporter.tedee.rows import Timestamp
from testing.program import ROOT
from tests.dashboards.grafana import Grafana
from tests.dashboards.recordings import NO_TARGET, backfill
from tests.dashboards.scripted_day import DAY, END, HOUR, TARGET, Recording
from tests.end_to_end.prometheus import Prometheus, prometheus

PAGE = (ROOT / "docs" / "queries.md").read_text("utf-8")
SECTIONS = re.findall(r"(?ms)^## (.*?)\n\n```promql\n(.*?)```\n\n(.*?)(?=^## |\Z)", PAGE)
QUERIES = {question: query for question, query, _ in SECTIONS}

LOCKED, UNLOCKED, SEMI_LOCKED, UNLOCKING, LOCKING = 6, 2, 3, 4, 5
CLOSED, OPENED, NOT_PAIRED, UNCALIBRATED = 3, 2, 0, 4
MINUTE = 60.0
START = 8 * DAY
"""Start of the recording in seconds before END, which is 14:00 UTC."""
INTERVAL, SHORT_INTERVAL = 120, 20
"""Seconds between two samples. The short one is used for one lock on the last day."""
NOT_SCRAPED = (4 * HOUR, 3 * HOUR)
"""Seconds before END in which Prometheus cannot scrape."""
STALE = (37 * HOUR, 35 * HOUR)
"""Seconds before END in which the data of the hotel is stale."""
RESTARTED = 15 * HOUR
"""Seconds before END at which the exporter started again."""
RENAMED = 12 * HOUR
"""Seconds before END at which the locks of the hotel got their names. Before, other names were reported."""
COUNTED_BEFORE = 1_000
"""State changes of each lock that the exporter had counted at the start of the recording."""
BRIDGES = {("home", "11"): 1, ("hotel", "21"): 1, ("hotel", "23"): 0}
"""Whether each bridge is connected, during the whole week."""

Steps = Sequence[tuple[float, float]]
"""(seconds before END, value from then on), in the order of time."""
Row = tuple[str, ...]


@dataclass(frozen=True)
class RecordedLock:
    """Values of a lock over the week. The time of its last state change follows from the states."""

    account: str
    lock_id: str
    lock_name: str
    model: str
    states: Steps
    connected: Steps = ((START, 1),)
    door: int = CLOSED
    battery: Steps = ((START, 80),)
    charging: Steps = ((START, 0),)
    results: Steps = ((START, 0),)
    firmware: tuple[str, ...] = ("2.4",)
    """Two versions during an update, when two series of `lock_info` overlap."""
    interval: int = INTERVAL
    bridge: str = ""
    events: Mapping[tuple[str, str], Sequence[float]] = field(default_factory=dict)
    """Seconds before END at which events were counted, by event and source."""

    def samples(self, ago: float) -> Iterator[tuple[AnyMetric, float]]:
        """Yield the values at a time."""
        if not self.connected:
            return
        connected = bool(value_at(self.connected, ago))
        state = DeviceState(
            state=int(value_at(self.states, ago)),
            door_state=self.door,
            is_charging=bool(value_at(self.charging, ago)),
            battery_level=int(value_at(self.battery, ago)),
            state_change_result=int(value_at(self.results, ago)),
            last_state_changed_date=Timestamp(END - [start for start, _ in self.states if start >= ago][-1]),
        )
        changes = sum(counted_since(ago) > start >= ago for start, _ in self.states)
        synced = SyncedLock(int(self.lock_id), connected, state if connected else None)
        lock = Lock(synced, state_changes=(COUNTED_BEFORE if ago > RESTARTED else 0) + changes)
        for metric in LOCK_METRICS:
            value = metric.value(lock)
            if isinstance(value, int | float):
                yield metric, float(value)


def counted_since(ago: float) -> float:
    """Return the start of the exporter that runs at a time, or the start of the recording, in seconds before END."""
    return START if ago > RESTARTED else RESTARTED


def value_at(steps: Steps, ago: float) -> float:
    """Return the value at a time."""
    return [value for start, value in steps if start >= ago][-1]


LOCKS = (
    RecordedLock(
        "home",
        "1001",
        "Front door",
        "Lock PRO",
        states=(
            (10 * DAY, LOCKED),
            (25 * HOUR, UNLOCKED),
            (25 * HOUR - 10 * MINUTE, LOCKED),
            (20 * HOUR - 20, UNLOCKED),  # for two samples that are not at a full minute
            (20 * HOUR - 60, LOCKED),
            (10 * HOUR, UNLOCKED),  # 4:00 UTC
            (10 * HOUR - 10 * MINUTE, LOCKED),
            (6 * HOUR, UNLOCKING),
            (6 * HOUR - 20, UNLOCKED),
            (5 * HOUR, LOCKING),
            (5 * HOUR - 20, LOCKED),
            (3.5 * HOUR, UNLOCKED),  # while Prometheus cannot scrape
            (2.5 * HOUR, LOCKED),
        ),
        battery=((START, 20),),
        firmware=("2.4", "2.5"),
        interval=SHORT_INTERVAL,
        bridge="11",
        events={
            ("wrong_pin", "pin"): [30 * HOUR, 6 * HOUR, 5 * HOUR],
            ("unauthorized_pin", "pin"): [5 * HOUR],
            ("unlocked", "app"): [7.5 * DAY, 6 * DAY, 5 * DAY, 10 * HOUR],
            ("unlocked", "pin"): [6 * HOUR],
            ("locked", "auto"): [5 * HOUR],
        },
    ),
    RecordedLock(
        "home",
        "1002",
        "Garage",
        "Lock GO",
        states=(
            (10 * DAY, LOCKED),
            (12 * HOUR, UNLOCKED),  # 2:00 to 5:30 UTC
            (8.5 * HOUR, LOCKED),
            (HOUR, UNLOCKED),
        ),
        connected=((START, 1), (8 * HOUR, 0), (2 * HOUR, 1)),
        bridge="11",
        door=OPENED,
        battery=((START, 95), (5 * DAY, 60)),
        charging=((START, 0), (25 * HOUR, 1), (24 * HOUR, 0)),
    ),
    # The shed is shared with the user of the second account.
    *(
        RecordedLock(
            account,
            "1003",
            "Shed",
            "Lock PRO",
            states=((30 * DAY, LOCKED),),
            door=NOT_PAIRED,
            battery=((START, 18),),
            events={("wrong_pin", "pin"): []},
        )
        for account in ("home", "hotel")
    ),
    RecordedLock(
        "hotel",
        "2001",
        "Front door",
        "Lock GO",
        states=((10 * DAY, LOCKED), (9 * HOUR, UNLOCKED), (8 * HOUR, LOCKED)),  # 5:00 to 6:00 UTC
        connected=((START, 1), (6 * DAY, 0), (6 * DAY - HOUR, 1)),
        battery=[(days * DAY, 79 + days) for days in range(8, 0, -1)],
    ),
    RecordedLock(
        "hotel",
        "2002",
        "Pool gate",
        "Lock PRO",
        bridge="21",
        events={
            ("wrong_pin", "pin"): [20 * HOUR, 2 * HOUR],
            ("jammed", "device"): [6 * DAY, 3 * DAY],
            ("unlocked", "pin"): [20 * HOUR, 2 * HOUR],
            ("pulled", "app"): [2 * DAY],
        },
        states=((10 * DAY, LOCKED), (14.5 * HOUR, UNLOCKED), (14.25 * HOUR, LOCKED), (2 * HOUR, SEMI_LOCKED)),  # 23:30
        connected=((START, 1), (130 * HOUR, 0), (128 * HOUR, 1)),
        door=UNCALIBRATED,
        battery=((START, 10),),
        charging=((START, 1),),
        results=(
            (START, 0),
            (6 * DAY, 1),
            (6 * DAY - HOUR, 0),
            (4 * DAY, 2),  # an error, but no jam
            (4 * DAY - HOUR, 0),
            (3 * DAY, 1),
            (2 * DAY, 0),
            (2 * HOUR, 1),
        ),
    ),
    RecordedLock(
        "hotel",
        "2003",
        "Annex",
        "Lock GO",
        states=((9 * DAY, LOCKED),),
        bridge="23",
        connected=((START, 1), (3 * DAY, 0), (2 * DAY, 1), (5 * HOUR, 0)),
        door=OPENED,
        battery=((START, 15),),
    ),
    RecordedLock("hotel", "2006", "Linen room", "Lock GO", states=(), connected=()),
)


@dataclass(frozen=True)
class RecordedAccessory:
    """Battery of a keypad or door sensor over the week, with the name of the device."""

    metric: AnyMetric
    account: str
    device_id: str
    levels: Sequence[tuple[float, float | None, str]]
    """(seconds before END, percent from then on, name). Tedee omits a level of None."""


KEYPAD, DOOR_SENSOR = catalogue.KEYPAD_BATTERY, catalogue.DOOR_SENSOR_BATTERY
ACCESSORIES = (
    RecordedAccessory(KEYPAD, "home", "1101", [(START, 50, "Keypad"), (3 * DAY, 12, "Front door keypad")]),
    RecordedAccessory(KEYPAD, "hotel", "2901", [(START, 80, "Main keypad")]),
    RecordedAccessory(KEYPAD, "hotel", "2902", [(START, 14, "Staff keypad"), (2 * DAY, None, "Staff keypad")]),
    RecordedAccessory(KEYPAD, "hotel", "2903", [(START, 10, "Old keypad"), (3 * DAY, 100, "New keypad")]),
    RecordedAccessory(DOOR_SENSOR, "hotel", "2804", [(START, 15, "Pool sensor")]),
    RecordedAccessory(DOOR_SENSOR, "hotel", "2805", [(START, 16, "Annex sensor")]),
)


@dataclass(frozen=True)
class Case:
    """Expected result of a query, and wrong queries that must have other results."""

    expected: Mapping[Row, float]
    labels: tuple[str, ...] = ("account", "lock_id")
    """Labels of the expected rows."""
    ago: float = 0.0
    """Seconds before END at which the query is evaluated."""
    tolerance: float = 0.001
    mistakes: Sequence[str] = field(default_factory=tuple)


FRONT_DOOR, GARAGE, SHED = ("home", "1001"), ("home", "1002"), ("home", "1003")
HOTEL_SHED, HOTEL_FRONT_DOOR, POOL_GATE, ANNEX = (("hotel", lock_id) for lock_id in ("1003", "2001", "2002", "2003"))
HOME_HOURS = 7 * 24 - 1
"""Hours of the last week in which the state of the home's locks is known."""
HOTEL_HOURS = HOME_HOURS - 2
BY_LOCK = "max by (account, lock_id)"
ALL_LOCKED = "Are all locks locked?"
CASES = [
    (
        "Which doors are open?",
        Case({GARAGE: 1}, mistakes=["lock_door_open", "last_over_time(lock_door_open[1d]) == 1"]),
    ),
    ("Which locks are not locked?", Case({GARAGE: 1, POOL_GATE: 1, ANNEX: 0}, mistakes=["lock_locked == 0"])),
    (ALL_LOCKED, Case({(): 0}, labels=(), mistakes=["max(lock_locked)"])),
    (ALL_LOCKED, Case({(): 1}, labels=(), ago=132 * HOUR, mistakes=["count(lock_locked == 0) == bool 0"])),
    (ALL_LOCKED, Case({(): 0}, labels=(), ago=60 * HOUR, mistakes=["min(lock_locked)"])),
    (ALL_LOCKED, Case({}, labels=(), ago=36 * HOUR, mistakes=["min(lock_locked or 0 * lock_connected)"])),
    (
        "How often was the front door unlocked in the last 24 hours?",
        Case(
            {FRONT_DOOR: 4},
            mistakes=[
                'changes(lock_state{account="home", lock_name="Front door"}[1d])',
                'changes(lock_locked{account="home", lock_name="Front door"}[1d])',
                'increase(lock_state_changes_total{account="home", lock_name="Front door"}[1d])',
                'resets((max by (account, lock_id) (lock_locked{lock_name="Front door"}))[1d:20s])',
                'resets(lock_locked{account="home", lock_name="Front door"}[1d:1m])',
                'resets(lock_locked{account="home", lock_name="Front door"}[26h])',
            ],
        ),
    ),
    (
        "For how long was the garage not locked in the last 24 hours?",
        Case(
            {GARAGE: 4.5},
            tolerance=0.05,
            mistakes=['24 * (1 - avg_over_time(lock_locked{account="home", lock_name="Garage"}[1d]))'],
        ),
    ),
    (
        "Which batteries are low and not charging?",
        Case(
            {FRONT_DOOR: 20, SHED: 18, HOTEL_SHED: 18, ANNEX: 15},
            mistakes=[
                "lock_battery_level <= 20 unless on (account, lock_id) lock_charging == 1",
                "last_over_time((max by (account, lock_id) (lock_battery_level))[1d:1m]) < 20",
                "last_over_time((max by (account, lock_id) (lock_battery_level))[1d:1m]) <= 20",
                (
                    "last_over_time(lock_battery_level[1d]) <= 20 "
                    "unless on (account, lock_id) last_over_time(lock_charging[1d]) == 1"
                ),
            ],
        ),
    ),
    (
        "Which locks were offline for the longest time in the last week?",
        Case(
            {ANNEX: 28 / HOTEL_HOURS, GARAGE: 5 / HOME_HOURS, POOL_GATE: 2 / HOTEL_HOURS},
            mistakes=[
                "1 - avg_over_time((max by (account, lock_id) (lock_connected))[7d:1m]) > 0",
                "topk(3, 1 - avg_over_time((max by (account, lock_id) (lock_connected))[1d:1m]))",
                "topk(3, 1 - avg_over_time(lock_connected[7d]) > 0)",
            ],
        ),
    ),
    (
        "Which locks are behind an offline bridge?",
        Case(
            {(*ANNEX, "23", "Bridge 23"): 1},
            labels=("account", "lock_id", "bridge_id", "bridge_name"),
            ago=4.5 * HOUR,
            mistakes=[
                "lock_info and on (account, bridge_id) tedee_bridge_connected",
                (
                    "max by (account, bridge_id, bridge_name, lock_id) (lock_info) "
                    "and on (account) tedee_bridge_connected == 0"
                ),
                (
                    "max by (account, bridge_id, bridge_name, lock_id) (lock_info) "
                    "and on (account, lock_id) lock_connected == 0"
                ),
            ],
        ),
    ),
    (
        "Which locks have not been locked for the longest time?",
        Case({POOL_GATE: 2 * HOUR, GARAGE: HOUR}, mistakes=["sort_desc(time() - lock_last_state_change_timestamp)"]),
    ),
    (
        "Which locks jammed in the last week, and how often?",
        Case(
            {POOL_GATE: 3},
            mistakes=[
                "resets((max by (account, lock_id) (lock_jammed))[7d:20s]) > 0",
                "resets((max by (account, lock_id) (lock_state_change_result == bool 0))[7d:20s]) > 0",
                "resets((1 - lock_jammed)[7d:20s]) > 0",
            ],
        ),
    ),
    (
        "For how long were locks not locked between 23:00 and 5:00?",
        Case(
            {FRONT_DOOR: 10 / 60, GARAGE: 3, POOL_GATE: 0.25},
            tolerance=0.05,
            mistakes=[
                "count_over_time((lock_locked == 0 and on () hour() < 5)[1d:1m]) / 60",
                "count_over_time((lock_locked == 0 and on () (hour() <= 5 or hour() >= 23))[1d:1m]) / 60",
                "count_over_time((lock_locked == 0)[1d:1m]) / 60",
            ],
        ),
    ),
    (
        "How often was a wrong PIN typed in the last 24 hours?",
        Case(
            {FRONT_DOOR: 2, POOL_GATE: 2},
            tolerance=0.1,
            mistakes=[
                'max by (account, lock_id) (increase(lock_events_total{event="wrong_pin"}[1d])) > 0',
                f'{BY_LOCK} (sum without (lock_name) (increase(lock_events_total{{event="wrong_pin"}}[2d]))) > 0',
                f'{BY_LOCK} (sum without (lock_name) (increase(lock_events_total{{event="wrong_pin"}}[1d])))',
                'sum by (account, lock_id) (increase(lock_events_total{source="pin"}[1d])) > 0',
                'max by (account, lock_id) (lock_events_total{event="wrong_pin"}) > 0',
            ],
        ),
    ),
    (
        "How were locks operated in the last week?",
        Case(
            {("app",): 4, ("pin",): 3, ("auto",): 1},
            labels=("source",),
            tolerance=0.15,
            mistakes=[
                "sum by (source) (increase(lock_events_total[7d]))",
                'sum by (source) (increase(lock_events_total{event="unlocked"}[7d]))',
                'sum by (source) (lock_events_total{event=~"locked|unlocked|pulled"})',
                (
                    "sum by (source) (max by (account, lock_id, event, source) "
                    '(increase(lock_events_total{event=~"locked|unlocked|pulled"}[7d])))'
                ),
            ],
        ),
    ),
    (
        "Which keypads and door sensors need new batteries?",
        Case(
            {("home", "1101", ""): 12, ("hotel", "2902", ""): 14, ("hotel", "", "2804"): 15},
            labels=("account", "keypad_id", "door_sensor_id"),
            mistakes=[
                "tedee_keypad_battery_percent <= 15 or tedee_door_sensor_battery_percent <= 15",
                (
                    "last_over_time(tedee_keypad_battery_percent[7d]) <= 15 "
                    "or last_over_time(tedee_door_sensor_battery_percent[7d]) <= 15"
                ),
                (
                    "max by (account, keypad_id) (last_over_time(tedee_keypad_battery_percent[7d])) <= 15 or "
                    "max by (account, door_sensor_id) (last_over_time(tedee_door_sensor_battery_percent[7d])) <= 15"
                ),
                (
                    "last_over_time((max by (account, keypad_id) (tedee_keypad_battery_percent))[7d:10m]) < 15 or "
                    "last_over_time((max by (account, door_sensor_id) (tedee_door_sensor_battery_percent))[7d:9m]) < 15"
                ),
            ],
        ),
    ),
    (
        "In how many days will batteries be empty?",
        Case(
            {HOTEL_FRONT_DOOR: 80},
            tolerance=3,
            mistakes=["lock_battery_level / (-86400 * deriv(lock_battery_level[7d]) > 0)"],
        ),
    ),
    (
        "What is the average battery level of each model?",
        Case(
            {("Lock PRO",): (20 + 18 + 18 + 10) / 4, ("Lock GO",): (60 + 80) / 2},
            labels=("model",),
            mistakes=["avg(lock_battery_level)", "avg by (model) (lock_battery_level)"],
        ),
    ),
    (
        "Which locks were used the most in the last week?",
        Case(
            {FRONT_DOOR: 12, GARAGE: 3, POOL_GATE: 3},
            tolerance=0.1,
            mistakes=[
                f"topk(3, {BY_LOCK} (increase(lock_state_changes_total[7d])))",
                f"{BY_LOCK} (sum without (lock_name) (increase(lock_state_changes_total[7d])))",
                f"topk(3, {BY_LOCK} (sum without (lock_name) (increase(lock_state_changes_total[1d]))))",
                f"topk(3, {BY_LOCK} (lock_state_changes_total))",
                f"topk(3, {BY_LOCK} (sum without (lock_name) (delta(lock_state_changes_total[7d]))))",
                (
                    f"topk(3, {BY_LOCK} (max_over_time(lock_state_changes_total[7d]))"
                    f" - {BY_LOCK} (min_over_time(lock_state_changes_total[7d])))"
                ),
                f"topk(3, {BY_LOCK} (sum without (lock_name) (changes(lock_state_changes_total[7d]))))",
            ],
        ),
    ),
    (
        "Which locks were not used for a week?",
        Case(
            {SHED: 30, HOTEL_SHED: 30, ANNEX: 9},
            mistakes=[
                "(time() - lock_last_state_change_timestamp) / 86400 > 7",
                "(time() - last_over_time(lock_last_state_change_timestamp[30d])) / 86400 > 7",
            ],
        ),
    ),
    (
        "How many locks are in each state?",
        Case(
            {("6",): 4, ("2",): 1, ("3",): 1, ("offline",): 1},
            labels=("state",),
            mistakes=['count_values("state", lock_state)', 'count_values("state", last_over_time(lock_state[1d]))'],
        ),
    ),
    (
        "What are the names of the locks in a result?",
        Case(
            {
                ("hotel", "Annex"): 28 / HOTEL_HOURS,
                ("home", "Garage"): 5 / HOME_HOURS,
                ("hotel", "Pool gate"): 2 / HOTEL_HOURS,
                ("hotel", "Front door"): 1 / HOTEL_HOURS,
            },
            labels=("account", "lock_name"),
            mistakes=["1 - avg_over_time(lock_connected[7d]) > 0"],
        ),
    ),
    (
        "Which accounts are failing, and why?",
        Case({("hotel", "auth"): 1}, labels=("account", "reason"), mistakes=["tedee_up == 0"]),
    ),
]


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with the recorded week."""
    folder = tmp_path_factory.mktemp("week")
    backfill(record(folder), folder / "data")
    with prometheus(folder, NO_TARGET) as running:
        yield running


@pytest.fixture(scope="module")
def week_of_replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with the recorded week of two replicas, one of which was down for some hours."""
    folder = tmp_path_factory.mktemp("week of replicas")
    path = record(folder)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    down = range(int(END - 50 * HOUR), int(END - 40 * HOUR))
    others = [
        line.replace(TARGET["instance"], "replica-2:10333")
        for line in lines[:-1]
        if int(float(line.rpartition(" ")[2])) not in down
    ]
    path.write_text("".join([*lines[:-1], *others, lines[-1]]), "utf-8")
    backfill(path, folder / "data")
    with prometheus(folder, NO_TARGET) as running:
        yield running


def record(folder: Path) -> Path:
    """Record the week to a file."""
    recording = Recording(folder / "week.om")
    for lock in LOCKS:
        for ago in times(lock):
            if lock.account == "hotel" and STALE[0] > ago >= STALE[1]:
                continue
            name = lock.lock_name if lock.account == "home" or ago <= RENAMED else f"Old {lock.lock_name.lower()}"
            labels = {**TARGET, "account": lock.account, "lock_id": lock.lock_id, "lock_name": name}
            for metric, value in lock.samples(ago):
                recording.add_sample(metric.name, labels, value, END - ago)
            for version in lock.firmware:
                properties = {**labels, "model": lock.model, "firmware_version": version, **bridge_labels(lock.bridge)}
                recording.add_sample(catalogue.LOCK_INFO.name, properties, 1, END - ago)
            for (event, source), moments in lock.events.items():
                count = sum(moment >= ago for moment in moments)
                kind = {**labels, "event": event, "source": source}
                recording.add_sample(catalogue.LOCK_EVENTS.name, kind, count, END - ago)
    record_devices(recording)
    for account in ("home", "hotel"):
        labels = {**TARGET, "account": account}
        for ago in range(int(START), -1, -INTERVAL):
            stale = account == "hotel" and STALE[0] > ago >= STALE[1]
            failing = account == "hotel" and (stale or ago < 10 * MINUTE)
            recording.add_sample(catalogue.UP.name, labels, float(not failing), END - ago)
            if not stale:
                recording.add_sample(catalogue.LOCK_COUNT.name, labels, 1, END - ago)
            if failing:
                recording.add_sample(catalogue.SYNC_FAILING.name, {**labels, "reason": "auth"}, 1, END - ago)
    recording.close()
    return recording.path


def record_devices(recording: Recording) -> None:
    """Record the bridges, keypads and door sensors."""
    for ago in range(int(START), -1, -INTERVAL):
        for (account, bridge), connected in BRIDGES.items():
            labels = {**TARGET, "account": account, **bridge_labels(bridge)}
            recording.add_sample(catalogue.BRIDGE_CONNECTED.name, labels, connected, END - ago)
        for each in ACCESSORIES:
            _, id_label, name_label = each.metric.labels
            _, level, name = [step for step in each.levels if step[0] >= ago][-1]
            if level is not None:
                labels = {**TARGET, "account": each.account, id_label: each.device_id, name_label: name}
                recording.add_sample(each.metric.name, labels, level, END - ago)


def bridge_labels(bridge: str) -> Mapping[str, str]:
    """Return the labels of a bridge; empty ones if there is none."""
    return {"bridge_id": bridge, "bridge_name": f"Bridge {bridge}" if bridge else ""}


def times(lock: RecordedLock) -> Iterator[int]:
    """Yield the times of samples in seconds before END."""
    for ago in range(int(START), -1, -SHORT_INTERVAL):
        if NOT_SCRAPED[0] > ago >= NOT_SCRAPED[1]:
            continue
        if ago % INTERVAL == 0 or (ago < 26 * HOUR and lock.interval == SHORT_INTERVAL):
            yield ago


def test_questions_have_a_query_and_an_explanation() -> None:
    assert len(SECTIONS) == PAGE.count("\n## ") == PAGE.count("```promql")
    assert list(QUERIES) == list(dict.fromkeys(question for question, _ in CASES))
    for question, _, explanation in SECTIONS:
        assert question.endswith("?")
        assert 1 <= len(re.findall(r"[.?](?=\s|$)", explanation)) <= 2


@pytest.mark.parametrize(("question", "case"), CASES)
def test_query_returns_the_expected_result(week: Prometheus, question: str, case: Case) -> None:
    assert result(week, QUERIES[question], case) == pytest.approx(case.expected, abs=case.tolerance)


@pytest.mark.parametrize(("question", "case"), CASES)
def test_query_counts_locks_of_replicas_once(week_of_replicas: Prometheus, question: str, case: Case) -> None:
    assert result(week_of_replicas, QUERIES[question], case) == pytest.approx(case.expected, abs=case.tolerance)


@pytest.mark.parametrize(("mistake", "case"), [(mistake, case) for _, case in CASES for mistake in case.mistakes])
def test_common_mistake_returns_another_result(week: Prometheus, mistake: str, case: Case) -> None:
    try:
        found = result(week, mistake, case)
    except AmbiguousResult:
        return
    assert found != pytest.approx(case.expected, abs=case.tolerance)


def test_longest_time_is_first(week: Prometheus) -> None:
    question = "Which locks have not been locked for the longest time?"
    (case,) = (case for each, case in CASES if each == question)
    assert list(result(week, QUERIES[question], case)) == list(case.expected)


class AmbiguousResult(Exception):
    """Several series of a result have the same labels, such as those of two names of a lock."""


def result(week: Prometheus, query: str, case: Case) -> dict[Row, float]:
    """Return the values of an instant query, by the labels of the case. Raises AmbiguousResult."""
    time = END - case.ago
    series = Grafana(week, time).query("query", query=query, time=time)
    values = {tuple(each["metric"].get(label, "") for label in case.labels): float(each["value"][1]) for each in series}
    if len(values) < len(series):
        raise AmbiguousResult(query)
    return values
