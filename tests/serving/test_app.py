"""The endpoints: metrics, probes, pages and reload."""

import errno
import gzip
import itertools
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from html import unescape
from http import HTTPStatus
from threading import Barrier
from typing import Any
from urllib.parse import quote, urljoin

import pytest
import yaml
from starlette.testclient import TestClient

from exporter.metrics.catalogue import CATALOGUE
from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.secrets import Secret
from exporter.state.responses import Failure
from exporter.sync.snapshot import AccountStatus, LastKnownState, Lock, RecentEvent, ResourceStatus, StatusRegistry
from exporter.tedee.endpoint import ACTIVITIES, DEVICES
from exporter.tedee.models import DeviceState, DoorState, LockState, StateChangeResult
from exporter.web.app import create_app
from exporter.web.pages import PROJECT, Pages
from exporter.web.policy import SecurityPolicy
from exporter.web.urls import BadUrl, Urls, parse_external_url, parse_route_prefix
from testing.clock import FakeClock
from testing.factories import device_statuses, locks_of, registry, snapshot, status
from testing.program import ROOT
from tests.cloud import detailed, synced
from tests.security.web_files import HASH, PASSWORD


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the time zone of this process."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def browse(
    status_registry: StatusRegistry,
    clock: FakeClock,
    telemetry_path: str = "/metrics",
    *,
    external_url: str = "",
    route_prefix: str = "",
    policy: SecurityPolicy = SecurityPolicy(),  # noqa: B008 - it is immutable
    state_problem: Callable[[], str | None] = lambda: None,
) -> TestClient:
    exposition = Exposition(status_registry, ExporterCollector("1.2.3", lambda: (True, 0.0), lambda: True), clock)
    status_registry.on_change(exposition.render)
    urls = Urls.of(telemetry_path, external_url, route_prefix)
    app = create_app(
        status_registry,
        exposition,
        clock,
        version="1.2.3",
        urls=urls,
        state_problem=state_problem,
        security_policy=lambda: policy,
    )
    return TestClient(app)


def text(html: str) -> str:
    """Return the visible text: without markup, with single spaces."""
    body = html[html.index("<body>") :]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", re.sub(r"</?bdi>", "", body))).split())


# Metrics


def test_metrics_response_has_content_type(clock: FakeClock) -> None:
    response = browse(registry(status(clock)), clock).get("/metrics", headers={"Accept-Encoding": ""})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["vary"] == "Accept, Accept-Encoding"
    assert "content-encoding" not in response.headers
    assert 'lock_state{account="home",lock_id="123",lock_name="Room 6"} 6.0' in response.text


def test_metrics_are_compressed_if_accepted(clock: FakeClock) -> None:
    client = browse(registry(status(clock)), clock)
    with client.stream("GET", "/metrics", headers={"Accept-Encoding": "gzip"}) as response:
        raw = b"".join(response.iter_raw())
    assert response.headers["content-encoding"] == "gzip"
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


def test_head_response_has_headers_and_no_body(clock: FakeClock) -> None:
    response = browse(registry(status(clock)), clock).head("/metrics")
    assert response.status_code == 200
    assert response.content == b""
    assert int(response.headers["content-length"]) > 500


def test_telemetry_path_is_configurable(clock: FakeClock) -> None:
    client = browse(registry(status(clock)), clock, telemetry_path="/tedee/metrics")
    assert client.get("/tedee/metrics").status_code == 200
    assert client.get("/metrics").status_code == 404
    assert 'href="tedee/metrics"' in client.get("/").text
    assert "metrics_path: /tedee/metrics" in client.get("/docs").text


@pytest.mark.parametrize("query", ["name[]=lock_state&name[]=tedee_up", "name%5B%5D=tedee_up&x=1&name[]=lock_state"])
def test_metrics_are_restricted_to_names(clock: FakeClock, query: str) -> None:
    response = browse(registry(status(clock)), clock).get(f"/metrics?{query}")
    assert response.status_code == 200
    assert int(response.headers["content-length"]) < 1_000
    assert re.findall(r"(?m)^# TYPE (\w+)", response.text) == ["lock_state", "tedee_up"]


@pytest.mark.parametrize("query", ["", "name=lock_state", "name[]=", "names[]=lock_state", "%", "&&=&", "x=\udcff"])
def test_other_queries_do_not_restrict_metrics(clock: FakeClock, query: str) -> None:
    text = browse(registry(status(clock)), clock).get(f"/metrics?{quote(query, errors='surrogateescape')}").text
    assert {"lock_state", "lock_info", "tedee_up"} <= set(re.findall(r"(?m)^# TYPE (\w+)", text))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/metrics", "/", "/docs", "/-/healthy", "/-/ready"])
def test_other_methods_are_not_allowed(clock: FakeClock, method: str, path: str) -> None:
    assert browse(registry(status(clock)), clock).request(method, path).status_code == 405


def test_unknown_path_is_not_found(clock: FakeClock) -> None:
    assert browse(registry(status(clock)), clock).get("/favicon.ico").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "code"), [("GET", "/nowhere", 404), ("PUT", "/metrics", 405), ("PUT", "/", 405)]
)
def test_errors_end_with_a_newline(clock: FakeClock, method: str, path: str, code: int) -> None:
    response = browse(registry(status(clock)), clock).request(method, path)
    assert (response.status_code, response.text) == (code, f"{HTTPStatus(code).phrase}\n")
    assert response.headers.get("allow") in ({None} if code == 404 else {"GET", "GET, HEAD", "HEAD, GET"})


# The route prefix

ENDPOINTS = ("/", "/docs", "/metrics", "/-/healthy", "/-/ready")


@pytest.mark.parametrize(
    ("external_url", "route_prefix", "prefix"),
    [
        ("", "", ""),
        ("https://example.org", "", ""),
        ("https://example.org/locks/home", "", "/locks/home"),
        ("https://example.org/locks", "/", ""),
        ("https://example.org/locks", "/other", "/other"),
        ("", "/locks", "/locks"),
    ],
)
def test_all_endpoints_are_below_the_prefix(
    clock: FakeClock, external_url: str, route_prefix: str, prefix: str
) -> None:
    client = browse(registry(status(clock)), clock, external_url=external_url, route_prefix=route_prefix)
    responses = {path: client.get(prefix + path, follow_redirects=False).status_code for path in ENDPOINTS}
    assert responses == dict.fromkeys(ENDPOINTS, 200)
    assert client.post(f"{prefix}/-/reload").status_code == 500
    assert client.get(f"{prefix}/-/reload").status_code == 405
    if prefix:
        assert {client.get(path).status_code for path in ENDPOINTS[1:]} == {404}
        assert client.get(f"{prefix}x/metrics").status_code == 404


@pytest.mark.parametrize("path", ["/", "/locks/home"])
@pytest.mark.parametrize("proxy", ["", "/of/proxy"])
def test_paths_outside_redirect_to_the_prefix(clock: FakeClock, path: str, proxy: str) -> None:
    client = browse(registry(status(clock)), clock, route_prefix="/locks/home")
    response = client.get(path, follow_redirects=False)
    assert response.status_code == 302
    # A proxy may add a path before the one that the exporter sees.
    target = urljoin(f"http://client{proxy}{path}", response.headers["location"])
    assert target == f"http://client{proxy}/locks/home/"


@pytest.mark.parametrize(
    ("external_url", "target"),
    [
        ("", "https://example.org/deep/?refresh=10"),
        ("https://example.org/locks", "https://example.org/locks/?refresh=10"),
    ],
)
def test_redirect_keeps_the_query_and_follows_the_external_url(
    clock: FakeClock, external_url: str, target: str
) -> None:
    client = browse(registry(status(clock)), clock, external_url=external_url, route_prefix="/inner/deep")
    response = client.get("/inner/deep?refresh=10", follow_redirects=False)
    # The proxy replaces /locks by /inner/deep.
    assert urljoin("https://example.org/locks", response.headers["location"]) == target


@pytest.mark.parametrize("page", ["", "docs"])
def test_links_stay_below_the_route_prefix(clock: FakeClock, page: str) -> None:
    client = browse(registry(status(clock)), clock, route_prefix="/locks")
    links = re.findall(r'<a href="([^"#]+)"', client.get(f"/locks/{page}").text)
    targets = {urljoin(f"/locks/{page}", link) for link in links}
    assert {client.get(target).status_code for target in targets} == {200}
    assert all(target.startswith("/locks/") for target in targets)


def test_only_probes_below_the_prefix_need_no_password(clock: FakeClock) -> None:
    policy = SecurityPolicy(users={"alice": Secret(HASH)})
    client = browse(registry(status(clock)), clock, route_prefix="/locks", policy=policy)
    codes = {path: client.get(f"/locks{path}").status_code for path in ENDPOINTS}
    assert codes == {path: 200 if path.startswith("/-/") else 401 for path in ENDPOINTS}
    assert {client.get(path, follow_redirects=False).status_code for path in (*ENDPOINTS, "/locks")} == {401}


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", ""),
        ("https://example.org", "https://example.org"),
        ("http://example.org:8080/", "http://example.org:8080"),
        ("https://example.org/locks/", "https://example.org/locks"),
        ("http://[::1]:10333/a/b", "http://[::1]:10333/a/b"),
    ],
)
def test_external_url_has_no_slash_at_the_end(text: str, url: str) -> None:
    assert parse_external_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        *("example.org/locks", "/locks", "ftp://example.org", "https://", "https://user:secret@example.org"),
        *("https://example.org/?a", "https://example.org/#a", "https://example.org:99999", "https://[::1"),
        *('"https://example.org"', "https://example.org/a b", "https://example.org/a/../b", "https://example.org/a//b"),
    ],
)
def test_invalid_external_url_is_rejected(text: str) -> None:
    with pytest.raises(BadUrl) as raised:
        parse_external_url(text)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "prefix"), [("", ""), ("/", "/"), ("locks", "/locks"), ("/locks/", "/locks"), ("/a/b", "/a/b")]
)
def test_route_prefix_begins_with_a_slash(text: str, prefix: str) -> None:
    assert parse_route_prefix(text) == prefix


@pytest.mark.parametrize("text", ["/a b", "/a/../b", "/a//b", "/ä", "/a?b", "/a%20b", "https://example.org/locks"])
def test_invalid_route_prefix_is_rejected(text: str) -> None:
    with pytest.raises(BadUrl):
        parse_route_prefix(text)


# Probes


def test_exporter_is_healthy_while_syncs_fail(clock: FakeClock) -> None:
    failing = status(clock, up=False, snapshot=None)
    assert browse(registry(failing), clock).get("/-/healthy").status_code == 200


def test_exporter_is_ready_after_first_syncs_or_failures(clock: FakeClock) -> None:
    status_registry = registry(status(clock, account="one", up=None), status(clock, account="two", up=False))
    client = browse(status_registry, clock)
    response = client.get("/-/ready")
    assert response.status_code == 503
    assert response.text == "tedee-exporter is not ready: 1 of 2 accounts not synced yet.\n"
    status_registry.publish(status(clock, account="one", up=False))
    assert client.get("/-/ready").status_code == 200


# The status page


def page(status_registry: StatusRegistry, clock: FakeClock) -> str:
    response = browse(status_registry, clock).get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return response.text


def test_lock_is_shown_with_all_values(clock: FakeClock) -> None:
    rows = [synced(1, batteryLevel=54, isCharging=True, lastStateChangedDate="2027-01-15T07:57:00Z")]
    shown = text(page(registry(status(clock, locks_of(rows, [detailed(1, "Front door")]))), clock))
    assert (
        "Front door Lock PRO · 111111-00001 · firmware 2.4.22125 · update available "
        "state locked door closed 54 % ⚡ connection connected 3 minutes ago 08:57 CET"
    ) in shown


def reasons(html: str) -> list[tuple[str, str]]:
    """Return the texts instead of missing values, and their reasons."""
    found = re.findall(r'<span class="chip quiet" title="([^"]+)">(.*?)</span>(?=<)', html)
    return [(text(f"<body>{words}"), reason) for reason, words in found]


def test_missing_values_have_a_reason(clock: FakeClock) -> None:
    rows = [synced(1, connected=False), {"id": 2, "isConnected": None}, synced(3, batteryLevel=255)]
    html = page(
        registry(status(clock, locks_of(rows, [detailed(1, "a"), detailed(2, "b", connectedToId=None)]))), clock
    )
    offline, no_bridge = "not known while the lock is offline", "not known without a bridge"
    assert reasons(html) == [
        *((words, offline) for words in ("state unknown", "door unknown", "battery unknown", "unknown")),
        ("battery not reported", "Tedee reported no value that can be used"),
        *((words, no_bridge) for words in ("state unknown", "door unknown", "battery unknown", "unknown")),
    ]
    assert "–" not in text(html)  # noqa: RUF001


@pytest.mark.parametrize(
    ("connected", "bridge", "shown"),
    [
        (None, None, "no bridge"),
        (None, 2, "not reported"),
        ("yes", 2, "not reported"),
        (False, None, "offline"),
        (True, None, "connected"),
    ],
)
def test_missing_bridge_is_taken_from_details(
    clock: FakeClock, connected: bool | str | None, bridge: int | None, shown: str
) -> None:
    locks = locks_of([{"id": 1, "isConnected": connected}], [detailed(1, "Shed", connectedToId=bridge)])
    ((*_, connection, _),) = table_rows(page(registry(status(clock, locks)), clock), "lock")
    assert connection == f"connection {shown}"


def offline_lock(clock: FakeClock, **last_known: Any) -> Lock:
    """Return a lock that is offline and was last seen with this state two hours ago."""
    (lock,) = locks_of([synced(1, connected=False)], [detailed(1, "Shed")])
    return replace(lock, last_known=LastKnownState(DeviceState(**last_known), clock.monotonic() - 7_200))


@pytest.mark.parametrize(
    ("last_known", "words"),
    [
        ({"state": 6, "door_state": 3}, "state unknown last known 2 hours ago: locked, door closed"),
        ({"state": 2, "door_state": 2}, "state unknown last known 2 hours ago: unlocked, door opened"),
        ({"state": 6, "door_state": 0}, "state unknown last known 2 hours ago: locked"),
        ({"state": 3, "state_change_result": 1}, "state unknown last known 2 hours ago: jammed"),
        ({}, "state unknown"),
    ],
)
def test_last_known_state_is_shown_as_old(clock: FakeClock, last_known: dict[str, int], words: str) -> None:
    html = page(registry(status(clock, (offline_lock(clock, **last_known),))), clock)
    ((_, state, *_, connection, _),) = table_rows(html, "lock")
    assert state == words
    assert connection == "connection offline last seen 2 hours ago (06:00 UTC)"
    assert re.findall(r"<b>(\d+)</b> (\w+)", html)[:4] == [("0", "of"), ("0", "not"), ("0", "jammed"), ("1", "offline")]


@pytest.mark.parametrize(
    ("zone", "date", "shown"),
    [
        ("Europe/Warsaw", "2027-01-15T07:00:00Z", "08:00 CET"),
        ("America/Sao_Paulo", "2027-01-15T07:00:00Z", "04:00 UTC-03"),
        ("Europe/Warsaw", "2027-01-14T22:30:00Z", "14 Jan 23:30 CET"),
        ("Europe/Warsaw", "2027-01-14T23:30:00Z", "00:30 CET"),
        ("Europe/Warsaw", "2026-07-01T10:00:00Z", "2026-07-01 12:00 CEST"),
        (None, "2027-01-15T07:00:00Z", "07:00 UTC"),
        *(
            (zone, "2027-01-15T07:00:00Z", "07:00 UTC")
            for zone in ("Mars/Base", "Europe", "../../etc/passwd", "\0", "x" * 999)
        ),
    ],
)
def test_time_of_change_is_in_the_zone_of_the_lock(clock: FakeClock, zone: str | None, date: str, shown: str) -> None:
    locks = locks_of([synced(1, lastStateChangedDate=date)], [detailed(1, "Shed", timeZone=zone)])
    ((*_, changed),) = table_rows(page(registry(status(clock, locks)), clock), "lock")
    assert changed.endswith(f"ago {shown}")


def test_locks_that_need_attention_are_first(clock: FakeClock) -> None:
    """The order is that of the table in the dashboards."""

    def change(minute: int) -> str:
        return f"2027-01-15T07:{minute:02}:00Z"

    rows = [
        synced(1, lastStateChangedDate=change(1)),
        synced(2, batteryLevel=9),
        synced(3, connected=False),
        synced(4, doorState=2, lastStateChangedDate=change(4)),
        synced(5, state=4, lastStateChangedDate=change(5)),
        synced(6, state=2, lastStateChangedDate=change(3)),
        synced(7, stateChangeResult=1, lastStateChangedDate=change(7)),
        synced(8, state="broken", lastStateChangedDate=change(8)),
        synced(9, doorState=1, lastStateChangedDate=change(2)),
        synced(10, lastStateChangedDate=change(10)),
        synced(11, doorState=0, batteryLevel=9, isCharging=True, lastStateChangedDate=change(0)),
    ]
    shown = table_rows(page(registry(status(clock, locks_of(rows, []))), clock), "lock")
    assert [int(row[0].split()[0]) for row in shown] == [8, 7, 5, 4, 6, 9, 3, 2, 10, 1, 11]


def test_jam_and_error_are_shown(clock: FakeClock) -> None:
    rows = [synced(1, state=3, stateChangeResult=1), synced(2, stateChangeResult=7)]
    shown = text(page(registry(status(clock, locks_of(rows, []))), clock))
    assert "state jammed" in shown
    assert "state locked, with an error" in shown


def test_unknown_codes_are_shown_as_codes(clock: FakeClock) -> None:
    shown = text(page(registry(status(clock, locks_of([synced(1, state=42, doorState=7)], []))), clock))
    assert "state code 42 door code 7" in shown
    assert "1 jammed or unclear" in shown


def test_summary_counts_locks_by_state(clock: FakeClock) -> None:
    rows = [
        synced(1),
        synced(2, state=2, doorState=2),
        synced(3, state=3, stateChangeResult=1),
        synced(4, connected=False),
        synced(5, batteryLevel=9),
        synced(6, batteryLevel=9, isCharging=True),
    ]
    shown = text(page(registry(status(clock, locks_of(rows, []))), clock))
    assert "3 of 6 locked 1 not locked 1 jammed or unclear 1 offline 1 with door open 1 with low battery Locks" in shown


def test_each_lock_is_counted_once_by_state(clock: FakeClock) -> None:
    values = [None, True, False, "yes"], [*LockState, 42, None, "x"], [0, 1, 7]
    rows = [
        {"id": number, "isConnected": connected, "deviceState": {"state": state, "stateChangeResult": result}}
        for number, (connected, state, result) in enumerate(itertools.product(*values), start=1)
    ]
    locks = locks_of(rows, [detailed(number, "x", connectedToId=number % 2 or None) for number in range(1, 999)])
    html = page(registry(status(clock, locks)), clock)
    (states,) = re.findall(r'(?s)<ul class="summary" aria-label="Locks by state">(.*?)</ul>', html)
    counts = {name: int(count) for count, name in re.findall(r"<b>(\d+)</b> ([^<]+)", states)}
    assert sum(counts.values()) == len(locks) == len(rows)
    assert counts == {
        f"of {len(rows)} locked": 2,
        "not locked": 4,
        "jammed or unclear": counts["jammed or unclear"],
        "offline": len(rows) // 4,
        "moving or updating": 12,
        "without a bridge": counts["without a bridge"],
        "without a state": counts["without a state"],
    }


def test_data_age_and_next_sync_are_shown(clock: FakeClock) -> None:
    status_registry = registry(status(clock))
    clock.advance(7)
    assert "data from 7 seconds ago (08:00 UTC) , next sync in 13 seconds, 347 requests left this hour" in text(
        page(status_registry, clock)
    )


def test_last_failure_is_shown(clock: FakeClock) -> None:
    failure = Failure("auth", "account 'home': my/lock/sync: HTTP 401 Unauthorized: make a new key", clock.wall())
    status_registry = registry(status(clock, up=False, failure=failure))
    clock.advance(65)
    shown = text(page(status_registry, clock))
    assert f"Last sync failed a minute ago (08:00 UTC) : {failure.message}" in shown


def test_stale_locks_are_not_shown(clock: FakeClock) -> None:
    status_registry = registry(status(clock))
    clock.advance(300)
    shown = text(page(status_registry, clock))
    assert "Room 6" not in shown
    assert "home stale data from 5 minutes ago (08:00 UTC)" in shown
    assert "stale and therefore not shown" in shown


def test_failing_account_with_stale_data_is_failing(clock: FakeClock) -> None:
    status_registry = registry(status(clock, up=False))
    clock.advance(300)
    assert "home failing data from 5 minutes ago" in text(page(status_registry, clock))


def test_account_before_first_sync_is_pending(clock: FakeClock) -> None:
    waiting = status(clock, up=None, snapshot=None, next_sync=None)
    assert "first sync pending no data yet" in text(page(registry(waiting), clock))


def with_details(clock: FakeClock, locks: tuple[Lock, ...] | None = None, **changes: Any) -> AccountStatus:
    """Return the status of an account in which the details of the devices have these values."""
    return status(clock, locks, other_resources=(ResourceStatus("fetch of devices", DEVICES.path, **changes),))


def test_missing_locks_and_other_problems_are_shown(clock: FakeClock) -> None:
    failure = Failure("server", "names broke", clock.wall())
    shown_status = replace(with_details(clock, failure=failure), missing=("7", "8"), version_supported=False)
    shown = text(page(registry(shown_status), clock))
    assert "Selected locks that are not in this account: 7, 8." in shown
    assert "Last fetch of devices failed just now (08:00 UTC) : names broke" in shown
    assert "no longer lists API version v37" in shown


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        (
            [synced(1), synced(2), synced(3)],
            "The names of 2 locks are not known yet. The next fetch of devices is due in 40 minutes.",
        ),
        (
            [synced(1), synced(2)],
            "The name of 1 lock is not known yet. The next fetch of devices is due in 40 minutes.",
        ),
    ],
)
def test_long_wait_for_names_is_shown(clock: FakeClock, rows: list[dict[str, object]], note: str) -> None:
    locks = locks_of(rows, [detailed(1, "Front door")])
    assert note in text(page(registry(with_details(clock, locks, delayed_until=clock.wall() + 2400)), clock))


@pytest.mark.parametrize(
    ("named", "wait"), [([], None), ([], 60), ([detailed(1, "Front door")], 2400)], ids=["not due", "soon", "all known"]
)
def test_short_wait_for_names_is_not_shown(
    clock: FakeClock, named: list[dict[str, object]], wait: float | None
) -> None:
    until = None if wait is None else clock.wall() + wait
    html = page(
        registry(with_details(clock, locks_of([synced(1)], named), delayed_until=until)),
        clock,
    )
    assert "not known yet" not in text(html)


def table_rows(html: str, kind: str) -> list[list[str]]:
    """Return the texts of the cells of each row of a kind."""
    rows = re.findall(rf'(?s)<tr class="{kind}">(.*?)</tr>', html)
    return [[text(f"<body>{cell}") for cell in re.findall(r"(?s)<(?:td|th).*?>(.*?)</(?:td|th)>", row)] for row in rows]


def home_with_devices(clock: FakeClock, **changes: Any) -> AccountStatus:
    """Return the status of an account with all devices of Tedee's documentation."""
    details = [
        detailed(71001, "Front door", connectedToId=70011),
        detailed(71002, "Workshop", connectedToId=70012),
        detailed(71003, "Shed", connectedToId=None),
    ]
    locks = locks_of([synced(71001), synced(71002), synced(71003)], details)
    return status(clock, locks, other_resources=device_statuses(clock), **changes)


def test_devices_are_shown_below_their_bridge(clock: FakeClock) -> None:
    rows = table_rows(page(registry(home_with_devices(clock)), clock), "device")
    names = [" ".join(row[0].split()[:2]) for row in rows]
    assert names == [
        *("Hallway bridge", "Front keypad", "Front door", "Workshop bridge", "Workshop keypad"),
        *("Spare keypad", "Unpaired sensor", "Shed sensor", "Drive gate", "Garage Gate"),
    ]
    locks = [row[1] for row in rows]
    assert locks == ["Front door", "Front door", "Front door", "Workshop", "Workshop", "", "", "Shed", "", ""]
    assert [row[3] for row in rows if row[3]] == [
        "bridge connected",
        "bridge offline",
        "gate connected",
        "gate offline",
    ]


def test_battery_without_level_has_words(clock: FakeClock) -> None:
    rows = table_rows(page(registry(home_with_devices(clock)), clock), "device")
    assert {row[0].split()[0]: row[2] for row in rows if row[2]} == {
        "Front": "88 %",
        "Workshop": "battery no level",
        "Spare": "battery no level",
        "Shed": "battery no level",
        "Unpaired": "battery no level",
    }
    assert rows[1][2] == "46 %"


def test_stale_devices_are_not_shown(clock: FakeClock) -> None:
    status_registry = registry(home_with_devices(clock))
    clock.advance(280)
    assert table_rows(page(status_registry, clock), "device")
    status_registry.publish(home_with_devices(clock))
    clock.advance(1_800)
    status_registry.publish(
        replace(home_with_devices(clock), other_resources=status_registry.statuses()[0].other_resources)
    )
    shown = page(status_registry, clock)
    assert table_rows(shown, "lock")
    assert not table_rows(shown, "device")


def events_of(clock: FakeClock, *events: RecentEvent, is_permitted: bool = True) -> AccountStatus:
    fetched = ResourceStatus(
        "fetch of events", ACTIVITIES.path, clock.wall(), is_permitted=is_permitted, recent_events=events
    )
    return status(clock, other_resources=(fetched,))


def test_last_events_are_shown(clock: FakeClock) -> None:
    newest = RecentEvent(clock.wall() - 60, 123, "unlocked", "access_link")
    others = (
        RecentEvent(clock.wall() - 120, 124, "door_open_too_long", "device"),
        RecentEvent(clock.wall() - 86_400, 9, "code_95", "unknown"),
    )
    assert table_rows(page(registry(events_of(clock, newest, *others)), clock), "event") == [
        ["Room 6", "unlocked (access link)", "a minute ago 07:59 UTC"],
        ['Garage "north"', "door open too long", "2 minutes ago 07:58 UTC"],
        ["9", "code 95", "a day ago 14 Jan 08:00 UTC"],
    ]


def test_refused_events_have_a_hint(clock: FakeClock) -> None:
    hint = "Tedee refuses the events of this account"
    assert hint in text(page(registry(events_of(clock, is_permitted=False)), clock))
    assert hint not in text(page(registry(events_of(clock)), clock))


def test_names_are_isolated_and_complete_in_titles(clock: FakeClock) -> None:
    account, lock = "\u202eemoh", "\u202eroom" + "x" * 10_000
    html = page(registry(status(clock, locks_of([synced(1)], [detailed(1, lock)]), account=account)), clock)
    assert f'<h2 title="{account}"><bdi>{account}</bdi></h2>' in html
    assert f'<b title="{lock}"><bdi>{lock}</bdi></b>' in html


def test_markup_in_names_is_escaped(clock: FakeClock) -> None:
    evil = "<script>alert(1)</script>\"'&amp;"
    html = page(registry(status(clock, locks_of([synced(1)], [detailed(1, evil)]), account="<b>me</b>")), clock)
    assert "<script" not in html
    assert "<b>me" not in html
    assert unescape(evil.replace("&amp;", "&amp;amp;")) in unescape(html)


@pytest.mark.parametrize("query", ["", "?refresh=off", "?refresh=1", "?refresh=10x", "?refresh="])
def test_status_page_does_not_reload_by_default(clock: FakeClock, query: str) -> None:
    html = browse(registry(status(clock)), clock).get(f"/{query}").text
    assert "http-equiv" not in html
    assert 'href="?refresh=10"' in html


def test_status_page_reloads_if_requested(clock: FakeClock) -> None:
    client = browse(registry(status(clock)), clock)
    for _ in range(2):
        html = client.get("/?refresh=10").text
        assert '<meta http-equiv="refresh" content="10">' in html
        assert '<a href="./">Stop reloading</a>' in html
        assert "http-equiv" not in client.get("/").text


def test_tables_have_captions_and_headers(clock: FakeClock) -> None:
    html = page(registry(replace(home_with_devices(clock), account="home")), clock)
    html += browse(registry(status(clock)), clock).get("/docs").text
    tables = re.findall(r"(?s)<table.*?</table>", html)
    assert len(tables) == 6
    for table in tables:
        assert re.search(r"(?s)<caption>.+?</caption>", table)
        assert "<th>" not in table
    assert len(re.findall('<th scope="row"', html)) == len(re.findall('<tr class="(?:lock|device)"', html))


def test_status_page_shows_problem_of_the_store(clock: FakeClock) -> None:
    problems = [None, "connection refused <at> db"]
    client = browse(registry(), clock, state_problem=lambda: problems[-1])
    shown = "The state file or database cannot be used: connection refused <at> db"
    assert shown in text(client.get("/").text)
    problems.pop()
    clock.advance(2)
    assert "cannot be used" not in client.get("/").text


def test_status_page_is_self_contained(clock: FakeClock) -> None:
    response = browse(registry(status(clock)), clock).get("/")
    assert "<script" not in response.text
    assert not re.findall(r"""(?:src|href|url|@import)\s*[=(:]\s*["']?(?:https?:)?//""", response.text)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy


def test_every_link_of_the_pages_works(clock: FakeClock) -> None:
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


def test_latest_possible_time_is_shown(clock: FakeClock) -> None:
    rows = [synced(1, lastStateChangedDate="9998-12-30T23:59:59.9999999Z")]
    assert "9998-12-3" in page(registry(status(clock, locks_of(rows, []))), clock)


# The overview of the status page


def overview(html: str) -> list[str]:
    """Return the text of each account in the overview."""
    found = re.search(r'<nav class="overview".*?</nav>', html, re.DOTALL)
    return [text(f"<body>{item}") for item in re.findall(r"<li>.*?</li>", found[0], re.DOTALL)] if found else []


def test_single_account_has_no_overview(clock: FakeClock) -> None:
    assert not overview(page(registry(status(clock)), clock))


def test_overview_starts_with_accounts_with_problems(clock: FakeClock) -> None:
    def account(name: str, *rows: dict[str, object], **changes: object) -> AccountStatus:
        return status(clock, locks_of(list(rows), []), account=name, **changes)

    html = page(
        registry(
            account("ok", synced(1)),
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
        "short up to date 2 missing",
        "ok up to date",
        "open up to date 1 offline 1 not locked 1 with door open 1 with low battery",
        "new first sync pending",
    ]
    assert re.findall(r'data-account="(\w+)"', html) == ["ok", "open", "new", "broken", "old", "short"]


def test_overview_links_to_the_accounts(clock: FakeClock) -> None:
    html = page(registry(status(clock, account="one"), status(clock, account="two", up=False)), clock)
    sections = dict(re.findall(r'<section class="account" id="([^"]+)" data-account="(\w+)"', html))
    links = re.findall(r'<a[^>]* href="#([^"]+)"><b title="(\w+)"', html)
    assert links == [("account-2", "two"), ("account-1", "one")]
    assert dict(links) == sections


# Costs and security headers of the pages


class CountingRegistry(StatusRegistry):
    """A registry that is slow to read, and counts how often it is read."""

    reads = 0

    def statuses(self) -> tuple[AccountStatus, ...]:
        self.reads += 1
        time.sleep(0.05)
        return super().statuses()


def test_status_page_is_rendered_once_a_second(clock: FakeClock) -> None:
    status_registry = CountingRegistry()
    pages = Pages(status_registry, clock, version="1.2.3", telemetry_path="/metrics")
    first = pages.status()
    clock.advance(0.9)
    assert pages.status() is first
    assert status_registry.reads == 1
    clock.advance(0.1)
    pages.status()
    assert status_registry.reads == 2


def test_concurrent_requests_share_one_rendering(clock: FakeClock) -> None:
    status_registry, clients = CountingRegistry(), 30
    pages = Pages(status_registry, clock, version="1.2.3", telemetry_path="/metrics")
    barrier = Barrier(clients)

    def request(_client: int) -> bytes:
        barrier.wait()
        return pages.status()

    with ThreadPoolExecutor(clients) as threads:
        responses = list(threads.map(request, range(clients)))
    assert status_registry.reads == 1
    assert all(html is responses[0] for html in responses)


def test_status_page_is_at_most_a_second_old(clock: FakeClock) -> None:
    status_registry = registry(status(clock))
    client = browse(status_registry, clock)
    client.get("/")
    status_registry.publish(status(clock, up=False))
    assert "home up to date" in text(client.get("/").text)
    clock.advance(1)
    assert "home failing" in text(client.get("/").text)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_have_security_headers(clock: FakeClock, path: str) -> None:
    headers = browse(registry(status(clock)), clock).get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith("default-src 'none'; ")


# The documentation


def test_documentation_lists_every_metric(clock: FakeClock) -> None:
    shown = text(browse(registry(status(clock)), clock).get("/docs").text)
    for metric in CATALOGUE:
        assert metric.name in shown
        assert metric.help in shown


def scrape_configuration(client: TestClient, page: str = "/docs", **headers: str) -> dict[str, Any]:
    """Return the scrape configuration on the page."""
    found = re.search(r"(?s)<pre[^>]*>(.*?)</pre>", client.get(page, headers=headers).text)
    assert found
    (job,) = yaml.safe_load(unescape(found[1]))["scrape_configs"]
    return dict(job)


BASE = {"job_name": "tedee", "scrape_interval": "20s"}


def test_documented_scrape_uses_the_requested_host(clock: FakeClock) -> None:
    client = browse(registry(status(clock)), clock)
    for host, target in [("[::1]:8080", "[::1]:8080"), ("exporter", "exporter"), ("a b", "localhost:10333")]:
        assert scrape_configuration(client, host=host) == BASE | {
            "metrics_path": "/metrics",
            "static_configs": [{"targets": [target]}],
        }


def test_documented_scrape_fits_tls_passwords_and_prefix(clock: FakeClock) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    policy = SecurityPolicy(tls=context)
    client = browse(registry(status(clock)), clock, route_prefix="/locks", policy=policy)
    expected = BASE | {"scheme": "https", "metrics_path": "/locks/metrics", "static_configs": [{"targets": ["e:1"]}]}
    assert scrape_configuration(client, "/locks/docs", host="e:1") == expected
    context.verify_mode = ssl.CERT_REQUIRED
    assert scrape_configuration(client, "/locks/docs", host="e:1")["tls_config"].keys() == {"cert_file", "key_file"}


def test_documented_scrape_has_basic_auth_if_required(clock: FakeClock) -> None:
    users = {"alice": Secret(HASH)}
    client = browse(registry(status(clock)), clock, policy=SecurityPolicy(users=users))
    client.auth = ("alice", PASSWORD)
    assert scrape_configuration(client)["basic_auth"].keys() == {"username", "password_file"}
    assert "alice" not in client.get("/docs").text


def test_documented_scrape_uses_the_external_url(clock: FakeClock) -> None:
    client = browse(registry(status(clock)), clock, external_url="https://example.org:8443/locks", route_prefix="/")
    assert scrape_configuration(client, host="inside:10333") == BASE | {
        "scheme": "https",
        "metrics_path": "/locks/metrics",
        "static_configs": [{"targets": ["example.org:8443"]}],
    }


def test_documentation_lists_every_code(clock: FakeClock) -> None:
    shown = text(browse(registry(status(clock)), clock).get("/docs").text)
    for codes in (LockState, DoorState, StateChangeResult):
        assert " ".join(f"{code.value} {code.text}" for code in codes) in shown


def test_documentation_links_to_existing_files(clock: FakeClock) -> None:
    html = browse(registry(status(clock)), clock).get("/docs").text
    links = re.findall(r'rel="external" href="([^"]+)"', html)
    assert PROJECT in links
    for link in set(links) - {PROJECT}:
        assert (ROOT / link.removeprefix(f"{PROJECT}/blob/main/")).is_file()


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
def test_reload_returns_configuration_errors(clock: FakeClock, problems: list[str], code: int, text: str) -> None:
    done: Future[list[str]] = Future()
    done.set_result(problems)
    response = reloading(clock, lambda: done).post("/-/reload")
    assert (response.status_code, response.text) == (code, text)


def test_request_does_not_wait_for_hanging_reload(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.web.app.RELOAD_SECONDS", 0.01)
    hanging: Future[list[str]] = Future()
    client = reloading(clock, lambda: hanging)
    for _ in range(2):
        response = client.post("/-/reload")
        assert (response.status_code, response.text) == (
            503,
            "not reloaded yet: the reload did not complete within 0.01 s\n",
        )
    assert not hanging.cancelled()


def test_page_is_unavailable_without_file_descriptors(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    client = browse(registry(status(clock)), clock)

    def fail(_pages: Pages, _refresh: str | None) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Pages, "status", fail)
        response = client.get("/")
    assert (response.status_code, response.text) == (503, "temporarily unavailable: Too many open files\n")
    assert client.get("/").status_code == 200


def test_other_os_errors_are_raised(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_pages: Pages, _refresh: str | None) -> bytes:
        raise FileNotFoundError(errno.ENOENT, "a template")

    monkeypatch.setattr(Pages, "status", fail)
    with pytest.raises(FileNotFoundError):
        browse(registry(status(clock)), clock).get("/")
