"""Attacks on the pages: markup in names, and pages of other sites."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from exporter.simulator import Address, Cloud, World, serve
from testing.program import TIMEOUT, Exporter, configuration, eventually, running
from tests.end_to_end.chromium import chromium
from tests.security.listeners import Reply, Server, listening
from tests.security.web_files import HASH, PASSWORD, WebFiles

TITLE = "Tedee exporter: locks"
SCRIPT = '<script>document.title="owned"</script>'
IMAGE = '"><img src=x onerror=document.title="owned">'
STYLE = "</title></style><style>*{display:none}</style><svg onload=document.title='owned'>"
LOADED_AT = "tedee_exporter_config_last_reload_success_timestamp_seconds"
HOSTS = "--host-resolver-rules=MAP *.example 127.0.0.1"
"""Host names for the test's servers, because browsers treat 127.0.0.1 differently from other hosts."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium"), HOSTS) as browser:
        browser.set_script_timeout(TIMEOUT)
        yield browser


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    world = World.demo()
    for lock, name in zip(world.account("home").locks, [SCRIPT, IMAGE, STYLE], strict=False):
        lock.rename(name)
    with serve(Cloud(world)) as address:
        yield address


def arguments(folder: Path, address: Address) -> str:
    accounts = [{"name": name, "personal_key": key} for name, key in ACCOUNTS.items()]
    return f"--config.file={configuration(folder, address.url, accounts)}"


ACCOUNTS = {
    f"home {SCRIPT}".replace('"', "'"): "simulated-key-home",
    f"hotel {IMAGE}".replace('"', "'"): "simulated-key-hotel",
}
"""Names of accounts cannot contain double quotes, unlike names of locks."""


@pytest.fixture(scope="module")
def exporter(address: Address, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    with running(arguments(tmp_path_factory.mktemp("exporter"), address)) as exporter:
        exporter.wait_until_ready()
        eventually(lambda: exporter.get("/metrics").text.count("\nlock_info{") == 18, "names of all locks")
        yield exporter


@pytest.fixture(scope="module")
def secured(address: Address, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """An exporter that requires a password."""
    web = WebFiles(tmp_path_factory.mktemp("secured"))
    web.write(basic_auth_users={"reader": HASH})
    with running(arguments(web.folder, address), f"--web.config.file={web.file}") as exporter:
        yield exporter.wait_until_ready()


def page_of(exporter: Exporter, host: str = "exporter.example", user: str = "") -> str:
    return f"http://{user}{host}:{exporter.port}/"


def names(browser: Chrome) -> set[str]:
    return {name.text for name in browser.find_elements(By.CSS_SELECTOR, ".lock .name b")}


def logged(browser: Chrome) -> list[str]:
    """Return the messages that the browser has logged since the last call."""
    return [entry["message"] for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]


# Names


def test_markup_in_names_is_not_executed(browser: Chrome, exporter: Exporter) -> None:
    logged(browser)
    browser.get(page_of(exporter))
    assert {SCRIPT, IMAGE, STYLE} <= names(browser)
    assert {each.text for each in browser.find_elements(By.CSS_SELECTOR, ".account h2")} == set(ACCOUNTS)
    assert browser.title == TITLE
    assert not browser.find_elements(By.CSS_SELECTOR, "script, img, svg")
    assert len(browser.find_elements(By.TAG_NAME, "style")) == 1
    assert logged(browser) == []


@pytest.mark.parametrize("path", ["", "docs", "metrics", "-/healthy", "-/ready", "no/such/page"])
def test_pages_have_no_errors_and_load_nothing_else(browser: Chrome, exporter: Exporter, path: str) -> None:
    logged(browser)
    browser.get(page_of(exporter) + path)
    # A browser requests the icon of a site, unless the page names one.
    assert [each for each in logged(browser) if "no/such/page" not in each and "favicon.ico" not in each] == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
    assert [name for name in loaded if not name.startswith(("data:", page_of(exporter)))] == []


INJECTED = {
    "a script": "const it = document.createElement('script'); it.text = 'document.title = \"owned\"'",
    "a script of another site": "const it = document.createElement('script'); it.src = arguments[0]",
    "a handler": "const it = document.createElement('b'); it.innerHTML = '<b onclick=\"document.title = 1\">'",
    "a style": "const it = document.createElement('style'); it.textContent = '* {display: none}'",
    "a style of another site": (
        "const it = document.createElement('link'); it.rel = 'stylesheet'; it.href = arguments[0]"
    ),
    "a picture": "const it = document.createElement('img'); it.src = arguments[0]",
    "a frame": "const it = document.createElement('iframe'); it.src = arguments[0]",
}


@pytest.mark.parametrize("what", INJECTED)
def test_injected_elements_are_blocked_by_csp(browser: Chrome, exporter: Exporter, what: str) -> None:
    """Simulates a text that is not escaped."""
    with listening(Reply(body=b'document.title = "owned"')) as elsewhere:
        browser.get(page_of(exporter))
        logged(browser)
        insert = "document.body.append(it); it.firstChild?.click?.()"
        browser.execute_script(f"{INJECTED[what]}; {insert}", elsewhere.url("elsewhere.example"))
        assert eventually(lambda: [each for each in logged(browser) if "Content Security Policy" in each], "a message")
        assert browser.title == TITLE
        assert browser.find_element(By.CSS_SELECTOR, ".lock").is_displayed()
        assert elsewhere.received == []


# Pages on other sites

ATTACKS = {
    "a form": "form.submit()",
    "a form without referrer": "document.head.innerHTML = '<meta name=referrer content=no-referrer>'; form.submit()",
    "fetch": "fetch(target, {method: 'POST', mode: 'no-cors', credentials: 'include'}).then(done, done)",
    "fetch without referrer": (
        "fetch(target, {method: 'POST', mode: 'no-cors', referrerPolicy: 'no-referrer'}).then(done, done)"
    ),
    "fetch with text": (
        "fetch(target, {method: 'POST', body: 'x', headers: {'Content-Type': 'text/plain'}}).then(done, done)"
    ),
    "fetch with keepalive": "fetch(target, {method: 'POST', mode: 'no-cors', keepalive: true}).then(done, done)",
    "a beacon": "navigator.sendBeacon(target, 'x'); setTimeout(done, 500)",
    "an empty beacon": "navigator.sendBeacon(target); setTimeout(done, 500)",
    "XMLHttpRequest": (
        "const it = new XMLHttpRequest(); it.onloadend = done; it.open('POST', target); it.withCredentials = true; "
        "it.send()"
    ),
    "a picture": "const it = new Image(); it.onload = it.onerror = done; it.src = target",
    "a frame": "frame.src = target",
    "a script": "const it = document.createElement('script'); it.onload = it.onerror = done; it.src = target; "
    "document.body.append(it)",
}
SETTING = """
    const [target, finish] = arguments, done = () => finish(null);
    const frame = document.createElement('iframe'), form = document.createElement('form');
    frame.name = form.target = 'hidden';
    form.method = 'POST';
    form.action = target;
    document.body.append(frame, form);
    frame.onload = done;
"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Server]:
    """Another site. It records the requests that it receives."""
    with listening(
        Reply(headers={"Content-Type": "text/html"}, body=b"<!doctype html><title>Elsewhere</title>")
    ) as site:
        yield site


def attack(browser: Chrome, elsewhere: Server, how: str, target: str) -> None:
    """Run an attack in a page of another site."""
    browser.get(elsewhere.url("elsewhere.example"))
    browser.execute_async_script(SETTING + ATTACKS[how], target)


def reloads(exporter: Exporter) -> int:
    return sum('msg="configuration reloaded"' in line for line in exporter.log)


def reload(exporter: Exporter, **credentials: Any) -> None:
    """Reload the configuration as an administrator does."""
    response = requests.post(f"{exporter.url}/-/reload", timeout=TIMEOUT, **credentials)
    assert (response.status_code, response.text) == (200, "reloaded\n")


@pytest.mark.parametrize("how", ATTACKS)
def test_attack_reaches_an_unprotected_server(browser: Chrome, elsewhere: Server, how: str) -> None:
    with listening() as victim:
        attack(browser, elsewhere, how, victim.url("victim.example") + "/-/reload")
        (method,) = eventually(lambda: {each.method for each in victim.received}, "the request")
        assert method == ("GET" if how in {"a picture", "a frame", "a script"} else "POST")


@pytest.mark.parametrize("host", ["exporter.example", "127.0.0.1", "localhost"])
@pytest.mark.parametrize("how", ATTACKS)
def test_other_sites_cannot_reload_the_exporter(
    browser: Chrome, exporter: Exporter, elsewhere: Server, how: str, host: str
) -> None:
    before = reloads(exporter)
    attack(browser, elsewhere, how, page_of(exporter, host) + "-/reload")
    reload(exporter)
    eventually(lambda: reloads(exporter) > before, "the administrator's reload")
    assert reloads(exporter) == before + 1


def test_dns_rebinding_cannot_reload_the_exporter(browser: Chrome, exporter: Exporter) -> None:
    """A site can change the address of its name, after which its pages have the same origin as the exporter."""
    browser.get(page_of(exporter, "rebound.example") + "-/healthy")
    post = "fetch('/-/reload', {method: 'POST'}).then(response => arguments[0](response.status))"
    assert browser.execute_async_script(post) == 403


def test_attacks_do_not_change_last_reload_time(browser: Chrome, exporter: Exporter, elsewhere: Server) -> None:
    before = exporter.value(LOADED_AT)
    for how in ATTACKS:
        attack(browser, elsewhere, how, page_of(exporter) + "-/reload")
    scraped = exporter.value("process_cpu_seconds_total")
    eventually(lambda: exporter.value("process_cpu_seconds_total") != scraped, "newer metrics")
    assert exporter.value(LOADED_AT) == before
    reload(exporter)
    eventually(lambda: exporter.value(LOADED_AT) != before, "the administrator's reload")


@pytest.mark.parametrize("path", ["", "docs"])
def test_other_sites_cannot_frame_the_pages(browser: Chrome, exporter: Exporter, elsewhere: Server, path: str) -> None:
    logged(browser)
    attack(browser, elsewhere, "a frame", page_of(exporter) + path)
    browser.switch_to.frame(browser.find_element(By.TAG_NAME, "iframe"))
    assert browser.execute_script("return document.URL") == "chrome-error://chromewebdata/"
    assert not browser.find_elements(By.CSS_SELECTOR, ".lock, .account")
    (message,) = logged(browser)
    assert "frame-ancestors 'none'" in message


def test_unprotected_page_can_be_framed(browser: Chrome, elsewhere: Server) -> None:
    """Shows that the previous test would fail without the header."""
    attack(browser, elsewhere, "a frame", elsewhere.url("victim.example"))
    browser.switch_to.frame(browser.find_element(By.TAG_NAME, "iframe"))
    assert browser.execute_script("return document.title") == "Elsewhere"


# Passwords


def status_of(browser: Chrome) -> int:
    return int(browser.execute_script("return performance.getEntriesByType('navigation')[0].responseStatus"))


def test_page_requires_the_password(browser: Chrome, secured: Exporter, elsewhere: Server) -> None:
    browser.get(page_of(secured))
    assert status_of(browser) == 401
    assert names(browser) == set()

    browser.get(page_of(secured, user="reader:wrong@"))
    assert status_of(browser) == 401
    assert names(browser) == set()

    browser.get(page_of(secured, user=f"reader:{quote(PASSWORD)}@"))
    assert (status_of(browser), browser.title) == (200, TITLE)
    assert SCRIPT in names(browser)

    # The browser sends the password again with other pages.
    browser.get(page_of(secured) + "docs")
    assert status_of(browser) == 200

    # The browser also sends the password with requests of other sites.
    for how in ATTACKS:
        attack(browser, elsewhere, how, page_of(secured) + "-/reload")
    reload(secured, auth=("reader", PASSWORD))
    eventually(lambda: reloads(secured), "the administrator's reload")
    assert reloads(secured) == 1
