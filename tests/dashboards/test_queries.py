"""Tests of the panels' queries: they return the right data, and few series with thousands of locks."""

import re
from collections import Counter
from typing import Any

import pytest

from dashboards.generator import devices, overview
from dashboards.generator.colours import MAX_SERIES
from dashboards.generator.queries import NO_LEVEL, NO_TREND
from tests.end_to_end.prometheus import Prometheus

from . import scripted_day
from .grafana import FILES, Grafana, Selection, Series, load, queries

ALL: Selection = {}
ONE: Selection = {**scripted_day.TARGET, "account": "hotel", "lock": "2101"}
TWO: Selection = {
    "job": ("tedee", "other"),
    "instance": ("127.0.0.1:10333", "other"),
    "account": ("home", "hotel"),
    "lock": ("1001", "2101"),
}
MAX_QUERY_SERIES = 500
"""Series of one query that a browser displays without delay."""
MAX_URL = 16_000
"""Characters of a query that servers accept in a URL."""

of_each_query = pytest.mark.parametrize(
    ("name", "query"),
    [
        pytest.param(name, query, id=f"{name}/{title}/{query['refId']}")
        for name in FILES
        for title, query in queries(load(name))
    ],
)


@pytest.fixture(scope="module")
def grafana(history: Prometheus) -> Grafana:
    return Grafana(history, scripted_day.END)


@pytest.fixture(scope="module")
def many_locks(history: Prometheus) -> Grafana:
    return Grafana(history, scripted_day.MANY_LOCKS_END, span=600, step=60, scrape_interval=300)


@of_each_query
@pytest.mark.parametrize("selection", [ALL, ONE, TWO], ids=["all", "one", "two"])
def test_each_query_has_data(grafana: Grafana, name: str, query: Any, selection: Selection) -> None:
    assert grafana.run(query, grafana.variables(load(name), selection))


@pytest.mark.parametrize("name", FILES)
def test_each_variable_has_values(grafana: Grafana, name: str) -> None:
    dashboard = load(name)
    for variable in dashboard["templating"]["list"][1:]:
        for selection in (ALL, ONE, TWO):
            assert grafana.options(dashboard, variable["name"], selection) or variable["name"] == "missing"


@pytest.mark.parametrize("name", ["locks-overview.json", "devices.json", "exporter.json"])
def test_missing_accounts_are_those_without_data(history: Prometheus, name: str) -> None:
    during_failures = Grafana(history, scripted_day.FAILING[1] - scripted_day.INTERVAL)
    assert during_failures.options(load(name), "missing", ALL) == [("hotel", "hotel")]
    assert Grafana(history, scripted_day.END).options(load(name), "missing", ALL) == []


def test_lock_variable_offers_special_characters(grafana: Grafana) -> None:
    options = grafana.options(load("locks-overview.json"), "lock", ALL)
    assert (f"{scripted_day.ODD_NAME} · home", "1006") in options
    assert ('Kids\' "castle" 🏰 · home', "1004") in options
    assert len(options) == 18


def test_renamed_lock_is_offered_with_new_name_only(history: Prometheus) -> None:
    after_rename = Grafana(history, scripted_day.RENAMED + 2 * scripted_day.INTERVAL)
    options = after_rename.options(load("lock-detail.json"), "lock", ALL)
    assert [text for text, value in options if value == "2106"] == ["Suite 106 · hotel"]


def test_lock_of_failing_account_can_be_selected(history: Prometheus) -> None:
    during_failures = Grafana(history, scripted_day.FAILING[1] - scripted_day.INTERVAL)
    assert ("Room 101 · hotel", "2101") in during_failures.options(load("lock-detail.json"), "lock", ALL)
    assert during_failures.variables(load("lock-detail.json"), {"lock": "2101"})["shown"] == "2101"


def test_detail_shows_the_locks_that_changed_last(grafana: Grafana) -> None:
    changed = rows(grafana, "Recent changes", "changed", ALL)
    latest = sorted(changed, key=lambda row: float(row["value"][1]))[-MAX_SERIES:]
    shown = grafana.options(load("lock-detail.json"), "shown", ALL)
    assert {value for _, value in shown} == {row["metric"]["lock_id"] for row in latest}


# Counts


def panel_value(
    grafana: Grafana, title: str, selection: Selection = ALL, name: str = "locks-overview.json"
) -> float | None:
    """Return the value of a stat panel, or None if it has no data."""
    dashboard = load(name)
    (query,) = (query for each, query in queries(dashboard) if each == title)
    result = grafana.run(query, grafana.variables(dashboard, selection))
    return float(result[0]["value"][1]) if result else None


def rows(grafana: Grafana, title: str, query: str, selection: Selection, name: str = "locks-overview.json") -> Series:
    """Return the result of one query of a panel."""
    dashboard = load(name)
    (target,) = (each for panel, each in queries(dashboard) if (panel, each["refId"]) == (title, query))
    return grafana.run(target, grafana.variables(dashboard, selection))


def column(grafana: Grafana, query: str, selection: Selection) -> list[float]:
    """Return the values of a column of the table of all locks."""
    return [float(each["value"][1]) for each in rows(grafana, "Locks", query, selection)]


def number_by_id(found: Series) -> dict[str, float]:
    """Return the value of each lock by its id."""
    return {row["metric"]["lock_id"]: float(row["value"][1]) for row in found}


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Not secured", 6),
        ("Unlocked", 2),
        ("Open doors", 1),
        ("Jammed or unknown", 3),
        ("Offline", 1),
        ("Low batteries", 1),
        ("Accounts without data", 0),
        ("Active alerts", 2),
    ],
)
def test_overview_counts_match_the_scripted_day(grafana: Grafana, title: str, expected: float) -> None:
    assert panel_value(grafana, title) == expected


def test_single_secured_lock_is_counted_as_secured(grafana: Grafana) -> None:
    assert panel_value(grafana, "Not secured", ONE) == 0


def test_zero_is_not_shown_if_an_account_has_no_data(history: Prometheus) -> None:
    during_failures = Grafana(history, scripted_day.FAILING[1] - scripted_day.INTERVAL)
    assert panel_value(during_failures, "Accounts without data") == 1
    locked = {"lock": "1004"}
    for title in ("Not secured", "Unlocked", "Jammed or unknown", "Offline"):
        assert panel_value(during_failures, title, {**locked, "account": "home"}) == 0
        assert panel_value(during_failures, title, locked) is None


def test_counts_have_no_data_while_exporter_is_down(history: Prometheus) -> None:
    for title in ("Not secured", "Unlocked", "Open doors", "Jammed or unknown", "Offline", "Low batteries"):
        assert panel_value(Grafana(history, scripted_day.END + 600), title) is None


def test_lock_of_two_exporters_is_counted_once(grafana: Grafana) -> None:
    duplicate = Grafana(grafana.prometheus, scripted_day.DUPLICATE_LOCK_END)
    assert column(duplicate, "state", ALL) == [2]
    assert panel_value(duplicate, "Unlocked") == 1
    assert panel_value(duplicate, "Not secured") == 1


def test_failing_account_and_exporter_down_are_distinct(history: Prometheus) -> None:
    def values_at(time: float) -> list[float | None]:
        return [
            panel_value(Grafana(history, time), title, name="exporter.json")
            for title in ("Exporters down", "Failing accounts", "Oldest data")
        ]

    assert values_at(scripted_day.END) == [0, 0, 0]
    assert values_at(scripted_day.FAILING[1] - scripted_day.INTERVAL) == [
        0,
        1,
        pytest.approx(scripted_day.FAILING[1] - scripted_day.FAILING[0], abs=2 * scripted_day.INTERVAL),
    ]
    assert values_at(scripted_day.DOWN[1] - scripted_day.INTERVAL)[0] == 1


# Lock table and battery forecast


def attention_by_name(grafana: Grafana, selection: Selection) -> dict[str, float]:
    """Return the attention value of each lock by its name, from the table of all locks."""

    def lock_key(row: Any) -> tuple[str, str]:
        return row["metric"]["account"], row["metric"]["lock_id"]

    names = {lock_key(row): row["metric"]["lock_name"] for row in rows(grafana, "Locks", "name", selection)}
    levels = rows(grafana, "Locks", "attention", selection)
    return {names[lock_key(row)]: float(row["value"][1]) for row in levels}


def test_lock_table_has_each_lock_once(grafana: Grafana) -> None:
    levels = attention_by_name(grafana, ALL)
    assert len(levels) == len(rows(grafana, "Locks", "attention", ALL)) == 18
    assert {name: level for name, level in levels.items() if level} == {
        "Cellar": 4,
        "Pool gate": 4,
        "Room 102": 4,
        "Garage": 3,
        scripted_day.ODD_NAME: 3,
        "Annex": 2,
    }


@pytest.mark.parametrize("query", ["changed", "attention"])
def test_each_row_of_lock_table_can_be_sorted(history: Prometheus, query: str) -> None:
    # Grafana compares a missing number with the others as NaN, which gives a random order.
    during_failures = Grafana(history, scripted_day.FAILING[1] - scripted_day.INTERVAL)
    names = {row["metric"]["lock_id"] for row in rows(during_failures, "Locks", "name", ALL)}
    assert set(number_by_id(rows(during_failures, "Locks", query, ALL))) == names


def test_locks_of_silent_account_remain_in_lock_table(history: Prometheus) -> None:
    during_failures = Grafana(history, scripted_day.FAILING[1] - scripted_day.INTERVAL)
    levels = attention_by_name(during_failures, ALL)
    assert len(levels) == 18
    assert levels["Room 101"] == 4
    assert not [row for row in rows(during_failures, "Locks", "state", ALL) if row["metric"]["account"] == "hotel"]


def test_lock_table_without_locks_has_a_hint(history: Prometheus) -> None:
    nothing = Grafana(history, scripted_day.START - scripted_day.DAY)
    for name, title, query in (
        ("locks-overview.json", "Locks", "name"),
        ("lock-detail.json", "Current values", "name"),
        ("devices.json", "Bridges", "name"),
        ("exporter.json", "Accounts", "up"),
    ):
        (hint,) = rows(nothing, title, query, ALL, name)
        assert list(hint["metric"].values()) == ["no data: see Help"]


def battery_days(grafana: Grafana, selection: Selection) -> float | None:
    """Return the forecast of one lock on its dashboard."""
    found = rows(grafana, "Current values", "days", selection, "lock-detail.json")
    return float(found[0]["value"][1]) if found else None


def test_battery_forecast_of_the_scripted_day(grafana: Grafana) -> None:
    # It discharges by 90 percent in 20 days, and 45 percent are left.
    assert battery_days(grafana, {"lock": "2101"}) == pytest.approx(10, abs=0.5)
    assert battery_days(grafana, {"lock": "1005"}) is None, "charged two days ago"
    assert battery_days(grafana, {"lock": "1003"}) is None, "charging"


def test_list_of_batteries_agrees_with_lock_dashboard(grafana: Grafana) -> None:
    days = number_by_id(rows(grafana, "Next batteries to charge", "days", ALL))
    levels = number_by_id(rows(grafana, "Next batteries to charge", "battery", ALL))
    assert set(days) == set(levels)
    assert days["2101"] == battery_days(grafana, {"lock": "2101"})
    assert days["1005"] == days["1003"] == NO_TREND
    assert levels["1003"] == 8


# Use, availability and firmware


def test_use_by_lock_matches_the_recording(grafana: Grafana) -> None:
    day = {each: number_by_id(rows(grafana, "Use by lock", each, ALL)) for each in ("changes", "unlocked", "opened")}
    # The garage has been unlocked with an open door for the last hour.
    assert day["unlocked"]["1002"] >= 55
    assert day["opened"]["1002"] >= 55
    assert day["changes"]["1001"] > 0
    assert all(0 <= minutes <= 24 * 60 for minutes in (*day["unlocked"].values(), *day["opened"].values()))


def test_use_by_hour_has_each_hour(grafana: Grafana) -> None:
    week = Grafana(grafana.prometheus, grafana.end, span=7 * scripted_day.DAY, step=3600)
    (changes,), (times,) = (rows(week, "State changes by hour", query, ALL) for query in ("value", "day"))
    assert {at for at, _ in changes["values"]} <= {at for at, _ in times["values"]}
    assert all(float(value) == 1000 * at for at, value in times["values"])
    # There is a row for every hour, though the recording covers four days.
    assert len(times["values"]) == 7 * 24 + 1
    # The last hour has just begun.
    day = sum(float(value) for _, value in changes["values"][-25:-1])
    assert day == pytest.approx(sum(number_by_id(rows(grafana, "Use by lock", "changes", ALL)).values()), rel=0.1)


def test_availability_is_that_of_the_recording(grafana: Grafana) -> None:
    by_lock = number_by_id(rows(grafana, "Availability by lock", "share", ALL))
    assert by_lock["1001"] == 1
    assert 0 < by_lock["2005"] < 1, "offline in the last hour"
    shares = rows(grafana, "Availability by bridge", "share", ALL)
    by_bridge = {row["metric"]["bridge_id"]: float(row["value"][1]) for row in shares}
    assert min(by_bridge.values()) == pytest.approx(by_lock["2005"])
    assert sum(float(row["value"][1]) for row in rows(grafana, "Availability by bridge", "locks", ALL)) == len(by_lock)


def test_firmware_versions_include_all_locks(grafana: Grafana) -> None:
    versions = rows(grafana, "Firmware versions", "locks", ALL)
    assert sum(float(row["value"][1]) for row in versions) == 18
    locks = {row["metric"].get("firmware_version"): float(row["value"][1]) for row in versions}
    assert locks == {"2.5.30000": 6, "2.4.22125": 11, None: 1}


# Alerts


def test_firing_alerts_are_listed_with_their_start(grafana: Grafana) -> None:
    found = {row["metric"]["alertname"]: row for row in rows(grafana, "Firing alerts", "since", ALL)}
    assert set(found) == {"TedeeLockJammed", "TedeeBridgeOffline"}
    alert = found["TedeeLockJammed"]
    assert alert["metric"] == {
        "alertname": "TedeeLockJammed",
        "runbook": "TedeeLockJammed",
        "severity": "critical",
        "account": "hotel",
        "device": "Pool gate",
    }
    assert float(alert["value"][1]) == 1000 * (scripted_day.END - scripted_day.HOUR)


def test_dashboard_of_devices_has_alerts_of_devices(grafana: Grafana) -> None:
    (alert,) = rows(grafana, "Firing alerts", "since", ALL, "devices.json")
    assert (alert["metric"]["alertname"], alert["metric"]["device"]) == ("TedeeBridgeOffline", "Annex")
    assert panel_value(grafana, "Active alerts", ALL, "devices.json") == 1


def test_absence_of_alerts_is_distinct_from_absence_of_rules(grafana: Grafana) -> None:
    (none,) = rows(grafana, "Firing alerts", "since", {"account": "home"})
    assert none["metric"]["device"] == "no alert is firing"
    before = Grafana(grafana.prometheus, scripted_day.START)
    (no_rules,) = rows(before, "Firing alerts", "since", ALL)
    assert no_rules["metric"]["device"] == "no rules: see Help"
    assert panel_value(before, "Active alerts") is None


@pytest.mark.parametrize("step", [60, 240, 900])
def test_each_alert_is_marked_once(grafana: Grafana, step: float) -> None:
    dashboard = load("locks-overview.json")
    (query,) = (query for title, query in queries(dashboard) if title == "Alerts")
    view = Grafana(grafana.prometheus, grafana.end, step=step)
    marks = view.run(query, view.variables(dashboard, ALL))
    alerts = Counter(row["metric"]["alertname"] for row in marks for _ in row["values"])
    assert set(alerts.values()) == {1}
    assert set(alerts) == {labels["alertname"] for start, labels in scripted_day.ALERTS}


# Devices and events


def test_device_counts_match_the_scripted_day(grafana: Grafana) -> None:
    counts = {
        title: panel_value(grafana, title, ALL, "devices.json")
        for title in ("Bridges offline", "Low keypad batteries", "Low door sensor batteries", "Events not permitted")
    }
    # The bridge of the annex; the keypad of the garden door; the sensors of the pool gate, main entrance and room 101.
    assert counts == {
        "Bridges offline": 1,
        "Low keypad batteries": 1,
        "Low door sensor batteries": 3,
        "Events not permitted": 0,
    }


def test_locks_of_offline_bridge_are_offline(grafana: Grafana) -> None:
    def by_bridge(query: str) -> dict[str, float]:
        found = rows(grafana, "Bridges", query, ALL, "devices.json")
        return {row["metric"]["bridge_id"]: float(row["value"][1]) for row in found}

    assert by_bridge("connected") == {"11": 1, "21": 1, "22": 1, "23": 0}
    assert by_bridge("locks") == {"11": 6, "21": 4, "22": 6, "23": 1}
    assert by_bridge("offline") == {"11": 0, "21": 0, "22": 0, "23": 1}


def test_lowest_battery_has_name_and_lock_of_keypad(grafana: Grafana) -> None:
    levels = rows(grafana, "Keypads", "level", ALL, "devices.json")
    lowest = min(levels, key=lambda row: float(row["value"][1]))
    assert (lowest["metric"], lowest["value"][1]) == ({"account": "home", "keypad_id": "1105"}, "12")
    (lock,) = rows(grafana, "Properties", "keypad", {"lock": "1005"}, "lock-detail.json")
    assert float(lock["value"][1]) == 12
    names = rows(grafana, "Keypads", "lock", ALL, "devices.json")
    assert [row["metric"]["lock_name"] for row in names if row["metric"]["keypad_id"] == "1105"] == ["Garden door"]


def test_level_that_tedee_omits_is_listed_last(grafana: Grafana) -> None:
    levels = rows(grafana, "Keypads", "level", ALL, "devices.json")
    by_id = {row["metric"]["keypad_id"]: float(row["value"][1]) for row in levels}
    assert by_id["1109"] == max(by_id.values()) == NO_LEVEL
    changes = rows(grafana, "Keypads", "changed", ALL, "devices.json")
    assert [row["value"][1] for row in changes if row["metric"]["keypad_id"] == "1109"] == ["-1"]


def test_wrong_pins_are_counted_at_the_lock(grafana: Grafana) -> None:
    by_lock = number_by_id(rows(grafana, "Wrong PINs by lock", "number", ALL, "devices.json"))
    assert by_lock["2101"] >= scripted_day.WRONG_PINS
    # The keypad of the staff door has bursts of wrong PINs all day.
    assert max(by_lock, key=lambda lock_id: by_lock[lock_id]) == "2002"
    assert panel_value(grafana, "Wrong PINs, last day", ALL, "devices.json") == pytest.approx(sum(by_lock.values()))


# Many locks


@of_each_query
def test_queries_return_few_series_with_5000_locks(many_locks: Grafana, name: str, query: Any) -> None:
    assert len(many_locks.run(query, many_locks.variables(load(name), ALL))) <= MAX_QUERY_SERIES


def test_lock_table_prefers_problems_with_5000_locks(many_locks: Grafana) -> None:
    levels = number_by_id(rows(many_locks, "Locks", "attention", ALL))
    assert overview.MAX_IDS / 2 < len(levels) <= overview.MAX_IDS
    # More locks are unlocked or open than the half of the table has room for. Locks with a low battery or a low
    # availability are listed nevertheless.
    assert sum(level >= 3 for level in levels.values()) >= overview.MAX_IDS / 2
    assert {1.0, 2.0} & set(levels.values())


def test_lock_table_of_an_account_lists_all_levels(many_locks: Grafana) -> None:
    accounts = [text for text, _ in many_locks.options(load("locks-overview.json"), "account", ALL)]
    selection = {"account": tuple(accounts[:4])}
    levels = number_by_id(rows(many_locks, "Locks", "attention", selection))
    assert len(levels) == 4 * scripted_day.LOCKS_PER_ACCOUNT
    assert {0.0, 2.0, 3.0} <= set(levels.values())


def test_queries_have_no_list_of_ids_with_500_locks(many_locks: Grafana) -> None:
    dashboard = load("locks-overview.json")
    accounts = [text for text, _ in many_locks.options(dashboard, "account", ALL)]
    assert 5 * scripted_day.LOCKS_PER_ACCOUNT == overview.MAX_ROWS
    variables = many_locks.variables(dashboard, {"account": tuple(accounts[:5])})
    assert variables["shown:pipe"] == ".+"


def test_accessory_tables_have_lowest_batteries_with_5000_locks(many_locks: Grafana) -> None:
    levels = rows(many_locks, "Door sensors", "level", ALL, "devices.json")
    assert len(levels) == devices.MAX_IDS
    every_level = many_locks.query("query", query="tedee_door_sensor_battery_percent", time=many_locks.end)
    assert len(every_level) > devices.MAX_ACCESSORIES
    lowest = sorted(float(row["value"][1]) for row in every_level)[: devices.MAX_IDS]
    assert sorted(float(row["value"][1]) for row in levels) == lowest


@pytest.mark.parametrize("name", ["locks-overview.json", "devices.json"])
def test_queries_fit_in_a_url_with_5000_locks(many_locks: Grafana, name: str) -> None:
    dashboard = load(name)
    variables = many_locks.variables(dashboard, ALL)
    lengths = [len(many_locks.fill(query["expr"], variables)) for _, query in queries(dashboard)]
    assert max(lengths) < MAX_URL


def test_descriptions_state_the_limits() -> None:
    (table,) = (panel for panel in load("locks-overview.json")["panels"] if panel["title"] == "Locks")
    assert {str(overview.MAX_ROWS), str(overview.MAX_IDS)} <= set(re.findall(r"\d+", table["description"]))
    assert f"the {MAX_SERIES} " in load("lock-detail.json")["description"]
