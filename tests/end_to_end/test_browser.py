"""The status page in a browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from exporter.simulator import Cloud
from exporter.web.pages import Pages
from testing.clock import FakeClock
from testing.factories import locks_of, registry, status
from testing.program import Exporter
from tests.cloud import detailed, synced
from tests.end_to_end.chromium import chromium
from tests.end_to_end.conftest import ODD_NAME


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def page(browser: Chrome, exporter: Exporter) -> Chrome:
    browser.set_window_size(1200, 1600)
    browser.get(exporter.url)
    return browser


def rows(page: Chrome) -> dict[str, WebElement]:
    return {
        row.find_element(By.CSS_SELECTOR, ".name b").text: row for row in page.find_elements(By.CSS_SELECTOR, ".lock")
    }


def cells(row: WebElement, *names: str) -> list[str]:
    return [row.find_element(By.CLASS_NAME, name).text for name in names]


def test_every_lock_is_on_the_page(page: Chrome, cloud: Cloud) -> None:
    names = {lock.name for account in ("home", "hotel") for lock in cloud.world.account(account).locks}
    assert set(rows(page)) == names


def test_page_shows_state_door_battery_connection(page: Chrome) -> None:
    shown = rows(page)
    assert cells(shown["Garage"], "state", "door", "connection") == ["unlocked", "opened", "connected"]
    assert "⚡" in cells(shown["Garage"], "battery")[0]
    assert cells(shown["Cellar"], "state") == ["code 42"]
    assert cells(shown["Pool gate"], "state") == ["jammed"]
    assert cells(shown["Annex"], "state", "door", "connection") == ["–", "–", "offline"]  # noqa: RUF001
    assert cells(shown["Room 101"], "battery") == ["–"]  # noqa: RUF001
    assert cells(shown["Linen room"], "connection") == ["no bridge"]


def test_markup_in_name_is_shown_as_text(page: Chrome) -> None:
    assert ODD_NAME in rows(page)
    assert page.title == "Tedee exporter: locks"
    assert not page.find_elements(By.TAG_NAME, "script")


def test_page_has_no_errors_and_loads_nothing_else(page: Chrome) -> None:
    assert page.get_log("browser") == []  # type: ignore[no-untyped-call]
    loaded = page.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []


def test_page_style_is_applied(page: Chrome) -> None:
    card = page.find_element(By.CLASS_NAME, "account")
    assert card.value_of_css_property("border-top-left-radius") == "12px"


def test_overview_links_lead_to_each_account(page: Chrome) -> None:
    links = page.find_elements(By.CSS_SELECTOR, ".overview a")
    assert [link.find_element(By.TAG_NAME, "b").text for link in links] == ["home", "hotel"]
    links[1].click()
    assert page.find_element(By.CSS_SELECTOR, ".account:target h2").text == "hotel"


@contextmanager
def phone(browser: Chrome) -> Iterator[None]:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def width(browser: Chrome) -> int:
    return int(browser.execute_script("return document.documentElement.scrollWidth"))


@pytest.mark.parametrize("path", ["", "/docs"])
def test_pages_fit_a_phone(browser: Chrome, exporter: Exporter, path: str) -> None:
    with phone(browser):
        browser.get(exporter.url + path)
        assert width(browser) == 360


@pytest.mark.parametrize("name", ["x" * 10_000, "word " * 2_000, "line\n" * 2_000], ids=["unbroken", "text", "lines"])
def test_very_long_name_is_clipped_on_a_phone(browser: Chrome, clock: FakeClock, tmp_path: Path, name: str) -> None:
    locks = locks_of([synced(1)], [detailed(1, name, serialNumber=name)])
    status_registry = registry(status(clock, locks, account=name), status(clock, locks, account="home"))
    file = tmp_path / "status.html"
    file.write_bytes(Pages(status_registry, clock, version="1.2.3", telemetry_path="/metrics").status())
    with phone(browser):
        browser.get(file.as_uri())
        assert width(browser) == 360
        for part in (".overview", ".title", ".lock"):
            assert browser.find_element(By.CSS_SELECTOR, part).size["height"] < 250
