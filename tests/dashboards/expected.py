"""Expected results of all queries of the dashboards, computed in Python from recorded samples, without PromQL."""

import math
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from dashboards.generator import devices, overview, value_mappings
from dashboards.generator import queries as q
from dashboards.generator.alert_table import RUNBOOK
from dashboards.generator.colours import MAX_SERIES
from exporter.presentation import LOW_ACCESSORY_BATTERY, LOW_BATTERY
from exporter.tedee.models import DoorState, LockState, StateChangeResult

LOOKBACK = 300.0
"""Seconds after which Prometheus no longer uses a sample."""
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
UNITS = {"m": MINUTE, "h": HOUR, "d": DAY}

BAD_STATES = {LockState.UNCALIBRATED, LockState.SEMI_LOCKED, LockState.UNKNOWN}
UNLOCKED_STATES = {LockState.UNLOCKED, LockState.PULLED}
SECURE_DOORS = {DoorState.NOT_PAIRED, DoorState.CLOSED}


class Samples(NamedTuple):
    """Recorded samples of one series, in the order of time."""

    labels: Mapping[str, str]
    times: Sequence[float]
    values: Sequence[float]

    def last(self, at: float, lookback: float = LOOKBACK) -> float | None:
        """Return the last value up to a time, or None if it is older than `lookback` seconds."""
        index = bisect_right(self.times, at) - 1
        return self.values[index] if index >= 0 and self.times[index] >= at - lookback else None

    def between(self, start: float, end: float) -> tuple[Sequence[float], Sequence[float]]:
        """Return times and values between two times, both included."""
        first, last = bisect_left(self.times, start), bisect_right(self.times, end)
        return self.times[first:last], self.values[first:last]


class Bounds(NamedTuple):
    """Lowest and highest accepted value."""

    low: float
    high: float


Value = float | Bounds
LabelSet = frozenset[tuple[str, str]]
Rows = dict[frozenset[LabelSet], Value]
"""Expected value of each series. If PromQL may choose one of several label sets, any of them is accepted."""
Lock = tuple[str, str]
"""Account and id."""
Device = tuple[str, str]
"""Account and id of a device other than a lock."""
Levels = Mapping[Lock, float]


def one(**labels: str) -> frozenset[LabelSet]:
    """Return the only accepted label set. Empty labels are absent."""
    return frozenset({frozenset((name, value) for name, value in labels.items() if value)})


def number(value: Value | None) -> Rows:
    """Return a single series without labels, or nothing if the value is None."""
    return {} if value is None else {one(): value}


def seconds(duration: str) -> float:
    """Return the seconds of a duration such as `7d`."""
    return float(duration[:-1]) * UNITS[duration[-1]]


@dataclass(frozen=True)
class View:
    """Recorded samples that a dashboard shows, and the time of the evaluation."""

    samples: Mapping[str, Sequence[Samples]]
    """Series of the selected jobs, instances, accounts and locks, by metric."""
    at: float
    end: float
    """End of the time range."""
    span: float
    """Time range of the dashboard in seconds."""
    interval: float
    """Seconds between two steps."""
    rate_interval: float
    """Seconds over which rates are calculated."""
    locks: Collection[str]
    """Patterns of the ids of the locks that are shown."""
    accounts: Collection[str]
    """Accounts that are shown if their number is limited."""
    missing: Collection[str]
    """Accounts of the hidden variable `missing`."""

    def series(self, *metrics: str) -> Iterator[Samples]:
        """Yield the series of metrics. Series of locks are limited to the locks that are shown."""
        for metric in metrics:
            for each in self.samples.get(metric, ()):
                lock = each.labels.get("lock_id")
                if lock is None or any(re.fullmatch(pattern, lock) for pattern in self.locks):
                    yield each

    def current(self, *metrics: str, at: float | None = None) -> Iterator[tuple[Mapping[str, str], float]]:
        """Yield labels and value of the series that have a current value."""
        for each in self.series(*metrics):
            value = each.last(self.at if at is None else at)
            if value is not None:
                yield each.labels, value

    def by_lock(self, metric: str, at: float | None = None) -> dict[Lock, list[float]]:
        """Return the values of each lock, one of each exporter."""
        found = defaultdict(list)
        for labels, value in self.current(metric, at=at):
            found[labels["account"], labels["lock_id"]].append(value)
        return found

    def by_account(self, metric: str) -> dict[str, list[float]]:
        """Return the values of each account."""
        found = defaultdict(list)
        for labels, value in self.current(metric):
            found[labels["account"]].append(value)
        return found

    def targets(self, metric: str, lookback: float = LOOKBACK) -> set[tuple[str, str]]:
        """Return job and instance of the exporters that have a value."""
        return {
            (each.labels["job"], each.labels["instance"])
            for each in self.series(metric)
            if each.last(self.at, lookback) is not None
        }

    def grid(self, span: float, step: float) -> list[float]:
        """Return the times of a subquery: multiples of `step` in the last `span` seconds, from the first sample on."""
        first = min((each.times[0] for each in self.series("up", "lock_revision")), default=self.at)
        return [index * step for index in range(math.ceil(max(self.at - span, first) / step), int(self.at // step) + 1)]


# Accounts


def missing_accounts(view: View) -> set[str]:
    """Return the accounts that were reported but whose locks no exporter reports now."""
    running = view.targets("tedee_exporter_build_info")
    down = {(labels["job"], labels["instance"]) for labels, value in view.current("up") if value == 0}
    known = set()
    for each in view.series("tedee_api_requests_remaining"):
        target = each.labels["job"], each.labels["instance"]
        if (
            each.last(view.at) is not None
            or (target not in running and each.last(view.at, seconds(q.ACCOUNT_LOOKBACK)) is not None)
            or (target in down and each.last(view.at, seconds(q.EXPORTER_LOOKBACK)) is not None)
        ):
            known.add(each.labels["account"])
    return known - set(view.by_account("tedee_locks"))


def recent_missing(view: View, metric: str = "tedee_api_requests_remaining") -> dict[str, float]:
    """Return the last value of each missing account."""
    found: dict[str, float] = {}
    for each in view.series(metric):
        value = each.last(view.at, seconds(q.EXPORTER_LOOKBACK))
        if each.labels["account"] in view.missing and value is not None:
            found[each.labels["account"]] = max(value, found.get(each.labels["account"], -math.inf))
    return found


def last_syncs(view: View) -> dict[str, float]:
    """Return the time of the last sync of each account, also of missing accounts."""
    return recent_missing(view, "tedee_last_sync_timestamp_seconds") | {
        account: max(values) for account, values in view.by_account("tedee_last_sync_timestamp_seconds").items()
    }


def sync_statuses(view: View) -> dict[str, float]:
    """Return 1 or 0 for each account, or NO_DATA for those that no exporter reports."""
    reported = {account: max(values) for account, values in view.by_account("tedee_up").items()}
    return dict.fromkeys(recent_missing(view), float(value_mappings.NO_DATA)) | reported


def of_accounts(values: Mapping[str, float]) -> Rows:
    """Return a row for each account."""
    return {one(account=account): value for account, value in values.items()}


def account_values(metric: str, pick: Callable[[list[float]], float], view: View, *, shown: bool = False) -> Rows:
    """Return the value of each account, or of each account that is shown."""
    values = view.by_account(metric)
    return of_accounts({each: pick(values[each]) for each in values if not shown or each in view.accounts})


# Names and properties of locks


def infos(
    view: View, metrics: Sequence[str], labels: Sequence[str], lookback: float = LOOKBACK
) -> dict[Lock, frozenset[LabelSet]]:
    """Return the given labels of each lock. If its series differ, all of them."""
    found: dict[Lock, set[LabelSet]] = defaultdict(set)
    for each in view.series(*metrics):
        if each.last(view.at, lookback) is not None:
            (labels_of_lock,) = one(**{label: each.labels.get(label, "") for label in labels})
            found[each.labels["account"], each.labels["lock_id"]].add(labels_of_lock)
    return {lock: frozenset(names) for lock, names in found.items()}


NAME = ("account", "lock_id", "lock_name")
NAMED = ("lock_info", "lock_revision")


def names_of(view: View, lookback: float = LOOKBACK) -> dict[Lock, frozenset[LabelSet]]:
    """Return the names of each lock."""
    return infos(view, NAMED, NAME, lookback)


def missing_locks(view: View) -> dict[Lock, frozenset[LabelSet]]:
    """Return the last names of the locks of accounts without data."""
    recent = names_of(view, seconds(q.LOCK_LOOKBACK.partition(":")[0]))
    return {lock: names for lock, names in recent.items() if lock[0] in view.missing}


def with_hint(rows: Rows, label: str) -> Rows:
    """Return a row with a hint if there are none."""
    return rows or {one(**{label: "no data: see Help"}): -1.0}


def recent_names(view: View) -> dict[Lock, frozenset[LabelSet]]:
    """Return the newest names of the locks of the last hours."""
    return names_of(view, seconds(q.LOCK_LOOKBACK.partition(":")[0])) | names_of(view)


def names_and_firmware(view: View) -> Rows:
    """Return a row for each lock with its name and firmware."""
    known = infos(view, ["lock_info"], [*NAME, "firmware_version"])
    return with_hint(dict.fromkeys((missing_locks(view) | names_of(view) | known).values(), 1.0), "lock_name")


def properties(view: View) -> Rows:
    """Return a row for each lock with its properties."""
    labels = [
        *NAME,
        "firmware_version",
        "model",
        "serial_number",
        "bridge_id",
        "bridge_name",
        "keypad_id",
        "door_sensor_id",
        "time_zone",
        "organization_id",
    ]
    return with_hint(dict.fromkeys(infos(view, ["lock_info"], labels).values(), 1.0), "lock_name")


def of_locks(values: Mapping[Lock, Value]) -> Rows:
    """Return a row for each lock."""
    return {one(account=account, lock_id=lock_id): value for (account, lock_id), value in values.items()}


def named(values: Mapping[Lock, Value], view: View) -> Rows:
    """Return a row for each lock that has a name now."""
    names = names_of(view)
    return {names[lock]: value for lock, value in values.items() if lock in names}


def named_lately(values: Mapping[Lock, Value], view: View) -> Rows:
    """Return a row for each lock that had a name in the last hours."""
    names = recent_names(view)
    return {names[lock]: value for lock, value in values.items() if lock in names}


def selectable_locks(view: View) -> dict[str, set[str]]:
    """Return the texts that the variable for locks may show for each id, from the samples of the last hours."""
    found: dict[str, set[str]] = defaultdict(set)
    recent = names_of_revision(view, seconds(q.LOCK_LOOKBACK.partition(":")[0]))
    current = names_of_revision(view)
    for lock_id, names in (recent | current).items():
        found[lock_id] = {f"{name} · {account}" for account, name in names}
    return found


def names_of_revision(view: View, lookback: float = LOOKBACK) -> dict[str, set[tuple[str, str]]]:
    """Return accounts and names of each id."""
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for each in view.series("lock_revision"):
        if each.last(view.at, lookback) is not None:
            found[each.labels["lock_id"]].add((each.labels["account"], each.labels["lock_name"]))
    return found


def recent_changes(view: View) -> dict[str, float]:
    """Return the last change of each id in the last hours, 0 if it is not known."""
    lookback = seconds(q.LOCK_LOOKBACK.partition(":")[0])
    changes: dict[str, float] = dict.fromkeys(names_of_revision(view, lookback), 0.0)
    for each in view.series("lock_last_state_change_timestamp"):
        changed = each.last(view.at, lookback)
        if changed is not None:
            lock_id = each.labels["lock_id"]
            changes[lock_id] = max(changed, changes.get(lock_id, 0.0))
    return changes


# Current values of locks


def picked(metric: str, pick: Callable[[list[float]], float], view: View, at: float | None = None) -> Levels:
    """Return the value of each lock."""
    return {lock: pick(values) for lock, values in view.by_lock(metric, at).items()}


def lock_values(metric: str, pick: Callable[[list[float]], float], view: View) -> Rows:
    """Return a row for each lock."""
    return of_locks(picked(metric, pick, view))


def worst(metric: str, secure: Collection[int], view: View) -> Levels:
    """Return the code of each lock: the highest of those that are not secure, or the highest of all."""

    def pick(codes: list[float]) -> float:
        return max([code for code in codes if code not in secure] or codes)

    return picked(metric, pick, view)


def states(view: View) -> Levels:
    return worst("lock_state", {LockState.LOCKED}, view)


def doors(view: View) -> Levels:
    return worst("lock_door_state", SECURE_DOORS, view)


def states_and_failures(view: View) -> Levels:
    """Return the state of each lock, or the failure of its last change."""
    failures = {
        lock: float(overview.ERROR_VALUE if max(results) > StateChangeResult.JAMMED else overview.JAMMED_VALUE)
        for lock, results in view.by_lock("lock_state_change_result").items()
        if max(results) > 0
    }
    return {**states(view), **failures}


def connections(view: View) -> Rows:
    known = dict.fromkeys(view.by_lock("lock_revision"), float(q.NO_BRIDGE))
    return of_locks({**known, **picked("lock_connected", min, view)})


def last_changes(view: View) -> Levels:
    """Return the time of each lock's last change in milliseconds."""
    changed = picked("lock_last_state_change_timestamp", max, view)
    return {lock: 1000 * at for lock, at in changed.items()}


def last_changes_of_all(view: View) -> Rows:
    known = dict.fromkeys([*view.by_lock("lock_revision"), *missing_locks(view)], float(q.NO_CHANGE))
    return of_locks({**known, **last_changes(view)})


def jammed_or_unknown(view: View) -> set[Lock]:
    failed = {lock for lock, results in view.by_lock("lock_state_change_result").items() if max(results) > 0}
    known = {code.value for code in LockState} - BAD_STATES
    return failed | {lock for lock, codes in view.by_lock("lock_state").items() if not known.issuperset(codes)}


def low_batteries(view: View, at: float | None = None) -> set[Lock]:
    """Return the locks with a low battery, by any exporter that does not report that it is charging."""
    charging = {frozenset(labels.items()) for labels, value in view.current("lock_charging", at=at) if value == 1}
    return {
        (labels["account"], labels["lock_id"])
        for labels, value in view.current("lock_battery_level", at=at)
        if value <= LOW_BATTERY and frozenset(labels.items()) not in charging
    }


def not_locked(view: View) -> set[Lock]:
    return {lock for lock, codes in view.by_lock("lock_state").items() if set(codes) != {LockState.LOCKED}}


def not_closed(view: View) -> set[Lock]:
    return {lock for lock, codes in view.by_lock("lock_door_state").items() if not SECURE_DOORS.issuperset(codes)}


def offline(view: View) -> set[Lock]:
    return {lock for lock, values in view.by_lock("lock_connected").items() if min(values) == 0}


def attention(view: View) -> Rows:
    """Return how much attention each lock needs. The highest level of a lock is the last in this list."""
    with_state = view.by_lock("lock_state")
    connected = {lock for lock, values in view.by_lock("lock_connected").items() if max(values) == 1}
    levels: list[tuple[int, Iterable[Lock]]] = [
        (0, view.by_lock("lock_revision")),
        (1, low_batteries(view)),
        (2, offline(view)),
        (3, not_locked(view) | not_closed(view)),
        (4, jammed_or_unknown(view) | (connected - set(with_state)) | set(missing_locks(view))),
    ]
    return of_locks({lock: float(level) for level, locks in levels for lock in locks})


# Numbers of locks


def count(locks: Callable[[View], Collection[Lock]], metric: str, view: View) -> Rows:
    """Return a number of locks: none if no lock reports the metric, or if it is 0 but an account is missing."""
    found = len(locks(view))
    known = found or (view.by_lock(metric) and not recent_missing(view))
    return number(float(found)) if known else {}


def unlocked(view: View) -> set[Lock]:
    return {lock for lock, codes in view.by_lock("lock_state").items() if UNLOCKED_STATES.intersection(codes)}


def not_secured(view: View) -> set[Lock]:
    secured = set(view.by_lock("lock_state")) - not_locked(view) - not_closed(view)
    return set(view.by_lock("lock_connected")) - secured


def open_doors(view: View) -> Rows:
    doors = view.by_lock("lock_door_open").values()
    found = sum(max(values) for values in doors)
    return number(found) if found or (doors and not recent_missing(view)) else {}


def accounts_without_data(view: View) -> Rows:
    found = len(recent_missing(view))
    return number(float(found)) if found or view.by_account("tedee_up") else {}


def number_at_step(flags: Iterable[bool]) -> Rows:
    """Return the number of true values, or nothing if there are no values."""
    known = list(flags)
    return number(float(sum(known)) if known else None)


def not_locked_at_step(view: View) -> Rows:
    return number_at_step(min(values) == 0 for values in view.by_lock("lock_locked").values())


def in_window(metric: str, view: View) -> Rows:
    """Return the number of locks whose value was 1 at any time since the step before."""
    found: dict[Lock, bool] = {}
    for each in view.series(metric):
        _, values = each.between(view.at - view.interval, view.at)
        if values:
            lock = each.labels["account"], each.labels["lock_id"]
            found[lock] = found.get(lock, False) or 1 in values
    return number_at_step(found.values())


def offline_at_step(view: View) -> Rows:
    return number_at_step(min(values) == 0 for values in view.by_lock("lock_connected").values())


def low_batteries_at_step(view: View) -> Rows:
    charging = {frozenset(labels.items()) for labels, value in view.current("lock_charging") if value == 1}
    found: dict[Lock, bool] = {}
    for labels, level in view.current("lock_battery_level"):
        if frozenset(labels.items()) not in charging:
            lock = labels["account"], labels["lock_id"]
            found[lock] = found.get(lock, False) or level <= LOW_BATTERY
    return number_at_step(found.values())


# Tables of the overview


def changed_last(view: View) -> Levels:
    """Return the last changes of the locks in the table of recent changes."""
    newest = sorted(last_changes(view).items(), key=lambda each: -each[1])
    shown, others = newest[: overview.RECENT_CHANGES], newest[overview.RECENT_CHANGES :]
    assert not others or others[0][1] < shown[-1][1], "PromQL may choose any of the locks that changed at one time"
    return dict(shown)


def of_changed_last(values: Callable[[View], Levels], view: View) -> Rows:
    """Return values of the locks in the table of recent changes."""
    shown = changed_last(view)
    return of_locks({lock: value for lock, value in values(view).items() if lock in shown})


def names_of_changed_last(view: View) -> Rows:
    shown = changed_last(view)
    return {names: 1.0 for lock, names in names_of(view).items() if lock in shown}


def count_by_version(view: View, *, updates: bool) -> Rows:
    """Return the number of locks of each firmware version, or of its available updates."""
    available = picked("lock_firmware_update_available", max, view)
    found: dict[frozenset[LabelSet], float] = defaultdict(float)
    for lock, versions in infos(view, ["lock_info"], ["firmware_version"]).items():
        # If two exporters report different versions, PromQL returns the first one in the order of the labels.
        version = frozenset({min(versions, key=lambda labels: (not labels, sorted(labels)))})
        if not updates:
            found[version] += 1
        elif lock in available:
            found[version] += available[lock]
    return dict(found)


def levels_at(
    metric: str, pick: Callable[[list[float]], float], view: View, times: Iterable[float]
) -> dict[Lock, dict[float, float]]:
    """Return the value of each lock at each of the times at which it has one."""
    found: dict[Lock, dict[float, float]] = defaultdict(dict)
    for at in times:
        for lock, value in picked(metric, pick, view, at).items():
            found[lock][at] = value
    return found


def availability(view: View) -> Levels:
    """Return the share of the last days in which each lock was connected, of the time in which it was reported."""
    grid = view.grid(overview.AVAILABILITY_DAYS * DAY, 10 * MINUTE)
    connected = levels_at("lock_connected", min, view, grid)
    return {lock: sum(values.values()) / len(values) for lock, values in connected.items()}


def bridges(view: View) -> dict[tuple[str, str], list[Lock]]:
    """Return the locks of each bridge, by account and bridge."""
    found = defaultdict(list)
    for lock, (labels, *others) in infos(view, ["lock_info"], ["bridge_id"]).items():
        assert not others, "PromQL may choose any of the bridges"
        for _, bridge in labels:
            found[lock[0], bridge].append(lock)
    return found


def of_bridges(view: View, *, shares: bool) -> Rows:
    """Return the number of locks of each bridge, or the average of their availability."""
    found: Rows = {}
    available = availability(view) if shares else {}
    for (account, bridge), locks in bridges(view).items():
        known = [available[lock] for lock in locks if lock in available]
        if not shares:
            found[one(account=account, bridge_id=bridge)] = float(len(locks))
        elif known:
            found[one(account=account, bridge_id=bridge)] = sum(known) / len(known)
    return found


def connected_share(view: View) -> Rows:
    """Return the share of the samples of the time range in which each lock was connected, if it is reported now."""
    samples: defaultdict[Lock, list[float]] = defaultdict(list)
    for each in view.series("lock_connected"):
        _, values = each.between(view.at - view.span, view.at)
        if each.last(view.at) is not None:
            samples[each.labels["account"], each.labels["lock_id"]].extend(values)
    return of_locks({lock: sum(each) / len(each) for lock, each in samples.items()})


def minutes(metric: str, is_counted: Callable[[list[float]], bool], view: View) -> Mapping[Lock, float]:
    """Return how many minutes of the time range each lock had a value that is counted."""
    found: dict[Lock, float] = {}
    for at in view.grid(view.span, MINUTE):
        for lock, values in view.by_lock(metric, at).items():
            found[lock] = found.get(lock, 0.0) + is_counted(values)
    return found


# Batteries


def slope(values: Mapping[float, float]) -> float | None:
    """Return the slope of the regression line in units per second, or None for less than two values."""
    if len(values) < 2:
        return None
    middle = sum(values) / len(values)
    mean = sum(values.values()) / len(values)
    return sum((at - middle) * (value - mean) for at, value in values.items()) / sum(
        (at - middle) ** 2 for at in values
    )


def days_until_empty(view: View) -> Levels:
    """Return the days until each battery is empty, if its level continues to fall as in its trend.

    There is none while the battery is charging.
    """
    charging = {lock for lock, values in view.by_lock("lock_charging").items() if max(values) == 1}
    hourly = levels_at("lock_battery_level", min, view, view.grid((q.LONG_TREND_DAYS + 1) * DAY, HOUR))
    times: dict[Lock, list[float]] = defaultdict(list)
    for each in view.series("lock_battery_level"):
        times[each.labels["account"], each.labels["lock_id"]].extend(each.times)
    found = {}
    for lock, level in picked("lock_battery_level", min, view).items():
        fall = fall_per_day(level, hourly[lock], partial(has_history, times[lock], view.at), view.at)
        if lock not in charging and fall is not None:
            days = (level - overview.EMPTY) / max(fall, 1 / q.LONG_TREND_DAYS)
            found[lock] = min(max(days, 0.0), float(q.MAX_DAYS))
    return found


def fall_per_day(
    level: float, hourly: Mapping[float, float], history: Callable[[int], bool], now: float
) -> float | None:
    """Return the percents by which a battery discharges in a day, or None if it has no trend.

    The trend is the regression over the first of these times in which the level fell enough and never rose within a
    day: one day, 14 days (a complete history is sufficient), and 3 days. The last two require a history of 3 days.
    """
    trends = [(q.FAST_TREND_DAYS, q.FAST_TREND_FALL, False)]
    if history(q.SHORT_TREND_DAYS):
        trends += [
            (q.LONG_TREND_DAYS, q.LONG_TREND_FALL, history(q.LONG_TREND_DAYS)),
            (q.SHORT_TREND_DAYS, q.SHORT_TREND_FALL, False),
        ]
    for days, fall, is_known in trends:
        levels = {at: value for at, value in hourly.items() if at >= now - days * DAY}
        rises = [value - hourly.get(at - DAY, math.inf) for at, value in levels.items()]
        trend = slope(levels)
        has_fallen = is_known or max(levels.values(), default=level) - level >= fall
        if trend is not None and has_fallen and max(rises) <= q.CHARGED_RISE:
            return -DAY * trend
    return None


def has_history(times: Collection[float], now: float, days: int) -> bool:
    """Return True if there is a sample between `days` ago and half a day later."""
    return any(now - days * DAY <= at <= now - days * DAY + DAY / 2 for at in times)


def days_or_no_trend(view: View) -> Rows:
    without = dict.fromkeys(picked("lock_battery_level", min, view), float(q.NO_TREND))
    return of_locks({**without, **days_until_empty(view)})


# Counters


def increase(samples: Samples, start: float, end: float) -> Bounds | None:
    """Return the bounds of PromQL's `increase`, or None if there are less than two samples.

    It is at least the difference between the samples. PromQL extends it to the ends of the window, by at most 1.1
    times the average distance between two samples at each end.
    """
    times, values = samples.between(start, end)
    if len(times) < 2:
        return None
    risen = sum(later - earlier if later >= earlier else later for earlier, later in pairwise(values))
    covered = times[-1] - times[0]
    extended = min(end - start, covered * (1 + 2.2 / (len(times) - 1)))
    return Bounds(risen, risen * extended / covered)


def total(bounds: Iterable[Bounds | None]) -> Bounds | None:
    """Return the sum, or None if there is nothing to add."""
    known = [each for each in bounds if each]
    return Bounds(sum(each.low for each in known), sum(each.high for each in known)) if known else None


def increases(
    view: View, metric: str, window: float, *labels: str, offset: float = 0, above: float = -1
) -> dict[LabelSet, Bounds]:
    """Return the sum of the increases of a metric by the given labels, of the series with values above a limit."""
    groups = defaultdict(list)
    for each in view.series(metric):
        end = view.at + offset
        (group,) = one(**{label: each.labels[label] for label in labels})
        if above < 0 or (each.last(view.at) or 0) > above:
            groups[group].append(increase(each, end - window, end))
    sums = {group: total(bounds) for group, bounds in groups.items()}
    return {group: bounds for group, bounds in sums.items() if bounds}


def increase_by(metric: str, *labels: str) -> Callable[[View], Rows]:
    """Return a function for the increases in each step by the given labels, of the counters above 0."""

    def rows(view: View) -> Rows:
        found = increases(view, metric, view.interval, *labels, above=0)
        return {frozenset({group}): bounds for group, bounds in found.items()}

    return rows


def state_changes(view: View, window: float, offset: float = 0) -> dict[Lock, Bounds]:
    """Return the state changes of each lock, the highest number if several exporters report it."""
    found: dict[Lock, Bounds] = {}
    labels = ("job", "instance", "account", "lock_id")
    for group, bounds in increases(view, "lock_state_changes_total", window, *labels, offset=offset).items():
        lock = dict(group)["account"], dict(group)["lock_id"]
        other = found.get(lock, bounds)
        found[lock] = Bounds(max(bounds.low, other.low), max(bounds.high, other.high))
    return found


def was_reported(view: View) -> bool:
    """Return True if there was an exporter in the days of the table of hours."""
    days = overview.HEATMAP_DAYS * DAY
    return any(each.last(view.end, days) is not None for each in view.series("tedee_exporter_build_info"))


def changes_by_hour(view: View) -> Rows:
    """Return the state changes in the hour that begins now."""
    changes = total(state_changes(view, HOUR, offset=HOUR).values())
    return number(changes if was_reported(view) else None)


def hours(view: View) -> Rows:
    return number(1000 * view.at if was_reported(view) else None)


def failed_syncs(view: View) -> Rows:
    return number(increases(view, "tedee_sync_failures_total", HOUR).get(frozenset()))


def is_distorted(view: View) -> bool:
    """Return True if PromQL extends some counters of sync durations less than others.

    It does not extend a counter below 0, which may be the case for an hour after the start of an exporter.
    """
    for each in view.series(*(f"tedee_sync_duration_seconds_{suffix}" for suffix in ("bucket", "sum", "count"))):
        times, values = each.between(view.at - view.rate_interval, view.at)
        risen = increase(each, view.at - view.rate_interval, view.at)
        if risen and values[0] * (len(times) - 1) < 1.1 * risen.low:
            return True
    return False


def sync_percentile(share: float, view: View) -> Rows:
    """Return the bounds of the bucket that has the percentile."""
    found = increases(view, "tedee_sync_duration_seconds_bucket", view.rate_interval, "le")
    buckets = sorted((float(dict(labels)["le"]), bounds.low) for labels, bounds in found.items())
    if not buckets:
        return {}
    rank = share * buckets[-1][1]
    if not rank:
        return number(math.nan)
    upper = next(index for index, (_, counted) in enumerate(buckets) if counted >= rank)
    if is_distorted(view):
        return number(Bounds(0.0, buckets[-2][0]))
    # PromQL has no upper end of the last bucket.
    return number(Bounds(buckets[upper - 1][0] if upper else 0.0, buckets[min(upper, len(buckets) - 2)][0]))


def average_sync(view: View) -> Rows:
    """Return the average duration of the syncs."""
    durations, syncs = (
        increases(view, f"tedee_sync_duration_seconds_{suffix}", view.rate_interval).get(frozenset())
        for suffix in ("sum", "count")
    )
    if not durations or not syncs:
        return {}
    if not syncs.low:
        return number(math.nan)
    if is_distorted(view):
        return number(Bounds(durations.low / syncs.high, durations.high / syncs.low))
    return number(durations.low / syncs.low)


# Alerts


def firing(view: View, at: float) -> Iterator[tuple[LabelSet, Samples]]:
    """Yield the labels and the samples of each alert that fires at a time."""
    for each in view.series("ALERTS"):
        is_ours = each.labels["alertname"].startswith("Tedee")
        if is_ours and each.labels["alertstate"] == "firing" and each.last(at) is not None:
            (labels,) = one(**{label: each.labels.get(label, "") for label in q.ALERT_LABELS.split(", ")})
            yield labels, each


ALERT_DEVICES = ("lock_name", "bridge_name", "keypad_name", "door_sensor_name")


def with_device(labels: LabelSet) -> LabelSet:
    """Return the labels of an alert with the name of its device in one label, whatever its kind is."""
    names = [value for name, value in labels if name in ALERT_DEVICES]
    others = frozenset(each for each in labels if each[0] not in ALERT_DEVICES)
    return others | {("device", name) for name in names}


def of_other_alerts(expected: Callable[[View], Rows]) -> Callable[[View], Rows]:
    """Return a function for the expected rows of alerts that are not about a bridge, keypad or door sensor."""

    def rows(view: View) -> Rows:
        alerts = [each for each in view.samples.get("ALERTS", ()) if not {*ALERT_DEVICES} & {*each.labels}]
        return expected(replace(view, samples={**view.samples, "ALERTS": alerts}))

    return rows


DEVICE_ALERTS = {
    "TedeeBridgeOffline",
    "TedeeKeypadBatteryLow",
    "TedeeDoorSensorBatteryLow",
    "TedeeWrongPins",
    "TedeeDoorOpenTooLong",
    "TedeeEventsForbidden",
    "TedeeEventsStale",
    "TedeeDevicesStale",
}


def of_device_alerts(expected: Callable[[View], Rows]) -> Callable[[View], Rows]:
    """Return a function for the expected rows of alerts about devices and events."""

    def rows(view: View) -> Rows:
        alerts = [each for each in view.samples.get("ALERTS", ()) if each.labels["alertname"] in DEVICE_ALERTS]
        return expected(replace(view, samples={**view.samples, "ALERTS": alerts}))

    return rows


def alert_starts(label: str, view: View) -> Rows:
    """Return the start of each alert in milliseconds, or a text in a label about the absence of alerts or rules."""
    starts: dict[LabelSet, float] = {}
    current = {frozenset(labels.items()): start for labels, start in view.current("ALERTS_FOR_STATE")}
    for labels, each in firing(view, view.at):
        start = 1000 * current[frozenset(each.labels.items() - {("alertstate", "firing")})]
        # Two locks may have the same name.
        named = with_device(labels)
        starts[named] = max(start, starts.get(named, start))
    if starts:
        return {frozenset({labels | {(RUNBOOK, dict(labels)["alertname"])}}): start for labels, start in starts.items()}
    text = "no alert is firing" if any(view.current(q.RULES)) else "no rules: see Help"
    return {one(**{label: text}): float(q.NO_CHANGE)}


def alert_count(view: View) -> Rows:
    alerts = {labels for labels, _ in firing(view, view.at)}
    return number(float(len(alerts))) if alerts or any(view.current(q.RULES)) else {}


def started_alerts(view: View) -> Rows:
    """Return the alerts that fire now and did not one step before."""
    before = [each.labels for _, each in firing(view, view.at - view.interval)]
    return {frozenset({labels}): 1.0 for labels, each in firing(view, view.at) if each.labels not in before}


def of_all_selected(expected: Callable[[View], Rows]) -> Callable[[View], Rows]:
    """Return a function for the expected rows of all selected locks, not only of those that are shown."""
    return lambda view: expected(replace(view, locks=(".*",)))


# Exporters


def lowest_of_all(metric: str, view: View) -> Rows:
    return number(min((value for _, value in view.current(metric)), default=None))


def exporters_down(view: View) -> Rows:
    exporters = view.targets("tedee_exporter_build_info", seconds(q.EXPORTER_LOOKBACK))
    up = {(labels["job"], labels["instance"]): value for labels, value in view.current("up")}
    known = [value for target, value in up.items() if target in exporters]
    return number_at_step(value == 0 for value in known)


def failing_accounts(view: View) -> Rows:
    return number_at_step(value < 1 for value in sync_statuses(view).values())


def oldest_data(view: View) -> Rows:
    return number(max((max(view.at - at, 0.0) for at in last_syncs(view).values()), default=None))


def state_usable(view: View) -> Rows:
    usable = lowest_of_all("tedee_exporter_state_usable", view)
    exists = view.targets("tedee_exporter_build_info")
    return usable or number(float(value_mappings.NO_STATE) if exists else None)


def supported_versions(view: View) -> Rows:
    """Return whether the API version of each account is supported, the lowest value if there are several."""
    found: dict[str, tuple[float, LabelSet]] = {}
    for labels, value in view.current("tedee_api_version_supported"):
        (row,) = one(account=labels["account"], version=labels["version"])
        found[labels["account"]] = min(found.get(labels["account"], (value, row)), (value, row))
    return {frozenset({row}): value for value, row in found.values()}


def data_age(view: View, *, shown: bool = False) -> Rows:
    newest = view.by_account("tedee_last_sync_timestamp_seconds")
    ages = {account: view.at - max(values) for account, values in newest.items()}
    if not shown:
        return of_accounts({account: view.at - at for account, at in last_syncs(view).items()})
    return of_accounts({account: age for account, age in ages.items() if account in view.accounts})


def next_sync(view: View, *, shown: bool = False) -> Rows:
    due = view.by_account("tedee_next_sync_timestamp_seconds")
    return of_accounts({each: min(due[each]) - view.at for each in due if not shown or each in view.accounts})


def of_exporters(metric: str, view: View) -> Rows:
    """Return the value of each exporter that runs."""
    exporters = view.targets("tedee_exporter_build_info")
    return {
        one(**labels): value
        for labels, value in view.current(metric)
        if (labels["job"], labels["instance"]) in exporters
    }


def cpu_usage(view: View) -> Rows:
    exporters = view.targets("tedee_exporter_build_info")
    found = increases(view, "process_cpu_seconds_total", view.rate_interval, "job", "instance")
    return {
        frozenset({labels}): Bounds(bounds.low / view.rate_interval, bounds.high / view.rate_interval)
        for labels, bounds in found.items()
        if (dict(labels)["job"], dict(labels)["instance"]) in exporters
    }


def versions(view: View) -> Rows:
    labels = ("instance", "job", "version", "python_version")
    return {
        one(**{label: found[label] for label in labels if label in found}): 1.0
        for found, _ in view.current("tedee_exporter_build_info")
    }


def targets_up(view: View) -> Rows:
    """Return whether each target can be scraped that was an exporter within the last week."""
    exporters = view.targets("tedee_exporter_build_info", lookback=7 * DAY)
    return {
        one(**labels): value for labels, value in view.current("up") if (labels["job"], labels["instance"]) in exporters
    }


def by_exporter(metric: str, view: View) -> dict[tuple[str, str], list[float]]:
    """Return the values of each exporter, by job and instance."""
    found = defaultdict(list)
    for labels, value in view.current(metric):
        found[labels["job"], labels["instance"]].append(value)
    return found


def of_each_exporter(values: Mapping[tuple[str, str], Value]) -> Rows:
    """Return a row for each exporter."""
    return {one(job=job, instance=instance): value for (job, instance), value in values.items()}


def data_age_by_exporter(view: View) -> Rows:
    """Return the age of the oldest data that each exporter serves."""
    times = by_exporter("tedee_last_sync_timestamp_seconds", view)
    return of_each_exporter({exporter: view.at - min(each) for exporter, each in times.items()})


def state_by_exporter(view: View) -> Rows:
    return of_each_exporter(
        {each: min(values) for each, values in by_exporter("tedee_exporter_state_usable", view).items()}
    )


def requests_by_exporter(view: View) -> Rows:
    """Return the number of requests that each exporter sent in the last hour."""
    sent = increases(view, "tedee_api_requests_total", HOUR, "job", "instance")
    return of_each_exporter({(dict(each)["job"], dict(each)["instance"]): bounds for each, bounds in sent.items()})


def exporter_times(metric: str, view: View) -> Rows:
    """Return a time of each exporter in milliseconds."""
    exporters = view.targets("tedee_exporter_build_info")
    times: dict[tuple[str, str], float] = {}
    for labels, at in view.current(metric):
        target = labels["job"], labels["instance"]
        if target in exporters:
            times[target] = max(at, times.get(target, -math.inf))
    return {one(job=job, instance=instance): 1000 * at for (job, instance), at in times.items()}


# Bridges, keypads, door sensors and gates


def by_device(view: View, metric: str, label: str, at: float | None = None) -> dict[Device, list[float]]:
    """Return the values of each device, one of each exporter. `label` has its id."""
    found = defaultdict(list)
    for labels, value in view.current(metric, at=at):
        found[labels["account"], labels[label]].append(value)
    return found


def of_devices(values: Mapping[Device, Value], label: str) -> Rows:
    """Return a row for each device."""
    return {one(**{"account": account, label: device_id}): value for (account, device_id), value in values.items()}


def device_values(metric: str, label: str, pick: Callable[[list[float]], float], view: View) -> Rows:
    return of_devices({each: pick(values) for each, values in by_device(view, metric, label).items()}, label)


def device_labels(view: View, metric: str, label: str, *labels: str) -> dict[Device, frozenset[LabelSet]]:
    """Return account, id and the given labels of each device. If its series differ, all of them."""
    found: dict[Device, set[LabelSet]] = defaultdict(set)
    for each, _ in view.current(metric):
        (row,) = one(**{name: each.get(name, "") for name in ("account", label, *labels)})
        found[each["account"], each[label]].add(row)
    return {device: frozenset(rows) for device, rows in found.items()}


def device_names(metric: str, label: str, *labels: str, hint: str, view: View) -> Rows:
    """Return a row with the properties of each device, or a hint in the first of the labels."""
    rows: Rows = dict.fromkeys(device_labels(view, metric, label, *labels).values(), 1.0)
    return rows or {one(**{labels[0]: hint}): -1.0}


def unless_missing(found: float | None, view: View) -> Rows:
    """Return a number, or nothing if it is 0 but an account is missing."""
    return number(None if found == 0 and recent_missing(view) else found)


def bridges_offline(view: View) -> Rows:
    connected = by_device(view, "tedee_bridge_connected", "bridge_id").values()
    return unless_missing(float(sum(min(each) == 0 for each in connected)) if connected else None, view)


def low_accessories(metric: str, label: str, view: View) -> Rows:
    levels = by_device(view, metric, label).values()
    low = sum(min(each) <= LOW_ACCESSORY_BATTERY for each in levels)
    return unless_missing(float(low) if levels else None, view)


def device_data_age(view: View) -> Rows:
    newest: dict[tuple[str, str], float] = {}
    for labels, at in view.current("tedee_last_response_timestamp_seconds"):
        if labels["endpoint"] != "my/deviceactivity":
            key = labels["account"], labels["endpoint"]
            newest[key] = max(at, newest.get(key, at))
    return number(max((view.at - at for at in newest.values()), default=None))


def events_not_permitted(view: View) -> Rows:
    permitted = view.by_account("tedee_events_permitted").values()
    if permitted:
        return number(float(sum(min(values) == 0 for values in permitted)))
    return number(float(value_mappings.NOT_ENABLED) if view.by_account("tedee_up") else None)


def locks_of_bridges(view: View) -> Rows:
    found = bridges(view).items()
    return {one(account=account, bridge_id=bridge): float(len(locks)) for (account, bridge), locks in found}


def locks_offline(view: View) -> Rows:
    """Return the number of offline locks of each bridge whose locks report their connection."""
    connected = view.by_lock("lock_connected")
    found: Rows = {}
    for (account, bridge), locks in bridges(view).items():
        known = [min(connected[lock]) for lock in locks if lock in connected]
        if known:
            found[one(account=account, bridge_id=bridge)] = float(sum(value == 0 for value in known))
    return found


def bridge_names_of_locks(view: View) -> Rows:
    """Return the name of each lock's bridge, or its id if it is not in the account."""
    found: dict[Device, set[LabelSet]] = defaultdict(set)
    for labels, _ in view.current("lock_info"):
        if bridge := labels.get("bridge_id"):
            (row,) = one(account=labels["account"], bridge_id=bridge, bridge_name=labels.get("bridge_name") or bridge)
            found[labels["account"], bridge].add(row)
    return {frozenset(rows): 1.0 for rows in found.values()}


def accessory_levels(kind: str, view: View) -> Rows:
    """Return the battery level of each keypad or door sensor, or NO_LEVEL."""
    label = f"{kind}_id"
    known = dict.fromkeys(by_device(view, f"tedee_{kind}_info", label), float(q.NO_LEVEL))
    levels = {each: min(values) for each, values in by_device(view, f"tedee_{kind}_battery_percent", label).items()}
    return of_devices({**known, **levels}, label)


def level_changes(kind: str, view: View) -> Rows:
    """Return the time of the last change of each level in milliseconds, or NO_CHANGE."""
    label = f"{kind}_id"
    known = dict.fromkeys(by_device(view, f"tedee_{kind}_info", label), float(q.NO_CHANGE))
    times = by_device(view, f"tedee_{kind}_battery_timestamp_seconds", label)
    return of_devices({**known, **{each: 1000 * max(values) for each, values in times.items()}}, label)


def locks_of_accessories(kind: str, view: View) -> Rows:
    """Return the name of the lock of each keypad or door sensor that is paired with a known lock."""
    names = names_of(view)
    found: Rows = {}
    for choices in device_labels(view, f"tedee_{kind}_info", f"{kind}_id", "lock_id").values():
        rows = {
            labels | name
            for labels in choices
            for name in names.get((dict(labels)["account"], dict(labels).get("lock_id", "")), ())
        }
        if rows:
            found[frozenset(rows)] = 1.0
    return found


def batteries_of_locks(kind: str, view: View) -> Rows:
    """Return the lowest battery level of each lock's keypads or door sensors, or NO_LEVEL."""
    levels = by_device(view, f"tedee_{kind}_battery_percent", f"{kind}_id")
    found: dict[Lock, float] = {}
    for labels, _ in view.current(f"tedee_{kind}_info"):
        if "lock_id" in labels:
            lock, device = (labels["account"], labels["lock_id"]), (labels["account"], labels[f"{kind}_id"])
            level = min(levels.get(device, [float(q.NO_LEVEL)]))
            found[lock] = min(level, found.get(lock, level))
    return of_locks(found)


def named_devices(metric: str, label: str, name: str, shown: Collection[Device], view: View) -> Rows:
    """Return the lowest value of each device that is shown, with one of its names."""
    names = device_labels(view, metric, label, name)
    values = by_device(view, metric, label)
    return {names[each]: min(values[each]) for each in values if each in shown}


def batteries_over_time(kind: str, view: View) -> Rows:
    """Return the levels of the accessories whose level is lowest at the end."""
    metric, label = f"tedee_{kind}_battery_percent", f"{kind}_id"
    last = {each: min(values) for each, values in by_device(view, metric, label, view.end).items()}
    lowest = sorted(last, key=lambda each: last[each])
    shown, others = lowest[:MAX_SERIES], lowest[MAX_SERIES:]
    assert not others or last[others[0]] > last[shown[-1]], "PromQL may choose any of the accessories with one level"
    return named_devices(metric, label, f"{kind}_name", shown, view)


def bridge_connections(view: View) -> Rows:
    metric, label = "tedee_bridge_connected", "bridge_id"
    shown = set(by_device(view, metric, label))
    if len(by_device(view, metric, label, view.end)) > devices.MAX_BRIDGES:
        shown = {
            (each.labels["account"], each.labels[label])
            for each in view.series(metric)
            if 0 in each.between(view.end - view.span, view.end)[1]
        }
    return named_devices(metric, label, "bridge_name", shown, view)


def availability_of_bridges(view: View) -> Rows:
    """Return the share of the last days in which each bridge was connected, of the time in which it was reported."""
    metric, label = "tedee_bridge_connected", "bridge_id"
    found: dict[Device, list[float]] = defaultdict(list)
    for at in view.grid(overview.AVAILABILITY_DAYS * DAY, 10 * MINUTE):
        for device, values in by_device(view, metric, label, at).items():
            found[device].append(min(values))
    names = device_labels(view, "tedee_bridge_info", label, "bridge_name")
    return {names[each]: sum(values) / len(values) for each, values in found.items() if each in names}


def gates(view: View) -> Rows:
    """Return the properties of each gate and dry contact."""
    rows: Rows = {}
    for kind in ("gate", "dry_contact"):
        found: dict[Device, set[LabelSet]] = defaultdict(set)
        for labels, _ in view.current(f"tedee_{kind}_info"):
            properties = {name: labels.get(name, "") for name in ("model", "serial_number", "firmware_version")}
            (row,) = one(
                account=labels["account"],
                device_id=labels[f"{kind}_id"],
                device_name=labels[f"{kind}_name"],
                **properties,
            )
            found[labels["account"], labels[f"{kind}_id"]].add(row)
        rows |= {frozenset(each): 1.0 for each in found.values()}
    return rows or {one(device_name="none, or no data"): -1.0}


def gate_connections(view: View) -> Rows:
    values = by_device(view, "tedee_gate_connected", "gate_id")
    return of_devices({each: min(found) for each, found in values.items()}, "device_id")


# Events

EventKey = tuple[str, ...]
"""Values of the labels by which events are counted."""


def events(
    view: View, window: float, *labels: str, kinds: Collection[str] = (), offset: float = 0
) -> dict[EventKey, Bounds]:
    """Return the number of events by labels, the highest number if several exporters report the lock.

    Args:
        view: what the dashboard shows.
        window: seconds.
        labels: account, lock_id and others.
        kinds: values of the label `event` that are counted; empty for all.
        offset: seconds by which the window ends later.
    """
    end = view.at + offset
    sums: dict[EventKey, list[Bounds | None]] = defaultdict(list)
    for each in view.series("lock_events_total"):
        if not kinds or each.labels["event"] in kinds:
            key = tuple(each.labels[label] for label in ("job", "instance", *labels))
            sums[key].append(increase(each, end - window, end))
    found: dict[EventKey, Bounds] = {}
    for of_exporter, increased in sums.items():
        if bounds := total(increased):
            key = of_exporter[2:]
            other = found.get(key, bounds)
            found[key] = Bounds(max(bounds.low, other.low), max(bounds.high, other.high))
    return found


EACH_EVENT = ("account", "lock_id", "event", "source")
PIN_EVENTS, OPEN_TOO_LONG = ("wrong_pin", "unauthorized_pin"), ("door_open_too_long",)


def events_of_last_day(kinds: Collection[str], view: View) -> Rows:
    """Return the number of events of the last day, or the reason why it is not known."""
    if found := total(events(view, DAY, "account", "lock_id", kinds=kinds).values()):
        return number(found)
    if any(0 in values for values in view.by_account("tedee_events_permitted").values()):
        return number(float(value_mappings.NOT_PERMITTED))
    return number(float(value_mappings.NOT_ENABLED) if view.by_account("tedee_up") else None)


def or_reason(rows: Rows, label: str, none: str, view: View) -> Rows:
    """Return the rows, or a row with a text if there are none."""
    text = none if any(view.current("lock_events_total")) else "events not enabled or not permitted"
    return rows or {one(**{label: text}): float(q.NO_CHANGE)}


def summed(found: Mapping[EventKey, Bounds], *indexes: int) -> dict[EventKey, Bounds]:
    """Return the sums of the numbers above 0 by some of the labels."""
    groups: dict[EventKey, list[Bounds]] = defaultdict(list)
    for key, bounds in found.items():
        groups[tuple(key[index] for index in indexes)].append(bounds)
    sums = {key: total(bounds) for key, bounds in groups.items()}
    return {key: bounds for key, bounds in sums.items() if bounds and bounds.low > 0}


def events_by_source(view: View) -> Rows:
    found = summed(events(view, view.interval, *EACH_EVENT), 3)
    return {one(source=source): bounds for (source,), bounds in found.items()}


def events_by_kind(view: View) -> Rows:
    found = summed(events(view, view.span, *EACH_EVENT), 2, 3)
    rows: Rows = {one(event=event, source=source): bounds for (event, source), bounds in found.items()}
    return or_reason(rows, "event", "no events", view)


def events_by_lock(kinds: Collection[str], none: str, view: View) -> Rows:
    found = summed(events(view, view.span, "account", "lock_id", kinds=kinds), 0, 1)
    assert len(found) <= devices.MAX_ROWS
    names = infos(view, ["lock_revision"], NAME)
    rows: Rows = {names[account, lock]: bounds for (account, lock), bounds in found.items() if (account, lock) in names}
    return or_reason(rows, "lock_name", none, view)


def wrong_pins_over_time(view: View) -> Rows:
    found = summed(events(view, view.interval, "account", "lock_id", kinds=PIN_EVENTS), 0, 1)
    return named({(account, lock): bounds for (account, lock), bounds in found.items()}, view)


def events_by_hour(view: View) -> Rows:
    """Return the events in the hour that begins now."""
    found = total(events(view, HOUR, *EACH_EVENT, offset=HOUR).values())
    return number(found)


# Registry

Expectation = Callable[[View], Rows]

USE: dict[tuple[str, str], Expectation] = {
    ("Use by lock", "changes"): lambda view: named_lately(state_changes(view, view.span), view),
    ("Use by lock", "unlocked"): lambda view: named_lately(
        minutes("lock_locked", lambda values: 0 in values, view), view
    ),
    ("Use by lock", "opened"): lambda view: named_lately(
        minutes("lock_door_open", lambda values: 1 in values, view), view
    ),
}

OVERVIEW: dict[tuple[str, str], Expectation] = {
    ("Not secured", "A"): partial(count, not_secured, "lock_connected"),
    ("Unlocked", "A"): partial(count, unlocked, "lock_state"),
    ("Open doors", "A"): open_doors,
    ("Jammed or unknown", "A"): partial(count, jammed_or_unknown, "lock_state"),
    ("Offline", "A"): partial(count, offline, "lock_connected"),
    ("Low batteries", "A"): partial(count, low_batteries, "lock_battery_level"),
    ("Accounts without data", "A"): accounts_without_data,
    ("Active alerts", "A"): alert_count,
    ("Locks", "state"): lambda view: of_locks(states_and_failures(view)),
    ("Locks", "door"): lambda view: of_locks(doors(view)),
    ("Locks", "battery"): partial(lock_values, "lock_battery_level", min),
    ("Locks", "charging"): partial(lock_values, "lock_charging", min),
    ("Locks", "connection"): connections,
    ("Locks", "changed"): last_changes_of_all,
    ("Locks", "name"): names_and_firmware,
    ("Locks", "update"): partial(lock_values, "lock_firmware_update_available", max),
    ("Locks", "attention"): attention,
    ("Recent changes", "changed"): partial(of_changed_last, last_changes),
    ("Recent changes", "name"): names_of_changed_last,
    ("Recent changes", "state"): partial(of_changed_last, states_and_failures),
    ("Lock status over time", "A"): not_locked_at_step,
    ("Lock status over time", "B"): partial(in_window, "lock_door_open"),
    ("Lock status over time", "C"): offline_at_step,
    ("Lock status over time", "D"): partial(in_window, "lock_jammed"),
    ("Lock status over time", "E"): low_batteries_at_step,
    ("Next batteries to charge", "battery"): lambda view: named(picked("lock_battery_level", min, view), view),
    ("Next batteries to charge", "days"): days_or_no_trend,
    ("State changes by hour", "value"): changes_by_hour,
    ("State changes by hour", "day"): hours,
    ("Availability by lock", "share"): lambda view: named_lately(availability(view), view),
    ("Availability by bridge", "share"): partial(of_bridges, shares=True),
    ("Availability by bridge", "locks"): partial(of_bridges, shares=False),
    ("Availability by bridge", "name"): bridge_names_of_locks,
    ("Firmware versions", "locks"): partial(count_by_version, updates=False),
    ("Firmware versions", "updates"): partial(count_by_version, updates=True),
    **USE,
    ("Firing alerts", "since"): partial(alert_starts, "device"),
    ("Alerts", "Anno"): started_alerts,
}

DETAIL: dict[tuple[str, str], Expectation] = {
    ("Current values", "name"): lambda view: with_hint(dict.fromkeys(recent_names(view).values(), 1.0), "lock_name"),
    ("Current values", "state"): lambda view: of_locks(states(view)),
    ("Current values", "door"): lambda view: of_locks(doors(view)),
    ("Current values", "connection"): connections,
    ("Current values", "battery"): partial(lock_values, "lock_battery_level", min),
    ("Current values", "days"): lambda view: of_locks(days_until_empty(view)),
    ("Current values", "charging"): partial(lock_values, "lock_charging", min),
    ("Current values", "changed"): lambda view: of_locks(last_changes(view)),
    ("Current values", "result"): partial(lock_values, "lock_state_change_result", max),
    ("Current values", "connected"): connected_share,
    ("State over time", "A"): lambda view: named(states(view), view),
    ("Door over time", "A"): lambda view: named(doors(view), view),
    ("Battery level over time", "A"): lambda view: named(picked("lock_battery_level", min, view), view),
    ("Connection over time", "A"): lambda view: named(picked("lock_connected", min, view), view),
    ("Properties", "info"): properties,
    ("Properties", "update"): partial(lock_values, "lock_firmware_update_available", max),
    ("Properties", "keypad"): partial(batteries_of_locks, "keypad"),
    ("Properties", "sensor"): partial(batteries_of_locks, "door_sensor"),
    ("State changes per hour", "A"): lambda view: named(state_changes(view, HOUR), view),
    **USE,
    ("Events by source", "A"): events_by_source,
    ("Wrong PINs over time", "A"): wrong_pins_over_time,
    ("Events by hour", "value"): events_by_hour,
    ("Events by hour", "day"): hours,
    ("Events by kind", "number"): events_by_kind,
    ("Firing alerts", "since"): of_all_selected(partial(alert_starts, "device")),
    ("Alerts", "Anno"): of_all_selected(started_alerts),
}

EXPORTER: dict[tuple[str, str], Expectation] = {
    ("Exporters down", "A"): exporters_down,
    ("Failing accounts", "A"): failing_accounts,
    ("Oldest data", "A"): oldest_data,
    ("Failed syncs, last hour", "A"): failed_syncs,
    ("Fewest requests left", "A"): partial(lowest_of_all, "tedee_api_requests_remaining"),
    ("API version", "A"): partial(lowest_of_all, "tedee_api_version_supported"),
    ("Configuration", "A"): partial(lowest_of_all, "tedee_exporter_config_last_reload_successful"),
    ("State file or database", "A"): state_usable,
    ("Accounts", "up"): lambda view: with_hint(of_accounts(sync_statuses(view)), "account"),
    ("Accounts", "age"): data_age,
    ("Accounts", "next"): next_sync,
    ("Accounts", "left"): partial(account_values, "tedee_api_requests_remaining", min),
    ("Accounts", "locks"): partial(account_values, "tedee_locks", max),
    ("Accounts", "supported"): supported_versions,
    ("Accounts", "expiry"): partial(
        account_values, "tedee_credentials_expiry_timestamp_seconds", lambda times: 1000 * min(times)
    ),
    ("Data age", "A"): partial(data_age, shown=True),
    ("Failed syncs by reason", "A"): increase_by("tedee_sync_failures_total", "reason"),
    ("Sync duration", "A"): partial(sync_percentile, 0.5),
    ("Sync duration", "B"): partial(sync_percentile, 0.9),
    ("Sync duration", "C"): partial(sync_percentile, 0.99),
    ("Sync duration", "D"): average_sync,
    ("Time until next sync", "A"): partial(next_sync, shown=True),
    ("Requests left", "A"): partial(account_values, "tedee_api_requests_remaining", min, shown=True),
    ("Requests by status code", "A"): increase_by("tedee_api_requests_total", "endpoint", "code"),
    ("Rejected values by field", "A"): increase_by("tedee_rejected_values_total", "field"),
    ("Samples per scrape", "A"): partial(of_exporters, "scrape_samples_scraped"),
    ("Scrape duration", "A"): partial(of_exporters, "scrape_duration_seconds"),
    ("Memory usage", "A"): partial(of_exporters, "process_resident_memory_bytes"),
    ("CPU usage", "A"): cpu_usage,
    ("Exporters", "up"): targets_up,
    ("Exporters", "age"): data_age_by_exporter,
    ("Exporters", "requests"): requests_by_exporter,
    ("Exporters", "state"): state_by_exporter,
    ("Exporters", "version"): versions,
    ("Exporters", "started"): partial(exporter_times, "process_start_time_seconds"),
    ("Exporters", "loaded"): partial(exporter_times, "tedee_exporter_config_last_reload_success_timestamp_seconds"),
    ("Firing alerts", "since"): of_other_alerts(partial(alert_starts, "account")),
    ("Alerts", "Anno"): of_other_alerts(started_alerts),
}

ACCESSORY_PROPERTIES = ("model", "serial_number", "firmware_version")
DEVICES: dict[tuple[str, str], Expectation] = {
    ("Bridges offline", "A"): bridges_offline,
    ("Low keypad batteries", "A"): partial(low_accessories, "tedee_keypad_battery_percent", "keypad_id"),
    ("Low door sensor batteries", "A"): partial(low_accessories, "tedee_door_sensor_battery_percent", "door_sensor_id"),
    ("Device data age", "A"): device_data_age,
    ("Wrong PINs, last day", "A"): partial(events_of_last_day, PIN_EVENTS),
    ("Doors open too long", "A"): partial(events_of_last_day, OPEN_TOO_LONG),
    ("Events not permitted", "A"): events_not_permitted,
    ("Active alerts", "A"): of_device_alerts(alert_count),
    ("Bridges", "name"): lambda view: device_names(
        "tedee_bridge_info",
        "bridge_id",
        "bridge_name",
        "serial_number",
        "firmware_version",
        "wifi_firmware_version",
        hint="no data: see Help",
        view=view,
    ),
    ("Bridges", "connected"): partial(device_values, "tedee_bridge_connected", "bridge_id", min),
    ("Bridges", "updating"): partial(device_values, "tedee_bridge_updating", "bridge_id", max),
    ("Bridges", "locks"): locks_of_bridges,
    ("Bridges", "offline"): locks_offline,
    ("Bridges", "update"): partial(device_values, "tedee_bridge_firmware_update_available", "bridge_id", max),
    **{
        (title, query): expectation
        for title, kind in (("Keypads", "keypad"), ("Door sensors", "door_sensor"))
        for query, expectation in {
            "name": partial(
                lambda kind, view: device_names(
                    f"tedee_{kind}_info",
                    f"{kind}_id",
                    f"{kind}_name",
                    *ACCESSORY_PROPERTIES,
                    hint="none, or no data",
                    view=view,
                ),
                kind,
            ),
            "level": partial(accessory_levels, kind),
            "changed": partial(level_changes, kind),
            "lock": partial(locks_of_accessories, kind),
        }.items()
    },
    ("Events by source", "A"): events_by_source,
    ("Events by kind", "number"): events_by_kind,
    ("Wrong PINs by lock", "number"): partial(events_by_lock, PIN_EVENTS, "no wrong PINs"),
    ("Doors open too long by lock", "number"): partial(events_by_lock, OPEN_TOO_LONG, "no such event"),
    ("Keypad batteries over time", "A"): partial(batteries_over_time, "keypad"),
    ("Door sensor batteries over time", "A"): partial(batteries_over_time, "door_sensor"),
    ("Bridge connection over time", "A"): bridge_connections,
    ("Availability of bridges", "share"): availability_of_bridges,
    ("Gates and dry contacts", "name"): gates,
    ("Gates and dry contacts", "connected"): gate_connections,
    ("Firing alerts", "since"): of_device_alerts(partial(alert_starts, "device")),
    ("Alerts", "Anno"): of_device_alerts(started_alerts),
}

EXPECTED: dict[tuple[str, str, str], Expectation] = {
    (dashboard, *query): expectation
    for dashboard, expectations in (
        ("locks-overview.json", OVERVIEW),
        ("lock-detail.json", DETAIL),
        ("devices.json", DEVICES),
        ("exporter.json", EXPORTER),
    )
    for query, expectation in expectations.items()
}
"""Expected result of each query, by dashboard, title of the panel and name of the query."""
