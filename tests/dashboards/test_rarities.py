"""Lost if these fail: a dashboard that does not look all right when nobody knows, or when one of two says otherwise."""

from typing import Any

import pytest

from dashboards.generator import words
from dashboards.generator.queries import MOST_DAYS, NOT_KNOWN
from tests.end_to_end.prometheus import Prometheus

from . import corners
from .day import DAY, HOUR
from .grafana import Chosen, Grafana, load
from .test_queries import answer, column, needed, rows

EXPORTER, DETAIL = "exporter.json", "lock-detail.json"


@pytest.fixture(scope="module")
def evening(rarities: Prometheus) -> Grafana:
    return Grafana(rarities, corners.EVENING)


def job(name: str) -> Chosen:
    return {"job": name}


def by_label(found: Any, label: str) -> dict[str, float]:
    return {row["metric"][label]: float(row["value"][1]) for row in found}


# One lock, two exporters


@pytest.mark.parametrize("state", corners.WORSE_STATES)
def test_any_other_state_wins_over_locked(evening: Grafana, state: int) -> None:
    chosen = job(f"states 6 and {state}")
    assert answer(evening, "Locked and closed?", chosen) == 1
    assert column(evening, "state", chosen) == [state]
    assert list(needed(evening, chosen).values()) > [0]
    (tile,) = rows(evening, "State", "A", chosen, DETAIL)
    assert tile["value"][1] == str(state)


@pytest.mark.parametrize("fine", [3, 0])
@pytest.mark.parametrize("door", corners.WORSE_DOORS)
def test_any_other_state_of_a_door_wins_over_closed_and_over_no_sensor(evening: Grafana, fine: int, door: int) -> None:
    chosen = job(f"doors {fine} and {door}")
    assert answer(evening, "Locked and closed?", chosen) == 1
    assert column(evening, "door", chosen) == [door]
    (tile,) = rows(evening, "Door", "A", chosen, DETAIL)
    assert tile["value"][1] == str(door)


@pytest.mark.parametrize("query", ["name", "state", "door", "battery", "connection", "changed", "update", "attention"])
def test_a_lock_that_two_exporters_call_differently_has_one_row(evening: Grafana, query: str) -> None:
    assert len(rows(evening, "Every lock", query, job("renamed"))) == 1


@pytest.mark.parametrize("title", ["What changed lately", "Facts"])
def test_so_it_has_in_the_other_tables(evening: Grafana, title: str) -> None:
    registry, query = ("locks-overview.json", "name") if title.startswith("What") else (DETAIL, "info")
    assert len(rows(evening, title, query, job("renamed"), registry)) == 1


def test_and_one_tile(evening: Grafana) -> None:
    for title in ("State", "Door", "Battery", "Connected"):
        assert len(rows(evening, title, "A", job("renamed"), DETAIL)) == 1


# Doors and errors


@pytest.mark.parametrize("door", corners.WORSE_DOORS)
def test_a_door_that_is_neither_closed_nor_without_a_sensor_is_not_closed(evening: Grafana, door: int) -> None:
    assert answer(evening, "Locked and closed?", job(f"door {door}")) == 1


def test_where_no_door_has_a_sensor_nobody_knows_how_many_are_open(evening: Grafana) -> None:
    assert answer(evening, "Locked and closed?", job("without sensors")) == 0
    assert answer(evening, "Doors open", job("without sensors")) is None


def test_a_lock_whose_last_change_failed_says_so_in_the_table(evening: Grafana) -> None:
    assert answer(evening, "Jammed or unknown", job("failed")) == 1
    assert column(evening, "state", job("failed")) == [-2]


def test_each_lock_that_is_counted_as_not_safe_stands_at_the_top_of_the_table(evening: Grafana) -> None:
    needs = needed(evening, job("needy"))
    assert {name for name, need in needs.items() if need} == set(corners.NEEDY)
    assert set(needs) == {*corners.NEEDY, *corners.FINE}
    failed_but_locked_and_closed = 1
    assert answer(evening, "Locked and closed?", job("needy")) == len(corners.NEEDY) - failed_but_locked_and_closed


def test_a_low_battery_that_is_charged_is_counted_neither_now_nor_over_time(evening: Grafana) -> None:
    assert answer(evening, "Low batteries", job("needy")) == 0
    (line,) = rows(evening, "How many, over time", "D", job("needy"))
    assert {value for _, value in line["values"]} == {"0"}


# Locks beside each other


@pytest.mark.parametrize("title", ["State", "Door", "Last change", "How it ended", "Charging", "Battery"])
def test_a_lock_that_is_offline_is_not_known_beside_one_that_is_not(evening: Grafana, title: str) -> None:
    said = by_label(rows(evening, title, "A", job("one offline"), DETAIL), "lock_name")
    assert said.pop("Back door") == NOT_KNOWN
    assert said.pop("Front door") != NOT_KNOWN
    assert not said


def test_a_lock_that_was_heard_of_hours_ago_is_not_known(rarities: Prometheus) -> None:
    later = Grafana(rarities, corners.EVENING + 3 * HOUR)
    assert by_label(rows(later, "State", "A", job("one offline"), DETAIL), "lock_name") == {
        "Front door": NOT_KNOWN,
        "Back door": NOT_KNOWN,
    }


def test_locks_of_one_name_are_told_apart_by_their_account(evening: Grafana) -> None:
    options = evening.options(load(DETAIL), "lock", job("one name"))
    assert options == [("Front door · home", "1"), ("Front door · hotel", "2")]
    assert set(by_label(rows(evening, "State", "A", job("one name"), DETAIL), "account")) == {"home", "hotel"}


# Exporters that are down


@pytest.mark.parametrize("name", ["down for 5 h", "down for 30 h"])
def test_an_exporter_that_is_down_is_not_forgotten(evening: Grafana, name: str) -> None:
    chosen = job(name)
    assert answer(evening, "Locked and closed?", chosen) is None
    assert answer(evening, "Silent accounts", chosen) == 1
    assert answer(evening, "Exporters down", chosen, EXPORTER) == 1
    assert answer(evening, "Accounts failing", chosen, EXPORTER) == 1
    hours = float(name.split()[-2])
    assert answer(evening, "Oldest data", chosen, EXPORTER) == pytest.approx(hours * HOUR, abs=600)
    standings = by_label(rows(evening, "Accounts", "up", chosen, EXPORTER), "account")
    assert standings == {"home": 1, "hotel": words.SILENT}
    assert set(by_label(rows(evening, "Accounts", "age", chosen, EXPORTER), "account")) == {"home", "hotel"}


@pytest.mark.parametrize("name", ["gone for 5 h", "stale"])
def test_an_account_is_missed_whose_exporter_is_gone_or_hears_nothing_of_it(evening: Grafana, name: str) -> None:
    assert answer(evening, "Locked and closed?", job(name)) is None
    assert answer(evening, "Silent accounts", job(name)) == 1
    assert answer(evening, "Accounts failing", job(name), EXPORTER) == 1
    standings = by_label(rows(evening, "Accounts", "up", job(name), EXPORTER), "account")
    assert standings == {"home": 1, "hotel": 0 if name == "stale" else words.SILENT}


def test_an_exporter_whose_accounts_another_one_has_too_is_down_but_hides_nothing(evening: Grafana) -> None:
    assert answer(evening, "Exporters down", job("covered"), EXPORTER) == 1
    assert answer(evening, "Locked and closed?", job("covered")) == 0
    assert answer(evening, "Accounts failing", job("covered"), EXPORTER) == 0


def test_an_account_that_was_removed_is_missed_nowhere(evening: Grafana) -> None:
    assert answer(evening, "Locked and closed?", job("removed")) == 0
    assert answer(evening, "Silent accounts", job("removed")) == 0
    assert set(by_label(rows(evening, "Accounts", "up", job("removed"), EXPORTER), "account")) == {"home"}
    assert evening.variables(load(EXPORTER), job("removed"))["shown"] == "home"


# Batteries


def days(grafana: Grafana, name: str) -> float:
    (found,) = rows(grafana, "Days until 10 %", "A", job(name), DETAIL)
    return float(found["value"][1])


@pytest.mark.parametrize("name", corners.DRAINS)
def test_a_battery_that_empties_evenly_always_has_a_forecast_and_about_the_right_one(
    rarities: Prometheus, name: str
) -> None:
    drain = corners.DRAINS[name]
    for hours in range(0, corners.LAST_DAYS * 24, 5):
        moment = Grafana(rarities, corners.EVENING - hours * HOUR)
        level = corners.LEFT + 0.5 + drain * hours * HOUR / DAY
        expected = min(MOST_DAYS, (level - 10) / drain)
        assert days(moment, f"battery {name}") == pytest.approx(expected, rel=0.2), hours


@pytest.mark.parametrize("name", ["0.8", "2"])
def test_one_that_empties_fast_has_a_forecast_after_three_days(evening: Grafana, name: str) -> None:
    assert days(evening, f"battery {name} of late") == pytest.approx(15.5 / corners.DRAINS[name], rel=0.4)


@pytest.mark.parametrize("name", ["0.25", "0.4"])
def test_one_that_empties_slowly_has_none_so_soon(evening: Grafana, name: str) -> None:
    assert days(evening, f"battery {name} of late") == NOT_KNOWN


def test_one_that_does_not_fall_for_two_weeks_is_good_for_long(evening: Grafana) -> None:
    assert days(evening, "battery full") == MOST_DAYS


@pytest.mark.parametrize("name", ["battery for a day", "battery charged"])
def test_one_that_was_not_watched_for_long_or_was_charged_has_no_trend(evening: Grafana, name: str) -> None:
    assert days(evening, name) == NOT_KNOWN


def test_one_that_was_charged_and_empties_fast_has_that_trend_alone(evening: Grafana) -> None:
    assert days(evening, "battery charged a week ago") == pytest.approx(35 / 2, rel=0.2)


# Bars


def test_bars_count_each_failure_about_once(rarities: Prometheus) -> None:
    grafana = Grafana(rarities, corners.EVENING, span=HOUR, step=300, scrape_interval=20)
    (bars,) = rows(grafana, "Failures by reason", "A", job("failures"), EXPORTER)
    assert sum(float(value) for _, value in bars["values"]) == pytest.approx(3, abs=0.6)
