"""Tests of rare cases: missing data, exporters that disagree, and battery trends."""

from typing import Any

import pytest

from dashboards.generator import value_mappings
from dashboards.generator.queries import MAX_DAYS, NO_BRIDGE, NO_LEVEL
from tests.end_to_end.prometheus import Prometheus

from . import rare_cases
from .grafana import Grafana, Selection, load
from .scripted_day import DAY, END, HOUR
from .test_queries import attention_by_name, battery_days, column, panel_value, rows

DEVICES, EXPORTER, DETAIL = "devices.json", "exporter.json", "lock-detail.json"


@pytest.fixture(scope="module")
def grafana(rare_history: Prometheus) -> Grafana:
    return Grafana(rare_history, END)


def job(name: str) -> Selection:
    return {"job": name}


def by_label(found: Any, label: str) -> dict[str, float]:
    return {row["metric"][label]: float(row["value"][1]) for row in found}


# One lock of two exporters


@pytest.mark.parametrize("state", rare_cases.WORSE_STATES)
def test_any_other_state_wins_over_locked(grafana: Grafana, state: int) -> None:
    selection = job(f"states 6 and {state}")
    assert panel_value(grafana, "Not secured", selection) == 1
    assert column(grafana, "state", selection) == [state]
    assert list(attention_by_name(grafana, selection).values()) > [0]
    (state_value,) = rows(grafana, "Current values", "state", selection, DETAIL)
    assert state_value["value"][1] == str(state)


@pytest.mark.parametrize("normal", [3, 0])
@pytest.mark.parametrize("door", rare_cases.WORSE_DOORS)
def test_any_other_door_state_wins_over_closed(grafana: Grafana, normal: int, door: int) -> None:
    selection = job(f"doors {normal} and {door}")
    assert panel_value(grafana, "Not secured", selection) == 1
    assert column(grafana, "door", selection) == [door]
    (state_value,) = rows(grafana, "Current values", "door", selection, DETAIL)
    assert state_value["value"][1] == str(door)


@pytest.mark.parametrize("query", ["name", "state", "door", "battery", "connection", "changed", "update", "attention"])
def test_lock_with_two_names_has_one_row_in_lock_table(grafana: Grafana, query: str) -> None:
    assert len(rows(grafana, "Locks", query, job("renamed"))) == 1


@pytest.mark.parametrize("title", ["Recent changes", "Properties"])
def test_lock_with_two_names_has_one_row_in_any_table(grafana: Grafana, title: str) -> None:
    file, query = ("locks-overview.json", "name") if title == "Recent changes" else (DETAIL, "info")
    assert len(rows(grafana, title, query, job("renamed"), file)) == 1


def test_lock_with_two_names_has_one_value(grafana: Grafana) -> None:
    for query in ("name", "state", "door", "battery", "connected"):
        assert len(rows(grafana, "Current values", query, job("renamed"), DETAIL)) == 1


# Doors and errors


@pytest.mark.parametrize("door", rare_cases.WORSE_DOORS)
def test_door_in_any_other_state_is_not_secured(grafana: Grafana, door: int) -> None:
    assert panel_value(grafana, "Not secured", job(f"door {door}")) == 1


def test_open_doors_has_no_data_without_door_sensors(grafana: Grafana) -> None:
    assert panel_value(grafana, "Not secured", job("without sensors")) == 0
    assert panel_value(grafana, "Open doors", job("without sensors")) is None


def test_failed_state_change_is_shown_in_the_lock_table(grafana: Grafana) -> None:
    assert panel_value(grafana, "Jammed or unknown", job("failed")) == 1
    assert column(grafana, "state", job("failed")) == [-2]


def test_not_secured_locks_are_first_in_the_lock_table(grafana: Grafana) -> None:
    levels = attention_by_name(grafana, job("attention"))
    assert {name: level for name, level in levels.items() if level} == {
        "failed": 4,
        "without state": 4,
        "locking": 3,
        "pulled": 3,
        "door sensor disconnected": 3,
        "door uncalibrated": 3,
        "door with unknown code": 3,
        "offline": 2,
    }
    assert set(levels) == {*rare_cases.NEED_ATTENTION, *rare_cases.SECURED}
    locked_and_closed = 1  # with a failed state change
    expected = len(rare_cases.NEED_ATTENTION) - locked_and_closed
    assert panel_value(grafana, "Not secured", job("attention")) == expected


def test_charging_battery_is_not_counted_as_low(grafana: Grafana) -> None:
    assert panel_value(grafana, "Low batteries", job("attention")) == 0
    (line,) = rows(grafana, "Lock status over time", "D", job("attention"))
    assert {value for _, value in line["values"]} == {"0"}


# Several locks


def lock_names(grafana: Grafana, query: str, selection: Selection) -> set[str]:
    """Return the names of the locks with a value in a column of the lock dashboard."""
    names = rows(grafana, "Current values", "name", selection, DETAIL)
    by_id = {row["metric"]["lock_id"]: row["metric"]["lock_name"] for row in names}
    return {by_id[row["metric"]["lock_id"]] for row in rows(grafana, "Current values", query, selection, DETAIL)}


@pytest.mark.parametrize("query", ["state", "door", "changed", "result", "charging", "battery"])
def test_offline_lock_is_shown_without_value(grafana: Grafana, query: str) -> None:
    assert lock_names(grafana, "name", job("one offline")) == {"Front door", "Back door"}
    assert lock_names(grafana, query, job("one offline")) == {"Front door"}


def test_lock_without_recent_samples_has_no_value(rare_history: Prometheus) -> None:
    later = Grafana(rare_history, END + 3 * HOUR)
    assert lock_names(later, "name", job("one offline")) == {"Front door", "Back door"}
    for query in ("state", "connection", "connected"):
        assert lock_names(later, query, job("one offline")) == set()


def test_only_reported_locks_can_have_no_bridge(grafana: Grafana) -> None:
    def connections(name: str) -> list[float]:
        found = rows(grafana, "Current values", "connection", job(name), DETAIL)
        return sorted(float(row["value"][1]) for row in found)

    assert connections("without a bridge") == [NO_BRIDGE]
    assert connections("one offline") == [0, 1]
    # The exporter of one of the two locks is down.
    assert lock_names(grafana, "name", job("down for 5 h")) == {"Front door", "Gate"}
    assert connections("down for 5 h") == [1]


def test_equal_names_are_distinguished_by_account(grafana: Grafana) -> None:
    options = grafana.options(load(DETAIL), "lock", job("one name"))
    assert options == [("Front door · home", "1"), ("Front door · hotel", "2")]
    assert set(by_label(rows(grafana, "Current values", "state", job("one name"), DETAIL), "account")) == {
        "home",
        "hotel",
    }


# Exporters that are down


@pytest.mark.parametrize("name", ["down for 5 h", "down for 30 h"])
def test_exporter_that_is_down_is_listed(grafana: Grafana, name: str) -> None:
    selection = job(name)
    assert panel_value(grafana, "Not secured", selection) is None
    assert panel_value(grafana, "Accounts without data", selection) == 1
    assert panel_value(grafana, "Exporters down", selection, EXPORTER) == 1
    assert panel_value(grafana, "Failing accounts", selection, EXPORTER) == 1
    hours = float(name.split()[-2])
    assert panel_value(grafana, "Oldest data", selection, EXPORTER) == pytest.approx(hours * HOUR, abs=600)
    statuses = by_label(rows(grafana, "Accounts", "up", selection, EXPORTER), "account")
    assert statuses == {"home": 1, "hotel": value_mappings.NO_DATA}
    assert set(by_label(rows(grafana, "Accounts", "age", selection, EXPORTER), "account")) == {"home", "hotel"}


@pytest.mark.parametrize("name", ["gone for 5 h", "stale"])
def test_account_without_data_is_listed(grafana: Grafana, name: str) -> None:
    assert panel_value(grafana, "Not secured", job(name)) is None
    assert panel_value(grafana, "Accounts without data", job(name)) == 1
    assert panel_value(grafana, "Failing accounts", job(name), EXPORTER) == 1
    statuses = by_label(rows(grafana, "Accounts", "up", job(name), EXPORTER), "account")
    assert statuses == {"home": 1, "hotel": 0 if name == "stale" else value_mappings.NO_DATA}


def test_account_of_second_exporter_is_not_missing(grafana: Grafana) -> None:
    assert panel_value(grafana, "Exporters down", job("covered"), EXPORTER) == 1
    assert panel_value(grafana, "Not secured", job("covered")) == 0
    assert panel_value(grafana, "Failing accounts", job("covered"), EXPORTER) == 0


def test_removed_account_is_not_listed(grafana: Grafana) -> None:
    assert panel_value(grafana, "Not secured", job("removed")) == 0
    assert panel_value(grafana, "Accounts without data", job("removed")) == 0
    assert set(by_label(rows(grafana, "Accounts", "up", job("removed"), EXPORTER), "account")) == {"home"}
    assert grafana.variables(load(EXPORTER), job("removed"))["shown"] == "home"


# Batteries


def days(grafana: Grafana, name: str) -> float | None:
    """Return the forecast for a battery, or None if there is none."""
    return battery_days(grafana, job(name))


@pytest.mark.parametrize("name", rare_cases.DRAINS)
def test_steady_discharge_always_has_a_forecast(rare_history: Prometheus, name: str) -> None:
    drain = rare_cases.DRAINS[name]
    for hours in range(0, rare_cases.FORECAST_DAYS * 24, 5):
        grafana = Grafana(rare_history, END - hours * HOUR)
        level = rare_cases.LAST_LEVEL + 0.5 + drain * hours * HOUR / DAY
        expected = min(MAX_DAYS, (level - 10) / drain)
        assert days(grafana, f"battery {name}") == pytest.approx(expected, rel=0.2), hours


@pytest.mark.parametrize("name", ["0.8", "2"])
def test_fast_discharge_has_a_forecast_after_three_days(grafana: Grafana, name: str) -> None:
    assert days(grafana, f"battery {name} recent") == pytest.approx(15.5 / rare_cases.DRAINS[name], rel=0.4)


@pytest.mark.parametrize("name", ["0.25", "0.4"])
def test_slow_discharge_has_no_early_forecast(grafana: Grafana, name: str) -> None:
    assert days(grafana, f"battery {name} recent") is None


@pytest.mark.parametrize("name", ["battery drained", "battery drained recent"])
def test_very_fast_discharge_has_a_forecast_within_a_day(grafana: Grafana, name: str) -> None:
    assert days(grafana, name) == pytest.approx(20 / 30, rel=0.2)


def test_constant_battery_level_has_maximum_forecast(grafana: Grafana) -> None:
    assert days(grafana, "battery full") == MAX_DAYS


@pytest.mark.parametrize("name", ["battery for a day", "battery charged"])
def test_short_history_or_charging_gives_no_forecast(grafana: Grafana, name: str) -> None:
    assert days(grafana, name) is None


def test_forecast_after_charging_uses_the_short_trend(grafana: Grafana) -> None:
    assert days(grafana, "battery charged a week ago") == pytest.approx(35 / 2, rel=0.2)


# Bars and rates


def test_bars_count_each_failure_about_once(rare_history: Prometheus) -> None:
    grafana = Grafana(rare_history, END, span=HOUR, step=300, scrape_interval=20)
    (bars,) = rows(grafana, "Failed syncs by reason", "A", job("failures"), EXPORTER)
    assert sum(float(value) for _, value in bars["values"]) == pytest.approx(3, abs=0.6)


@pytest.mark.parametrize("interval", [15, 20, 60])
def test_rates_have_no_gaps_with_default_data_source(rare_history: Prometheus, interval: int) -> None:
    # The data source has no scrape interval in its settings: Grafana assumes 15 seconds.
    grafana = Grafana(rare_history, END, span=HOUR, step=60, scrape_interval=15)
    (line,) = rows(grafana, "CPU usage", "A", job(f"scraped every {interval} s"), EXPORTER)
    times = [at for at, _ in line["values"]]
    assert times == list(range(int(times[0]), int(END) + 1, 60))
    assert times[0] <= END - HOUR + 300


# Devices and events


def test_devices_of_two_exporters_have_worse_value(grafana: Grafana) -> None:
    selection = job("devices")
    titles = ("Bridges offline", "Low keypad batteries", "Low door sensor batteries")
    # The level of the door sensor is 32 or 16 percent.
    assert [panel_value(grafana, title, selection, DEVICES) for title in titles] == [1, 1, 0]
    assert by_label(rows(grafana, "Bridges", "connected", selection, DEVICES), "bridge_id") == {"2": 0}
    assert by_label(rows(grafana, "Keypads", "level", selection, DEVICES), "keypad_id") == {
        "11": 14,
        "12": NO_LEVEL,
        "13": NO_LEVEL,
    }


@pytest.mark.parametrize(
    ("title", "query", "count"),
    [
        ("Bridges", "name", 1),
        ("Keypads", "name", 3),
        ("Keypads", "lock", 2),
        ("Door sensors", "name", 2),
        ("Door sensors", "lock", 2),
        ("Gates and dry contacts", "name", 2),
        ("Gates and dry contacts", "connected", 1),
        ("Bridge connection over time", "A", 1),
        ("Availability of bridges", "share", 1),
        ("Keypad batteries over time", "A", 1),
    ],
)
def test_device_with_two_names_has_one_row(grafana: Grafana, title: str, query: str, count: int) -> None:
    assert len(rows(grafana, title, query, job("devices"), DEVICES)) == count


def test_bridge_of_another_account_is_shown_by_id(grafana: Grafana) -> None:
    found = rows(grafana, "Availability by bridge", "name", job("devices"))
    names = {row["metric"]["bridge_id"]: row["metric"]["bridge_name"] for row in found}
    assert names["5"] == "5"
    assert names["2"] in {"Old", "New"}


@pytest.mark.parametrize("interval", rare_cases.SCRAPE_INTERVALS)
def test_wrong_pins_are_counted_once(grafana: Grafana, interval: int) -> None:
    selection = job(f"wrong PINs, scraped every {interval} s")
    expected = pytest.approx(rare_cases.WRONG_PINS, abs=0.5)
    assert panel_value(grafana, "Wrong PINs, last day", selection, DEVICES) == expected
    (row,) = rows(grafana, "Wrong PINs by lock", "number", selection, DEVICES)
    assert float(row["value"][1]) == expected
    assert row["metric"]["lock_name"] == "New"


def test_reason_is_shown_if_there_are_no_events(grafana: Grafana) -> None:
    def value(name: str) -> float | None:
        return panel_value(grafana, "Wrong PINs, last day", job(name), DEVICES)

    assert value("events refused") == value_mappings.NOT_PERMITTED
    assert value("one offline") == value_mappings.NOT_ENABLED
    assert value("no such job") is None
    assert panel_value(grafana, "Events not permitted", job("events refused"), DEVICES) == 1
    assert panel_value(grafana, "Events not permitted", job("one offline"), DEVICES) == value_mappings.NOT_ENABLED
    for title in ("Wrong PINs by lock", "Doors open too long by lock", "Events by kind"):
        (hint,) = rows(grafana, title, "number", job("one offline"), DEVICES)
        assert list(hint["metric"].values()) == ["events not enabled or not permitted"]
