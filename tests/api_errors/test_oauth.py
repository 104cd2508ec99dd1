"""OAuth credentials: when tokens are refreshed and stored, errors of the token endpoint, secrets in messages."""

import errno
import json
import logging
import os
import re
import socket
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
import requests
import responses
import trustme
from structlog.testing import capture_logs

from exporter.accounts import Accounts
from exporter.config import Settings
from exporter.config.source import Source
from exporter.secrets import Secret
from exporter.simulator import TOKEN_PATH, RefreshToken, World, serve
from exporter.simulator.response import Response
from exporter.sync.scheduler import Scheduler
from exporter.sync.snapshot import StatusRegistry
from exporter.tedee.credentials import CredentialInUse, CredentialOwners
from exporter.tedee.deadline import Deadline
from exporter.tedee.endpoint import SYNC
from exporter.tedee.errors import (
    REASONS,
    CallError,
    ConnectionFailed,
    InvalidResponse,
    RateLimited,
    ServerFailed,
    TimedOut,
    TlsFailed,
    Unauthorized,
)
from exporter.tedee.oauth import SCOPE, TOKEN_URL, token_file
from exporter.tedee.oauth.credentials import OAuthCredentials
from exporter.tedee.oauth.refresh_tokens import RefreshTokens
from exporter.tedee.oauth.token_endpoint import MAX_RESPONSE_BYTES, TokenEndpoint
from exporter.tedee.session import session
from testing.clock import FakeClock
from testing.faults import Fault, FaultyCloud
from testing.program import TIMEOUT
from testing.stores import memory_store
from tests.tcp import tls_server

FIRST = "simulated-refresh-first"
CLIENT_SECRET = "simulated-client-secret"
DAY = 86_400.0
ACCESS_LIFETIME = 4 * 3600.0
"""Lifetime of the simulator's access tokens."""


class Tedee:
    """A simulated cloud with an account, the file of its refresh token, and its credentials."""

    def __init__(self, cloud: FaultyCloud, url: str, folder: Path, clock: FakeClock) -> None:
        self.cloud = cloud
        self.url = url
        self.clock = clock
        self.token_url = url + TOKEN_PATH
        self.file = folder / "refresh-token"
        self.secret_file = folder / "client-secret"
        self.file.write_text(f"{FIRST}\n")
        self.secret_file.write_text(f"{CLIENT_SECRET}\n")
        self.account = cloud.world.account("home")
        self.account.refresh_tokens = [RefreshToken(FIRST)]
        self.refresh_tokens = RefreshTokens()

    def endpoint(self, **changes: Any) -> TokenEndpoint:
        defaults: dict[str, Any] = {
            "url": self.token_url,
            "client_id": "simulated-client",
            "client_secret": self.secret_file,
            "scope": SCOPE,
            "timeout": TIMEOUT,
            "session": session("tedee-exporter/test"),
        }
        return TokenEndpoint("home", **defaults | changes)

    def credentials(self, *, owners: CredentialOwners | None = None, **changes: Any) -> OAuthCredentials:
        """Return credentials of the same process, as after a reload."""
        return OAuthCredentials(
            "home",
            endpoint=self.endpoint(**changes),
            refresh_token_file=self.file,
            refresh_tokens=self.refresh_tokens,
            owners=owners,
            monotonic=self.clock.monotonic,
            wall=self.clock.wall,
        )

    def restarted(self) -> OAuthCredentials:
        """Return credentials of a new process, which has only the file."""
        self.refresh_tokens = RefreshTokens()
        return self.credentials()

    def inject(self, *faults: Fault | None, forever: bool = False) -> None:
        self.cloud.faults.script(*faults, endpoint="token", forever=forever)

    def refreshes(self) -> int:
        return sum(call.endpoint == "token" for call in self.cloud.calls)

    def current(self) -> str:
        """Return the only valid refresh token."""
        (current,) = [token.value for token in self.account.refresh_tokens if not token.revoked]
        return current

    def on_file(self) -> str:
        return self.file.read_text().strip()

    def secrets(self) -> list[str]:
        values = [each.value for each in (*self.account.refresh_tokens, *self.account.tokens)]
        return [CLIENT_SECRET, FIRST, "SECRET", *values]

    def sync(self, credentials: OAuthCredentials) -> requests.Response:
        return requests.get(f"{self.url}/api/v37/{SYNC}", auth=credentials.refresh(), timeout=TIMEOUT)


@pytest.fixture
def tedee(tmp_path: Path, clock: FakeClock) -> Iterator[Tedee]:
    cloud = FaultyCloud(World.demo(clock=clock.wall), sync_spacing=0.0)
    with serve(cloud) as address:
        yield Tedee(cloud, address.url, tmp_path, clock)


def edited(**changes: object) -> Fault:
    """Replace values in the normal response; `...` removes a key."""

    def edit(response: Response) -> Response:
        values = {**json.loads(response.body()), **changes}
        fields = {key: value for key, value in values.items() if value is not ...}
        return replace(response, raw=json.dumps(fields).encode())

    return Fault(edit=edit)


def oauth_error(error: object, description: object = "", status: int = 400) -> Fault:
    body = json.dumps({"error": error, "error_description": description}).encode()
    return Fault.body(body, "application/json", status=status)


def failure_of(credentials: OAuthCredentials) -> CallError:
    with pytest.raises(CallError) as caught:
        credentials.refresh()
    return caught.value


def bearer(credentials: OAuthCredentials) -> str:
    request = requests.Request("GET", "https://tedee.test/", auth=credentials.refresh()).prepare()
    return str(request.headers["Authorization"])


# Refreshing


def test_refreshed_access_token_is_accepted_by_api(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    response = tedee.sync(credentials)
    assert response.status_code == 200
    assert len(response.json()["result"]) == len(tedee.account.locks)
    assert re.fullmatch(r"Bearer [\w-]+\.[\w-]+\.simulated-token-[0-9a-f]{32}", bearer(credentials))


def test_token_request_is_as_tedee_documents(tedee: Tedee) -> None:
    with responses.RequestsMock() as mock:
        mock.post(TOKEN_URL, json={"access_token": "a", "expires_in": "14400"})
        tedee.credentials(url=TOKEN_URL).refresh()
        (sent,) = [call.request for call in mock.calls]
    assert dict(parse_qsl(str(sent.body))) == {
        "grant_type": "refresh_token",
        "refresh_token": FIRST,
        "client_id": "simulated-client",
        "client_secret": CLIENT_SECRET,
        "scope": SCOPE,
    }


def test_client_without_secret_sends_only_id(tedee: Tedee) -> None:
    with responses.RequestsMock() as mock:
        mock.post(TOKEN_URL, json={"access_token": "a"})
        tedee.credentials(url=TOKEN_URL, client_secret=None).refresh()
        form = dict(parse_qsl(str(mock.calls[0].request.body)))
    assert "client_secret" not in form
    assert form["client_id"] == "simulated-client"


def test_token_request_has_user_agent(tedee: Tedee) -> None:
    tedee.credentials().refresh()
    assert tedee.cloud.calls[-1].user_agent == "tedee-exporter/test"


def test_valid_access_token_is_not_refreshed(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    for _ in range(3):
        credentials.refresh()
        bearer(credentials)
    assert tedee.refreshes() == 1


def test_access_token_is_refreshed_5_minutes_before_expiry(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    first = bearer(credentials)
    tedee.clock.advance(ACCESS_LIFETIME - 300.5)
    credentials.refresh()
    assert (tedee.refreshes(), bearer(credentials)) == (1, first)
    tedee.clock.advance(1)
    credentials.refresh()
    assert tedee.refreshes() == 2
    assert bearer(credentials) != first
    assert tedee.sync(credentials).status_code == 200


def test_wall_clock_jump_does_not_cause_refresh(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    for jump in (-5 * DAY, 300 * DAY):
        tedee.clock.set_wall(tedee.clock.wall() + jump)
        credentials.refresh()
    assert tedee.refreshes() == 1


def refreshed_after(tedee: Tedee, fault: Fault, seconds: float) -> bool:
    """Return True if the access token is refreshed after this time, and not earlier."""
    tedee.inject(fault)
    credentials = tedee.credentials()
    credentials.refresh()
    tedee.clock.advance(seconds - 1)
    credentials.refresh()
    before = tedee.refreshes()
    tedee.clock.advance(2)
    credentials.refresh()
    return (before, tedee.refreshes()) == (1, 2)


@pytest.mark.parametrize("value", ["7200", 7200, 7200.0, " 7200 ", "7200.5"])
def test_lifetime_is_number_or_text(tedee: Tedee, value: object) -> None:
    assert refreshed_after(tedee, edited(expires_in=value), 7200 - 300)


@pytest.mark.parametrize(
    "value", [..., None, "", "soon", "nan", "inf", "1e999", "-5", 0, -7200, True, [], {}, "9" * 5_000, int("9" * 400)]
)
def test_access_token_lifetime_defaults_to_one_hour(tedee: Tedee, value: object) -> None:
    assert refreshed_after(tedee, edited(expires_in=value, expires_at="junk", expires_on=[]), 3600 - 300)


def test_short_lived_token_is_not_refreshed_at_each_call(tedee: Tedee) -> None:
    assert refreshed_after(tedee, edited(expires_in=200), 100)


def test_refused_access_token_is_replaced(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    tedee.account.tokens[-1].revoked = True
    assert tedee.sync(credentials).status_code == 401
    credentials.invalidate()
    credentials.refresh()
    assert tedee.sync(credentials).status_code == 200
    assert tedee.refreshes() == 2


# File of the refresh token


def test_new_refresh_token_is_stored_with_mode_0600(tedee: Tedee) -> None:
    tedee.file.chmod(0o644)
    tedee.credentials().refresh()
    assert tedee.on_file() == tedee.current() != FIRST
    assert stat.S_IMODE(tedee.file.stat().st_mode) == 0o600
    assert sorted(path.name for path in tedee.file.parent.iterdir()) == ["client-secret", "refresh-token"]


def test_token_file_is_replaced_atomically(tedee: Tedee, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str, int]] = []
    original = Path.replace

    def watch(path: Path, target: Path) -> Path:
        seen.append((path.read_text().strip(), tedee.on_file(), stat.S_IMODE(path.stat().st_mode)))
        return original(path, target)

    monkeypatch.setattr(Path, "replace", watch)
    tedee.credentials().refresh()
    assert seen == [(tedee.current(), FIRST, 0o600)]


class Disk:
    """A disk that fails while `fails` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails = False
        self._monkeypatch = monkeypatch

    def breaks(self, owner: Any, operation: str, number: int) -> None:
        original = getattr(owner, operation)

        def attempt(*args: Any, **kwargs: Any) -> Any:
            if self.fails:
                raise OSError(number, os.strerror(number))
            return original(*args, **kwargs)

        self._monkeypatch.setattr(owner, operation, attempt)


@pytest.fixture(params=["write", "rename"])
def failing_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(monkeypatch)
    original = RefreshTokens._store_new

    def store(*args: Any) -> None:
        disk.fails = True
        original(*args)

    monkeypatch.setattr(RefreshTokens, "_store_new", store)
    disk.breaks(tempfile, "mkstemp", errno.EROFS)
    disk.breaks(token_file._InPlace, "__init__", errno.EROFS)
    if request.param == "write":
        disk.breaks(os, "pwrite", errno.ENOSPC)
    else:
        disk.breaks(Path, "replace", errno.EROFS)
    return disk


@pytest.mark.usefixtures("failing_disk")
def test_unstored_token_is_logged_once_and_used(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    with capture_logs() as logs:
        credentials.refresh()
        credentials.refresh()
    assert tedee.sync(credentials).status_code == 200
    (line,) = [line for line in logs if line["log_level"] != "debug"]
    assert line["log_level"] == "warning"
    assert "new refresh token cannot be stored and is in memory only" in line["event"]
    assert line["account"] == "home"
    assert re.fullmatch(
        f"refresh token file {tedee.file} cannot be written: (Read-only file system|No space left on device)",
        line["error"],
    )
    assert tedee.on_file() == FIRST
    assert sorted(path.name for path in tedee.file.parent.iterdir()) == ["client-secret", "refresh-token"]


def test_unstored_token_is_reported_until_it_is_stored(tedee: Tedee, failing_disk: Disk) -> None:
    credentials = tedee.credentials()
    assert credentials.refresh_token_stored()
    credentials.refresh()
    assert not credentials.refresh_token_stored()
    assert not tedee.credentials().refresh_token_stored()
    failing_disk.fails = False
    credentials.refresh()
    assert credentials.refresh_token_stored()


@pytest.mark.usefixtures("failing_disk")
def test_unstored_token_is_exchanged(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    for _ in range(3):
        credentials.refresh()
        tedee.clock.advance(ACCESS_LIFETIME)
    reloaded = tedee.credentials()
    reloaded.refresh()
    assert tedee.sync(reloaded).status_code == 200
    assert tedee.refreshes() == 4


@pytest.mark.usefixtures("failing_disk")
def test_unstored_token_outlives_its_file(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    tedee.file.unlink()
    tedee.clock.advance(ACCESS_LIFETIME)
    credentials.refresh()
    assert tedee.refreshes() == 2


def test_unstored_token_is_stored_as_soon_as_possible(tedee: Tedee, failing_disk: Disk) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    failing_disk.fails = False
    with capture_logs() as logs:
        credentials.refresh()
        credentials.refresh()
    assert [line["event"] for line in logs] == ["refresh token is stored"]
    assert tedee.on_file() == tedee.current()
    assert tedee.refreshes() == 1
    tedee.restarted().refresh()


def test_new_sign_in_replaces_unstored_token(tedee: Tedee, failing_disk: Disk) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    tedee.account.refresh_tokens = [RefreshToken("signed-in-again")]
    tedee.file.write_text("signed-in-again")
    failing_disk.fails = False
    credentials.refresh()
    assert tedee.on_file() == "signed-in-again"
    assert credentials.refresh_token_stored()
    tedee.clock.advance(ACCESS_LIFETIME)
    credentials.refresh()
    assert tedee.refreshes() == 2


def test_file_replaced_during_refresh_is_not_overwritten(tedee: Tedee, monkeypatch: pytest.MonkeyPatch) -> None:
    original = TokenEndpoint.refresh

    def refresh(endpoint: TokenEndpoint, token: Secret, origin: str, store: Callable[[Secret], None]) -> Any:
        def store_later(new_token: Secret) -> None:
            tedee.file.write_text("signed-in-again")
            store(new_token)

        return original(endpoint, token, origin, store_later)

    monkeypatch.setattr(TokenEndpoint, "refresh", refresh)
    tedee.credentials().refresh()
    assert tedee.on_file() == "signed-in-again"


def test_token_file_is_read_at_each_refresh(tedee: Tedee) -> None:
    credentials, other_process = tedee.credentials(), tedee.restarted()
    for each in (credentials, other_process, credentials, other_process):
        tedee.clock.advance(ACCESS_LIFETIME)
        each.refresh()
    assert tedee.refreshes() == 4


def test_symlink_to_token_file_is_preserved(tedee: Tedee, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tedee.file.rename(tmp_path / "elsewhere" / "token")
    tedee.file.symlink_to(target)
    tedee.credentials().refresh()
    assert tedee.file.is_symlink()
    assert target.read_text().strip() == tedee.current()


@pytest.mark.parametrize("value", [..., None, "", FIRST])
def test_token_file_is_unchanged_without_new_token(tedee: Tedee, value: object) -> None:
    before = tedee.file.stat()
    tedee.inject(edited(refresh_token=value))
    tedee.credentials().refresh()
    assert tedee.on_file() == FIRST
    assert tedee.file.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    "fault",
    [edited(access_token=...), edited(access_token="two text"), edited(access_token=5), edited(token_type="mac")],
)
def test_new_token_is_stored_before_rest_is_validated(tedee: Tedee, fault: Fault) -> None:
    tedee.inject(fault)
    credentials = tedee.credentials()
    assert isinstance(failure_of(credentials), InvalidResponse)
    assert tedee.on_file() == tedee.current() != FIRST
    credentials.refresh()
    assert tedee.sync(credentials).status_code == 200


@pytest.mark.parametrize("status", [201, 203])
def test_response_with_any_2xx_status_is_used(tedee: Tedee, status: int) -> None:
    tedee.inject(Fault(edit=lambda response: replace(response, status=status)))
    tedee.credentials().refresh()
    assert tedee.on_file() == tedee.current() != FIRST


def test_exchange_has_minimum_timeout(tedee: Tedee) -> None:
    settings = {
        "api": {"url": tedee.url, "timeout": "100ms"},
        "accounts": [
            {
                "name": "home",
                "oauth": {"client_id": "c", "refresh_token_file": str(tedee.file), "token_url": tedee.token_url},
            }
        ],
    }
    scheduler = Scheduler(tedee.clock)
    accounts = Accounts(tedee.clock, memory_store(tedee.clock), StatusRegistry(), scheduler)
    accounts.apply(Source(settings).validated(Settings))
    tedee.inject(Fault.delayed(0.3))
    scheduler.run_due()
    assert tedee.on_file() == tedee.current() != FIRST


def test_account_renamed_during_exchange_is_not_synced(tedee: Tedee, capsys: pytest.CaptureFixture[str]) -> None:
    def settings(name: str) -> Settings:
        oauth = {
            "client_id": "simulated-client",
            "refresh_token_file": str(tedee.file),
            "token_url": tedee.token_url,
        }
        return Source({"api": {"url": tedee.url}, "accounts": [{"name": name, "oauth": oauth}]}).validated(Settings)

    def rename(response: Response) -> Response:
        # The configuration is reloaded during the exchange.
        accounts.apply(settings("house"))
        tedee.clock.advance(8.5)
        return response

    scheduler, registry = Scheduler(tedee.clock), StatusRegistry()
    accounts = Accounts(tedee.clock, memory_store(tedee.clock), registry, scheduler)
    accounts.apply(settings("home"))
    tedee.inject(Fault(edit=rename))
    scheduler.run_due()
    assert [call.endpoint for call in tedee.cloud.calls] == ["token"]
    # The last call of the renamed account is unknown, and then that of its user.
    for _ in range(2):
        tedee.clock.advance(31)
        scheduler.run_due()
    assert [call.endpoint for call in tedee.cloud.calls] == ["token", "token", "sync", "details", "door_sensors"]
    assert [status.account for status in registry.statuses()] == ["house"]
    assert "sync failed" not in capsys.readouterr().out


# Expiry of the refresh token


def test_refresh_token_expiry_is_exposed(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    assert credentials.expires_at() is None
    credentials.refresh()
    assert credentials.expires_at() == tedee.clock.wall() + 14 * DAY
    tedee.inject(edited(refresh_token_expires_in="86400"))
    tedee.clock.advance(ACCESS_LIFETIME)
    credentials.refresh()
    assert credentials.expires_at() == tedee.clock.wall() + DAY


@pytest.mark.parametrize("value", [..., None, "soon", -1, [], "9" * 5_000])
def test_refresh_token_lifetime_defaults_to_14_days(tedee: Tedee, value: object) -> None:
    tedee.inject(edited(refresh_token_expires_in=value))
    credentials = tedee.credentials()
    credentials.refresh()
    assert credentials.expires_at() == tedee.clock.wall() + 14 * DAY


def test_expiry_of_unreplaced_token_is_not_extended(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    before = credentials.expires_at()
    tedee.inject(edited(refresh_token=..., refresh_token_expires_in=...))
    tedee.clock.advance(ACCESS_LIFETIME)
    credentials.refresh()
    assert credentials.expires_at() == before


# Errors


def test_used_refresh_token_error_has_advice(tedee: Tedee) -> None:
    tedee.account.refresh_tokens[0].revoked = True
    error = failure_of(tedee.credentials())
    assert isinstance(error, Unauthorized)
    assert str(error) == (
        f"account 'home': oauth2/token: Tedee refused the refresh token of {tedee.file}: invalid_grant: sign in to "
        "Tedee again with this OAuth client and the scopes of oauth.scope, and put the new refresh token into the file "
        "of oauth.refresh_token_file; no restart is needed"
    )
    assert tedee.on_file() == FIRST


def test_new_sign_in_needs_no_restart(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    tedee.account.refresh_tokens[0].revoked = True
    failure_of(credentials)
    tedee.account.refresh_tokens.append(RefreshToken("signed-in-again"))
    tedee.file.write_text("signed-in-again\n")
    credentials.refresh()
    assert tedee.sync(credentials).status_code == 200


@pytest.mark.parametrize("content", [None, b"", b"two text SECRET", b"SECRET\xff"])
def test_unreadable_refresh_token_sends_nothing(tedee: Tedee, content: bytes | None) -> None:
    tedee.file.unlink() if content is None else tedee.file.write_bytes(content)
    error = failure_of(tedee.credentials())
    assert error.reason == "auth"
    assert f"refresh token file {tedee.file} " in str(error)
    assert "sign in to Tedee again" in str(error)
    assert "SECRET" not in str(error)
    assert tedee.refreshes() == 0


def test_unreadable_client_secret_sends_nothing(tedee: Tedee) -> None:
    tedee.secret_file.unlink()
    error = failure_of(tedee.credentials())
    assert error.reason == "auth"
    assert f"client secret file {tedee.secret_file} cannot be read: No such file or directory" in str(error)
    assert tedee.refreshes() == 0


def test_changed_client_secret_is_used_at_next_refresh(tedee: Tedee) -> None:
    credentials = tedee.credentials(url=TOKEN_URL)
    for secret in ("old", "new"):
        tedee.secret_file.write_text(secret)
        credentials.invalidate()
        with responses.RequestsMock() as mock:
            mock.post(TOKEN_URL, json={"access_token": "a"})
            credentials.refresh()
            assert f"client_secret={secret}" in str(mock.calls[0].request.body)


DESCRIPTION = "AADB2C90080: The SECRET grant has expired.\nCorrelation ID: 1"
SIGN_IN = r"sign in to Tedee again"
CHECK_CLIENT = r"check oauth\.client_id"
CHECK_URL = r"check that oauth\.token_url is Tedee's"
HTML = b"<html>SECRET</html>"
LARGE = b'{"access_token": "' + b" " * MAX_RESPONSE_BYTES + b'"}'

FAILURES: list[tuple[str, Fault, type[CallError], str]] = [
    (
        "invalid_grant",
        oauth_error("invalid_grant", DESCRIPTION),
        Unauthorized,
        rf"invalid_grant \(AADB2C90080\): {SIGN_IN}",
    ),
    ("invalid_grant, 200", oauth_error("invalid_grant", status=200), Unauthorized, SIGN_IN),
    ("interaction_required", oauth_error("interaction_required"), Unauthorized, SIGN_IN),
    ("invalid_client", oauth_error("invalid_client", DESCRIPTION, 401), Unauthorized, CHECK_CLIENT),
    ("unauthorized_client", oauth_error("unauthorized_client"), Unauthorized, CHECK_CLIENT),
    ("invalid_scope", oauth_error("invalid_scope"), Unauthorized, r"invalid_scope: check oauth\.scope"),
    ("unknown error code", oauth_error("SECRET", "SECRET"), Unauthorized, r"unknown OAuth error code: check"),
    ("error code that is not text", oauth_error(["SECRET"], {"SECRET": 1}), Unauthorized, r"unknown OAuth error code"),
    ("temporarily_unavailable", oauth_error("temporarily_unavailable"), ServerFailed, r"has a problem"),
    (
        "400 without a code",
        Fault.error(400, "SECRET"),
        InvalidResponse,
        r"HTTP 400 Bad Request without an OAuth error code",
    ),
    ("403 in HTML", Fault.body(HTML, status=403), InvalidResponse, r"HTTP 403 .*not a JSON object but text/html of 19"),
    ("404", Fault.error(404), InvalidResponse, CHECK_URL),
    ("429", Fault.too_many_requests(77), RateLimited, r"HTTP 429 Too Many Requests"),
    ("500", Fault.error(500, "SECRET"), ServerFailed, r"HTTP 500 Internal Server Error"),
    ("502 in HTML", Fault.html(502), ServerFailed, r"HTTP 502 Bad Gateway"),
    ("599", Fault.body(HTML, status=599), ServerFailed, r"HTTP 599"),
    ("204", Fault.body(b"", status=204), InvalidResponse, r"HTTP 204 No Content"),
    ("HTML with 200", Fault.body(HTML), InvalidResponse, rf"not a JSON object but text/html of 19 bytes: {CHECK_URL}"),
    ("JSON cut off", Fault.malformed(), InvalidResponse, r"not a JSON object but application/json of"),
    ("a JSON list", Fault.json(["SECRET"]), InvalidResponse, r"not a JSON object"),
    ("deep nesting", Fault.body(b"[" * 100_000, "application/json"), InvalidResponse, r"not a JSON object"),
    ("an empty object", Fault.json({}), InvalidResponse, r"has no access token"),
    ("too large", Fault.body(LARGE, "application/json"), InvalidResponse, r"the response exceeds 1,048,576 bytes"),
    ("token missing", edited(access_token=...), InvalidResponse, r"has no access token"),
    ("token null", edited(access_token=None), InvalidResponse, r"has no access token"),
    ("token a number", edited(access_token=5), InvalidResponse, r"access token in the response is not text"),
    ("token a list", edited(access_token=["SECRET"]), InvalidResponse, r"access token in the response is not text"),
    (
        "token with a line break",
        edited(access_token="SECRET\r\nX-A: 1"),
        InvalidResponse,
        r"access token in the response contains invalid characters",
    ),
    (
        "token not ASCII",
        edited(access_token="SECRET\udcff"),
        InvalidResponse,
        r"access token in the response contains invalid characters",
    ),
    (
        "token too long",
        edited(access_token="k" * 20_000),
        InvalidResponse,
        r"access token in the response is too large to be a token",
    ),
    ("refresh a number", edited(refresh_token=5), InvalidResponse, r"refresh token in the response is not text"),
    (
        "refresh token with spaces",
        edited(refresh_token="SECRET 1"),
        InvalidResponse,
        r"refresh token in the response contains invalid characters",
    ),
    ("another token type", edited(token_type="mac"), InvalidResponse, r"is not a Bearer token"),
    ("strange token type", edited(token_type=["SECRET"]), InvalidResponse, r"is not a Bearer token"),
    ("reset", Fault.reset(), ConnectionFailed, r"Connection reset by peer: check the network, DNS, proxy and oauth"),
    ("reset in mid-body", Fault.reset_mid_body(), ConnectionFailed, r"the connection failed: Connection reset by peer"),
    ("silence", Fault.silence(), TimedOut, r"no complete response within 1 s"),
    ("drip", Fault.drip(size=8, interval=0.1), TimedOut, r"no complete response within 1 s"),
]


@pytest.mark.parametrize(("fault", "kind", "message"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_failed_refresh_raises_named_error_without_secret(
    tedee: Tedee, caplog: pytest.LogCaptureFixture, fault: Fault, kind: type[CallError], message: str
) -> None:
    caplog.set_level(logging.DEBUG)
    tedee.inject(fault)
    credentials = tedee.credentials(timeout=1 if kind is TimedOut else TIMEOUT)
    with capture_logs() as logs:
        error = failure_of(credentials)
    assert isinstance(error, kind)
    assert error.reason == kind.reason
    assert re.search(message, str(error))
    assert str(error).startswith("account 'home': oauth2/token: ")
    assert tedee.refreshes() == 1
    shown = "".join([*traceback.format_exception(error), caplog.text, str(logs), repr(error), repr(vars(credentials))])
    assert "\n" not in str(error)
    for secret in tedee.secrets():
        assert secret not in shown


def test_all_refresh_failure_reasons_are_covered() -> None:
    assert {kind.reason for _, _, kind, _ in FAILURES} | {"tls"} == set(REASONS) - {"forbidden", "not_found"}


def test_retry_after_of_token_endpoint_is_reported(tedee: Tedee) -> None:
    tedee.inject(Fault.too_many_requests(77))
    assert failure_of(tedee.credentials()).retry_after == 77


def test_failed_refresh_is_ignored_while_token_is_valid(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    tedee.clock.advance(ACCESS_LIFETIME - 200)
    tedee.inject(oauth_error("temporarily_unavailable"), forever=True)
    with capture_logs() as logs:
        credentials.refresh()
    assert tedee.sync(credentials).status_code == 200
    assert [(line["log_level"], line["reason"]) for line in logs] == [("warning", "server")]
    assert not any(secret in str(logs) for secret in tedee.secrets())
    tedee.clock.advance(200)
    assert isinstance(failure_of(credentials), ServerFailed)


def test_failed_refresh_is_raised_after_invalidation(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    credentials.invalidate()
    tedee.inject(oauth_error("invalid_grant"))
    assert isinstance(failure_of(credentials), Unauthorized)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_of_token_endpoint_is_not_followed(tedee: Tedee, status: int) -> None:
    tedee.inject(Fault.redirect(f"{tedee.url}/elsewhere", status))
    error = failure_of(tedee.credentials())
    assert isinstance(error, InvalidResponse)
    assert "redirects are not followed" in str(error)
    assert [call.endpoint for call in tedee.cloud.calls] == ["token"]


@pytest.mark.parametrize(
    ("body", "is_complete"), [('{"access_token": "a", "refresh_token": "next"}', True), ('{"access_token": "a"', False)]
)
def test_complete_response_is_used_after_deadline(
    tedee: Tedee, monkeypatch: pytest.MonkeyPatch, body: str, is_complete: bool
) -> None:
    # The deadline passes while the last bytes are received.
    monkeypatch.setattr(Deadline, "close", Deadline.expire)
    with responses.RequestsMock() as mock:
        mock.post(TOKEN_URL, body=body)
        if is_complete:
            tedee.credentials(url=TOKEN_URL).refresh()
        else:
            assert isinstance(failure_of(tedee.credentials(url=TOKEN_URL)), TimedOut)
    assert tedee.on_file() == ("next" if is_complete else FIRST)


def test_invalid_compression_is_invalid_response(tedee: Tedee) -> None:
    with responses.RequestsMock() as mock:
        mock.post(TOKEN_URL, body=b"not gzip", headers={"Content-Encoding": "gzip"})
        error = failure_of(tedee.credentials(url=TOKEN_URL))
    assert isinstance(error, InvalidResponse)
    assert "cannot be decompressed" in str(error)


def test_refused_connection_is_connection_failure(tedee: Tedee) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = failure_of(tedee.credentials(url=f"http://127.0.0.1:{port}/token"))
    assert isinstance(error, ConnectionFailed)
    assert "Connection refused: check the network, DNS, proxy and oauth.token_url" in str(error)


def test_untrusted_token_endpoint_receives_nothing(tedee: Tedee) -> None:
    with tls_server(trustme.CA().issue_cert("localhost")) as url:
        error = failure_of(tedee.credentials(url=f"{url}/token"))
    assert isinstance(error, TlsFailed)
    assert re.search(r"TLS failed: .*(local issuer|self-signed).*: check oauth\.token_url", str(error))


def test_missing_ca_bundle_is_tls_failure(tedee: Tedee, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    error = failure_of(tedee.credentials(url="https://localhost:1/token"))
    assert isinstance(error, TlsFailed)
    assert "/nowhere/ca.pem" in str(error)


@pytest.mark.parametrize("url", ["http://tedee.b2clogin.com/token", "ftp://127.0.0.1/token", "tedee.b2clogin.com", ""])
def test_unencrypted_token_url_is_rejected(tedee: Tedee, url: str) -> None:
    with pytest.raises(ValueError, match="the token endpoint of account 'home' is not an https:// URL"):
        tedee.endpoint(url=url)


def test_proxy_is_not_used_for_loopback(tedee: Tedee, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    tedee.credentials().refresh()


def test_netrc_adds_nothing_to_token_request(tedee: Tedee, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login user password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with responses.RequestsMock() as mock:
        mock.post(TOKEN_URL, json={"access_token": "a"})
        tedee.credentials(url=TOKEN_URL).refresh()
        assert "Authorization" not in mock.calls[0].request.headers


def test_successful_refresh_shows_no_secret(tedee: Tedee, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    credentials = tedee.credentials()
    with capture_logs() as logs:
        credentials.refresh()
        tedee.sync(credentials)
    endpoint = tedee.endpoint()
    response = endpoint.refresh(Secret(tedee.current()), "here", lambda _: None)
    shown = [credentials, vars(credentials), endpoint, vars(endpoint), response, vars(tedee.refresh_tokens), logs]
    shown += [tedee.refresh_tokens, caplog.text]
    with tedee.refresh_tokens.exchange(tedee.file) as exchange:
        shown += [exchange, vars(exchange)]
    for secret in (*tedee.secrets(), response.access.get_secret_value()):
        assert secret not in repr(shown)


@pytest.mark.usefixtures("failing_disk")
def test_unstored_token_is_not_shown(tedee: Tedee) -> None:
    with capture_logs() as logs:
        tedee.credentials().refresh()
    for secret in tedee.secrets():
        assert secret not in repr([logs, vars(tedee.refresh_tokens)])


# Users


def test_user_is_stable_over_refreshes_and_restarts(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    assert credentials.user() is None
    user = credentials.refresh().user
    for _ in range(3):
        credentials.invalidate()
        assert credentials.refresh().user == user
    assert tedee.restarted().refresh().user == user


def test_user_of_opaque_token_is_identified_by_file(tedee: Tedee) -> None:
    tedee.inject(edited(access_token="opaque-1"), edited(access_token="opaque-2"))
    credentials = tedee.credentials()
    users = []
    for _ in range(2):
        users.append(credentials.refresh().user)
        credentials.invalidate()
    assert len(set(users)) == 1


def test_user_of_another_account_is_rejected(tedee: Tedee) -> None:
    owners = CredentialOwners()
    owners.set_accounts(["home", "other"])
    user = tedee.credentials().refresh().user
    assert owners.claim("other", user, lambda: user) is None
    with pytest.raises(CredentialInUse, match="belongs to the user of account other"):
        tedee.credentials(owners=owners).refresh()


def test_fingerprint_changes_only_with_refresh_token(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    before = credentials.fingerprint()
    assert credentials.fingerprint() == tedee.credentials().fingerprint() == before
    assert credentials.refresh().fingerprint == credentials.fingerprint() != before
    tedee.file.write_text("another")
    changed = credentials.fingerprint()
    # The access token still belongs to the first user, and so does the data fetched with it.
    assert credentials.refresh().fingerprint not in (before, changed)
    tedee.file.unlink()
    assert len({before, changed, credentials.fingerprint()}) == 3
