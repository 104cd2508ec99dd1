"""Lost if these fail: panels that have data, and the true one, and that come soon in a fleet of thousands."""

from collections import Counter
from typing import Any

import pytest

from dashboards.generator import colours, overview
from dashboards.generator.queries import NOT_KNOWN
from tests.end_to_end.prometheus import Prometheus

from . import day
from .grafana import FILES, Chosen, Grafana, Series, load, queries
from .layout import draw

EVERYTHING: Chosen = {}
ONE: Chosen = {**day.TARGET, "account": "hotel", "lock": "2101"}
TWO: Chosen = {
    "job": ("tedee", "other"),
    "instance": ("127.0.0.1:10333", "other"),
    "account": ("home", "hotel"),
    "lock": ("1001", "2101"),
}
LARGE = 500
"""Series of one query that a browser still shows at once."""

of_each_query = pytest.mark.parametrize(
    ("name", "query"),
    [
        pytest.param(name, query, id=f"{name}/{title}/{query['refId']}")
        for name in FILES
        for title, query in queries(load(name))
    ],
)


@pytest.fixture(scope="module")
def evening(history: Prometheus) -> Grafana:
    return Grafana(history, day.EVENING)


@pytest.fixture(scope="module")
def fleet(history: Prometheus) -> Grafana:
    return Grafana(history, day.FLEET_EVENING, span=600, step=60, scrape_interval=300)


@of_each_query
@pytest.mark.parametrize("chosen", [EVERYTHING, ONE, TWO], ids=["everything", "one", "two"])
def test_each_query_has_data(evening: Grafana, name: str, query: Any, chosen: Chosen) -> None:
    assert evening.run(query, evening.variables(load(name), chosen))


@pytest.mark.parametrize("name", FILES)
def test_each_variable_has_values(evening: Grafana, name: str) -> None:
    dashboard = load(name)
    for variable in dashboard["templating"]["list"][1:]:
        for chosen in (EVERYTHING, ONE, TWO):
            assert evening.options(dashboard, variable["name"], chosen)


def test_locks_are_chosen_by_names_however_odd_and_known_by_their_ids(evening: Grafana) -> None:
    options = evening.options(load("locks-overview.json"), "lock", EVERYTHING)
    assert (f"{day.ODD_NAME} · home", "1006") in options
    assert ('Kids\' "castle" 🏰 · home', "1004") in options
    assert len(options) == 18


def test_a_renamed_lock_has_its_new_name_alone(history: Prometheus) -> None:
    soon_after = Grafana(history, day.RENAMED + 2 * day.EVERY)
    options = soon_after.options(load("lock-detail.json"), "lock", EVERYTHING)
    assert [text for text, value in options if value == "2106"] == ["Suite 106 · hotel"]


def test_a_lock_of_a_silent_account_can_still_be_chosen(history: Prometheus) -> None:
    silence = Grafana(history, day.SILENT[1] - day.EVERY)
    assert ("Room 101 · hotel", "2101") in silence.options(load("lock-detail.json"), "lock", EVERYTHING)
    assert silence.variables(load("lock-detail.json"), {"lock": "2101"})["shown"] == "2101"


def test_of_many_locks_those_are_shown_that_changed_last(evening: Grafana) -> None:
    changed = rows(evening, "What changed lately", "changed", EVERYTHING)
    latest = sorted(changed, key=lambda row: float(row["value"][1]))[-colours.FEW :]
    shown = evening.options(load("lock-detail.json"), "shown", EVERYTHING)
    assert {value for _, value in shown} == {row["metric"]["lock_id"] for row in latest}


# The big answers


def answer(
    grafana: Grafana, title: str, chosen: Chosen = EVERYTHING, name: str = "locks-overview.json"
) -> float | None:
    """What a tile says; nothing where it has no data."""
    dashboard = load(name)
    (query,) = (query for each, query in queries(dashboard) if each == title)
    result = grafana.run(query, grafana.variables(dashboard, chosen))
    return float(result[0]["value"][1]) if result else None


def rows(grafana: Grafana, title: str, query: str, chosen: Chosen, name: str = "locks-overview.json") -> Series:
    """What one query of a panel brings."""
    dashboard = load(name)
    (found,) = (each for panel, each in queries(dashboard) if (panel, each["refId"]) == (title, query))
    return grafana.run(found, grafana.variables(dashboard, chosen))


def column(grafana: Grafana, query: str, chosen: Chosen) -> list[float]:
    """The numbers of a column of the table of all locks."""
    return [float(each["value"][1]) for each in rows(grafana, "Every lock", query, chosen)]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Locked and closed?", 6),
        ("Unlocked", 2),
        ("Doors open", 1),
        ("Jammed or unknown", 3),
        ("Offline", 1),
        ("Low batteries", 1),
        ("Silent accounts", 0),
    ],
)
def test_the_big_answers_are_what_the_evening_is(evening: Grafana, title: str, expected: float) -> None:
    assert answer(evening, title) == expected


def test_one_lock_that_is_locked_and_closed_is_said_to_be(evening: Grafana) -> None:
    assert answer(evening, "Locked and closed?", ONE) == 0


def test_nobody_says_that_all_is_locked_while_an_account_is_silent(history: Prometheus) -> None:
    silence = Grafana(history, day.SILENT[1] - day.EVERY)
    assert answer(silence, "Silent accounts") == 1
    locked = {"lock": "1004"}
    assert answer(silence, "Locked and closed?", {**locked, "account": "home"}) == 0
    assert answer(silence, "Locked and closed?", locked) is None


def test_nobody_says_anything_while_the_exporter_is_down(history: Prometheus) -> None:
    for title in ("Locked and closed?", "Unlocked", "Doors open", "Jammed or unknown", "Offline", "Low batteries"):
        assert answer(Grafana(history, day.EVENING + 600), title) is None


def test_one_lock_under_two_exporters_is_one_lock(evening: Grafana) -> None:
    twins = Grafana(evening.prometheus, day.TWINS_EVENING)
    assert column(twins, "state", EVERYTHING) == [2]
    assert answer(twins, "Unlocked") == 1
    assert answer(twins, "Locked and closed?") == 1


def test_the_exporters_dashboard_tells_a_silent_account_from_an_exporter_that_is_down(history: Prometheus) -> None:
    def at(moment: float) -> list[float | None]:
        return [
            answer(Grafana(history, moment), title, name="exporter.json")
            for title in ("Exporters down", "Accounts failing", "Oldest data")
        ]

    assert at(day.EVENING) == [0, 0, 0]
    assert at(day.SILENT[1] - day.EVERY) == [0, 1, pytest.approx(day.SILENT[1] - day.SILENT[0], abs=2 * day.EVERY)]
    assert at(day.DOWN[1] - day.EVERY)[0] == 1


# The table and the forecast


def needed(grafana: Grafana, chosen: Chosen) -> dict[str, float]:
    """How much attention each lock needs, by its name, as the table has them."""

    def told_by(row: Any) -> tuple[str, str]:
        return row["metric"]["account"], row["metric"]["lock_id"]

    names = {told_by(row): row["metric"]["lock_name"] for row in rows(grafana, "Every lock", "name", chosen)}
    found = rows(grafana, "Every lock", "attention", chosen)
    return {names[told_by(row)]: float(row["value"][1]) for row in found}


def test_the_table_has_each_lock_once_and_the_needy_first(evening: Grafana) -> None:
    needs = needed(evening, EVERYTHING)
    assert len(needs) == len(rows(evening, "Every lock", "attention", EVERYTHING)) == 18
    assert needs.pop("Garage") == 1
    assert {name for name, need in needs.items() if need} == {"Annex", "Cellar", "Pool gate", "Room 102", day.ODD_NAME}


def test_the_forecast_is_right_and_says_nothing_of_a_battery_that_was_charged(evening: Grafana) -> None:
    def days(lock: str) -> float:
        (found,) = rows(evening, "Days until 10 %", "A", {"lock": lock}, "lock-detail.json")
        return float(found["value"][1])

    # 90 percent in 20 days, of which 45 are left.
    assert days("2101") == pytest.approx(10, abs=0.5)
    assert days("1005") == NOT_KNOWN, "the garden door was charged two days ago"
    assert days("1003") == NOT_KNOWN, "the cellar is being charged"


# Thousands


@of_each_query
def test_at_5000_locks_no_query_returns_thousands_of_series(fleet: Grafana, name: str, query: Any) -> None:
    assert len(fleet.run(query, fleet.variables(load(name), EVERYTHING))) <= LARGE


def test_at_5000_locks_those_that_need_attention_are_in_the_table(fleet: Grafana) -> None:
    dashboard = load("locks-overview.json")
    variables = fleet.variables(dashboard, EVERYTHING)
    by_name = {query["refId"]: query for title, query in queries(dashboard) if title == "Every lock"}
    needs = Counter(float(each["value"][1]) for each in fleet.run(by_name["attention"], variables))
    assert needs.total() == LARGE
    assert needs[2.0] > needs[0.0]
    connection = fleet.run(by_name["connection"], variables)
    assert sum(each["value"][1] == "0" for each in connection) == day.OFFLINE


def test_the_limits_are_those_that_are_told() -> None:
    assert overview.MOST_ROWS == LARGE
    assert str(overview.MOST_ROWS) in load("locks-overview.json")["panels"][7]["description"]
    assert f"the {colours.FEW} " in load("lock-detail.json")["description"]


# Pictures, for want of a Grafana to look at


@pytest.mark.parametrize("name", FILES)
def test_each_dashboard_can_be_drawn_with_all_its_panels(evening: Grafana, name: str) -> None:
    assert draw(name, evening).count("<section") == len(load(name)["panels"])


def test_the_drawing_says_codes_in_words(evening: Grafana) -> None:
    page = draw("locks-overview.json", evening)
    for words in ("jammed", "code 42", "offline", "6 not", "charging"):
        assert words in page
