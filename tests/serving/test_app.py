"""Lost if these fail: the scrape, the probes and the pages."""

import errno
import gzip
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from html import unescape
from threading import Barrier
from urllib.parse import urljoin

import pytest
from starlette.testclient import TestClient

from exporter.metrics.catalogue import CATALOGUE
from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.sync.snapshot import AccountStatus, StatusRegistry
from exporter.sync.store import Failure
from exporter.web.app import create_app
from exporter.web.pages import Pages
from tests.clock import FakeClock
from tests.cloud import detailed, synced
from tests.factories import locks_of, registry, snapshot, status


def browse(everything: StatusRegistry, clock: FakeClock, telemetry_path: str = "/metrics") -> TestClient:
    exposition = Exposition(everything, ExporterCollector("1.2.3", lambda: (True, 0.0), lambda: True), clock)
    everything.on_change(exposition.refresh)
    return TestClient(create_app(everything, exposition, clock, version="1.2.3", telemetry_path=telemetry_path))


def text(html: str) -> str:
    """What a person reads: no markup, single spaces."""
    body = html[html.index("<body>") :]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", re.sub(r"</?bdi>", "", body))).split())


# Metrics


def test_metrics_are_served_with_their_type(clock: FakeClock) -> None:
    answer = browse(registry(status(clock)), clock).get("/metrics", headers={"Accept-Encoding": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert "content-encoding" not in answer.headers
    assert 'lock_state{account="home",lock_id="123",lock_name="Room 6"} 6.0' in answer.text


def test_metrics_are_compressed_where_that_is_accepted(clock: FakeClock) -> None:
    client = browse(registry(status(clock)), clock)
    with client.stream("GET", "/metrics", headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert b"lock_state{" in gzip.decompress(raw)


@pytest.mark.parametrize(("first", "second"), [("1", "0.5"), ("0.5", "1")])
def test_header_sent_twice_is_one_list(clock: FakeClock, first: str, second: str) -> None:
    several = [
        ("Accept", f"application/openmetrics-text;q={first}"),
        ("Accept", f"text/plain;q={second}"),
        ("Accept-Encoding", f"identity;q={first}"),
        ("Accept-Encoding", f"gzip;q={second}"),
    ]
    response = browse(registry(status(clock)), clock).get("/metrics", headers=several)
    assert response.headers["content-type"].startswith("application/openmetrics-text") == (first > second)
    assert ("content-encoding" in response.headers) == (second > first)


def test_head_tells_what_get_would_without_the_body(clock: FakeClock) -> None:
    answer = browse(registry(status(clock)), clock).head("/metrics")
    assert answer.status_code == 200
    assert answer.content == b""
    assert int(answer.headers["content-length"]) > 500


def test_the_telemetry_path_can_be_moved(clock: FakeClock) -> None:
    client = browse(registry(status(clock)), clock, telemetry_path="/tedee/metrics")
    assert client.get("/tedee/metrics").status_code == 200
    assert client.get("/metrics").status_code == 404
    assert 'href="tedee/metrics"' in client.get("/").text
    assert "metrics_path: /tedee/metrics" in client.get("/docs").text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/metrics", "/", "/docs", "/-/healthy", "/-/ready"])
def test_other_methods_are_not_allowed(clock: FakeClock, method: str, path: str) -> None:
    assert browse(registry(status(clock)), clock).request(method, path).status_code == 405


def test_an_unknown_path_is_not_found(clock: FakeClock) -> None:
    assert browse(registry(status(clock)), clock).get("/favicon.ico").status_code == 404


# Probes


def test_the_exporter_is_healthy_whatever_tedee_does(clock: FakeClock) -> None:
    failing = status(clock, up=False, snapshot=None)
    assert browse(registry(failing), clock).get("/-/healthy").status_code == 200


def test_the_exporter_is_ready_once_every_account_was_tried_well_or_not(clock: FakeClock) -> None:
    everything = registry(status(clock, account="one", up=None), status(clock, account="two", up=False))
    client = browse(everything, clock)
    answer = client.get("/-/ready")
    assert answer.status_code == 503
    assert answer.text == "tedee-exporter is not ready: 1 of 2 accounts not synced yet.\n"
    everything.publish(status(clock, account="one", up=False))
    assert client.get("/-/ready").status_code == 200


# The status page


def page(everything: StatusRegistry, clock: FakeClock) -> str:
    answer = browse(everything, clock).get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


def test_each_lock_is_shown_with_all_that_is_known_of_it(clock: FakeClock) -> None:
    rows = [synced(1, batteryLevel=54, isCharging=True, lastStateChangedDate="2027-01-15T07:57:00Z")]
    shown = text(page(registry(status(clock, locks_of(rows, [detailed(1, "Front door")]))), clock))
    assert (
        "Front door Lock PRO · 111111-00001 · firmware 2.4.22125 · update available "
        "state locked door closed 54 % ⚡ bridge connected 3 minutes ago"
    ) in shown


def test_what_tedee_did_not_say_is_a_dash(clock: FakeClock) -> None:
    rows = [synced(1, connected=False), {"id": 2, "isConnected": None}]
    shown = text(page(registry(status(clock, locks_of(rows, []))), clock))
    assert "1 id 1 state – door – battery – bridge offline –" in shown  # noqa: RUF001
    assert "2 id 2 state – door – battery – bridge – –" in shown  # noqa: RUF001


@pytest.mark.parametrize(
    ("connected", "bridge", "said"),
    [
        (None, None, "no bridge"),
        (None, 2, "–"),  # noqa: RUF001
        ("yes", 2, "–"),  # noqa: RUF001
        (False, None, "offline"),
        (True, None, "connected"),
    ],
)
def test_there_is_no_bridge_only_where_the_details_say_so(
    clock: FakeClock, connected: bool | str | None, bridge: int | None, said: str
) -> None:
    locks = locks_of([{"id": 1, "isConnected": connected}], [detailed(1, "Shed", connectedToId=bridge)])
    assert f"battery – bridge {said} –" in text(page(registry(status(clock, locks)), clock))  # noqa: RUF001


def test_a_jam_is_called_one(clock: FakeClock) -> None:
    rows = [synced(1, state=3, stateChangeResult=1), synced(2, stateChangeResult=7)]
    shown = text(page(registry(status(clock, locks_of(rows, []))), clock))
    assert "state jammed" in shown
    assert "state locked, with an error" in shown


def test_codes_that_nobody_knows_are_shown_as_codes(clock: FakeClock) -> None:
    shown = text(page(registry(status(clock, locks_of([synced(1, state=42, doorState=7)], []))), clock))
    assert "state code 42 door code 7" in shown
    assert "1 jammed or unknown" in shown


def test_the_summary_counts_what_a_person_looks_for(clock: FakeClock) -> None:
    rows = [
        synced(1),
        synced(2, state=2, doorState=2),
        synced(3, state=3, stateChangeResult=1),
        synced(4, connected=False),
        synced(5, batteryLevel=9),
        synced(6, batteryLevel=9, isCharging=True),
    ]
    shown = text(page(registry(status(clock, locks_of(rows, []))), clock))
    assert "3 locked 1 not locked 1 with door open 1 jammed or unknown 1 offline 1 with low battery" in shown


def test_the_age_of_the_data_and_the_next_sync_are_told(clock: FakeClock) -> None:
    everything = registry(status(clock))
    clock.advance(7)
    assert "data from 7 seconds ago , next sync in 13 seconds, 347 requests left this hour" in text(
        page(everything, clock)
    )


def test_the_last_error_is_told_in_plain_words(clock: FakeClock) -> None:
    failure = Failure("auth", "account 'home': my/lock/sync: HTTP 401 Unauthorized: make a new key", clock.wall())
    everything = registry(status(clock, up=False, failure=failure))
    clock.advance(65)
    shown = text(page(everything, clock))
    assert "Last sync failed a minute ago: account 'home': my/lock/sync: HTTP 401 Unauthorized: make a new key" in shown


def test_locks_of_stale_data_are_not_shown(clock: FakeClock) -> None:
    everything = registry(status(clock))
    clock.advance(300)
    shown = text(page(everything, clock))
    assert "Room 6" not in shown
    assert "home stale data from 5 minutes ago" in shown
    assert "too old to be shown" in shown


def test_an_account_that_fails_is_called_failing_even_when_its_data_is_stale(clock: FakeClock) -> None:
    everything = registry(status(clock, up=False))
    clock.advance(300)
    assert "home failing data from 5 minutes ago" in text(page(everything, clock))


def test_an_account_before_its_first_sync_says_so(clock: FakeClock) -> None:
    waiting = status(clock, up=None, snapshot=None, next_sync=None)
    assert "first sync is due no data yet" in text(page(registry(waiting), clock))


def test_missing_locks_failed_names_and_a_retiring_version_are_told(clock: FakeClock) -> None:
    failure = Failure("server", "names broke", clock.wall())
    shown = text(
        page(registry(status(clock, missing=("7", "8"), details_failure=failure, version_supported=False)), clock)
    )
    assert "Not in this account: 7, 8." in shown
    assert "Names could not be fetched just now: names broke" in shown
    assert "no longer lists API version v37" in shown


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([synced(1), synced(2), synced(3)], "names of 2 locks are not known yet; the list goes on in 40 minutes"),
        ([synced(1), synced(2)], "the name of 1 lock is not known yet; the list goes on in 40 minutes"),
    ],
)
def test_names_that_come_late_are_announced(clock: FakeClock, rows: list[dict[str, object]], told: str) -> None:
    locks = locks_of(rows, [detailed(1, "Front door")])
    assert told in text(page(registry(status(clock, locks, details_wait_until=clock.wall() + 2400)), clock))


@pytest.mark.parametrize(
    ("named", "wait"), [([], None), ([], 60), ([detailed(1, "Front door")], 2400)], ids=["unasked", "soon", "all known"]
)
def test_names_that_come_soon_or_not_at_all_are_not_announced(
    clock: FakeClock, named: list[dict[str, object]], wait: float | None
) -> None:
    until = None if wait is None else clock.wall() + wait
    html = page(registry(status(clock, locks_of([synced(1)], named), details_wait_until=until)), clock)
    assert "not known yet" not in text(html)


def test_names_cannot_turn_the_text_around_them_and_are_told_in_full_by_their_titles(clock: FakeClock) -> None:
    account, lock = "\u202eemoh", "\u202eroom" + "x" * 10_000
    html = page(registry(status(clock, locks_of([synced(1)], [detailed(1, lock)]), account=account)), clock)
    assert f'<h2 title="{account}"><bdi>{account}</bdi></h2>' in html
    assert f'<b title="{lock}"><bdi>{lock}</bdi></b>' in html


def test_a_name_of_markup_is_shown_as_the_text_it_is(clock: FakeClock) -> None:
    evil = "<script>alert(1)</script>\"'&amp;"
    html = page(registry(status(clock, locks_of([synced(1)], [detailed(1, evil)]), account="<b>me</b>")), clock)
    assert "<script" not in html
    assert "<b>me" not in html
    assert unescape(evil.replace("&amp;", "&amp;amp;")) in unescape(html)


def test_the_page_refreshes_itself_and_needs_nothing_from_outside(clock: FakeClock) -> None:
    answer = browse(registry(status(clock)), clock).get("/")
    assert '<meta http-equiv="refresh" content="10">' in answer.text
    assert "<script" not in answer.text
    assert not re.findall(r"""(?:src|href|url|@import)\s*[=(:]\s*["']?(?:https?:)?//""", answer.text)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy


def test_every_link_of_the_pages_leads_somewhere(clock: FakeClock) -> None:
    client = browse(registry(status(clock)), clock)
    for path in ("/", "/docs"):
        links = {urljoin(path, link) for link in re.findall(r'<a href="([^"]+)"', client.get(path).text)}
        assert {"/", "/metrics", "/docs", "/-/healthy", "/-/ready"} <= links
        assert {link: client.get(link).status_code for link in links} == dict.fromkeys(links, 200)


@pytest.mark.parametrize("telemetry_path", ["/metrics", "/tedee/metrics"])
@pytest.mark.parametrize("page", ["", "docs"])
def test_links_stay_below_the_path_of_a_proxy(clock: FakeClock, page: str, telemetry_path: str) -> None:
    client = browse(registry(status(clock)), clock, telemetry_path)
    for link in re.findall(r'<a href="([^"]+)"', client.get(f"/{page}").text):
        target = urljoin(f"http://proxy/locks/{page}", link)
        assert target.startswith("http://proxy/locks/")
        assert client.get(target.removeprefix("http://proxy/locks")).status_code == 200


def test_a_lock_of_the_last_possible_moment_does_not_break_the_page(clock: FakeClock) -> None:
    rows = [synced(1, lastStateChangedDate="9998-12-30T23:59:59.9999999Z")]
    assert "9998-12-3" in page(registry(status(clock, locks_of(rows, []))), clock)


# The status page's overview


def overview(html: str) -> list[str]:
    """The accounts of the overview in text, in its order."""
    found = re.search(r'<nav class="overview".*?</nav>', html, re.DOTALL)
    return [text(f"<body>{item}") for item in re.findall(r"<li>.*?</li>", found[0], re.DOTALL)] if found else []


def test_one_account_needs_no_overview(clock: FakeClock) -> None:
    assert not overview(page(registry(status(clock)), clock))


def test_the_overview_begins_with_the_accounts_that_need_attention(clock: FakeClock) -> None:
    def account(name: str, *rows: dict[str, object], **changes: object) -> AccountStatus:
        return status(clock, locks_of(list(rows), []), account=name, **changes)

    html = page(
        registry(
            account("well", synced(1)),
            account("open", synced(1, state=2, doorState=2), synced(2, batteryLevel=9), synced(3, connected=False)),
            account("new", up=None, snapshot=None),
            account("broken", synced(1), up=False),
            account("old", snapshot=snapshot(clock, (), stale_after=0)),
            account("short", synced(1), missing=("7", "8")),
        ),
        clock,
    )
    assert overview(html) == [
        "broken failing",
        "old stale",
        "short up 2 missing",
        "well up",
        "open up 1 offline 1 with low battery 1 not locked 1 with door open",
        "new first sync is due",
    ]
    assert re.findall(r'data-account="(\w+)"', html) == ["well", "open", "new", "broken", "old", "short"]


def test_the_overview_leads_to_the_sections(clock: FakeClock) -> None:
    html = page(registry(status(clock, account="one"), status(clock, account="two", up=False)), clock)
    sections = dict(re.findall(r'<section class="account" id="([^"]+)" data-account="(\w+)"', html))
    links = re.findall(r'<a[^>]* href="#([^"]+)"><b title="(\w+)"', html)
    assert links == [("account-2", "two"), ("account-1", "one")]
    assert dict(links) == sections


# What the pages cost and keep to themselves


class CountingBoard(StatusRegistry):
    """A registry that is slow to read, and counts its readers."""

    readers = 0

    def statuses(self) -> tuple[AccountStatus, ...]:
        self.readers += 1
        time.sleep(0.05)
        return super().statuses()


def test_the_status_page_is_rendered_once_a_second(clock: FakeClock) -> None:
    everything = CountingBoard()
    pages = Pages(everything, clock, version="1.2.3", telemetry_path="/metrics")
    first = pages.status()
    clock.advance(0.9)
    assert pages.status() is first
    assert everything.readers == 1
    clock.advance(0.1)
    pages.status()
    assert everything.readers == 2


def test_people_who_look_at_once_share_one_rendering(clock: FakeClock) -> None:
    everything, people = CountingBoard(), 30
    pages = Pages(everything, clock, version="1.2.3", telemetry_path="/metrics")
    together = Barrier(people)

    def look(_person: int) -> bytes:
        together.wait()
        return pages.status()

    with ThreadPoolExecutor(people) as crowd:
        seen = list(crowd.map(look, range(people)))
    assert everything.readers == 1
    assert all(html is seen[0] for html in seen)


def test_the_status_page_is_a_second_behind_at_most(clock: FakeClock) -> None:
    everything = registry(status(clock))
    client = browse(everything, clock)
    client.get("/")
    everything.publish(status(clock, up=False))
    assert "home up" in text(client.get("/").text)
    clock.advance(1)
    assert "home failing" in text(client.get("/").text)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_pages_keep_to_themselves(clock: FakeClock, path: str) -> None:
    headers = browse(registry(status(clock)), clock).get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith("default-src 'none'; ")


# The documentation


def test_the_documentation_lists_every_metric(clock: FakeClock) -> None:
    shown = text(browse(registry(status(clock)), clock).get("/docs").text)
    for metric in CATALOGUE:
        assert metric.name in shown
        assert metric.help in shown


# Reloads


def reloading(clock: FakeClock, reload: Callable[[], Future[list[str]]]) -> TestClient:
    exposition = Exposition(registry(), ExporterCollector("1.2.3", lambda: (True, 0.0), lambda: True), clock)
    return TestClient(create_app(registry(), exposition, clock, version="1.2.3", reload=reload))


@pytest.mark.parametrize(
    ("problems", "code", "text"),
    [
        ([], 200, "reloaded\n"),
        (["a is wrong", "b is wrong"], 500, "not reloaded: a is wrong\nnot reloaded: b is wrong\n"),
    ],
)
def test_reload_returns_what_is_wrong(clock: FakeClock, problems: list[str], code: int, text: str) -> None:
    done: Future[list[str]] = Future()
    done.set_result(problems)
    answer = reloading(clock, lambda: done).post("/-/reload")
    assert (answer.status_code, answer.text) == (code, text)


def test_reload_that_hangs_is_not_waited_for(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.web.app.RELOAD_SECONDS", 0.01)
    hanging: Future[list[str]] = Future()
    client = reloading(clock, lambda: hanging)
    for _ in range(2):
        answer = client.post("/-/reload")
        assert (answer.status_code, answer.text) == (503, "not reloaded yet: it has not ended within 0.01 s\n")
    assert not hanging.cancelled()


def test_page_without_files_to_open_is_unavailable(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    client = browse(registry(status(clock)), clock)

    def fail(_pages: Pages) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Pages, "status", fail)
        answer = client.get("/")
    assert (answer.status_code, answer.text) == (503, "not now: Too many open files\n")
    assert client.get("/").status_code == 200


def test_other_errors_of_a_page_stay_bugs(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_pages: Pages) -> bytes:
        raise FileNotFoundError(errno.ENOENT, "a template")

    monkeypatch.setattr(Pages, "status", fail)
    with pytest.raises(FileNotFoundError):
        browse(registry(status(clock)), clock).get("/")
