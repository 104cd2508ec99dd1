"""Lost if these fail: knowing what went wrong and what to do, when Tedee does not answer as it should."""

import base64
import contextlib
import gzip
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import chain, repeat
from pathlib import Path
from urllib.parse import quote

import pytest
import responses
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.clock import boottime
from exporter.secrets import Secret, safe_path
from exporter.simulator import Cloud, Fault, PersonalKey, World, serve
from exporter.tedee.bodies import MAX_BODY_BYTES
from exporter.tedee.client import LOCKS, NOT_SHOWN, SYNC, TedeeClient, kind_of
from exporter.tedee.credentials import Credentials, access_token, personal_key
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
from exporter.tedee.models import Reading, SyncedLock
from exporter.tedee.transport import session
from tests.conftest import FIXTURES
from tests.program import TIMEOUT
from tests.tcp import tcp_server, tls_server

KEY = "simulated-key-home"
SYNC_URL = "https://tedee.test/api/v37/my/lock/sync"


class UnlimitedRateLimiter:
    """Lets every call pass: what the gate holds back is tested where the gate is."""

    def __init__(self) -> None:
        self.passed: list[str] = []

    def acquire(self, endpoint: str, user: str) -> AbstractContextManager[float]:
        self.passed.append(endpoint)
        return nullcontext(boottime())


class Requests:
    """Remembers the requests that the client says it sent."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, endpoint: str, code: str) -> None:
        self.seen.append((endpoint, code))


def make_client(
    url: str,
    credentials: Credentials | None = None,
    *,
    version: str = "v37",
    timeout: float = TIMEOUT,
    gate: UnlimitedRateLimiter | None = None,
    observe: Callable[[str, str], None] = lambda endpoint, code: None,
) -> TedeeClient:
    return TedeeClient(
        "home",
        url=url,
        version=version,
        credentials=credentials or personal_key(Secret(KEY)),
        timeout=timeout,
        session=session(),
        limiter=gate or UnlimitedRateLimiter(),
        observe=observe,
        user_agent="tedee-exporter/test",
    )


@pytest.fixture
def cloud() -> Cloud:
    return Cloud(
        World.demo(clock=lambda: 1_790_000_000.0), sync_spacing=0.0, versions=("v1.33", "v1.34", "v1.36", "v37")
    )


@pytest.fixture
def url(cloud: Cloud) -> Iterator[str]:
    with serve(cloud) as address:
        yield address.url


@pytest.fixture
def served(cloud: Cloud, url: str) -> tuple[Cloud, str]:
    return cloud, url


def test_a_sync_brings_every_lock_of_the_account(cloud: Cloud, url: str) -> None:
    reading = make_client(url).sync()
    assert sorted(reading.rows) == [lock.id for lock in cloud.world.account("home").locks]
    assert not reading.rejections


def test_a_sync_of_chosen_locks_brings_those(url: str, cloud: Cloud) -> None:
    assert sorted(make_client(url).sync([1003, 1001]).rows) == [1001, 1003]
    assert cloud.calls[-1].ids == (1003, 1001)


@pytest.mark.parametrize("version", ["v1.33", "v1.34", "v1.36", "v37"])
def test_every_version_gives_the_same_values(url: str, version: str) -> None:
    assert make_client(url, version=version).sync().rows == make_client(url).sync().rows


def test_the_exporter_says_who_it_is(url: str, cloud: Cloud) -> None:
    make_client(url).sync()
    assert cloud.calls[-1].user_agent == "tedee-exporter/test"


def test_names_come_page_by_page() -> None:
    world = World.of_size(accounts=1, locks=230)
    with serve(Cloud(world)) as crowded:
        client = make_client(crowded.url, personal_key(Secret("key-account-0001")))
        pages = [client.locks(number) for number in (1, 2, 3, 4)]
    assert [len(page.rows) for page in pages] == [100, 100, 30, 0]
    names = {row.name for page in pages for row in page.rows.values()}
    assert names == {f"Lock {number}" for number in range(1, 231)}


def test_every_request_passes_the_gate(url: str) -> None:
    gate = UnlimitedRateLimiter()
    client = make_client(url, gate=gate)
    client.sync()
    client.locks(1)
    assert gate.passed == [SYNC, LOCKS]


def test_an_access_token_is_a_bearer(url: str) -> None:
    assert make_client(url, access_token(Secret("simulated-token-home"))).sync().rows


HTML = b"<html><body>Please sign in to the hotel's Wi-Fi</body></html>"
DEEP = b"[" * 100_000 + b"]" * 100_000

FAILURES: list[tuple[str, Fault, type[CallError], str]] = [
    ("400", Fault.error(400, "Bad id"), InvalidResponse, r'HTTP 400 Bad Request \(Tedee says: "Bad id"\)'),
    (
        "401",
        Fault.error(401, "Key expired"),
        Unauthorized,
        r"HTTP 401 Unauthorized(?! \(Tedee says)",
    ),
    (
        "403",
        Fault.error(403, "No scope"),
        Forbidden,
        r"HTTP 403 Forbidden(?! \(Tedee says).*scope Device\.Read",
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
    ("an empty object", Fault.json({}), InvalidResponse, r"HTTP 200 whose content says that it failed"),
    ("deep nesting", Fault.body(DEEP, "application/json"), InvalidResponse, r"not a JSON object"),
    ("an endless number", Fault.body(b"9" * 10_000, "application/json"), InvalidResponse, r"not a JSON object"),
    ("broken UTF-8", Fault.body(b'{"\xff": "\xff', "application/json"), InvalidResponse, r"not a JSON object"),
    ("result null", Fault.result(None), InvalidResponse, r"result is not a list"),
    ("result an object", Fault.result({}), InvalidResponse, r"result is not a list"),
    ("two objects", Fault.body(b"{} {}", "application/json"), InvalidResponse, r"not a JSON object"),
    ("brackets that do not match", Fault.body(b'{"result": [}]}'), InvalidResponse, r"not a JSON object"),
    ("half of an escape", Fault.body(b'{"result": [], "success": "\\'), InvalidResponse, r"not a JSON object"),
    ("success: false", Fault.unsuccessful("Oh no"), InvalidResponse, r'content says that it failed.*"Oh no"'),
    ("reset", Fault.reset(), ConnectionFailed, r"the connection failed: Connection reset by peer"),
    ("reset in mid-body", Fault.reset_mid_body(), ConnectionFailed, r"the connection failed: Connection reset by peer"),
]


@pytest.mark.parametrize(("fault", "error", "said"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
@pytest.mark.parametrize("endpoint", ["sync", "locks"])
def test_every_way_a_call_can_end_is_one_named_error(
    served: tuple[Cloud, str], endpoint: str, fault: Fault, error: type[CallError], said: str
) -> None:
    cloud, url = served
    cloud.faults.script(fault, endpoint=endpoint)
    client = make_client(url)
    with pytest.raises(CallError) as caught:
        client.sync() if endpoint == "sync" else client.locks(1)
    assert type(caught.value) is error
    text = str(caught.value)
    assert re.search(said, text)
    assert text.startswith(f"account 'home': {SYNC if endpoint == 'sync' else LOCKS}: ")
    assert text.endswith(error.advice)
    assert KEY not in text
    assert "\n" not in text


def test_broken_compression_is_an_invalid_response() -> None:
    with responses.RequestsMock() as mock:
        mock.get("https://tedee.test/api/v37/my/lock/sync", body=b"not gzip", headers={"Content-Encoding": "gzip"})
        with pytest.raises(InvalidResponse, match="compression is broken"):
            make_client("https://tedee.test").sync()


def test_every_error_of_the_table_of_reasons_is_met_somewhere_here() -> None:
    met = {error.reason for _, _, error, _ in FAILURES}
    assert met | {"timeout", "tls"} == set(REASONS)


def test_an_error_carries_the_correlation_id_that_tedees_support_asks_for(cloud: Cloud, url: str) -> None:
    cloud.faults.script(Fault.error(500))
    with pytest.raises(ServerFailed) as caught:
        make_client(url).sync()
    assert caught.value.correlation_id == cloud.calls[-1].correlation_id
    assert caught.value.correlation_id
    assert caught.value.correlation_id in str(caught.value)
    assert caught.value.status == 500


def test_a_call_that_is_never_answered_ends_with_the_time_out(cloud: Cloud, url: str) -> None:
    cloud.faults.script(Fault.silence())
    with pytest.raises(TimedOut, match=r"no complete answer within 0\.2 s"):
        make_client(url, timeout=0.2).sync()


def test_an_answer_that_drips_ends_with_the_time_out_too(cloud: Cloud, url: str) -> None:
    cloud.faults.script(Fault.drip(size=8, interval=0.02))
    with pytest.raises(TimedOut, match=r"no complete answer within 0\.2 s"):
        make_client(url, timeout=0.2).sync()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "headers": (HEAD, b"X-More: headers\r\n"),
    "a header": (HEAD + b"X-Long: ", b"x"),
    "a status line": (b"HTTP/1.1 200 ", b"O"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body": (HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: 1\r\n"),
    "compressed nothing": (
        HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\na\r\n" + gzip.compress(b"")[:10] + b"\r\n",
        b"5\r\n\x00\x00\x00\xff\xff\r\n",
    ),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_whatever_drips_without_end_is_over_at_the_time_out(what: str) -> None:
    begin, drop = ENDLESS[what]
    over = threading.Event()

    def speak(connection: socket.socket) -> None:
        for part in chain([begin], repeat(drop, 1_000)):
            connection.sendall(part)
            if over.wait(0.05):
                return

    with tcp_server(speak) as port:
        client = make_client(f"http://127.0.0.1:{port}", timeout=0.4)
        with pytest.raises(CallError) as caught:
            client.sync()
    assert type(caught.value) is TimedOut
    assert "no complete answer within 0.4 s" in str(caught.value)


def test_an_answer_that_is_endless_once_unpacked_is_given_up(cloud: Cloud, url: str) -> None:
    blanks = b" " * (MAX_BODY_BYTES + 1)
    cloud.faults.script(Fault.body(blanks, "application/json"))
    with pytest.raises(InvalidResponse, match="a response of over 16,777,216 bytes"):
        make_client(url).sync()


def test_a_port_where_nobody_listens_is_a_failed_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectionFailed, match=f"no connection to 127.0.0.1 port {port}: Connection refused:"):
        make_client(f"http://127.0.0.1:{port}").sync()


def test_a_name_that_does_not_resolve_is_a_failed_connection() -> None:
    with pytest.raises(ConnectionFailed, match=r"the name tedee\.invalid cannot be resolved: .*[Nn]ame"):
        make_client("https://tedee.invalid").sync()


def test_a_certificate_of_an_unknown_authority_is_a_tls_failure() -> None:
    with (
        tls_server(trustme.CA().issue_cert("localhost")) as url,
        pytest.raises(TlsFailed, match=r"unable to get local issuer|self-signed"),
    ):
        make_client(url).sync()


def test_a_certificate_for_another_name_is_a_tls_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_retry_after_is_seconds_or_a_date_by_the_servers_own_clock(value: str, seconds: float | None) -> None:
    with responses.RequestsMock() as mock:
        mock.get(
            "https://tedee.test/api/v37/my/lock/sync",
            status=429,
            headers={"Retry-After": value, "Date": format_datetime(NOW, usegmt=True)},
        )
        with pytest.raises(RateLimited) as caught:
            make_client("https://tedee.test").sync()
    assert caught.value.retry_after == seconds


def test_a_retired_version_is_named_with_those_that_are_spoken(cloud: Cloud, url: str) -> None:
    cloud.retire("v37")
    with pytest.raises(NotFound, match=r"Tedee speaks 1\.33, 1\.34, 1\.36 here, not v37"):
        make_client(url).sync()


def test_the_reason_stands_for_the_status_that_never_came(cloud: Cloud, url: str) -> None:
    requests = Requests()
    client = make_client(url, observe=requests)
    client.sync()
    cloud.faults.script(Fault.error(401), Fault.reset())
    for _ in range(2):
        with contextlib.suppress(CallError):
            client.sync()
    assert requests.seen == [(SYNC, "200"), (SYNC, "401"), (SYNC, "connection")]


# Keys and tokens


def test_a_rotated_key_file_is_used_at_the_next_call(cloud: Cloud, url: str, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("not-yet-made\n")
    client = make_client(url, personal_key(key_file))
    with pytest.raises(Unauthorized):
        client.sync()
    key_file.write_text(f"{KEY}\n")
    assert client.sync().rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"two text", "contains characters that no key has"),
        (b"two\nlines", "contains characters that no key has"),
        (b"evil\r\nX-Header: 1", "contains characters that no key has"),
        (b"\xff\xfa", "contains bytes that no key has"),
        ("schl\u00fcssel".encode(), "contains bytes that no key has"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_named_and_nothing_is_sent(
    cloud: Cloud, url: str, tmp_path: Path, content: bytes | None, said: str
) -> None:
    key_file = tmp_path / "key"
    if content is not None:
        key_file.write_bytes(content)
    with pytest.raises(Unauthorized) as caught:
        make_client(url, personal_key(key_file)).sync()
    assert said in str(caught.value)
    assert safe_path(key_file) in str(caught.value)
    assert cloud.calls == []
    for word in ("two", "evil", "schl"):
        assert word not in str(caught.value).replace(str(key_file), "")


def test_a_key_without_the_scope_is_forbidden(cloud: Cloud, url: str) -> None:
    cloud.world.account("home").keys.append(PersonalKey("no-scope", scopes=("Bridge.Read",)))
    with pytest.raises(Forbidden):
        make_client(url, personal_key(Secret("no-scope"))).sync()


def test_a_netrc_does_not_replace_the_key(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert make_client(url).sync().rows


def test_a_proxy_of_the_environment_is_not_asked_for_this_very_machine(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert make_client(url).sync().rows


def test_a_cookie_is_not_kept(cloud: Cloud, url: str) -> None:
    connections = session()
    cloud.faults.script(Fault(headers={"Set-Cookie": "session=home; Path=/"}))
    client = make_client(url)
    client._session = connections
    client.sync()
    assert len(connections.cookies) == 0


def test_nothing_of_a_key_shows_in_what_is_printed_of_its_credentials() -> None:
    assert KEY not in repr(personal_key(Secret(KEY)))


@pytest.mark.parametrize("status", [401, 403])
def test_text_of_refusal_is_not_shown(served: tuple[Cloud, str], status: int) -> None:
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


def test_part_of_key_that_looks_like_a_uuid_is_hidden() -> None:
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
def test_key_in_another_form_is_not_shown(encoded: str, caplog: pytest.LogCaptureFixture) -> None:
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
        assert status != 500 or caught.value.messages == (NOT_SHOWN, "Sorry")


def test_rejected_value_does_not_show_key(served: tuple[Cloud, str]) -> None:
    cloud, url = served
    cloud.faults.script(Fault.result([{"id": 1, "isConnected": True, "deviceState": {"state": KEY.upper()}}]))
    assert [each.value for each in make_client(url).sync().rejections] == [NOT_SHOWN]


def test_uuid_of_refusal_is_shown() -> None:
    number = "7f3c1c9e-0b1a-4c55-9a52-7d0c8f1d6a11"
    with responses.RequestsMock() as mock:
        mock.get(SYNC_URL, status=403, headers={"X-Correlation-ID": number})
        with pytest.raises(Forbidden, match=rf"\[X-Correlation-ID {number}\]"):
            make_client("https://tedee.test").sync()


def test_a_key_that_stands_where_a_name_belongs_is_not_served(served: tuple[Cloud, str]) -> None:
    cloud, url = served
    escaped = "".join(f"\\u{ord(char):04x}" for char in KEY)
    body = f'{{"success": true, "result": [{{"id": 1, "name": "a key: {escaped}"}}]}}'
    cloud.faults.script(Fault.body(body.encode(), "application/json"))
    assert make_client(url).locks(1).rows[1].name == "a key: [secret]"


def test_a_key_that_stands_where_the_name_of_a_field_belongs_is_not_kept(served: tuple[Cloud, str]) -> None:
    cloud, url = served
    body = f'{{"success": true, "result": [{{"id": 1, "{KEY}": 1}}]}}'
    cloud.faults.script(Fault.body(body.encode(), "application/json"))
    reading = make_client(url).sync()
    assert list(reading.rows) == [1]
    assert KEY.encode() not in b"".join(reading.written)


UNUSABLE_ROWS = {
    "broken UTF-8": b'{"id": 2, "x": "\xff"}',
    "an endless number": b'{"id": 2, "x": ' + b"9" * 5_000 + b"}",
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


@pytest.mark.parametrize("endpoint", ["sync", "locks"])
@pytest.mark.parametrize("other", [*UNUSABLE_ROWS, *UNUSUAL_ROWS])
@pytest.mark.parametrize("unusable", UNUSABLE_ROWS)
def test_unusable_row_costs_no_other(served: tuple[Cloud, str], endpoint: str, unusable: str, other: str) -> None:
    cloud, url = served
    rows = [b'{"id": 1}', UNUSABLE_ROWS[unusable], (UNUSABLE_ROWS | UNUSUAL_ROWS)[other], b'{"id": 4}']
    cloud.faults.script(Fault.body(b'{"success": true, "result": [%s]}' % b",".join(rows), "application/json"))
    client = make_client(url)
    reading = client.sync() if endpoint == "sync" else client.locks(1)
    assert sorted(reading.rows) == ([1, 3, 4] if other in UNUSUAL_ROWS else [1, 4])
    assert {(each.field, each.value) for each in reading.rejections} == {("id", "'not JSON'")}
    assert reading.rejected == {"id": 1 if other in UNUSUAL_ROWS else 2}


def test_what_an_answer_says_cannot_steer_a_terminal(served: tuple[Cloud, str]) -> None:
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
def test_success_with_another_status_is_a_failure(code: object, kind: type[CallError]) -> None:
    with responses.RequestsMock() as mock:
        mock.get(SYNC_URL, json={"result": [], "success": True, "errorMessages": [], "statusCode": code})
        with pytest.raises(CallError, match="HTTP 200 whose content says that it failed") as caught:
            make_client("https://tedee.test").sync()
    assert type(caught.value) is kind


@pytest.mark.parametrize("envelope", [{}, {"statusCode": None}, {"statusCode": 204}, {"errorMessages": ["A word"]}])
def test_success_is_one(envelope: dict[str, object]) -> None:
    with responses.RequestsMock() as mock:
        mock.get(SYNC_URL, json={"result": [], "success": True, **envelope})
        assert make_client("https://tedee.test").sync().rows == {}


@pytest.mark.parametrize(
    ("encoding", "described"),
    [
        ("br", ", compressed with br, which was not asked for"),
        ("zstd, gzip", ", compressed with zstd, which was not asked for"),
        ("rot13", ", compressed with an unknown encoding, which was not asked for"),
        ("identity", ""),
        ("", ""),
    ],
)
def test_encoding_that_was_not_asked_for_is_named(served: tuple[Cloud, str], encoding: str, described: str) -> None:
    assert kind_of({"Content-Type": "Text/HTML; charset=x", "Content-Encoding": encoding}, b"oh") == (
        f"text/html of 2 bytes{described}"
    )


def test_error_with_huge_body_is_that_error(served: tuple[Cloud, str]) -> None:
    cloud, url = served
    cloud.faults.script(Fault.body(b" " * (MAX_BODY_BYTES + 1), status=429))
    with pytest.raises(RateLimited):
        make_client(url).sync()


@pytest.mark.parametrize("row", [b"0", b"{}", b'{"id":1}'])
def test_more_rows_than_locks_are_refused(served: tuple[Cloud, str], row: bytes) -> None:
    cloud, url = served
    rows = b",".join([row] * 1_200_000)
    cloud.faults.script(Fault.body(b'{"success": true, "result": [%s]}' % rows, "application/json"))
    with pytest.raises(InvalidResponse, match="the response has over 1,000,000 values"):
        make_client(url).sync()


# Anything at all

FIELDS = ["result", "success", "errorMessages", "statusCode", "id", "isConnected", "deviceState", "state", "name"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([200, 429, 10**400]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=12,
)
GOOD = (FIXTURES / "sync-v37.json").read_bytes()


def mutated(edits: list[tuple[float, bytes]]) -> bytes:
    """A documented answer, overwritten here and there."""
    answer = bytearray(GOOD)
    for where, what in edits:
        at = int(where * len(answer))
        answer[at : at + len(what)] = what
    return bytes(answer)


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


def outcome(client: TedeeClient) -> tuple[Reading[SyncedLock] | None, CallError | None]:
    try:
        return client.sync(), None
    except CallError as error:
        return None, error


@settings(max_examples=300, deadline=None)
@given(body=BYTES, status=st.sampled_from([200, 200, 200, 200, 429, 500, 302]), kind=st.text(max_size=20))
def test_any_bytes_as_an_answer_give_exact_values_or_a_named_failure(body: bytes, status: int, kind: str) -> None:
    content_type = "".join(char for char in kind if char.isascii() and char.isprintable())
    with responses.RequestsMock() as mock:
        mock.get("https://tedee.test/api/v37/my/lock/sync", body=body, status=status, content_type=content_type)
        reading, error = outcome(make_client("https://tedee.test"))
    if error:
        assert error.reason in REASONS
        assert str(error).isprintable()
        return
    assert reading
    assert status == 200
    for lock in reading.rows.values():
        state = lock.device_state
        if state and state.state is not None:
            # A row that is not JSON is left out, and the others stay. Those that are read are as they were sent.
            (row,) = {bytes(each) for each in reading.written if id_of(each) == lock.id}
            assert json.loads(row)["deviceState"]["state"] == state.state
            assert row in body or json.loads(row) in objects_in(body)


def objects_in(body: bytes) -> Iterator[object]:
    """Yield every JSON object that stands anywhere in a body, which may be none."""
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
def test_an_interim_answer_does_not_give_one_account_anothers_locks(interim: bytes) -> None:
    """The real answer comes late, over a connection that another account might be using by then."""
    over = threading.Event()

    def speak(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            lock_id = re.findall(rb"PersonalKey key-(\d+)", request)[0].decode()
            result = [{"id": int(lock_id), "isConnected": True}]
            body = json.dumps({"result": result, "success": True, "errorMessages": [], "statusCode": 200}).encode()
            connection.sendall(interim + b"\r\n\r\n")
            if over.wait(0.3):
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with tcp_server(speak) as port:
        shared = session()
        outcomes = []
        for number in range(6):
            client = make_client(f"http://127.0.0.1:{port}", personal_key(Secret(f"key-{number}")))
            client._session = shared
            outcomes.append((number, *outcome(client)))
            over.wait(0.2)
        over.set()
    for number, reading, error in outcomes:
        assert error or (reading and set(reading.rows) == {number})
        assert not error or error.reason == "invalid_response"
