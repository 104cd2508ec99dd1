"""One HTTP call each: `sync()` and a page of `locks()`."""

import http.client
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Protocol

import requests
from requests.structures import CaseInsensitiveDict

from .credentials import Authorization, CredentialInUse, Credentials, CredentialsUnavailable
from .envelope import Envelope, opened
from .errors import (
    CallError,
    InvalidResponse,
    KeyInUse,
    KeyUnusable,
    TimedOut,
    error_for,
)
from .models import LockDetails, Reading, SyncedLock, SyncReader, read_details
from .secret import Secret, disguised, without
from .transport import NETWORK_ERRORS, deadline

SYNC = "my/lock/sync"
LOCKS = "my/lock"

MAX_ANSWER_BYTES = 16 * 2**20
"""Of a decompressed answer. A lock takes 250 bytes in a sync and 1,200 in a page of details."""
PAGE_ITEMS = 500
"""Locks asked for in one page: half a megabyte."""


class RateLimiter(Protocol):
    """Decides when a call may be sent. Every request passes it."""

    def acquire(self, endpoint: str, user: str) -> AbstractContextManager[None]:
        """Reserve one call of a user, and record its end.

        Raises:
            Exception: The call must not be sent now.
        """
        ...


RequestObserver = Callable[[str, str], None]
"""Told `(endpoint, code)` of each request sent: code is the HTTP status, or the reason where none came."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytearray = field(repr=False)
    secret: Secret
    """What the request was signed with: gateways are known to repeat a request in their answer."""


class TedeeClient:
    """The API as one account sees it."""

    def __init__(
        self,
        account: str,
        *,
        url: str,
        version: str,
        credentials: Credentials,
        timeout: float,
        session: requests.Session,
        limiter: RateLimiter,
        user_agent: str,
        observe: RequestObserver,
    ) -> None:
        """Prepare calls; none is made here.

        Args:
            account: the name that errors carry.
            url: scheme, host and port, `https://api.tedee.com`.
            version: the API version as it stands in the path, `v37`.
            credentials: sign each request.
            timeout: seconds for a whole call, its body included.
            session: see `session()`.
            limiter: passed by every request.
            user_agent: says to Tedee who calls.
            observe: told of each request sent.
        """
        self.account = account
        self.version = version
        self.supported_versions: tuple[str, ...] = ()
        """What the last answer's `API-Supported-Versions` listed, as Tedee writes it: `1.36`, `37`."""
        self.last_credential = ""
        """Digest of the credential of the last call, that its response is cached by."""
        self._base = f"{url.rstrip('/')}/api/{version}/"
        self._credentials = credentials
        self._timeout = timeout
        self._session = session
        self._limiter = limiter
        self._headers = {"Accept": "application/json", "User-Agent": user_agent}
        self._observe = observe
        self._syncs = SyncReader()

    def sync(self, ids: Sequence[int] = ()) -> Reading[SyncedLock]:
        """The state of all locks, or of those with the given ids. Not more often than every 20 seconds.

        Raises:
            CallError: one of its subclasses, when there is no usable answer.
        """
        return self._syncs.read(self._get(SYNC, [("id", str(lock_id)) for lock_id in ids]))

    def locks(self, page: int) -> Reading[LockDetails]:
        """Name, serial number, model and firmware of the locks on one page of the list, which counts from 1.

        The API documents no largest page, so a short page is not to be taken for the last one: the list ends where a
        page has no rows, or none but locks that are known.

        Raises:
            CallError: one of its subclasses, when there is no usable answer.
        """
        return read_details(self._get(LOCKS, [("Page", str(page)), ("ItemsPerPage", str(PAGE_ITEMS))]))

    def supports_version(self) -> bool | None:
        """Whether Tedee still lists the version in use; None before an answer has said so."""
        if not self.supported_versions:
            return None
        return _bare(self.version) in {_bare(version) for version in self.supported_versions}

    def user(self) -> str | None:
        """Return the user of the next call; None if that is not known without a request."""
        return self._credentials.user()

    def credential(self) -> str:
        """Return a digest of the credential; it changes when a refused one may be worth another try."""
        return self._credentials.fingerprint()

    def credentials_expire_at(self) -> float | None:
        """Unix seconds at which somebody has to sign in again; None where that is not known or never."""
        return self._credentials.expires_at()

    def refresh_token_stored(self) -> bool | None:
        """Return False while the refresh token is in memory only, None if the account has none."""
        return self._credentials.refresh_token_stored()

    def _get(self, endpoint: str, query: list[tuple[str, str]]) -> Sequence[bytes]:
        """Make one call and return the rows of its `result`."""
        try:
            authorization = self._credentials.prepare()
        except CredentialsUnavailable as error:
            kind = KeyInUse if isinstance(error, CredentialInUse) else KeyUnusable
            raise kind(str(error), account=self.account, endpoint=endpoint) from error
        with self._limiter.acquire(endpoint, authorization.user):
            self.last_credential = authorization.credential
            try:
                answer = self._exchange(endpoint, query, authorization)
            except CallError as error:
                self._observe(endpoint, error.reason)
                raise
            self._observe(endpoint, str(answer.status))
            if answer.status == HTTPStatus.UNAUTHORIZED:
                self._credentials.forget()
            return self._rows(endpoint, answer)

    def _exchange(self, endpoint: str, query: list[tuple[str, str]], authorization: Authorization) -> "_Answer":
        """Send a request and read its whole answer, limited in size and time."""
        with deadline(self._timeout) as bound:
            try:
                answer = self._transfer(endpoint, query, authorization)
            except NETWORK_ERRORS as error:
                kind, problem = bound.meaning(error)
                raise kind(problem, account=self.account, endpoint=endpoint) from None
        if bound.passed:
            raise TimedOut(bound.problem, account=self.account, endpoint=endpoint)
        if len(answer.body) > MAX_ANSWER_BYTES:
            problem = f"an answer of over {MAX_ANSWER_BYTES:,} bytes"
            raise InvalidResponse(problem, account=self.account, endpoint=endpoint, status=answer.status)
        return answer

    def _transfer(self, endpoint: str, query: list[tuple[str, str]], authorization: Authorization) -> "_Answer":
        with self._session.get(
            self._base + endpoint,
            params=query,
            headers=self._headers,
            auth=authorization,
            timeout=self._timeout,
            # A redirect would carry the key to where it points.
            allow_redirects=False,
            stream=True,
        ) as response:
            body = bytearray()
            while len(body) <= MAX_ANSWER_BYTES and (chunk := response.raw.read1(65536, decode_content=True)):
                body += chunk
            secret = authorization.secret.get_secret_value()
            headers = {name: _legible(without(secret, value)) for name, value in response.headers.items()}
            return _Answer(response.status_code, CaseInsensitiveDict(headers), body, authorization.secret)

    def _rows(self, endpoint: str, answer: "_Answer") -> Sequence[bytes]:
        """Open the envelope, and see whether it is that of a success."""
        status, headers = answer.status, answer.headers
        versions = headers.get("API-Supported-Versions", "")
        self.supported_versions = (
            tuple(filter(None, (each.strip() for each in versions.split(",")))) or self.supported_versions
        )
        envelope = opened(answer.body, answer.secret.get_secret_value())
        messages = _messages(envelope)
        correlation_id = headers.get("X-Correlation-ID")

        def error(kind: type[CallError], problem: str) -> CallError:
            return kind(
                problem,
                account=self.account,
                endpoint=endpoint,
                status=status,
                messages=messages,
                correlation_id=correlation_id[:100] if correlation_id else None,
                retry_after=retry_after(headers),
            )

        if status != HTTPStatus.OK:
            raise error(error_for(status), self._refusal(status))
        if envelope is None:
            raise error(InvalidResponse, f"the answer is not a JSON object but {kind_of(headers, answer.body)}")
        if envelope.said.get("success") is not True:
            # HTTP 200 with `success: false`: the envelope's own status says what it is.
            inner = envelope.said.get("statusCode")
            kind = error_for(inner) if isinstance(inner, int) and inner != HTTPStatus.OK else InvalidResponse
            raise error(kind, f"HTTP 200 whose content says that it failed, with statusCode {inner!r:.20}")
        if envelope.rows is None:
            kind_found = type(envelope.said.get("result")).__name__
            raise error(InvalidResponse, f"the answer's result is not a list but {kind_found}")
        return envelope.rows

    def _refusal(self, status: int) -> str:
        phrase = f" {http.client.responses.get(status, '')}".rstrip()
        if status == HTTPStatus.NOT_FOUND and self.supports_version() is False:
            spoken = ", ".join(self.supported_versions)[:100]
            return f"HTTP {status}{phrase}; Tedee speaks {spoken} here, not {self.version}"
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return f"HTTP {status}{phrase}; redirects are not followed, so that the key goes nowhere else"
        return f"HTTP {status}{phrase}"


def _bare(version: str) -> str:
    return version.strip().lower().removeprefix("v")


def _messages(envelope: Envelope | None) -> tuple[str, ...]:
    """Tedee's `errorMessages`, made safe to stand in a log line."""
    said = envelope and envelope.said.get("errorMessages")
    if not isinstance(said, list):
        return ()
    return tuple(_legible(each)[:300] for each in said[:5] if isinstance(each, str))


def _legible(text: str) -> str:
    """One line that steers no terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def kind_of(headers: Mapping[str, str], body: bytes | bytearray) -> str:
    """In words, what an answer is that is no JSON object."""
    kind = _legible(disguised(headers.get("Content-Type", "no content type").split(";")[0]))[:60]
    return f"{kind} of {len(body):,} bytes"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After`, given as a number or as an HTTP date; None where there is none or it is junk.

    A date is read against the answer's own `Date`, so that this machine's clock does not matter.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    until = _moment(value)
    if until is None:
        return None
    return max(0.0, until - (_moment(headers.get("Date", "")) or time.time()))


def _moment(date: str) -> float | None:
    """Unix seconds of an HTTP date; None where it is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
