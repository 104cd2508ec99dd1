"""One HTTP call each: `sync()` and a page of `locks()`."""

import http.client
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Protocol

import requests

from exporter.secrets import Secret, SecretDetector

from .bodies import BODIES, Bodies, Body, BodyTooLarge
from .credentials import Authorization, CredentialInUse, Credentials, CredentialsUnavailable
from .envelope import Envelope, TooManyValues, open_envelope
from .errors import (
    CallError,
    Forbidden,
    InvalidResponse,
    KeyInUse,
    KeyUnusable,
    TimedOut,
    Unauthorized,
    error_for,
)
from .models import LockDetails, Reading, Row, SyncedLock, SyncReader, read_details
from .transport import NETWORK_ERRORS, deadline

SYNC = "my/lock/sync"
LOCKS = "my/lock"

MAX_ERROR_BYTES = 2**16
"""Size up to which the body of an error is read."""
ENCODINGS = ("gzip", "deflate")
"""The compressions that are asked for."""
PAGE_ITEMS = 500
"""Locks asked for in one page: half a megabyte."""


class RateLimiter(Protocol):
    """Decides when a call may be sent. Every request passes it."""

    def acquire(self, endpoint: str, user: str) -> AbstractContextManager[float]:
        """Reserve one call of a user, and record its end. The context has the time of the reservation.

        Raises:
            Exception: The call must not be sent now.
        """
        ...


RequestObserver = Callable[[str, str], None]
"""Told `(endpoint, code)` of each request sent: code is the HTTP status, or the reason where none came."""


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    body: Body
    secret: Secret
    """The secret that the request was signed with: gateways are known to repeat a request in their response."""


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
        bodies: Bodies = BODIES,
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
            bodies: The budget of memory for responses.
        """
        self.account = account
        self.version = version
        self.supported_versions: tuple[str, ...] = ()
        """What the last answer's `API-Supported-Versions` listed, as Tedee writes it: `1.36`, `37`."""
        self.last_credential = ""
        """Digest of the credential of the last call, that its response is cached by."""
        self.last_user = ""
        """Digest of the user of the last call."""
        self._base = f"{url.rstrip('/')}/api/{version}/"
        self._credentials = credentials
        self._timeout = timeout
        self._session = session
        self._limiter = limiter
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": ", ".join(ENCODINGS),
            "User-Agent": user_agent,
        }
        self._observe = observe
        self._bodies = bodies
        self._syncs = SyncReader()

    def sync(self, ids: Sequence[int] = ()) -> Reading[SyncedLock]:
        """The state of all locks, or of those with the given ids. Not more often than every 20 seconds.

        Raises:
            CallError: one of its subclasses, when there is no usable answer.
        """
        return self._get(SYNC, [("id", str(lock_id)) for lock_id in ids], self._syncs.read)

    def locks(self, page: int) -> Reading[LockDetails]:
        """Name, serial number, model and firmware of the locks on one page of the list, which counts from 1.

        The API documents no largest page, so a short page is not to be taken for the last one: the list ends where a
        page has no rows, or none but locks that are known.

        Raises:
            CallError: one of its subclasses, when there is no usable answer.
        """
        return self._get(LOCKS, [("Page", str(page)), ("ItemsPerPage", str(PAGE_ITEMS))], read_details)

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

    def _get(
        self, endpoint: str, query: list[tuple[str, str]], read: Callable[[Sequence[bytes]], Reading[Row]]
    ) -> Reading[Row]:
        """Make one call and read the rows of its `result`."""
        try:
            authorization = self._credentials.refresh()
        except CredentialsUnavailable as error:
            kind = KeyInUse if isinstance(error, CredentialInUse) else KeyUnusable
            raise kind(str(error), account=self.account, endpoint=endpoint) from error
        detector = SecretDetector(authorization.secret)
        with ExitStack() as memory:
            with self._limiter.acquire(endpoint, authorization.user) as reserved_at:
                self.last_credential, self.last_user = authorization.credential, authorization.user
                try:
                    response = self._exchange(endpoint, query, authorization, memory, reserved_at)
                except CallError as error:
                    self._observe(endpoint, error.reason)
                    raise
                self._observe(endpoint, str(response.status))
                if response.status == HTTPStatus.UNAUTHORIZED:
                    self._credentials.invalidate()
                rows = self._rows(endpoint, response, detector)
            reading = read(rows)
        hidden = [
            each._replace(value=NOT_SHOWN) if detector.finds_in(each.value) else each for each in reading.rejections
        ]
        return reading._replace(rejections=tuple(hidden))

    def _exchange(
        self,
        endpoint: str,
        query: list[tuple[str, str]],
        authorization: Authorization,
        memory: ExitStack,
        reserved_at: float,
    ) -> "_Response":
        """Send a request and receive its whole response, limited in size and time.

        Args:
            endpoint: The path below the version.
            query: Names and values.
            authorization: Signs the request.
            memory: The context in which the body is read.
            reserved_at: Seconds of `boottime`, from which the time-out counts: the process may have been stopped since.
        """
        body = memory.enter_context(self._bodies.body())
        try:
            with deadline(self._timeout, since=reserved_at) as bound:
                response = self._transfer(endpoint, query, authorization, body)
            if bound.passed:
                raise TimedOut(bound.problem, account=self.account, endpoint=endpoint)
            memory.enter_context(body.reading())
        except BodyTooLarge as error:
            raise InvalidResponse(str(error), account=self.account, endpoint=endpoint) from None
        except NETWORK_ERRORS as error:
            kind, problem = bound.meaning(error)
            raise kind(problem, account=self.account, endpoint=endpoint) from None
        return response

    def _transfer(
        self, endpoint: str, query: list[tuple[str, str]], authorization: Authorization, body: Body
    ) -> "_Response":
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
            is_good = response.status_code == HTTPStatus.OK
            while chunk := response.raw.read1(65536, decode_content=True):
                body.append(chunk)
                if not is_good and len(body.content) > MAX_ERROR_BYTES:
                    break
            return _Response(response.status_code, response.headers, body, authorization.secret)

    def _rows(self, endpoint: str, response: "_Response", detector: SecretDetector) -> Sequence[bytes]:
        """Open the envelope and return its rows if it is that of a success.

        Raises:
            CallError: One of its subclasses, if it is not.
        """
        status, headers = response.status, response.headers
        self.supported_versions = _versions(headers.get("API-Supported-Versions", "")) or self.supported_versions
        try:
            envelope = open_envelope(response.body.content, response.secret.get_secret_value())
        except TooManyValues as excess:
            raise InvalidResponse(str(excess), account=self.account, endpoint=endpoint, status=status) from None

        def error(kind: type[CallError], problem: str) -> CallError:
            # A gateway that does not know the request is the likeliest to repeat it.
            is_refused = issubclass(kind, Unauthorized | Forbidden)
            return kind(
                problem,
                account=self.account,
                endpoint=endpoint,
                status=status,
                messages=() if is_refused else _messages(envelope, detector),
                correlation_id=_correlation_id(headers, detector, only_uuid=is_refused),
                retry_after=retry_after(headers),
            )

        if status != HTTPStatus.OK:
            raise error(error_for(status), self._refusal(status))
        if envelope is None:
            raise error(
                InvalidResponse, f"the response is not a JSON object but {kind_of(headers, response.body.content)}"
            )
        code = envelope.status_code if type(envelope.status_code) is int else None
        # An envelope that contradicts itself is not one of a success.
        if envelope.success is not True or (envelope.status_code is not None and code not in range(200, 300)):
            # HTTP 200 with `success: false`: the envelope's own status says what it is.
            kind = error_for(code) if code is not None and code != HTTPStatus.OK else InvalidResponse
            raise error(kind, f"HTTP 200 whose content says that it failed, with statusCode {code}")
        if envelope.rows is None:
            raise error(InvalidResponse, "the response's result is not a list")
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


NOT_SHOWN = "[not shown: it repeats a part of the key]"


def _messages(envelope: Envelope | None, detector: SecretDetector) -> tuple[str, ...]:
    """Return Tedee's `errorMessages`, made safe for a log line."""
    messages = envelope.error_messages if envelope else None
    if not isinstance(messages, list):
        return ()
    shown = [_printable(each)[:300] for each in messages[:5] if isinstance(each, str)]
    return tuple(NOT_SHOWN if detector.finds_in(each) else each for each in shown)


def _correlation_id(headers: Mapping[str, str], detector: SecretDetector, *, only_uuid: bool) -> str | None:
    """Return the `X-Correlation-ID`, made safe for a log line; None if absent or not safe."""
    value = _printable(headers.get("X-Correlation-ID", ""))[:100]
    if not value or detector.finds_in(value):
        return None
    try:
        return str(uuid.UUID(value))
    except ValueError:
        return None if only_uuid else value


def _versions(header: str) -> tuple[str, ...]:
    """Return the versions that an `API-Supported-Versions` lists."""
    return tuple(re.findall(r"(?<![^\s,])v?[0-9]{1,3}(?:\.[0-9]{1,3})?(?![^\s,])", header[:1000]))


def _printable(text: str) -> str:
    """Return a text in one line, without control characters, which could steer a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


CONTENT_TYPES = (
    "application/json",
    "application/octet-stream",
    "application/problem+json",
    "application/xhtml+xml",
    "application/xml",
    "text/html",
    "text/plain",
    "text/xml",
)
"""The content types that are shown. Any other could be a secret that a gateway repeats."""


def kind_of(headers: Mapping[str, str], body: bytes | bytearray) -> str:
    """Describe a response that is not a JSON object."""
    content_type = headers.get("Content-Type", "").split(";")[0].strip().lower()
    if content_type not in CONTENT_TYPES:
        content_type = "an unknown content type" if content_type else "no content type"
    encodings = (each.strip().lower() for each in headers.get("Content-Encoding", "").split(","))
    unwanted = next((each for each in encodings if each not in (*ENCODINGS, "x-gzip", "identity", "")), None)
    if unwanted is None:
        return f"{content_type} of {len(body):,} bytes"
    name = unwanted if unwanted in ("br", "compress", "zstd") else "an unknown encoding"
    return f"{content_type} of {len(body):,} bytes, compressed with {name}, which was not asked for"


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
