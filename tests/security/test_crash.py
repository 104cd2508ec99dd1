"""Tracebacks of bugs, and messages of libraries about malformed responses, contain no secrets."""

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from exporter import logs
from exporter.accounts import Accounts
from exporter.clock import SystemClock
from exporter.config import Settings
from exporter.config.source import Source
from exporter.console import OUTPUT
from exporter.simulator import TOKEN_PATH, Account, Lock, PersonalKey, RefreshToken, World, serve
from exporter.sync.account import AccountSync
from exporter.sync.scheduler import MAX_STAGGER, Scheduler
from exporter.sync.snapshot import StatusRegistry
from exporter.tedee import client, request, secret_source
from exporter.tedee.models import SyncReader
from exporter.tedee.oauth import token_endpoint
from exporter.tedee.oauth.refresh_tokens import RefreshTokens
from testing.faults import Fault, FaultyCloud
from testing.program import run
from testing.stores import memory_store
from tests.cli.conftest import restore_logging
from tests.security.secret_search import leaks
from tests.security.test_secrets import jwt, secret
from tests.tcp import tcp_server

__all__ = ["restore_logging"]

KEY, REFRESH, CLIENT = secret("home"), jwt("hotel"), secret("client")


class Home:
    """Two accounts, one with a key and one with OAuth, synced in this process."""

    def __init__(self, url: str, folder: Path, cloud: FaultyCloud) -> None:
        self.cloud = cloud
        (folder / "client").write_text(CLIENT)
        (folder / "refresh").write_text(REFRESH)
        own = {"client_id": "c", "client_secret_file": str(folder / "client")}
        oauth = {**own, "refresh_token_file": str(folder / "refresh"), "token_url": url + TOKEN_PATH}
        accounts = [{"name": "home", "personal_key": KEY}, {"name": "hotel", "oauth": oauth}]
        clock = SystemClock()
        self.scheduler = Scheduler(clock)
        configured = Accounts(clock, memory_store(clock), StatusRegistry(), self.scheduler)
        configured.apply(Source({"api": {"url": url}, "accounts": accounts}).validated(Settings))

    def secrets(self) -> set[str]:
        accounts = self.cloud.world.accounts
        issued = {each.value for account in accounts for each in (*account.tokens, *account.refresh_tokens)}
        return {KEY, REFRESH, CLIENT} | issued

    def sync(self) -> None:
        """Run both accounts. The second one is due a moment later."""
        self.scheduler.run_due()
        time.sleep(2 * MAX_STAGGER)
        self.scheduler.run_due()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    accounts = [
        Account("home", [Lock(1, "Front door")], keys=[PersonalKey(KEY)]),
        Account("hotel", [Lock(2, "Back door")], refresh_tokens=[RefreshToken(REFRESH)]),
    ]
    cloud = FaultyCloud(World(accounts))
    with serve(cloud) as address:
        yield Home(address.url, tmp_path, cloud)


def bug(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("a bug")


METHODS: dict[str, tuple[object, str]] = {
    "reading a key": (secret_source, "validate_secret"),
    "reading a token": (token_endpoint, "validate_secret"),
    "signing": (requests.models.PreparedRequest, "prepare_auth"),
    "sending": (HTTPAdapter, "send"),
    "writing the request": (http.client.HTTPConnection, "putheader"),
    "reading the response": (urllib3.HTTPResponse, "read1"),
    "opening the envelope": (client, "open_envelope"),
    "parsing the response": (SyncReader, "read"),
    "refreshing": (token_endpoint, "send"),
    "storing the refresh token": (RefreshTokens, "_store_new"),
    "publishing": (AccountSync, "status"),
}


@pytest.mark.usefixtures("restore_logging")
@pytest.mark.parametrize("form", ["logfmt", "json"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_traceback_of_a_bug_contains_no_secret(
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    method: tuple[object, str],
    form: logs.Format,
) -> None:
    logs.configure("debug", form)
    monkeypatch.setattr(*method, bug)
    home.sync()
    OUTPUT.flush()
    errors = capsys.readouterr().err
    assert "unhandled exception while syncing" in errors
    assert "RuntimeError: a bug" in errors
    assert leaks({"errors": errors.encode()}, home.secrets()) == {}


FAILURES = [
    ((AccountSync, "_record_failure"), Fault.echo()),
    ((AccountSync, "_record_failure"), Fault.error(500)),
    ((AccountSync, "_record_failure"), Fault.malformed()),
    ((AccountSync, "_record_failure"), Fault.reset()),
    ((request, "classify"), Fault.reset()),
]


@pytest.mark.usefixtures("restore_logging")
@pytest.mark.parametrize(("method", "fault"), FAILURES)
def test_traceback_of_a_bug_after_a_fault_has_no_secret(
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    method: tuple[object, str],
    fault: Fault,
) -> None:
    logs.configure("debug", "json")
    monkeypatch.setattr(*method, bug)
    home.cloud.faults.script(fault, forever=True)
    home.sync()
    OUTPUT.flush()
    errors = capsys.readouterr().err
    assert errors.count("unhandled exception while syncing") == 2
    assert leaks({"errors": errors.encode()}, home.secrets()) == {}


# Library messages about malformed responses and invalid proxies


@pytest.mark.parametrize(
    "respond",
    [
        lambda request: b"HTTP/1.1 200 OK\r\nno colon here\r\n" + request,
        lambda request: b"HTTP/1.1 200 OK\r\n" + request,
        lambda request: b"HTTP/1.1 400 " + request.split(b"Authorization: ")[1],
        lambda request: request,
        lambda request: request.split(b"Authorization: ")[1],
        lambda request: b"HTTP/1.1 200 OK\r\nContent-Type: " + request.split(b"Authorization: ")[1],
        lambda request: b"HTTP/1.1 302 Found\r\nLocation: /?" + request.split(b"Authorization: ")[1],
        lambda request: b"HTTP/1.1 401 No\r\nX-Correlation-ID: " + request.split(b"Authorization: ")[1],
        lambda request: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + request,
    ],
    ids=["malformed header", "headers", "phrase", "echo", "status line", "type", "redirect", "trace", "chunk"],
)
def test_key_in_a_malformed_response_is_not_repeated(respond: Callable[[bytes], bytes]) -> None:
    def handle(connection: socket.socket) -> None:
        connection.sendall(respond(connection.recv(65_536)))

    with tcp_server(handle) as port:
        url = f"http://127.0.0.1:{port}"
        ended = run("--sync.once", "--log.level=debug", TEDEE_PERSONAL_KEY=KEY, TEDEE_API_URL=url)
    assert ended.returncode == 1
    assert "sync failed" in ended.stderr
    assert leaks({"streams": (ended.stdout + ended.stderr).encode()}, {KEY}) == {}


@pytest.mark.parametrize(
    "proxy", ["http://user:SECRET@127.0.0.1:1", "http://user:SECRET@proxy:99999", "SECRET://proxy"]
)
def test_password_of_a_proxy_is_not_repeated(proxy: str) -> None:
    password = quote(KEY, safe="")
    variables: dict[str, Any] = {"TEDEE_PERSONAL_KEY": KEY, "HTTPS_PROXY": proxy.replace("SECRET", password)}
    ended = run("--sync.once", "--log.level=debug", TEDEE_API_URL="https://tedee.invalid", **variables)
    assert ended.returncode == 1
    assert "sync failed" in ended.stderr
    assert leaks({"streams": (ended.stdout + ended.stderr).encode()}, {KEY, password}) == {}
