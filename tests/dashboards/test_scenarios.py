"""Tests that all queries of the dashboards give the numbers of the simulated worlds, for each scenario.

Two replicas of an exporter give the same numbers as one.
"""

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest

from dashboards.generator.colours import MAX_SERIES
from exporter.simulator import Account, World
from exporter.simulator import Lock as SimulatedLock
from exporter.simulator.wire import Version, sync_entry
from exporter.tedee.events import EventKind
from exporter.tedee.models import DoorState, LockState, StateChangeResult
from testing.clock import FakeClock
from tests.end_to_end.prometheus import prometheus

from . import replicas, scripted_day
from .expected import (
    EXPECTED,
    Bounds,
    LabelSet,
    Rows,
    Samples,
    Value,
    View,
    last_syncs,
    missing_accounts,
    recent_changes,
    selectable_locks,
)
from .grafana import FILES, Grafana, Selection, load, queries
from .recordings import NO_TARGET, backfill
from .scenarios import TESTED, home_world, many_world, running, two_worlds
from .scripted_day import DAY, END, HOUR, INTERVAL

GRAFANA_INTERVAL = 15
"""Scrape interval that Grafana assumes if the data source has none."""

MANY = "many-locks-for-an-hour"


@dataclass(frozen=True)
class Case:
    """A scenario as a dashboard shows it."""

    scenario: str
    selection: Selection
    span: float
    step: float
    end: float = END


JOBS = (
    "alerts",
    "attention",
    "battery 0.4 recent",
    "battery 0.6",
    "battery 0.8 recent",
    "battery charged a little",
    "battery charged a week ago",
    "battery drained",
    "battery drained recent",
    "battery for 8 days",
    "battery of two exporters",
    "covered",
    "devices",
    "disagreement",
    "down for 30 h",
    "down for 5 h",
    "events refused",
    "gone for 5 h",
    "one name",
    "removed",
    "renamed",
    "scraped every 15 s",
    "stale",
    "states 6 and 2",
    "without a bridge",
    "wrong PINs, scraped every 15 s",
    "wrong PINs, scraped every 20 s",
    "wrong PINs, scraped every 60 s",
)
"""Rare cases that are shown one by one, in addition to all of them together."""
CASES = {
    "day": Case("day", {}, DAY, 900),
    "day, one account": Case("day", {"account": "hotel"}, DAY, 900),
    "day, locked lock": Case("day", {"lock": "2101"}, DAY, 900),
    "day, renamed lock": Case("day", {"lock": "2106"}, DAY, 900),
    "day, charging lock": Case("day", {"lock": "1003"}, DAY, 900),
    "day, during failures": Case("day", {}, DAY, 900, scripted_day.FAILING[1] - INTERVAL),
    "home": Case("home", {}, DAY, 900),
    "many": Case(MANY, {}, HOUR, 300),
    "two": Case("two", {}, DAY, 900),
    "two, lock that is offline at times": Case("two", {"lock": "2005"}, DAY, 900),
    "two, one exporter": Case("two", {"instance": "10.244.3.17:10333"}, DAY, 900),
    "rare": Case("rare", {}, HOUR, 300),
    "rare, one account": Case("rare", {"account": "home"}, HOUR, 300),
    **{f"rare, {job}": Case("rare", {"job": job}, HOUR, 300) for job in JOBS},
    "empty": Case("empty", {}, DAY, 900),
}

of_each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@dataclass(frozen=True)
class Recorded:
    """Prometheus with a scenario, and all samples that it has stored."""

    grafana: Grafana
    samples: Mapping[str, Sequence[Samples]]

    def grafana_of(self, case: Case) -> Grafana:
        """Return the view of a case."""
        return replace(self.grafana, end=case.end, span=case.span, step=case.step)

    def select(self, selection: Selection) -> dict[str, list[Samples]]:
        """Return the series that match a selection. A series without a label matches."""
        labels = {{"lock": "lock_id"}.get(name, name): value for name, value in selection.items()}
        return {
            metric: [
                each
                for each in series
                if all(each.labels.get(label, value) == value for label, value in labels.items())
            ]
            for metric, series in self.samples.items()
        }


@pytest.fixture(scope="module")
def recorded() -> Iterator[Callable[[str], Recorded]]:
    """Runs Prometheus with a scenario, when a test first needs it."""
    with ExitStack() as stack:

        @functools.cache
        def start(name: str) -> Recorded:
            server = stack.enter_context(running(name, TESTED[name]))
            interval = TESTED[name].scrape_interval or GRAFANA_INTERVAL
            grafana = Grafana(server, END, scrape_interval=interval)
            return Recorded(grafana, read_samples(grafana))

        yield start


def read_samples(grafana: Grafana) -> dict[str, list[Samples]]:
    """Return all samples as they are stored."""
    found = defaultdict(list)
    for each in grafana.query("query", query='{__name__=~".+"}[30d]', time=END):
        times, values = zip(*each["values"], strict=True)
        name = each["metric"].pop("__name__")
        found[name].append(Samples(each["metric"], times, [float(value) for value in values]))
    return found


def difference(actual: Mapping[LabelSet, float], expected: Rows) -> list[str]:
    """Return what differs between a result and the expected rows."""
    rows = {labels: (choices, value) for choices, value in expected.items() for labels in choices}
    found = [
        f"{dict(labels)}: {value}, expected: {rows.get(labels, ((), 'nothing'))[1]}"
        for labels, value in actual.items()
        if labels not in rows or not accepted(value, rows[labels][1])
    ]
    counts = {choices: sum(labels in choices for labels in actual) for choices in expected}
    return found + [
        f"{[dict(labels) for labels in choices]}: {times} times, expected once: {expected[choices]}"
        for choices, times in counts.items()
        if times != 1
    ]


def accepted(value: float, expected: Value) -> bool:
    """Return True if a value is the expected one."""
    if isinstance(expected, Bounds):
        return bool(expected.low - 1e-6 <= value <= expected.high + 1e-6)
    return math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-6) or (math.isnan(value) and math.isnan(expected))


def results(grafana: Grafana, query: Any, variables: Mapping[str, str]) -> dict[float, dict[LabelSet, float]]:
    """Return the result of a query at each step, by labels."""
    steps = 0 if query.get("instant") else int(grafana.span / grafana.step)
    found: dict[float, dict[LabelSet, float]] = {grafana.end - step * grafana.step: {} for step in range(steps + 1)}
    for each in grafana.run(query, variables):
        labels = frozenset((name, value) for name, value in each["metric"].items() if name != "__name__")
        for at, value in each["values"] if "values" in each else [each["value"]]:
            assert labels not in found[at]
            found[at][labels] = float(value)
    return found


def view_of(recording: Recorded, case: Case, name: str, variables: Mapping[str, str]) -> View:
    """Return what a dashboard shows at the end of its time range."""
    hidden = {each: [*filter(None, variables.get(f"{each}:pipe", "").split("|"))] for each in ("shown", "missing")}
    shows_locks = name not in {"devices.json", "exporter.json"}
    # The dashboard of devices has no variable for locks.
    selection = {each: value for each, value in case.selection.items() if shows_locks or each != "lock"}
    all_locks = (".*",) if name == "devices.json" else ()
    return View(
        samples=recording.select(selection),
        at=case.end,
        end=case.end,
        span=case.span,
        interval=case.step,
        rate_interval=math.nan,
        locks=hidden["shown"] if shows_locks else all_locks,
        accounts=hidden["shown"] if name == "exporter.json" else (),
        missing=hidden["missing"],
    )


# Queries


def test_each_query_has_expected_numbers() -> None:
    assert {(name, title, query["refId"]) for name in FILES for title, query in queries(load(name))} == set(EXPECTED)


@pytest.mark.parametrize("name", FILES)
@of_each_case
def test_numbers_are_those_of_the_samples(recorded: Callable[[str], Recorded], case: Case, name: str) -> None:
    recording, dashboard = recorded(case.scenario), load(name)
    grafana = recording.grafana_of(case)
    variables = grafana.variables(dashboard, case.selection)
    view = view_of(recording, case, name, variables)
    found = []
    for title, query in queries(dashboard):
        window = float(grafana.fill("$__rate_interval", variables, query.get("interval")).removesuffix("s"))
        for at, actual in results(grafana, query, variables).items():
            expected = EXPECTED[name, title, query["refId"]](replace(view, at=at, rate_interval=window))
            found += [f"{title}, {query['refId']}, at {at - END:+}: {each}" for each in difference(actual, expected)]
    assert not found, "\n".join(found)


# Replicas

OF_EACH_EXPORTER = {
    "Exporters",
    "Exporters down",
    "Samples per scrape",
    "Scrape duration",
    "Memory usage",
    "CPU usage",
}
"""Panels that show or count each exporter. Every other one shows two replicas as one exporter."""
ONE_DOWN = END - 2 * HOUR


@pytest.fixture(scope="module")
def of_replicas(
    recorded: Callable[[str], Recorded], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[float], Grafana]]:
    """Prometheus with the scripted day of two replicas, which give the view at a time."""
    folder, day = tmp_path_factory.mktemp("replicas"), recorded("day")
    backfill(replicas.record(folder, day.samples), folder / "data")
    with prometheus(folder, NO_TARGET) as server:
        yield lambda end: replace(day.grafana, prometheus=server, end=end)


def is_same(query: Any, actual: float, expected: float) -> bool:
    """Return True if two replicas have the number of one.

    PromQL extends an increase to the ends of its window. It extends it further if a replica started or ended in it.
    """
    if "increase(" in query["expr"] or "rate(" in query["expr"]:
        return math.isclose(actual, expected, rel_tol=0.25) or math.isnan(actual + expected)
    return accepted(actual, expected)


@pytest.mark.parametrize("end", [END, ONE_DOWN], ids=["both are up", "one is down"])
@pytest.mark.parametrize("name", FILES)
def test_replicas_have_numbers_of_one_exporter(
    recorded: Callable[[str], Recorded], of_replicas: Callable[[float], Grafana], name: str, end: float
) -> None:
    dashboard = load(name)
    one, two = replace(recorded("day").grafana, end=end), of_replicas(end)
    variables = one.variables(dashboard, {})
    assert two.variables(dashboard, {}) == variables
    found = []
    for title, query in queries(dashboard):
        if title in OF_EACH_EXPORTER:
            continue
        expected = results(one, query, variables)
        for at, actual in results(two, query, variables).items():
            # A reason that no replica has counted yet may have a row with 0.
            default = 0.0 if "increase(" in query["expr"] else math.inf
            found += [
                f"{title}, {query['refId']}, at {at - END:+}, {dict(labels)}: {actual.get(labels)}, not {value}"
                for labels, value in {**dict.fromkeys(actual, default), **expected[at]}.items()
                if not is_same(query, actual.get(labels, default), value)
            ]
    assert not found, "\n".join(found)


def test_exporter_dashboard_shows_each_replica(of_replicas: Callable[[float], Grafana]) -> None:
    dashboard = load("exporter.json")
    first, second = scripted_day.TARGET["instance"], replicas.SECOND

    def shown(end: float, title: str, query: str) -> dict[str, float]:
        """Return the last values of a panel by instance."""
        grafana = of_replicas(end)
        (target,) = (each for panel, each in queries(dashboard) if (panel, each["refId"]) == (title, query))
        rows = results(grafana, target, grafana.variables(dashboard, {}))[end]
        return {dict(labels).get("instance", ""): value for labels, value in rows.items()}

    for title in OF_EACH_EXPORTER - {"Exporters", "Exporters down"}:
        assert set(shown(END, title, "A")) == {first, second}
        assert set(shown(ONE_DOWN, title, "A")) == {first}
    assert shown(END, "Exporters", "up") == {first: 1, second: 1}
    assert shown(END, "Exporters", "state") == {first: 1, second: 1}
    assert shown(END, "Exporters", "age").keys() == {first, second}
    assert shown(ONE_DOWN, "Exporters", "up") == {first: 1, second: 0}
    assert shown(ONE_DOWN, "Exporters down", "A") == {"": 1}
    assert shown(ONE_DOWN, "Exporters", "age").keys() == {first}
    caller = shown(replicas.CALLS[0] + 3 * HOUR, "Exporters", "requests")
    assert caller[second] > caller[first] == 0
    caller = shown(END, "Exporters", "requests")
    assert caller[first] > caller[second] == 0


# Variables


@pytest.mark.parametrize("name", FILES)
@of_each_case
def test_variables_offer_what_was_recorded(recorded: Callable[[str], Recorded], case: Case, name: str) -> None:
    recording = recorded(case.scenario)
    grafana, dashboard = recording.grafana_of(case), load(name)
    view = view_of(recording, case, name, grafana.variables(dashboard, case.selection))

    @functools.cache
    def options(variable: str) -> dict[str, str]:
        return {value: text for text, value in grafana.options(dashboard, variable, case.selection)}

    for variable, metric in (
        ("job", "tedee_exporter_build_info"),
        ("instance", "tedee_exporter_build_info"),
        ("account", "tedee_up"),
    ):
        every_value = {each.labels[variable] for each in recording.samples.get(metric, ())}
        wanted = {
            each.labels[variable]
            for each in recording.select(before(variable, case.selection)).get(metric, ())
            if each.last(case.end, case.span) is not None
        }
        # Prometheus looks for the values in whole blocks of samples, which begin before the time range.
        assert wanted <= set(options(variable)) <= every_value
    if name == "exporter.json":
        ages = dict.fromkeys(view.by_account("tedee_up"), 0.0) | last_syncs(view)
        assert are_first(options("shown"), {account: -at for account, at in ages.items()})
    elif name == "devices.json":
        assert options("shown") == {".+": ".+"}
    else:
        names = selectable_locks(replace(view, samples=recording.select(before("lock", case.selection)), locks=[".+"]))
        assert set(options("lock")) == set(names)
        assert all(text in names[lock_id] for lock_id, text in options("lock").items())
    if name == "lock-detail.json":
        assert are_first(options("shown"), recent_changes(replace(view, locks=[".+"])))
    else:
        assert set(options("missing")) == missing_accounts(view)


def before(variable: str, selection: Selection) -> Selection:
    """Return what is selected of the variables before this one."""
    names = ["job", "instance", "account", "lock"]
    return {name: selection[name] for name in names[: names.index(variable)] if name in selection}


def are_first(found: Collection[str], values: Mapping[str, float]) -> bool:
    """Return True if these are the names with the highest values, as many as are shown."""
    highest = sorted(values.values(), reverse=True)[:MAX_SERIES]
    return sorted((values[name] for name in found), reverse=True) == highest


# Worlds

BOLT_STATES = set(LockState) - {
    LockState.UNCALIBRATED,
    LockState.CALIBRATING,
    LockState.UNKNOWN,
    LockState.UPDATING,
}
"""States that show whether the lock is locked."""


def accounts_of(scenario: str) -> list[Account]:
    """Return the simulated accounts of a scenario."""
    clock = FakeClock(wall=END)
    worlds: Sequence[World]
    match scenario:
        case "day":
            worlds = [scripted_day.world_at_end()]
        case "home":
            worlds = [home_world(clock)]
        case "two":
            worlds = two_worlds(clock)
        case _:
            worlds = [many_world(clock)]
    return [account for world in worlds for account in world.accounts]


def values_of_world(lock: SimulatedLock, at: float) -> Iterator[tuple[str, float]]:
    """Yield the metrics of a simulated lock that have a value at a time, and the value."""
    entry: Any = sync_entry(lock, at, Version("v37"))
    yield "lock_revision", entry["revision"]
    if entry["isConnected"] is not None:
        yield "lock_connected", entry["isConnected"]
    if state := entry["deviceState"]:
        yield "lock_state", state["state"]
        if state["state"] in BOLT_STATES:
            yield "lock_locked", state["state"] == LockState.LOCKED
        yield "lock_door_state", state["doorState"]
        if state["doorState"] in {DoorState.OPENED, DoorState.CLOSED}:
            yield "lock_door_open", state["doorState"] == DoorState.OPENED
        yield "lock_battery_level", state["batteryLevel"]
        yield "lock_charging", state["isCharging"]
        yield "lock_state_change_result", state["stateChangeResult"]
        if state["stateChangeResult"] in {StateChangeResult.SUCCESS, StateChangeResult.JAMMED}:
            yield "lock_jammed", state["stateChangeResult"] == StateChangeResult.JAMMED
        yield "lock_last_state_change_timestamp", lock.at(at).changed_at


@pytest.mark.parametrize("scenario", ["day", "home", MANY, "two"])
def test_samples_are_those_of_the_world(recorded: Callable[[str], Recorded], scenario: str) -> None:
    samples = recorded(scenario).samples
    times = set(samples["lock_revision"][0].times)
    # The world of the scripted day changes until the end.
    times &= {END} if scenario == "day" else times
    expected = {
        (metric, account.name, str(lock.id), at): float(value)
        for account in accounts_of(scenario)
        for lock in account.locks
        for at in times
        for metric, value in values_of_world(lock, at)
    }
    actual = {
        (metric, each.labels["account"], each.labels["lock_id"], at): value
        for metric in {metric for metric, *_ in expected}
        for each in samples[metric]
        for at, value in zip(each.times, each.values, strict=True)
        if at in times
    }
    assert set(actual) == set(expected)
    assert [key for key, value in actual.items() if value != pytest.approx(expected[key], abs=1e-3)] == []


@pytest.mark.parametrize("scenario", ["home", MANY, "two"])
def test_state_changes_are_those_of_the_world(recorded: Callable[[str], Recorded], scenario: str) -> None:
    by_lock = {each.labels["lock_id"]: each for each in recorded(scenario).samples["lock_state_changes_total"]}
    for account in accounts_of(scenario):
        for lock in account.locks:
            if (each := by_lock.get(str(lock.id))) is not None:
                dates = [lock.at(at).changed_at for at in each.times if lock.connected(at)]
                assert each.values[-1] == sum(later > earlier for earlier, later in pairwise(dates)), lock


@pytest.mark.parametrize("scenario", ["day", "home", MANY, "two"])
def test_properties_are_those_of_the_world(recorded: Callable[[str], Recorded], scenario: str) -> None:
    current = {
        (each.labels["account"], each.labels["lock_id"]): each.labels
        for each in recorded(scenario).samples["lock_info"]
        if each.last(END) is not None
    }
    for account in accounts_of(scenario):
        for lock in account.locks:
            labels = current.pop((account.name, str(lock.id)))
            assert (labels["lock_name"], labels["serial_number"]) == (lock.name, lock.serial_number)
            assert labels.get("firmware_version", "") == lock.software
            assert labels.get("bridge_id", "") == (str(lock.bridge.id) if lock.bridge else "")
    assert not current


def device_values_of_world(account: Account, at: float) -> Iterator[tuple[str, int, float]]:
    """Yield metric, id and value of the devices other than locks, if the scenario does not override them."""
    for bridge in account.bridges:
        yield "tedee_bridge_connected", bridge.id, bridge.connected(at)
    for kind, accessories in (("keypad", account.keypads), ("door_sensor", account.door_sensors)):
        for accessory in accessories:
            if (reading := accessory.reading(at)) and not accessory.overrides:
                yield f"tedee_{kind}_battery_percent", accessory.id, reading.level
                yield f"tedee_{kind}_battery_timestamp_seconds", accessory.id, reading.changed_at


@pytest.mark.parametrize("scenario", ["home", MANY, "two"])
def test_devices_are_those_of_the_world(recorded: Callable[[str], Recorded], scenario: str) -> None:
    samples = recorded(scenario).samples
    expected = {
        (metric, account.name, str(device_id)): float(value)
        for account in accounts_of(scenario)
        for metric, device_id, value in device_values_of_world(account, END)
    }
    overridden = {str(each.id) for account in accounts_of(scenario) for each in account.devices if each.overrides}
    actual = {
        (metric, each.labels["account"], device_id): each.values[-1]
        for metric in {metric for metric, *_ in expected}
        for each in samples[metric]
        if each.last(END) is not None
        for label, device_id in each.labels.items()
        if label.endswith("_id") and device_id not in overridden
    }
    assert set(actual) == set(expected)
    assert [key for key, value in actual.items() if value != pytest.approx(expected[key], abs=1e-3)] == []


@pytest.mark.parametrize("scenario", ["home", MANY, "two"])
def test_events_are_those_of_the_world(recorded: Callable[[str], Recorded], scenario: str) -> None:
    found: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for each in recorded(scenario).samples["lock_events_total"]:
        found[each.labels["lock_id"]][each.labels["event"], each.labels["source"]] += int(each.values[-1])
    locks = {str(lock.id): lock for account in accounts_of(scenario) for lock in account.locks}
    assert sum(map(Counter.total, found.values())) > 0
    for lock_id, counts in found.items():
        newest = locks[lock_id].delivered_events(END, limit=counts.total())
        assert Counter(EventKind.of(event.number) for event in newest) == +counts, lock_id
