"""Client of the Tedee API: requests, errors and their messages, malformed responses, secrets in messages."""

import base64
import contextlib
import gzip
import json
import re
import socket
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import responses
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from exporter.clock import boottime
from exporter.secrets import Secret, safe_path
from exporter.simulator import PersonalKey, Variants, World, serve
from exporter.tedee.bodies import MAX_BODY_BYTES, Bodies
from exporter.tedee.client import REDACTED, Observer, TedeeClient
from exporter.tedee.credentials import Credentials, access_token, personal_key
from exporter.tedee.deadline import Deadline
from exporter.tedee.devices import (
    Accessory,
    AnyDevice,
    Bridge,
    DeviceKey,
    DoorSensor,
    DryContact,
    Gate,
    Keypad,
    LockDetails,
)
from exporter.tedee.endpoint import ACTIVITIES, DEVICES, DOOR_SENSORS, SYNC, Endpoint
from exporter.tedee.envelope import MAX_ROWS
from exporter.tedee.errors import (
    REASONS,
    CallError,
    ConnectionFailed,
    Forbidden,
    InvalidResponse,
    NotFound,
    RateLimited,
    ServerFailed,
    TimedOut,
    TlsFailed,
    Unauthorized,
)
from exporter.tedee.models import SyncedLock
from exporter.tedee.request import Response
from exporter.tedee.rows import ParseResult
from exporter.tedee.session import session
from testing.factories import FIXTURES
from testing.faults import Fault, FaultyCloud
from testing.program import TIMEOUT
from tests.tcp import tcp_server, tls_server

KEY = "simulated-key-home"
SYNC_URL = "https://tedee.test/api/v37/my/lock/sync"


class UnlimitedRateLimiter:
    """Allows every call. The real limiter is tested in `tests/rate_limits`."""

    def __init__(self) -> None:
        self.passed: list[Endpoint] = []

    def acquire(self, endpoint: Endpoint, user: str) -> AbstractContextManager[float]:
        self.passed.append(endpoint)
        return nullcontext(boottime())


class Requests:
    """Records the requests that the client reports."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def request_sent(self, endpoint: str, code: str) -> None:
        self.seen.append((endpoint, code))

    def values_rejected(self, parsed: ParseResult[Any, Any]) -> None:
        pass


def make_client(
    url: str,
    credentials: Credentials | None = None,
    *,
    version: str = "v37",
    timeout: float = TIMEOUT,
    limiter: UnlimitedRateLimiter | None = None,
    observer: Observer | None = None,
) -> TedeeClient:
    return TedeeClient(
        "home",
        url=url,
        version=version,
        credentials=credentials or personal_key(Secret(KEY)),
        timeout=timeout,
        session=session("tedee-exporter/test"),
        limiter=limiter or UnlimitedRateLimiter(),
        observer=observer or Requests(),
    )


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give calls of all endpoints the time that an overloaded machine needs."""
    monkeypatch.setattr("exporter.tedee.client.LOW_PRIORITY_TIMEOUT", TIMEOUT)


@pytest.fixture
def cloud() -> FaultyCloud:
    return FaultyCloud(
        World.demo(clock=lambda: 1_790_000_000.0), sync_spacing=0.0, versions=("v1.33", "v1.34", "v1.36", "v37")
    )


@pytest.fixture
def url(cloud: FaultyCloud) -> Iterator[str]:
    with serve(cloud) as address:
        yield address.url


@pytest.fixture
def served(cloud: FaultyCloud, url: str) -> tuple[FaultyCloud, str]:
    return cloud, url


def test_sync_returns_all_locks_of_account(cloud: FaultyCloud, url: str) -> None:
    parsed = make_client(url).sync()
    assert sorted(parsed.rows) == [lock.id for lock in cloud.world.account("home").locks]
    assert not parsed.rejections


def test_sync_with_ids_returns_these_locks(url: str, cloud: FaultyCloud) -> None:
    assert sorted(make_client(url).sync([1003, 1001]).rows) == [1001, 1003]
    assert cloud.calls[-1].ids == (1003, 1001)


@pytest.mark.parametrize("version", ["v1.33", "v1.34", "v1.36", "v37"])
def test_all_api_versions_give_same_values(url: str, version: str) -> None:
    assert make_client(url, version=version).sync().rows == make_client(url).sync().rows


def test_request_has_user_agent(url: str, cloud: FaultyCloud) -> None:
    make_client(url).sync()
    assert cloud.calls[-1].user_agent == "tedee-exporter/test"


def kinds(devices: ParseResult[DeviceKey, AnyDevice]) -> Counter[type[object]]:
    return Counter(type(each) for each in devices.rows.values())


def test_details_have_all_devices_but_door_sensors(cloud: FaultyCloud, url: str) -> None:
    home, parsed = cloud.world.account("home"), make_client(url).devices()
    assert not parsed.rejections
    assert {each.id for each in parsed.rows.values()} == {each.id for each in home.devices} - {
        each.id for each in home.door_sensors
    }
    assert kinds(parsed) == {
        LockDetails: len(home.locks),
        Bridge: len(home.bridges),
        Keypad: len(home.keypads),
        Gate: len(home.gates),
        DryContact: len(home.dry_contacts),
    }


def test_door_sensors_have_their_own_endpoint(cloud: FaultyCloud, url: str) -> None:
    sensors, parsed = cloud.world.account("home").door_sensors, make_client(url).door_sensors()
    assert sensors
    assert [*parsed.rows] == [(DoorSensor, each.id) for each in sensors]
    assert not parsed.rejections


def facts(device: AnyDevice) -> tuple[object, ...]:
    """Return a device, and what its metrics have of its state."""
    if not isinstance(device, Accessory):
        return (device,)
    return structs.replace(device, device_state=None), device.battery_level, device.battery_changed_at


@pytest.mark.parametrize(
    "variants",
    [
        Variants(),
        Variants(dry_contacts="drycontacts"),
        Variants(door_sensors_in_details=True),
        Variants(battery_time="batteryLevelModifiedDateTime"),
        Variants(unknown_devices=True),
        *(Variants(missing_level=form) for form in ("null", "empty", "nulls")),
    ],
)
def test_all_formats_of_details_have_the_same_devices(cloud: FaultyCloud, url: str, variants: Variants) -> None:
    documented = make_client(url).devices().rows
    cloud.variants = variants
    parsed = make_client(url).devices()
    assert {each.device_id for each in parsed.rejections} <= {999_002}
    assert {key: facts(parsed.rows[key]) for key in documented} == {
        key: facts(each) for key, each in documented.items()
    }
    others = {type(each) for key, each in parsed.rows.items() if key not in documented}
    assert others == (
        {DoorSensor} if variants.door_sensors_in_details else {Keypad} if variants.unknown_devices else set()
    )


def test_5000_locks_are_in_one_response() -> None:
    crowded = FaultyCloud(World.of_size(accounts=1, locks=5_000))
    with serve(crowded) as address:
        parsed = make_client(address.url, personal_key(Secret("key-account-0001"))).devices()
    assert [call.endpoint for call in crowded.calls] == ["details"]
    assert kinds(parsed)[LockDetails] == 5_000
    assert not parsed.rejections


@pytest.mark.parametrize("path", ["my/device/details", "my/doorsensor"])
def test_settings_of_the_user_are_not_requested(path: str) -> None:
    """They have the position of the home."""
    result: dict[str, list[object]] = {"locks": [], "doorSensors": []}
    with responses.RequestsMock() as mock:
        mock.get(f"https://tedee.test/api/v37/{path}", json={"result": result, "success": True})
        client = make_client("https://tedee.test")
        client.devices() if path == "my/device/details" else client.door_sensors()
        assert [call.request.url for call in mock.calls] == [f"https://tedee.test/api/v37/{path}"]


def test_every_request_passes_rate_limiter(url: str) -> None:
    limiter = UnlimitedRateLimiter()
    client = make_client(url, limiter=limiter)
    client.sync()
    client.devices()
    client.door_sensors()
    client.activities(1001)
    assert limiter.passed == [SYNC, DEVICES, DOOR_SENSORS, ACTIVITIES]


def test_access_token_is_sent_as_bearer(url: str) -> None:
    assert make_client(url, access_token(Secret("simulated-token-home"))).sync().rows


HTML = b"<html><body>Please sign in to the hotel's Wi-Fi</body></html>"
DEEP = b"[" * 100_000 + b"]" * 100_000

FAILURES: list[tuple[str, Fault, type[CallError], str]] = [
    ("400", Fault.error(400, "Bad id"), InvalidResponse, r'HTTP 400 Bad Request \(message from Tedee: "Bad id"\)'),
    (
        "401",
        Fault.error(401, "Key expired"),
        Unauthorized,
        r"HTTP 401 Unauthorized(?! \(message from Tedee)",
    ),
    (
        "403",
        Fault.error(403, "No scope"),
        Forbidden,
        r"HTTP 403 Forbidden(?! \(message from Tedee).*scope Device\.Read",
    ),
    ("404", Fault.error(404, "Gone"), NotFound, r"HTTP 404 Not Found"),
    ("406", Fault.error(406), InvalidResponse, r"HTTP 406 Not Acceptable"),
    ("409", Fault.error(409), InvalidResponse, r"HTTP 409 Conflict"),
    ("429", Fault.too_many_requests(), RateLimited, r"HTTP 429 Too Many Requests"),
    ("500", Fault.error(500), ServerFailed, r"HTTP 500 Internal Server Error"),
    ("502 in HTML", Fault.html(502), ServerFailed, r"HTTP 502 Bad Gateway"),
    ("503", Fault.error(503), ServerFailed, r"HTTP 503 Service Unavailable"),
    ("599", Fault.body(b"", status=599), ServerFailed, r"HTTP 599"),
    ("302", Fault.redirect("http://127.0.0.1:1/"), InvalidResponse, r"HTTP 302 Found; redirects are not followed"),
    ("204", Fault.body(b"", status=204), InvalidResponse, r"HTTP 204 No Content"),
    ("HTML with 200", Fault.body(HTML), InvalidResponse, r"not a JSON object but text/html of 61 bytes"),
    ("nothing with 200", Fault.body(b""), InvalidResponse, r"not a JSON object but text/html of 0 bytes"),
    ("JSON cut off", Fault.malformed(), InvalidResponse, r"not a JSON object but application/json of"),
    ("a JSON list", Fault.json([]), InvalidResponse, r"not a JSON object"),
    ("a JSON number", Fault.json(5), InvalidResponse, r"not a JSON object"),
    ("an empty object", Fault.json({}), InvalidResponse, r"HTTP 200, but the response reports a failure"),
    ("deep nesting", Fault.body(DEEP, "application/json"), InvalidResponse, r"not a JSON object"),
    ("a huge number", Fault.body(b"9" * 10_000, "application/json"), InvalidResponse, r"not a JSON object"),
    ("broken UTF-8", Fault.body(b'{"\xff": "\xff', "application/json"), InvalidResponse, r"not a JSON object"),
    ("result null", Fault.result(None), InvalidResponse, r"result in the response is not a list"),
    ("result an object", Fault.result({}), InvalidResponse, r"result in the response is not a list"),
    ("two objects", Fault.body(b"{} {}", "application/json"), InvalidResponse, r"not a JSON object"),
    ("brackets that do not match", Fault.body(b'{"result": [}]}'), InvalidResponse, r"not a JSON object"),
    ("incomplete escape", Fault.body(b'{"result": [], "success": "\\'), InvalidResponse, r"not a JSON object"),
    ("success: false", Fault.unsuccessful("Oh no"), InvalidResponse, r'response reports a failure.*"Oh no"'),
    ("reset", Fault.reset(), ConnectionFailed, r"the connection failed: Connection reset by peer"),
    ("reset in mid-body", Fault.reset_mid_body(), ConnectionFailed, r"the connection failed: Connection reset by peer"),
]


@pytest.mark.parametrize(("fault", "error", "message"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
@pytest.mark.parametrize("endpoint", ["sync", "details"])
def test_failed_call_raises_named_error(
    served: tuple[FaultyCloud, str], endpoint: str, fault: Fault, error: type[CallError], message: str
) -> None:
    cloud, url = served
    cloud.faults.script(fault, endpoint=endpoint)
    client = make_client(url)
    with pytest.raises(CallError) as caught:
        client.sync() if endpoint == "sync" else client.devices()
    assert type(caught.value) is error
    text = str(caught.value)
    expected = message if endpoint == "sync" else message.replace("is not a list", "has no list named locks")
    assert re.search(expected, text)
    assert text.startswith(f"account 'home': {SYNC if endpoint == 'sync' else DEVICES}: ")
    assert text.endswith(error.advice)
    assert KEY not in text
    assert "\n" not in text


def test_invalid_compression_is_invalid_response() -> None:
    with responses.RequestsMock() as mock:
        mock.get("https://tedee.test/api/v37/my/lock/sync", body=b"not gzip", headers={"Content-Encoding": "gzip"})
        with pytest.raises(InvalidResponse, match="cannot be decompressed"):
            make_client("https://tedee.test").sync()


def test_all_failure_reasons_are_covered() -> None:
    met = {error.reason for _, _, error, _ in FAILURES}
    assert met | {"timeout", "tls"} == set(REASONS)


def test_error_has_correlation_id(cloud: FaultyCloud, url: str) -> None:
    cloud.faults.script(Fault.error(500))
    with pytest.raises(ServerFailed) as caught:
        make_client(url).sync()
    assert caught.value.correlation_id == cloud.calls[-1].correlation_id
    assert caught.value.correlation_id
    assert caught.value.correlation_id in str(caught.value)
    assert caught.value.status == 500


def test_call_without_response_times_out(cloud: FaultyCloud, url: str) -> None:
    cloud.faults.script(Fault.silence())
    with pytest.raises(TimedOut, match=r"no complete response within 0\.2 s"):
        make_client(url, timeout=0.2).sync()


def test_slow_response_times_out(cloud: FaultyCloud, url: str) -> None:
    cloud.faults.script(Fault.drip(size=8, interval=0.02))
    with pytest.raises(TimedOut, match=r"no complete response within 0\.2 s"):
        make_client(url, timeout=0.2).sync()


@pytest.mark.parametrize("path", [DEVICES.path, DOOR_SENSORS.path, ACTIVITIES.path])
def test_calls_other_than_syncs_have_a_shorter_timeout(
    cloud: FaultyCloud, url: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("exporter.tedee.client.LOW_PRIORITY_TIMEOUT", 0.2)
    client = make_client(url)
    calls: dict[str, Callable[[], object]] = {
        DEVICES.path: client.devices,
        DOOR_SENSORS.path: client.door_sensors,
        ACTIVITIES.path: lambda: client.activities(1001),
    }
    cloud.faults.script(Fault.silence())
    with pytest.raises(TimedOut, match=rf"{path}: no complete response within 0\.2 s"):
        calls[path]()
    assert client.sync().rows


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "headers": (HEAD, b"X-More: headers\r\n"),
    "a header": (HEAD + b"X-Long: ", b"x"),
    "a status line": (b"HTTP/1.1 200 ", b"O"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body": (HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: 1\r\n"),
    "empty compressed blocks": (
        HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\na\r\n" + gzip.compress(b"")[:10] + b"\r\n",
        b"5\r\n\x00\x00\x00\xff\xff\r\n",
    ),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_endless_slow_response_times_out(what: str) -> None:
    begin, drop = ENDLESS[what]
    over = threading.Event()

    def respond(connection: socket.socket) -> None:
        for part in chain([begin], repeat(drop, 1_000)):
            connection.sendall(part)
            if over.wait(0.05):
                return

    with tcp_server(respond) as port:
        client = make_client(f"http://127.0.0.1:{port}", timeout=0.4)
        with pytest.raises(CallError) as caught:
            client.sync()
    assert type(caught.value) is TimedOut
    assert "no complete response within 0.4 s" in str(caught.value)


def test_huge_decompressed_response_is_aborted(cloud: FaultyCloud, url: str) -> None:
    blanks = b" " * (MAX_BODY_BYTES + 1)
    cloud.faults.script(Fault.body(blanks, "application/json"))
    with pytest.raises(InvalidResponse, match="the response exceeds 16,777,216 bytes"):
        make_client(url).sync()


def test_refused_connection_is_connection_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectionFailed, match=f"no connection to 127.0.0.1 port {port}: Connection refused:"):
        make_client(f"http://127.0.0.1:{port}").sync()


def test_unresolvable_name_is_connection_failure() -> None:
    with pytest.raises(ConnectionFailed, match=r"the name tedee\.invalid cannot be resolved: .*[Nn]ame"):
        make_client("https://tedee.invalid").sync()


def test_unknown_ca_is_tls_failure() -> None:
    with (
        tls_server(trustme.CA().issue_cert("localhost")) as url,
        pytest.raises(TlsFailed, match=r"unable to get local issuer|self-signed"),
    ):
        make_client(url).sync()


def test_certificate_of_another_name_is_tls_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("NO_PROXY", "*")
    with tls_server(authority.issue_cert("tedee.test")) as url, pytest.raises(TlsFailed, match=r"[Hh]ostname mismatch"):
        make_client(url).sync()


NOW = datetime(2026, 9, 25, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        (" 30 ", 30.0),
        (format_datetime(NOW + timedelta(minutes=10), usegmt=True), 600.0),
        (format_datetime(NOW - timedelta(minutes=10), usegmt=True), 0.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 400, 999_999_999_999.0),
        ("Fri, 99 Sep 2026 12:00:00 GMT", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_date_by_server_clock(value: str, seconds: float | None) -> None:
    with responses.RequestsMock() as mock:
        mock.get(
            "https://tedee.test/api/v37/my/lock/sync",
            status=429,
            headers={"Retry-After": value, "Date": format_datetime(NOW, usegmt=True)},
        )
        with pytest.raises(RateLimited) as caught:
            make_client("https://tedee.test").sync()
    assert caught.value.retry_after == seconds


def test_retired_version_error_lists_supported_versions(cloud: FaultyCloud, url: str) -> None:
    cloud.retire("v37")
    with pytest.raises(NotFound, match=r"Tedee supports the API versions 1\.33, 1\.34, 1\.36, not v37"):
        make_client(url).sync()


def test_request_without_response_is_observed_by_reason(cloud: FaultyCloud, url: str) -> None:
    requests = Requests()
    client = make_client(url, observer=requests)
    client.sync()
    cloud.faults.script(Fault.error(401), Fault.reset())
    for _ in range(2):
        with contextlib.suppress(CallError):
            client.sync()
    assert requests.seen == [(SYNC.path, "200"), (SYNC.path, "401"), (SYNC.path, "connection")]


# Keys and tokens


def test_changed_key_file_is_used_at_next_call(cloud: FaultyCloud, url: str, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("not-yet-made\n")
    client = make_client(url, personal_key(key_file))
    with pytest.raises(Unauthorized):
        client.sync()
    key_file.write_text(f"{KEY}\n")
    assert client.sync().rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"two text", "contains invalid characters"),
        (b"two\nlines", "contains invalid characters"),
        (b"evil\r\nX-Header: 1", "contains invalid characters"),
        (b"\xff\xfa", "contains bytes that are not ASCII"),
        ("schl\u00fcssel".encode(), "contains bytes that are not ASCII"),
    ],
)
def test_unusable_key_file_is_named_and_nothing_is_sent(
    cloud: FaultyCloud, url: str, tmp_path: Path, content: bytes | None, message: str
) -> None:
    key_file = tmp_path / "key"
    if content is not None:
        key_file.write_bytes(content)
    with pytest.raises(Unauthorized) as caught:
        make_client(url, personal_key(key_file)).sync()
    assert message in str(caught.value)
    assert safe_path(key_file) in str(caught.value)
    assert cloud.calls == []
    for word in ("two", "evil", "schl"):
        assert word not in str(caught.value).replace(str(key_file), "")


def test_key_without_scope_is_forbidden(cloud: FaultyCloud, url: str) -> None:
    cloud.world.account("home").keys.append(PersonalKey("no-scope", scopes=("Bridge.Read",)))
    with pytest.raises(Forbidden):
        make_client(url, personal_key(Secret("no-scope"))).sync()


def test_netrc_does_not_replace_key(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login user password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert make_client(url).sync().rows


def test_proxy_is_not_used_for_loopback(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert make_client(url).sync().rows


def test_cookie_is_not_stored(cloud: FaultyCloud, url: str) -> None:
    connections = session("tedee-exporter/test")
    cloud.faults.script(Fault(headers={"Set-Cookie": "session=home; Path=/"}))
    client = make_client(url)
    client._session = connections
    client.sync()
    assert len(connections.cookies) == 0


def test_repr_of_credentials_does_not_show_key() -> None:
    assert KEY not in repr(personal_key(Secret(KEY)))


@pytest.mark.parametrize("status", [401, 403])
def test_text_of_refused_request_is_not_shown(served: tuple[FaultyCloud, str], status: int) -> None:
    cloud, url = served
    cloud.faults.script(Fault.echo(status))
    with pytest.raises(Unauthorized if status == 401 else Forbidden) as caught:
        make_client(url).sync()
    assert (caught.value.messages, caught.value.correlation_id) == ((), None)


@pytest.mark.parametrize(("code", "kind"), [(401, Unauthorized), (403, Forbidden)])
def test_text_of_refusal_in_envelope_is_not_shown(code: int, kind: type[CallError]) -> None:
    with responses.RequestsMock() as mock:
        mock.get(SYNC_URL, json={"success": False, "statusCode": code, "errorMessages": ["text"]})
        with pytest.raises(kind) as caught:
            make_client("https://tedee.test").sync()
    assert caught.value.messages == ()


def test_part_of_key_that_looks_like_uuid_is_redacted() -> None:
    with responses.RequestsMock() as mock:
        mock.get(SYNC_URL, status=403, headers={"X-Correlation-ID": KEY.encode().hex()[:32]})
        with pytest.raises(Forbidden) as caught:
            make_client("https://tedee.test").sync()
    assert caught.value.correlation_id is None


ENCODED_KEYS = [
    base64.b64encode(f"Basic {KEY}".encode()).decode(),
    KEY.upper(),
    quote(KEY).replace("-", "%2D"),
    KEY[:10],
    KEY.encode().hex(),
]


@pytest.mark.parametrize("encoded", ENCODED_KEYS)
def test_encoded_key_is_not_shown(encoded: str, caplog: pytest.LogCaptureFixture) -> None:
    headers = {
        "X-Correlation-ID": encoded,
        "API-Supported-Versions": f"1.36, {encoded}",
        "Content-Encoding": encoded,
    }
    for status, body, kind in [
        (500, as_json({"errorMessages": [f"bad: {encoded}", "Sorry"]}), "application/json"),
        (404, b"", f"text/{encoded}"),
        (200, b"oh", f"text/{encoded}"),
        (200, as_json({"success": False, "errorMessages": [encoded], "statusCode": encoded}), "application/json"),
    ]:
        with responses.RequestsMock() as mock:
            mock.get(SYNC_URL, body=body, status=status, headers=headers, content_type=kind)
            with pytest.raises(CallError) as caught:
                make_client("https://tedee.test").sync()
        assert caught.value.correlation_id is None
        assert encoded not in str(caught.value)
        assert status != 500 or caught.value.messages == (REDACTED, "Sorry")


def test_rejected_value_does_not_show_key(served: tuple[FaultyCloud, str]) -> None:
    cloud, url = served
    cloud.faults.script(Fault.result([{"id": 1, "isConnected": True, "deviceState": {"state": KEY.upper()}}]))
    assert [each.value for each in make_client(url).sync().rejections] == [REDACTED]


def test_uuid_of_refused_request_is_shown() -> None:
    number = "7f3c1c9e-0b1a-4c55-9a52-7d0c8f1d6a11"
    with responses.RequestsMock() as mock:
        mock.get(SYNC_URL, status=403, headers={"X-Correlation-ID": number})
        with pytest.raises(Forbidden, match=rf"\[X-Correlation-ID {number}\]"):
            make_client("https://tedee.test").sync()


def test_key_in_lock_name_is_redacted(served: tuple[FaultyCloud, str]) -> None:
    cloud, url = served
    escaped = "".join(f"\\u{ord(char):04x}" for char in KEY)
    body = f'{{"success": true, "result": {{"locks": [{{"id": 1, "name": "a key: {escaped}"}}]}}}}'
    cloud.faults.script(Fault.body(body.encode(), "application/json"))
    assert make_client(url).devices().rows[LockDetails, 1].name == "a key: [secret]"


def test_key_as_field_name_is_redacted(served: tuple[FaultyCloud, str]) -> None:
    cloud, url = served
    body = f'{{"success": true, "result": [{{"id": 1, "{KEY}": 1}}]}}'
    cloud.faults.script(Fault.body(body.encode(), "application/json"))
    parsed = make_client(url).sync()
    assert list(parsed.rows) == [1]
    assert KEY.encode() not in b"".join(parsed.raw_rows)


UNUSABLE_ROWS = {
    "broken UTF-8": b'{"id": 2, "x": "\xff"}',
    "a huge number": b'{"id": 2, "x": ' + b"9" * 5_000 + b"}",
    "a raw control character": b'{"id": 2, "x": "a\tb"}',
    "a raw newline": b'{"id": 2, "x": "a\n],"}',
    "deep nesting": b'{"id": 2, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "two values": b'{"id": 2} {"id": 2}',
    "no value": b'{"id": 2, "x": }',
    "nothing": b"",
}
UNUSUAL_ROWS = {
    "half a surrogate": b'{"id": 3, "x": "\\ud800"}',
    "NaN": b'{"id": 3, "x": NaN}',
    "an exponent": b'{"id": 3, "x": 1e999}',
    "brackets in a text": b'{"id": 3, "x": "]}\\"],{"}',
    "the key": b'{"id": 3, "x": "%s"}' % KEY.encode(),
    "an escape": b'{"id": 3, "x": "\\u00fc"}',
}


@pytest.mark.parametrize("endpoint", ["sync", "details"])
@pytest.mark.parametrize("other", [*UNUSABLE_ROWS, *UNUSUAL_ROWS])
@pytest.mark.parametrize("unusable", UNUSABLE_ROWS)
def test_unusable_row_does_not_affect_others(
    served: tuple[FaultyCloud, str], endpoint: str, unusable: str, other: str
) -> None:
    cloud, url = served
    rows = [b'{"id": 1}', UNUSABLE_ROWS[unusable], (UNUSABLE_ROWS | UNUSUAL_ROWS)[other], b'{"id": 4}']
    result = (
        b"[%s]" if endpoint == "sync" else b'{"page": 1, "bridges": [], "locks": [%s], "new": [%s]}' % (b"%s", rows[1])
    )
    cloud.faults.script(Fault.body(b'{"success": true, "result": %s}' % (result % b",".join(rows)), "application/json"))
    client = make_client(url)
    parsed: ParseResult[Any, Any] = client.sync() if endpoint == "sync" else client.devices()
    assert sorted(row.id for row in parsed.rows.values()) == ([1, 3, 4] if other in UNUSUAL_ROWS else [1, 4])
    assert {(each.field, each.value) for each in parsed.rejections} == {("id", "not JSON")}
    assert parsed.rejection_counts == {"id": 1 if other in UNUSUAL_ROWS else 2}


def test_control_characters_of_response_are_removed(served: tuple[FaultyCloud, str]) -> None:
    cloud, url = served
    cloud.faults.script(Fault.error(409, "red\x1b[31m\x08\r\nline"))
    with pytest.raises(InvalidResponse) as caught:
        make_client(url).sync()
    assert str(caught.value).isprintable()
    assert caught.value.messages == ("red [31m line",)


CONTRADICTIONS: list[tuple[object, type[CallError]]] = [
    (500, ServerFailed),
    (404, NotFound),
    (199, InvalidResponse),
    (300, InvalidResponse),
    ("200", InvalidResponse),
    (True, InvalidResponse),
    (200.0, InvalidResponse),
    ([], InvalidResponse),
]


@pytest.mark.parametrize(("code", "kind"), CONTRADICTIONS)
def test_success_with_error_status_is_failure(code: object, kind: type[CallError]) -> None:
    with responses.RequestsMock() as mock:
        mock.get(SYNC_URL, json={"result": [], "success": True, "errorMessages": [], "statusCode": code})
        with pytest.raises(CallError, match="HTTP 200, but the response reports a failure") as caught:
            make_client("https://tedee.test").sync()
    assert type(caught.value) is kind


@pytest.mark.parametrize("envelope", [{}, {"statusCode": None}, {"statusCode": 204}, {"errorMessages": ["A word"]}])
def test_successful_envelope_is_accepted(envelope: dict[str, object]) -> None:
    with responses.RequestsMock() as mock:
        mock.get(SYNC_URL, json={"result": [], "success": True, **envelope})
        assert make_client("https://tedee.test").sync().rows == {}


@pytest.mark.parametrize(
    ("encoding", "described"),
    [
        ("br", ", compressed with br, which was not requested"),
        ("zstd, gzip", ", compressed with zstd, which was not requested"),
        ("rot13", ", compressed with an unknown encoding, which was not requested"),
        ("identity", ""),
        ("", ""),
    ],
)
def test_unrequested_encoding_is_named(encoding: str, described: str) -> None:
    headers = {"Content-Type": "Text/HTML; charset=x", "Content-Encoding": encoding}
    with Bodies().body() as body:
        body.append(b"oh")
        assert Response(200, headers, body, Deadline(1)).describe_body() == f"text/html of 2 bytes{described}"


def test_error_with_huge_body_keeps_its_kind(served: tuple[FaultyCloud, str]) -> None:
    cloud, url = served
    cloud.faults.script(Fault.body(b" " * (MAX_BODY_BYTES + 1), status=429))
    with pytest.raises(RateLimited):
        make_client(url).sync()


@pytest.mark.parametrize("row", [b"0", b"{}", b'{"id":1}'])
def test_too_many_rows_are_rejected(served: tuple[FaultyCloud, str], row: bytes) -> None:
    cloud, url = served
    rows = b",".join([row] * 1_200_000)
    cloud.faults.script(Fault.body(b'{"success": true, "result": [%s]}' % rows, "application/json"))
    with pytest.raises(InvalidResponse, match="the response has over 1,000,000 values"):
        make_client(url).sync()


# Arbitrary responses

FIELDS = ["result", "success", "errorMessages", "statusCode", "id", "isConnected", "deviceState", "state", "name"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([200, 429, 10**400]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=12,
)
GOOD = (FIXTURES / "sync-v37.json").read_bytes()


def mutated(edits: list[tuple[float, bytes]]) -> bytes:
    """Return a documented response, overwritten at some positions."""
    body = bytearray(GOOD)
    for position, replacement in edits:
        begin = int(position * len(body))
        body[begin : begin + len(replacement)] = replacement
    return bytes(body)


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def in_another_charset(name: str) -> bytes:
    return GOOD.decode().encode(name)


BYTES = (
    st.binary(max_size=200)
    | ANYTHING.map(as_json)
    | st.fixed_dictionaries({"result": ANYTHING, "success": st.just(True)}).map(as_json)
    | st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6)), max_size=4).map(mutated)
    | st.sampled_from(["utf-8-sig", "utf-16", "utf-32", "cp037", "latin-1"]).map(in_another_charset)
)


def outcome(client: TedeeClient) -> tuple[ParseResult[int, SyncedLock] | None, CallError | None]:
    try:
        return client.sync(), None
    except CallError as error:
        return None, error


@settings(max_examples=300)
@given(body=BYTES, status=st.sampled_from([200, 200, 200, 200, 429, 500, 302]), kind=st.text(max_size=20))
def test_arbitrary_body_gives_exact_values_or_named_error(body: bytes, status: int, kind: str) -> None:
    content_type = "".join(char for char in kind if char.isascii() and char.isprintable())
    with responses.RequestsMock() as mock:
        mock.get("https://tedee.test/api/v37/my/lock/sync", body=body, status=status, content_type=content_type)
        parsed, error = outcome(make_client("https://tedee.test"))
    if error:
        assert error.reason in REASONS
        assert str(error).isprintable()
        return
    assert parsed
    assert status == 200
    for lock in parsed.rows.values():
        state = lock.device_state
        if state and state.state is not None:
            # A row that is not JSON is left out. The others are parsed as they were sent.
            (row,) = {bytes(each) for each in parsed.raw_rows if id_of(each) == lock.id}
            assert json.loads(row)["deviceState"]["state"] == state.state
            assert row in body or json.loads(row) in objects_in(body)


def objects_in(body: bytes) -> Iterator[object]:
    """Yield every JSON object at any position of a body."""
    with contextlib.suppress(ValueError):
        yield from json.loads(body)["result"]
    ends = [each.end() for each in re.finditer(rb"}", body)]
    for begin in (each.start() for each in re.finditer(rb"{", body)):
        for end in ends:
            with contextlib.suppress(ValueError):
                yield json.loads(body[begin:end])


def id_of(row: bytes) -> object:
    with contextlib.suppress(ValueError):
        return value.get("id") if isinstance(value := json.loads(bytes(row)), dict) else None
    return None


@pytest.mark.parametrize("interim", [b"HTTP/1.1 103 Early Hints", b"HTTP/1.1 102 Processing"])
def test_interim_response_does_not_mix_up_accounts(interim: bytes) -> None:
    """The final response is late. If connections were shared, another account might receive it."""
    over = threading.Event()

    def respond(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            lock_id = re.findall(rb"PersonalKey key-(\d+)", request)[0].decode()
            result = [{"id": int(lock_id), "isConnected": True}]
            body = json.dumps({"result": result, "success": True, "errorMessages": [], "statusCode": 200}).encode()
            connection.sendall(interim + b"\r\n\r\n")
            if over.wait(0.3):
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with tcp_server(respond) as port:
        shared = session("tedee-exporter/test")
        outcomes = []
        for number in range(6):
            client = make_client(f"http://127.0.0.1:{port}", personal_key(Secret(f"key-{number}")))
            client._session = shared
            outcomes.append((number, *outcome(client)))
            over.wait(0.2)
        over.set()
    for number, parsed, error in outcomes:
        assert error or (parsed and set(parsed.rows) == {number})
        assert not error or error.reason == "invalid_response"


def test_error_does_not_keep_the_response_in_memory() -> None:
    """While one account's error is handled, other accounts parse their responses."""
    rows = [0] * (MAX_ROWS + 1)
    with responses.RequestsMock() as mock:
        mock.get(SYNC_URL, json={"result": rows, "success": True, "errorMessages": [], "statusCode": 200})
        with pytest.raises(InvalidResponse, match="rows") as caught:
            make_client("https://tedee.test").sync()
    error: BaseException | None = caught.value
    while error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_globals["__name__"].startswith("exporter."):
                sizes = [len(value) for value in frame.f_locals.values() if isinstance(value, (bytes, bytearray, list))]
                assert max(sizes, default=0) < 1000, frame.f_code.co_name
        error = error.__context__
