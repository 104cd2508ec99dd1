"""The status page in a browser."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from axe_core_python.base import AXE_SCRIPT  # type: ignore[import-untyped]
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from exporter.simulator import Cloud
from exporter.state.responses import Failure
from exporter.sync.snapshot import LastKnownState, ResourceStatus, StatusRegistry
from exporter.tedee.endpoint import ACTIVITIES
from exporter.tedee.models import DeviceState, DoorState, LockState
from exporter.web.pages import Pages
from testing.clock import FakeClock
from testing.factories import device_statuses, locks_of, registry, snapshot, status
from testing.program import TIMEOUT, Exporter
from tests.cloud import detailed, synced
from tests.end_to_end.chromium import chromium
from tests.end_to_end.conftest import ODD_NAME


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        browser.set_script_timeout(TIMEOUT)
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
    assert cells(shown["Annex"], "state", "door", "connection") == ["unknown", "unknown", "offline"]
    assert cells(shown["Room 101"], "battery") == ["not reported"]
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


def test_locks_that_need_attention_are_first(page: Chrome) -> None:
    names = [name.text for name in page.find_elements(By.CSS_SELECTOR, "section:last-of-type .lock .name b")]
    assert names[0] == "Pool gate"


# Reloading


def test_page_that_does_not_reload_keeps_the_focus(page: Chrome) -> None:
    assert not page.find_elements(By.CSS_SELECTOR, "meta[http-equiv]")
    link = page.find_elements(By.CSS_SELECTOR, ".overview a")[1]
    page.execute_script("arguments[0].focus()", link)
    assert page.switch_to.active_element == link


def test_links_switch_reloading_on_and_off(page: Chrome, exporter: Exporter) -> None:
    page.find_element(By.LINK_TEXT, "Reload every 10 seconds").click()
    assert page.current_url == f"{exporter.url}/?refresh=10"
    assert page.find_element(By.CSS_SELECTOR, "meta[http-equiv=refresh]").get_attribute("content") == "10"
    page.find_element(By.LINK_TEXT, "Stop reloading").click()
    assert page.current_url == f"{exporter.url}/"
    assert not page.find_elements(By.CSS_SELECTOR, "meta[http-equiv]")


def test_old_page_has_a_hint(page: Chrome) -> None:
    hint = page.find_element(By.CLASS_NAME, "outdated")
    assert not hint.is_displayed()
    # The time of the animation in milliseconds, as after this time.
    page.execute_script("document.getAnimations().forEach(each => { each.currentTime = 59_000 })")
    assert not hint.is_displayed()
    page.execute_script("document.getAnimations().forEach(each => { each.currentTime = 60_001 })")
    assert hint.is_displayed()
    assert hint.text.startswith("This page is more than a minute old")
    page.execute_script("scrollTo(0, 400)")
    assert hint.rect["y"] - page.execute_script("return scrollY") < 20
    hint.find_element(By.TAG_NAME, "a").click()
    assert not page.find_element(By.CLASS_NAME, "outdated").is_displayed()


# Accessibility

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


def violations(browser: Chrome) -> list[str]:
    """Return what axe finds: rule, element and explanation. It cannot check the contrast of clipped text."""
    browser.execute_script(AXE_SCRIPT)
    run = "axe.run({runOnly: arguments[0]}).then(arguments[1])"
    results = browser.execute_async_script(run, RULES)
    assert len(results["passes"]) > 15
    found = [*results["violations"], *(each for each in results["incomplete"] if each["id"] != "color-contrast")]
    return [f"{each['id']}: {node['html']}: {node['failureSummary']}" for each in found for node in each["nodes"]]


@contextmanager
def emulated(browser: Chrome, scheme: str, width: int) -> Iterator[None]:
    """Emulate a colour scheme, and a screen with a width in pixels."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("width", [1440, 768, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["", "/docs"])
def test_axe_finds_no_violations(browser: Chrome, exporter: Exporter, path: str, scheme: str, width: int) -> None:
    """WCAG 2.1, level AA."""
    with emulated(browser, scheme, width):
        browser.get(exporter.url + path)
        assert violations(browser) == []


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violations_in_rare_states(
    browser: Chrome, clock: FakeClock, tmp_path: Path, scheme: str, width: int
) -> None:
    file = tmp_path / "status.html"
    file.write_bytes(Pages(every_state(clock), clock, version="1.2.3", telemetry_path="/metrics").status())
    with emulated(browser, scheme, width):
        browser.get(file.as_uri())
        assert len(browser.find_elements(By.CSS_SELECTOR, ".problem")) > 5
        browser.execute_script("document.getAnimations().forEach(each => { each.currentTime = 60_001 })")
        assert violations(browser) == []


def test_axe_finds_a_violation(page: Chrome) -> None:
    """Shows that the tests above can fail."""
    page.execute_script("document.querySelector('.sync').style.color = '#ccc'")
    assert any(each.startswith("color-contrast: ") for each in violations(page))


def every_state(clock: FakeClock) -> StatusRegistry:
    """Return accounts with locks in all states, and with all problems."""
    values = list(itertools.product(LockState, DoorState))
    rows = [
        synced(number, state=state, doorState=door, batteryLevel=number)
        for number, (state, door) in enumerate(values, start=1)
    ]
    rows += [synced(91, connected=False), synced(92, connected=None), synced(93, stateChangeResult=7), {"id": 94}]
    details = [detailed(row["id"], f"Lock {row['id']}", connectedToId=70011) for row in rows]
    details[-3]["connectedToId"] = None
    locks = list(locks_of(rows, details))
    known = LastKnownState(DeviceState(state=LockState.LOCKED, door_state=DoorState.OPENED), clock.monotonic() - 7_200)
    locks[-4] = replace(locks[-4], last_known=known)
    failure = Failure("auth", "HTTP 401 Unauthorized: create a new key", clock.wall() - 60)
    events = ResourceStatus("fetch of events", ACTIVITIES.path, is_permitted=False, failure=failure)
    home = status(clock, tuple(locks), other_resources=(*device_statuses(clock), events))
    return registry(
        replace(home, missing=("7", "8"), version_supported=False),
        status(clock, account="failing", up=False, failure=failure, credential_changed=True),
        status(clock, account="stale", snapshot=snapshot(clock, (), stale_after=0)),
        status(clock, account="new", up=None, snapshot=None, next_sync=None),
        status(clock, (), account="empty"),
    )


# Phones


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
