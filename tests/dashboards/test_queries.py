"""Tests of the panels' queries: they return the right data, and few series with thousands of locks."""

from collections import Counter
from typing import Any

import pytest

from dashboards.generator import overview
from dashboards.generator.colours import MAX_SERIES
from dashboards.generator.queries import NOT_KNOWN
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
            assert grafana.options(dashboard, variable["name"], selection)


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
    ],
)
def test_overview_counts_match_the_scripted_day(grafana: Grafana, title: str, expected: float) -> None:
    assert panel_value(grafana, title) == expected


def test_single_secured_lock_is_counted_as_secured(grafana: Grafana) -> None:
    assert panel_value(grafana, "Not secured", ONE) == 0


def test_not_secured_has_no_data_if_an_account_has_none(history: Prometheus) -> None:
    during_failures = Grafana(history, scripted_day.FAILING[1] - scripted_day.INTERVAL)
    assert panel_value(during_failures, "Accounts without data") == 1
    locked = {"lock": "1004"}
    assert panel_value(during_failures, "Not secured", {**locked, "account": "home"}) == 0
    assert panel_value(during_failures, "Not secured", locked) is None


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
    assert levels.pop("Garage") == 1
    assert {name for name, level in levels.items() if level} == {
        "Annex",
        "Cellar",
        "Pool gate",
        "Room 102",
        scripted_day.ODD_NAME,
    }


def test_battery_forecast_of_the_scripted_day(grafana: Grafana) -> None:
    def days(lock: str) -> float:
        (found,) = rows(grafana, "Days until 10 %", "A", {"lock": lock}, "lock-detail.json")
        return float(found["value"][1])

    # It discharges by 90 percent in 20 days, and 45 percent are left.
    assert days("2101") == pytest.approx(10, abs=0.5)
    assert days("1005") == NOT_KNOWN, "charged two days ago"
    assert days("1003") == NOT_KNOWN, "charging"


# Many locks


@of_each_query
def test_queries_return_few_series_with_5000_locks(many_locks: Grafana, name: str, query: Any) -> None:
    assert len(many_locks.run(query, many_locks.variables(load(name), ALL))) <= MAX_QUERY_SERIES


def test_lock_table_prefers_problems_with_5000_locks(many_locks: Grafana) -> None:
    dashboard = load("locks-overview.json")
    variables = many_locks.variables(dashboard, ALL)
    by_name = {query["refId"]: query for title, query in queries(dashboard) if title == "Locks"}
    levels = Counter(float(each["value"][1]) for each in many_locks.run(by_name["attention"], variables))
    assert levels.total() == MAX_QUERY_SERIES
    assert levels[2.0] > levels[0.0]
    connection = many_locks.run(by_name["connection"], variables)
    assert sum(each["value"][1] == "0" for each in connection) == scripted_day.OFFLINE


def test_descriptions_state_the_limits() -> None:
    assert overview.MAX_ROWS == MAX_QUERY_SERIES
    assert str(overview.MAX_ROWS) in load("locks-overview.json")["panels"][7]["description"]
    assert f"the {MAX_SERIES} " in load("lock-detail.json")["description"]
