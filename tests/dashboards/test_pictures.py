"""Tests of the dashboards as Grafana's packages draw them: texts and columns fit, and every panel shows something."""

import copy
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from .grafana import FILES, FOLDER, load, panels
from .rig import NARROW, NEWEST, OLDEST, WIDE, Panel, Rig, package_files, rig
from .scenarios import TESTED, running

CHECKED = {name: TESTED[name] for name in ("day", "home", "many-locks-for-an-hour", "empty")}

Drawings = Mapping[tuple[str, int], list[Panel]]
"""Panels of each dashboard, by file and width of the window."""

of_each_dashboard = pytest.mark.parametrize("name", FILES)


@pytest.fixture(scope="module")
def window() -> Iterator[Rig]:
    with rig(NEWEST) as opened:
        yield opened


@pytest.fixture(scope="module")
def drawings(window: Rig) -> Callable[[str], Drawings]:
    """Draws all dashboards with a scenario, when a test first needs them."""

    @functools.cache
    def draw(scenario: str) -> Drawings:
        drawn = {}
        with running(scenario, CHECKED[scenario]) as server:
            for name in FILES:
                drawn[name, WIDE] = window.draw(load(name), server, CHECKED[scenario].scrape_interval)
                drawn[name, NARROW] = window.resize(NARROW)
        return drawn

    return draw


# Dashboards


@of_each_dashboard
@pytest.mark.parametrize("scenario", CHECKED)
def test_texts_and_columns_fit(drawings: Callable[[str], Drawings], scenario: str, name: str) -> None:
    found = [
        f"{width} pixels: {panel.title}: {fault}"
        for width in (WIDE, NARROW)
        for panel in drawings(scenario)[name, width]
        for fault in panel.faults()
    ]
    assert not found, "\n".join(found)


def titles(row: Any) -> Iterator[str]:
    """Yield the titles of the panels of a dashboard or row, also of those in collapsed rows."""
    for panel in row.get("panels", []):
        if panel["type"] == "row":
            yield from titles(panel)
        else:
            yield panel["title"]


@of_each_dashboard
@pytest.mark.parametrize("scenario", CHECKED)
def test_all_panels_are_drawn(drawings: Callable[[str], Drawings], scenario: str, name: str) -> None:
    assert {panel.title for panel in drawings(scenario)[name, WIDE]} == set(titles(load(name)))


@of_each_dashboard
def test_each_panel_has_data_on_the_scripted_day(drawings: Callable[[str], Drawings], name: str) -> None:
    assert [panel.title for panel in drawings("day")[name, WIDE] if not panel.has_data] == []


@of_each_dashboard
def test_panels_without_data_have_words(drawings: Callable[[str], Drawings], name: str) -> None:
    assert [panel.title for panel in drawings("empty")[name, WIDE] if not panel.has_words()] == []


def test_days_are_columns_in_their_order(drawings: Callable[[str], Drawings]) -> None:
    (hours,) = (
        panel for panel in drawings("day")["locks-overview.json", WIDE] if panel.title == "State changes by hour"
    )
    days = [int(match[1]) for each in hours.texts if (match := re.fullmatch(r"[A-Z][a-z]{2} (\d+)", each.text))]
    assert days == sorted(days)
    assert len(days) == 8


def test_locks_that_need_attention_are_first(drawings: Callable[[str], Drawings]) -> None:
    (locks,) = (panel for panel in drawings("day")["locks-overview.json", WIDE] if panel.title == "Locks")
    texts = [each.text for each in locks.texts]
    assert texts.index("jammed") < texts.index("unlocked") < texts.index("offline") < texts.index("locked")


# Checks


def with_faults(dashboard: Any) -> Any:
    """Return a dashboard with additional panels, each with one fault, which its title names."""
    tile = next(panel for panel in panels(dashboard) if panel["type"] == "stat")
    table = next(panel for panel in panels(dashboard) if panel["type"] == "table")
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    added: list[Any] = []

    def add(original: Any, title: str, **position: int) -> Any:
        panel = copy.deepcopy(original)
        panel |= {"title": title, "id": 1000 + len(added), "gridPos": {"y": bottom, **position}}
        added.append(panel)
        return panel

    def add_tile(title: str, expression: str) -> Any:
        panel = add(tile, title, x=3 * len(added), w=3, h=4)
        panel["targets"][0]["expr"] = expression
        panel["fieldConfig"]["defaults"] |= {"mappings": [], "unit": "none"}
        return panel

    add_tile("Title that is too long for a tile", "vector(1)")
    add_tile("Small", "vector(1)")["options"]["text"] = {"valueSize": 8}
    add_tile("Infinite", "vector(-1) / 0")
    add_tile("Negative", "vector(-1)")
    add_tile("Error", "vector(")
    add_tile("Dash", "vector(1) > 2")["fieldConfig"]["defaults"]["noValue"] = "–"  # noqa: RUF001
    bottom += 4
    add(table, "Wide", x=0, w=24, h=8)["fieldConfig"]["overrides"][0]["properties"].append(
        {"id": "custom.width", "value": 2000}
    )
    bottom += 8
    for override in add(table, "Narrow", x=0, w=24, h=8)["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == "Last change":
            override["properties"].append({"id": "custom.width", "value": 60})
    bottom += 8
    for override in add(table, "Codes", x=0, w=24, h=8)["fieldConfig"]["overrides"]:
        override["properties"] = [each for each in override["properties"] if each["id"] != "mappings"]
    return dashboard | {"panels": [*dashboard["panels"], *added]}


@pytest.fixture(scope="module")
def faulty(window: Rig) -> dict[str, Panel]:
    """Panels with faults, by title."""
    with running("day", CHECKED["day"]) as server:
        drawn = window.draw(with_faults(load("locks-overview.json")), server, None)
    return {panel.title: panel for panel in drawn}


@pytest.mark.parametrize(
    ("title", "fault"),
    [
        ("Title that is too long for a tile", "is cut off"),
        ("Small", "has a size of 8 pixels"),
        ("Infinite", "is not a value"),
        ("Negative", "'-1' has no text"),
        ("Error", "has an error"),
        ("Wide", "pixels wider than the panel"),
        ("Narrow", "minutes ago' is cut off"),
        ("Codes", "'code 6' has no text"),
    ],
)
def test_faults_are_reported(faulty: Mapping[str, Panel], title: str, fault: str) -> None:
    assert any(fault in each for each in faulty[title].faults())


def test_missing_data_and_words_are_reported(faulty: Mapping[str, Panel]) -> None:
    assert not faulty["Dash"].has_data
    assert not faulty["Dash"].has_words()
    assert faulty["Negative"].has_data
    assert faulty["Codes"].has_words()


# Packages

of_each_version = pytest.mark.parametrize("version", [OLDEST, NEWEST])


def package_file(version: str, name: str) -> Any:
    return json.loads(package_files(version)[name].read_text("utf-8"))


@of_each_version
def test_packages_are_pinned_and_permissive(version: str) -> None:
    packages = package_file(version, "package.json")["dependencies"]
    locked = package_file(version, "package-lock.json")["packages"]
    assert packages["@grafana/ui"].startswith(version)
    for name, package in packages.items():
        assert package == locked[f"node_modules/{name}"]["version"]
        assert locked[f"node_modules/{name}"]["license"] in {"Apache-2.0", "MIT"}
    assert [name for name, each in locked.items() if "AGPL" in each.get("license", "")] == []


@of_each_version
def test_lock_file_has_digests_and_no_registry(version: str) -> None:
    locked = package_file(version, "package-lock.json")["packages"]
    assert locked.pop("")["dependencies"] == package_file(version, "package.json")["dependencies"]
    for package in locked.values():
        assert package["integrity"].startswith("sha512-")
        package.pop("funding", None)
    assert "://" not in json.dumps(locked)


def test_grafana_finds_no_other_json_files() -> None:
    # Grafana's provisioning loads all files *.json of a folder and its subfolders as dashboards.
    assert sorted(path.name for path in FOLDER.rglob("*.json")) == FILES
