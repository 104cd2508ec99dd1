"""Lost if these fail: the account, as soon as its access token expires, until somebody signs in again."""

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
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
import requests
import responses
import trustme
import urllib3
from structlog.testing import capture_logs

from exporter.accounts import Accounts
from exporter.config import Settings
from exporter.secrets import Secret
from exporter.simulator import TOKEN_PATH, Cloud, Fault, RefreshToken, World, serve
from exporter.simulator.response import Response
from exporter.sync.scheduler import Scheduler
from exporter.sync.snapshot import StatusRegistry
from exporter.sync.store import MemoryStateStore
from exporter.tedee import token_file
from exporter.tedee.client import SYNC
from exporter.tedee.credentials import CredentialInUse, CredentialOwners
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
from exporter.tedee.oauth import (
    MAX_RESPONSE_BYTES,
    SCOPE,
    TOKEN_URL,
    OAuthCredentials,
    TokenEndpoint,
)
from exporter.tedee.refresh_tokens import RefreshTokens
from exporter.tedee.transport import Deadline, session
from tests.clock import FakeClock
from tests.program import PATIENCE
from tests.tcp import tls_server

FIRST = "simulated-refresh-first"
CLIENT_SECRET = "simulated-client-secret"
DAY = 86_400.0
LIFE = 4 * 3600.0
"""Of the simulator's access tokens."""


class Tedee:
    """A cloud, an account with a refresh token on file, and credentials made of it."""

    def __init__(self, cloud: Cloud, url: str, folder: Path, clock: FakeClock) -> None:
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
        usual: dict[str, Any] = {
            "url": self.token_url,
            "client_id": "simulated-client",
            "client_secret": self.secret_file,
            "scope": SCOPE,
            "timeout": PATIENCE,
            "session": session(),
            "user_agent": "tedee-exporter/test",
        }
        return TokenEndpoint("home", **usual | changes)

    def credentials(self, *, owners: CredentialOwners | None = None, **changes: Any) -> OAuthCredentials:
        """Of the same process, as after a reload."""
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
        """Of the next process, which knows no more than the file."""
        self.refresh_tokens = RefreshTokens()
        return self.credentials()

    def fails(self, *faults: Fault | None, forever: bool = False) -> None:
        self.cloud.faults.script(*faults, endpoint="token", forever=forever)

    def refreshes(self) -> int:
        return sum(call.endpoint == "token" for call in self.cloud.calls)

    def current(self) -> str:
        """The one refresh token that Tedee takes."""
        (current,) = [token.value for token in self.account.refresh_tokens if not token.revoked]
        return current

    def on_file(self) -> str:
        return self.file.read_text().strip()

    def secrets(self) -> list[str]:
        values = [each.value for each in (*self.account.refresh_tokens, *self.account.tokens)]
        return [CLIENT_SECRET, FIRST, "SECRET", *values]

    def sync(self, credentials: OAuthCredentials) -> requests.Response:
        return requests.get(f"{self.url}/api/v37/{SYNC}", auth=credentials.refresh(), timeout=PATIENCE)


@pytest.fixture
def tedee(tmp_path: Path, clock: FakeClock) -> Iterator[Tedee]:
    cloud = Cloud(World.demo(clock=clock.wall), sync_spacing=0.0)
    with serve(cloud) as address:
        yield Tedee(cloud, address.url, tmp_path, clock)


def edited(**changes: object) -> Fault:
    """The normal answer with other values; `...` takes a key out."""

    def edit(answer: Response) -> Response:
        values = {**json.loads(answer.body()), **changes}
        kept = {key: value for key, value in values.items() if value is not ...}
        return replace(answer, raw=json.dumps(kept).encode())

    return Fault(edit=edit)


def refused(error: object, description: object = "", status: int = 400) -> Fault:
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


def test_the_access_token_of_a_refresh_opens_the_api(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    answer = tedee.sync(credentials)
    assert answer.status_code == 200
    assert len(answer.json()["result"]) == len(tedee.account.locks)
    assert re.fullmatch(r"Bearer [\w-]+\.[\w-]+\.simulated-token-[0-9a-f]{32}", bearer(credentials))


def test_the_request_is_the_one_that_tedee_documents(tedee: Tedee) -> None:
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


def test_a_client_without_a_secret_sends_its_id_alone(tedee: Tedee) -> None:
    with responses.RequestsMock() as mock:
        mock.post(TOKEN_URL, json={"access_token": "a"})
        tedee.credentials(url=TOKEN_URL, client_secret=None).refresh()
        form = dict(parse_qsl(str(mock.calls[0].request.body)))
    assert "client_secret" not in form
    assert form["client_id"] == "simulated-client"


def test_it_says_who_it_is(tedee: Tedee) -> None:
    tedee.credentials().refresh()
    assert tedee.cloud.calls[-1].user_agent == "tedee-exporter/test"


def test_one_refresh_is_enough_for_as_long_as_its_token_is_good(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    for _ in range(3):
        credentials.refresh()
        bearer(credentials)
    assert tedee.refreshes() == 1


def test_an_access_token_is_refreshed_five_minutes_before_it_expires(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    first = bearer(credentials)
    tedee.clock.advance(LIFE - 300.5)
    credentials.refresh()
    assert (tedee.refreshes(), bearer(credentials)) == (1, first)
    tedee.clock.advance(1)
    credentials.refresh()
    assert tedee.refreshes() == 2
    assert bearer(credentials) != first
    assert tedee.sync(credentials).status_code == 200


def test_a_wall_clock_that_jumps_changes_nothing(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    for jump in (-5 * DAY, 300 * DAY):
        tedee.clock.set_wall(tedee.clock.wall() + jump)
        credentials.refresh()
    assert tedee.refreshes() == 1


def refreshed_after(tedee: Tedee, fault: Fault, seconds: float) -> bool:
    """Whether an access token of that answer is refreshed then, and not sooner."""
    tedee.fails(fault)
    credentials = tedee.credentials()
    credentials.refresh()
    tedee.clock.advance(seconds - 1)
    credentials.refresh()
    before = tedee.refreshes()
    tedee.clock.advance(2)
    credentials.refresh()
    return (before, tedee.refreshes()) == (1, 2)


@pytest.mark.parametrize("said", ["7200", 7200, 7200.0, " 7200 ", "7200.5"])
def test_a_life_is_a_number_or_text(tedee: Tedee, said: object) -> None:
    assert refreshed_after(tedee, edited(expires_in=said), 7200 - 300)


@pytest.mark.parametrize(
    "said", [..., None, "", "soon", "nan", "inf", "1e999", "-5", 0, -7200, True, [], {}, "9" * 5_000, int("9" * 400)]
)
def test_an_access_token_of_unknown_life_is_taken_to_be_good_for_an_hour(tedee: Tedee, said: object) -> None:
    assert refreshed_after(tedee, edited(expires_in=said, expires_at="junk", expires_on=[]), 3600 - 300)


def test_an_access_token_of_a_short_life_is_not_refreshed_with_every_call(tedee: Tedee) -> None:
    assert refreshed_after(tedee, edited(expires_in=200), 100)


def test_a_refused_access_token_is_replaced(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    tedee.account.tokens[-1].revoked = True
    assert tedee.sync(credentials).status_code == 401
    credentials.invalidate()
    credentials.refresh()
    assert tedee.sync(credentials).status_code == 200
    assert tedee.refreshes() == 2


# The refresh token's file


def test_the_next_refresh_token_takes_its_place_readable_for_nobody_else(tedee: Tedee) -> None:
    tedee.file.chmod(0o644)
    tedee.credentials().refresh()
    assert tedee.on_file() == tedee.current() != FIRST
    assert stat.S_IMODE(tedee.file.stat().st_mode) == 0o600
    assert sorted(path.name for path in tedee.file.parent.iterdir()) == ["client-secret", "refresh-token"]


def test_the_token_is_stored_by_one_replacement_of_a_file_that_is_complete(
    tedee: Tedee, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, int]] = []
    really = Path.replace

    def watch(path: Path, target: Path) -> Path:
        seen.append((path.read_text().strip(), tedee.on_file(), stat.S_IMODE(path.stat().st_mode)))
        return really(path, target)

    monkeypatch.setattr(Path, "replace", watch)
    tedee.credentials().refresh()
    assert seen == [(tedee.current(), FIRST, 0o600)]


class Disk:
    """A disk that fails from the moment a successor arrives, when `fails` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails = False
        self._monkeypatch = monkeypatch

    def breaks(self, owner: Any, operation: str, number: int) -> None:
        really = getattr(owner, operation)

        def attempt(*args: Any, **kwargs: Any) -> Any:
            if self.fails:
                raise OSError(number, os.strerror(number))
            return really(*args, **kwargs)

        self._monkeypatch.setattr(owner, operation, attempt)


@pytest.fixture(params=["write", "rename"])
def failing_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(monkeypatch)
    really = RefreshTokens._keep

    def keep(*args: Any) -> None:
        disk.fails = True
        really(*args)

    monkeypatch.setattr(RefreshTokens, "_keep", keep)
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
def test_unstored_token_is_exchanged_all_the_same(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    for _ in range(3):
        credentials.refresh()
        tedee.clock.advance(LIFE)
    reloaded = tedee.credentials()
    reloaded.refresh()
    assert tedee.sync(reloaded).status_code == 200
    assert tedee.refreshes() == 4


@pytest.mark.usefixtures("failing_disk")
def test_unstored_token_outlives_its_file(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    tedee.file.unlink()
    tedee.clock.advance(LIFE)
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


def test_new_sign_in_counts_more_than_an_unstored_token(tedee: Tedee, failing_disk: Disk) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    tedee.account.refresh_tokens = [RefreshToken("signed-in-again")]
    tedee.file.write_text("signed-in-again")
    failing_disk.fails = False
    credentials.refresh()
    assert tedee.on_file() == "signed-in-again"
    assert credentials.refresh_token_stored()
    tedee.clock.advance(LIFE)
    credentials.refresh()
    assert tedee.refreshes() == 2


def test_a_file_that_somebody_replaces_during_a_refresh_is_left_as_it_is(
    tedee: Tedee, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = TokenEndpoint.refresh

    def meanwhile(endpoint: TokenEndpoint, token: Secret, origin: str, store: Callable[[Secret], None]) -> Any:
        def store_later(successor: Secret) -> None:
            tedee.file.write_text("signed-in-again")
            store(successor)

        return really(endpoint, token, origin, store_later)

    monkeypatch.setattr(TokenEndpoint, "refresh", meanwhile)
    tedee.credentials().refresh()
    assert tedee.on_file() == "signed-in-again"


def test_the_file_is_read_anew_at_each_refresh(tedee: Tedee) -> None:
    credentials, neighbour = tedee.credentials(), tedee.restarted()
    for each in (credentials, neighbour, credentials, neighbour):
        tedee.clock.advance(LIFE)
        each.refresh()
    assert tedee.refreshes() == 4


def test_a_link_to_the_file_stays_a_link(tedee: Tedee, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tedee.file.rename(tmp_path / "elsewhere" / "token")
    tedee.file.symlink_to(target)
    tedee.credentials().refresh()
    assert tedee.file.is_symlink()
    assert target.read_text().strip() == tedee.current()


@pytest.mark.parametrize("value", [..., None, "", FIRST])
def test_a_refresh_token_that_is_not_replaced_stays(tedee: Tedee, value: object) -> None:
    before = tedee.file.stat()
    tedee.fails(edited(refresh_token=value))
    tedee.credentials().refresh()
    assert tedee.on_file() == FIRST
    assert tedee.file.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    "fault",
    [edited(access_token=...), edited(access_token="two text"), edited(access_token=5), edited(token_type="mac")],
)
def test_successor_is_stored_before_the_rest_is_checked(tedee: Tedee, fault: Fault) -> None:
    tedee.fails(fault)
    credentials = tedee.credentials()
    assert isinstance(failure_of(credentials), InvalidResponse)
    assert tedee.on_file() == tedee.current() != FIRST
    credentials.refresh()
    assert tedee.sync(credentials).status_code == 200


@pytest.mark.parametrize("status", [201, 203])
def test_response_of_any_success_status_is_used(tedee: Tedee, status: int) -> None:
    tedee.fails(Fault(edit=lambda answer: replace(answer, status=status)))
    tedee.credentials().refresh()
    assert tedee.on_file() == tedee.current() != FIRST


def test_exchange_is_given_ten_seconds_at_least(tedee: Tedee) -> None:
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
    accounts = Accounts(tedee.clock, MemoryStateStore(tedee.clock), StatusRegistry(), scheduler)
    accounts.apply(Settings.model_validate(settings))
    tedee.fails(Fault.delayed(0.3))
    scheduler.run_due()
    assert tedee.on_file() == tedee.current() != FIRST


def test_account_renamed_during_its_exchange_is_not_called(tedee: Tedee, capsys: pytest.CaptureFixture[str]) -> None:
    def settings(name: str) -> Settings:
        oauth = {
            "client_id": "simulated-client",
            "refresh_token_file": str(tedee.file),
            "token_url": tedee.token_url,
        }
        return Settings.model_validate({"api": {"url": tedee.url}, "accounts": [{"name": name, "oauth": oauth}]})

    def rename(answer: Response) -> Response:
        # The configuration is loaded again while the token endpoint takes its time.
        accounts.apply(settings("house"))
        tedee.clock.advance(8.5)
        return answer

    scheduler, registry = Scheduler(tedee.clock), StatusRegistry()
    accounts = Accounts(tedee.clock, MemoryStateStore(tedee.clock), registry, scheduler)
    accounts.apply(settings("home"))
    tedee.fails(Fault(edit=rename))
    scheduler.run_due()
    assert [call.endpoint for call in tedee.cloud.calls] == ["token"]
    # It is not known when the renamed account was called, and then, when its user was.
    for _ in range(2):
        tedee.clock.advance(31)
        scheduler.run_due()
    assert [call.endpoint for call in tedee.cloud.calls] == ["token", "token", "sync", "locks", "locks"]
    assert [status.account for status in registry.statuses()] == ["house"]
    assert "sync failed" not in capsys.readouterr().out


# When to sign in again


def test_the_end_of_the_refresh_token_is_told(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    assert credentials.expires_at() is None
    credentials.refresh()
    assert credentials.expires_at() == tedee.clock.wall() + 14 * DAY
    tedee.fails(edited(refresh_token_expires_in="86400"))
    tedee.clock.advance(LIFE)
    credentials.refresh()
    assert credentials.expires_at() == tedee.clock.wall() + DAY


@pytest.mark.parametrize("said", [..., None, "soon", -1, [], "9" * 5_000])
def test_a_new_refresh_token_of_unknown_life_is_taken_to_be_good_for_14_days(tedee: Tedee, said: object) -> None:
    tedee.fails(edited(refresh_token_expires_in=said))
    credentials = tedee.credentials()
    credentials.refresh()
    assert credentials.expires_at() == tedee.clock.wall() + 14 * DAY


def test_a_refresh_token_that_stays_is_not_taken_to_live_longer(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    before = credentials.expires_at()
    tedee.fails(edited(refresh_token=..., refresh_token_expires_in=...))
    tedee.clock.advance(LIFE)
    credentials.refresh()
    assert credentials.expires_at() == before


# Refusals and failures


def test_a_used_up_refresh_token_is_told_with_what_to_do(tedee: Tedee) -> None:
    tedee.account.refresh_tokens[0].revoked = True
    error = failure_of(tedee.credentials())
    assert isinstance(error, Unauthorized)
    assert str(error) == (
        f"account 'home': oauth2/token: Tedee refused the refresh token of {tedee.file}: invalid_grant: sign in to "
        "Tedee again with this OAuth client and the scopes of oauth.scope, and put the new refresh token into the file "
        "that oauth.refresh_token_file names; it is used at the next try, without a restart"
    )
    assert tedee.on_file() == FIRST


def test_after_signing_in_again_it_goes_on_without_a_restart(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    tedee.account.refresh_tokens[0].revoked = True
    failure_of(credentials)
    tedee.account.refresh_tokens.append(RefreshToken("signed-in-again"))
    tedee.file.write_text("signed-in-again\n")
    credentials.refresh()
    assert tedee.sync(credentials).status_code == 200


@pytest.mark.parametrize("content", [None, b"", b"two text SECRET", b"SECRET\xff"])
def test_a_refresh_token_that_cannot_be_read_is_told_and_nothing_is_sent(tedee: Tedee, content: bytes | None) -> None:
    tedee.file.unlink() if content is None else tedee.file.write_bytes(content)
    error = failure_of(tedee.credentials())
    assert error.reason == "auth"
    assert f"refresh token file {tedee.file} " in str(error)
    assert "sign in to Tedee again" in str(error)
    assert "SECRET" not in str(error)
    assert tedee.refreshes() == 0


def test_a_client_secret_that_cannot_be_read_is_told_and_nothing_is_sent(tedee: Tedee) -> None:
    tedee.secret_file.unlink()
    error = failure_of(tedee.credentials())
    assert error.reason == "auth"
    assert f"client secret file {tedee.secret_file} cannot be read: No such file or directory" in str(error)
    assert tedee.refreshes() == 0


def test_a_changed_client_secret_is_used_at_the_next_refresh(tedee: Tedee) -> None:
    credentials = tedee.credentials(url=TOKEN_URL)
    for secret in ("old", "new"):
        tedee.secret_file.write_text(secret)
        credentials.invalidate()
        with responses.RequestsMock() as mock:
            mock.post(TOKEN_URL, json={"access_token": "a"})
            credentials.refresh()
            assert f"client_secret={secret}" in str(mock.calls[0].request.body)


SAID = "AADB2C90080: The SECRET grant has expired.\nCorrelation ID: 1"
SIGN_IN = r"sign in to Tedee again"
CHECK_CLIENT = r"check oauth\.client_id"
CHECK_URL = r"check that oauth\.token_url is Tedee's"
HTML = b"<html>SECRET</html>"
LARGE = b'{"access_token": "' + b" " * MAX_RESPONSE_BYTES + b'"}'

FAILURES: list[tuple[str, Fault, type[CallError], str]] = [
    ("invalid_grant", refused("invalid_grant", SAID), Unauthorized, rf"invalid_grant \(AADB2C90080\): {SIGN_IN}"),
    ("invalid_grant, 200", refused("invalid_grant", status=200), Unauthorized, SIGN_IN),
    ("interaction_required", refused("interaction_required"), Unauthorized, SIGN_IN),
    ("invalid_client", refused("invalid_client", SAID, 401), Unauthorized, CHECK_CLIENT),
    ("unauthorized_client", refused("unauthorized_client"), Unauthorized, CHECK_CLIENT),
    ("invalid_scope", refused("invalid_scope"), Unauthorized, r"invalid_scope: check oauth\.scope"),
    ("unknown refusal", refused("SECRET", "SECRET"), Unauthorized, r"an error that OAuth does not define: check"),
    ("strange refusal", refused(["SECRET"], {"SECRET": 1}), Unauthorized, r"an error that OAuth does not define"),
    ("temporarily_unavailable", refused("temporarily_unavailable"), ServerFailed, r"tries again by itself"),
    ("400 without a code", Fault.error(400, "SECRET"), InvalidResponse, r"HTTP 400 Bad Request without an error code"),
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
    ("too large", Fault.body(LARGE, "application/json"), InvalidResponse, r"HTTP 200 OK with over 1,048,576 bytes"),
    ("token missing", edited(access_token=...), InvalidResponse, r"has no access token"),
    ("token null", edited(access_token=None), InvalidResponse, r"has no access token"),
    ("token a number", edited(access_token=5), InvalidResponse, r"access token is not text"),
    ("token a list", edited(access_token=["SECRET"]), InvalidResponse, r"access token is not text"),
    (
        "token with a line",
        edited(access_token="SECRET\r\nX-A: 1"),
        InvalidResponse,
        r"access token contains characters that no token has",
    ),
    (
        "token not ASCII",
        edited(access_token="SECRET\udcff"),
        InvalidResponse,
        r"access token contains characters that no token has",
    ),
    ("token endless", edited(access_token="k" * 20_000), InvalidResponse, r"access token is too large to be a token"),
    ("refresh a number", edited(refresh_token=5), InvalidResponse, r"refresh token is not text"),
    ("refresh with blanks", edited(refresh_token="SECRET 1"), InvalidResponse, r"refresh token contains characters"),
    ("another token type", edited(token_type="mac"), InvalidResponse, r"is not a Bearer token"),
    ("strange token type", edited(token_type=["SECRET"]), InvalidResponse, r"is not a Bearer token"),
    ("reset", Fault.reset(), ConnectionFailed, r"Connection reset by peer: check the network, DNS, proxy and oauth"),
    ("reset in mid-body", Fault.reset_mid_body(), ConnectionFailed, r"the connection failed: Connection reset by peer"),
    ("silence", Fault.silence(), TimedOut, r"no complete answer within 0\.3 s"),
    ("drip", Fault.drip(size=8, interval=0.02), TimedOut, r"no complete answer within 0\.3 s"),
]


@pytest.mark.parametrize(("fault", "kind", "said"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_every_way_a_refresh_can_end_is_one_named_error_without_a_secret(
    tedee: Tedee, caplog: pytest.LogCaptureFixture, fault: Fault, kind: type[CallError], said: str
) -> None:
    caplog.set_level(logging.DEBUG)
    tedee.fails(fault)
    credentials = tedee.credentials(timeout=0.3 if kind is TimedOut else PATIENCE)
    with capture_logs() as logs:
        error = failure_of(credentials)
    assert isinstance(error, kind)
    assert error.reason == kind.reason
    assert re.search(said, str(error))
    assert str(error).startswith("account 'home': oauth2/token: ")
    assert tedee.refreshes() == 1
    told = "".join([*traceback.format_exception(error), caplog.text, str(logs), repr(error), repr(vars(credentials))])
    assert "\n" not in str(error)
    for secret in tedee.secrets():
        assert secret not in told


def test_every_reason_that_a_refresh_can_fail_for_is_met_here() -> None:
    assert {kind.reason for _, _, kind, _ in FAILURES} | {"tls"} == set(REASONS) - {"forbidden", "not_found"}


def test_a_wait_that_the_token_endpoint_asks_for_is_told(tedee: Tedee) -> None:
    tedee.fails(Fault.too_many_requests(77))
    assert failure_of(tedee.credentials()).retry_after == 77


def test_a_failed_refresh_is_none_for_as_long_as_the_access_token_is_good(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    tedee.clock.advance(LIFE - 200)
    tedee.fails(refused("temporarily_unavailable"), forever=True)
    with capture_logs() as logs:
        credentials.refresh()
    assert tedee.sync(credentials).status_code == 200
    assert [(line["log_level"], line["reason"]) for line in logs] == [("warning", "server")]
    assert not any(secret in str(logs) for secret in tedee.secrets())
    tedee.clock.advance(200)
    assert isinstance(failure_of(credentials), ServerFailed)


def test_a_refusal_is_told_at_once_after_tedee_refused_the_access_token(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    credentials.refresh()
    credentials.invalidate()
    tedee.fails(refused("invalid_grant"))
    assert isinstance(failure_of(credentials), Unauthorized)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(tedee: Tedee, status: int) -> None:
    tedee.fails(Fault.redirect(f"{tedee.url}/elsewhere", status))
    error = failure_of(tedee.credentials())
    assert isinstance(error, InvalidResponse)
    assert "redirects are not followed" in str(error)
    assert [call.endpoint for call in tedee.cloud.calls] == ["token"]


def test_an_answer_that_is_complete_counts_even_if_time_is_up_by_then(tedee: Tedee) -> None:
    body = b'{"access_token": "new", "refresh_token": "next"}'
    over = Deadline(0)
    over.end()
    response = requests.Response()
    response.status_code = 200
    response.raw = urllib3.HTTPResponse(BytesIO(body), preload_content=False)
    assert tedee.endpoint()._opened(over, response).json()["refresh_token"] == "next"


def test_broken_compression_is_an_invalid_response(tedee: Tedee) -> None:
    with responses.RequestsMock() as mock:
        mock.post(TOKEN_URL, body=b"not gzip", headers={"Content-Encoding": "gzip"})
        error = failure_of(tedee.credentials(url=TOKEN_URL))
    assert isinstance(error, InvalidResponse)
    assert "compression is broken" in str(error)


def test_a_port_where_nobody_listens_is_a_failed_connection(tedee: Tedee) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = failure_of(tedee.credentials(url=f"http://127.0.0.1:{port}/token"))
    assert isinstance(error, ConnectionFailed)
    assert "Connection refused: check the network, DNS, proxy and oauth.token_url" in str(error)


def test_a_token_endpoint_that_cannot_prove_who_it_is_gets_nothing(tedee: Tedee) -> None:
    with tls_server(trustme.CA().issue_cert("localhost")) as url:
        error = failure_of(tedee.credentials(url=f"{url}/token"))
    assert isinstance(error, TlsFailed)
    assert re.search(r"TLS failed: .*(local issuer|self-signed).*: check oauth\.token_url", str(error))


def test_a_missing_ca_bundle_is_a_tls_failure(tedee: Tedee, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    error = failure_of(tedee.credentials(url="https://localhost:1/token"))
    assert isinstance(error, TlsFailed)
    assert "/nowhere/ca.pem" in str(error)


@pytest.mark.parametrize("url", ["http://tedee.b2clogin.com/token", "ftp://127.0.0.1/token", "tedee.b2clogin.com", ""])
def test_secrets_cross_no_network_unencrypted(tedee: Tedee, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    with pytest.raises(ValueError, match="the token endpoint of account 'home' is not an https:// URL"):
        tedee.endpoint(url=url)


def test_a_proxy_of_the_environment_is_not_asked_for_this_very_machine(
    tedee: Tedee, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    tedee.credentials().refresh()


def test_a_netrc_adds_nothing_to_the_request(tedee: Tedee, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with responses.RequestsMock() as mock:
        mock.post(TOKEN_URL, json={"access_token": "a"})
        tedee.credentials(url=TOKEN_URL).refresh()
        assert "Authorization" not in mock.calls[0].request.headers


def test_nothing_secret_shows_in_what_is_printed_or_logged_of_a_success(
    tedee: Tedee, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    credentials = tedee.credentials()
    with capture_logs() as logs:
        credentials.refresh()
        tedee.sync(credentials)
    endpoint = tedee.endpoint()
    issued = endpoint.refresh(Secret(tedee.current()), "here", lambda _: None)
    told = [credentials, vars(credentials), endpoint, vars(endpoint), issued, vars(tedee.refresh_tokens), logs]
    told += [tedee.refresh_tokens, caplog.text]
    with tedee.refresh_tokens.exchange(tedee.file) as exchange:
        told += [exchange, vars(exchange)]
    for secret in (*tedee.secrets(), issued.access.get_secret_value()):
        assert secret not in repr(told)


@pytest.mark.usefixtures("failing_disk")
def test_nothing_secret_shows_of_a_token_that_could_not_be_stored(tedee: Tedee) -> None:
    with capture_logs() as logs:
        tedee.credentials().refresh()
    for secret in tedee.secrets():
        assert secret not in repr([logs, vars(tedee.refresh_tokens)])


# Users


def test_user_stays_the_same_over_refreshes_and_restarts(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    assert credentials.user() is None
    user = credentials.refresh().user
    for _ in range(3):
        credentials.invalidate()
        assert credentials.refresh().user == user
    assert tedee.restarted().refresh().user == user


def test_user_of_an_opaque_token_is_that_of_its_file(tedee: Tedee) -> None:
    tedee.fails(edited(access_token="opaque-1"), edited(access_token="opaque-2"))
    credentials = tedee.credentials()
    users = []
    for _ in range(2):
        users.append(credentials.refresh().user)
        credentials.invalidate()
    assert len(set(users)) == 1


def test_user_of_another_account_is_refused_after_the_exchange(tedee: Tedee) -> None:
    owners = CredentialOwners()
    owners.set_accounts(["home", "other"])
    user = tedee.credentials().refresh().user
    assert owners.claim("other", user, lambda: user) is None
    with pytest.raises(CredentialInUse, match="is that of the user of account other"):
        tedee.credentials(owners=owners).refresh()


def test_fingerprint_changes_with_the_refresh_token_alone(tedee: Tedee) -> None:
    credentials = tedee.credentials()
    before = credentials.fingerprint()
    assert credentials.fingerprint() == tedee.credentials().fingerprint() == before
    assert credentials.refresh().credential == credentials.fingerprint() != before
    tedee.file.write_text("another")
    changed = credentials.fingerprint()
    # The access token is still that of the first user, and so are the data that it gets.
    assert credentials.refresh().credential not in (before, changed)
    tedee.file.unlink()
    assert len({before, changed, credentials.fingerprint()}) == 3
