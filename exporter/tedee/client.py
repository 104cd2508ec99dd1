"""Client of the Tedee API. Each method sends one request."""

import re
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from http import HTTPStatus
from typing import Any, Protocol

import requests

from exporter.secrets import Secret, SecretDetector

from .bodies import BODIES, Bodies
from .credentials import Authorization, CredentialInUse, Credentials
from .devices import AnyDevice, DeviceKey, read_devices
from .endpoint import ACTIVITIES, DEVICES, DOOR_SENSORS, SYNC, Endpoint, Priority
from .envelope import Envelope, TooManyValues, open_envelope
from .errors import (
    CallError,
    Forbidden,
    InvalidResponse,
    KeyInUse,
    KeyUnusable,
    TransportError,
    Unauthorized,
    error_for,
)
from .events import PAGE_SIZE, Activity, read_activities
from .models import SyncedLock, SyncReader
from .request import Response, send
from .rows import KeyT, ParseResult, RowT
from .secret_source import CredentialsUnavailable

LOW_PRIORITY_TIMEOUT = 10.0
"""Seconds after which a call of another endpoint than the sync fails. It must not delay the next sync."""

Lists = Mapping[str, Sequence[bytes]]
"""The unparsed rows of each list in a result, by the name of the list."""


class Limiter(Protocol):
    """Rate limiter of an account, which decides when a request may be sent."""

    def acquire(self, endpoint: Endpoint, user: str) -> AbstractContextManager[float]:
        """Reserve one call of a user, and record its end. The context yields the time of the reservation.

        Raises:
            Exception: The call must not be sent now.
        """
        ...


class Observer(Protocol):
    """Receives what the metrics of an account count."""

    def request_sent(self, endpoint: str, code: str) -> None:
        """Count a request.

        Args:
            endpoint: Path of the endpoint.
            code: The HTTP status; the reason of the error without a response.
        """
        ...

    def values_rejected(self, parsed: ParseResult[Any, Any]) -> None:
        """Count the values of a response that cannot be used."""
        ...


class TedeeClient:
    """Client of the API for one account."""

    def __init__(
        self,
        account: str,
        *,
        url: str,
        version: str,
        credentials: Credentials,
        timeout: float,
        session: requests.Session,
        limiter: Limiter,
        observer: Observer,
        bodies: Bodies = BODIES,
    ) -> None:
        """Create a client. No request is sent.

        Args:
            account: Name of the account, for errors.
            url: Scheme, host and port, such as `https://api.tedee.com`.
            version: API version as in the path, such as `v37`.
            credentials: Sign each request.
            timeout: Seconds for a whole call, including the body of the response.
            session: The session of `session.session()`.
            limiter: Decides when a request may be sent.
            observer: Called after each request.
            bodies: Memory limit of responses.
        """
        self.account = account
        self.version = version
        self.supported_versions: tuple[str, ...] = ()
        """The versions in the last `API-Supported-Versions` header, such as `1.36` and `37`."""
        self.last_fingerprint = ""
        """Fingerprint of the credential of the last call. Its response is stored with it."""
        self.last_user = ""
        """Digest of the user of the last call."""
        self._base = f"{url.rstrip('/')}/api/{version}/"
        self._credentials = credentials
        self._timeout = timeout
        self._session = session
        self._limiter = limiter
        self._observer = observer
        self._bodies = bodies
        self._syncs = SyncReader()

    def sync(self, ids: Sequence[int] = ()) -> ParseResult[int, SyncedLock]:
        """Fetch the states of all locks, or of those with the given ids. Tedee allows one sync in 20 seconds.

        Raises:
            CallError: There is no usable response.
        """
        return self._get(SYNC, [("id", str(lock_id)) for lock_id in ids], lambda lists: self._syncs.read(lists[""]))

    def devices(self) -> ParseResult[DeviceKey, AnyDevice]:
        """Fetch names, models, firmware and batteries of all devices, without the states of the locks.

        The settings of the user, with the position of the home, are not requested.

        Raises:
            CallError: There is no usable response.
        """
        return self._get(DEVICES, [], read_devices)

    def door_sensors(self) -> ParseResult[DeviceKey, AnyDevice]:
        """Fetch all door sensors, which the response of `devices` lacks.

        Raises:
            CallError: There is no usable response.
        """
        return self._get(DOOR_SENSORS, [], read_devices)

    def activities(self, lock_id: int, before: str | None = None) -> ParseResult[int, Activity]:
        """Fetch the newest events in the activity log of a lock, at most PAGE_SIZE.

        Args:
            lock_id: Tedee's id of the lock.
            before: Date and time in UTC; only older events are fetched.

        Raises:
            CallError: There is no usable response.
        """
        query = [("deviceId", str(lock_id)), ("elements", str(PAGE_SIZE))]
        query += [("lastElemDate", before)] if before else []
        return self._get(ACTIVITIES, query, lambda lists: read_activities(lists[""]))

    def supports_version(self) -> bool | None:
        """Return True if Tedee supports the version in use; None if no response has listed versions yet."""
        if not self.supported_versions:
            return None
        return _normalize_version(self.version) in {_normalize_version(version) for version in self.supported_versions}

    def user(self) -> str | None:
        """Return the user of the next call; None if unknown without a request."""
        return self._credentials.user()

    def longest_refresh(self) -> float:
        """Return the maximum number of seconds before the next request is sent, because of an expired access token."""
        return self._credentials.longest_refresh()

    def fingerprint(self) -> str:
        """Return the fingerprint of the credential. If it changes, a retry after HTTP 401 may succeed."""
        return self._credentials.fingerprint()

    def credentials_expire_at(self) -> float | None:
        """Return the Unix time at which the credentials expire; None if unknown or never."""
        return self._credentials.expires_at()

    def refresh_token_stored(self) -> bool | None:
        """Return False while the refresh token is in memory only; None if the account has none."""
        return self._credentials.refresh_token_stored()

    def _get(
        self,
        endpoint: Endpoint,
        query: list[tuple[str, str]],
        read: Callable[[Lists], ParseResult[KeyT, RowT]],
    ) -> ParseResult[KeyT, RowT]:
        """Send one request and parse the rows of its result.

        Args:
            endpoint: The endpoint to call.
            query: Names and values.
            read: Parses the lists in the result.
        """
        try:
            authorization = self._credentials.refresh()
        except CredentialsUnavailable as error:
            kind = KeyInUse if isinstance(error, CredentialInUse) else KeyUnusable
            raise kind(str(error), account=self.account, endpoint=endpoint.path) from error
        with ExitStack() as memory:
            try:
                with self._limiter.acquire(endpoint, authorization.user) as reserved_at:
                    lists = self._fetch_lists(endpoint, query, authorization, memory, reserved_at)
            except CallError as error:
                # Otherwise the body and its rows would stay in memory while the error is handled, but not be counted.
                _clear_frames(error)
                raise
            parsed = read(lists)
        detector = SecretDetector(authorization.secret)
        redacted = [
            each._replace(value=REDACTED) if detector.finds_in(each.value) else each for each in parsed.rejections
        ]
        parsed = parsed._replace(rejections=tuple(redacted))
        self._observer.values_rejected(parsed)
        return parsed

    def _fetch_lists(
        self,
        endpoint: Endpoint,
        query: list[tuple[str, str]],
        authorization: Authorization,
        memory: ExitStack,
        reserved_at: float,
    ) -> Lists:
        """Send a request, count it, and return the unparsed rows of its result.

        Args:
            endpoint: The endpoint to call.
            query: Names and values.
            authorization: Signs the request.
            memory: The context in which the body stays in memory.
            reserved_at: Start of the time-out, in seconds of `boottime`. The process may have been stopped since.
        """
        self.last_fingerprint, self.last_user = authorization.fingerprint, authorization.user
        request = send(
            self._session,
            "GET",
            self._base + endpoint.path,
            timeout=self._timeout if endpoint.priority is Priority.HIGH else min(self._timeout, LOW_PRIORITY_TIMEOUT),
            since=reserved_at,
            bodies=self._bodies,
            params=query,
            auth=authorization,
        )
        try:
            response = memory.enter_context(request)
            response.raise_if_late()
        except TransportError as error:
            self._observer.request_sent(endpoint.path, error.kind.reason)
            raise error.kind(error.problem, account=self.account, endpoint=endpoint.path) from None
        self._observer.request_sent(endpoint.path, str(response.status))
        if response.status == HTTPStatus.UNAUTHORIZED:
            self._credentials.invalidate()
        return self._lists(endpoint, response, authorization.secret)

    def _lists(self, endpoint: Endpoint, response: Response, secret: Secret) -> Lists:
        """Return the unparsed rows of a successful response.

        Args:
            endpoint: The endpoint to call.
            response: The response.
            secret: The secret of the request. Some gateways repeat a request in their response.

        Raises:
            CallError: The response is an error, or cannot be used.
        """
        status, headers, detector = response.status, response.headers, SecretDetector(secret)
        self.supported_versions = _parse_versions(headers.get("API-Supported-Versions", "")) or self.supported_versions
        try:
            envelope = open_envelope(response.body.content, secret.get_secret_value())
        except TooManyValues as excess:
            raise InvalidResponse(str(excess), account=self.account, endpoint=endpoint.path, status=status) from None

        def error(kind: type[CallError], problem: str) -> CallError:
            # A gateway is most likely to repeat a request that it refuses.
            is_refused = issubclass(kind, Unauthorized | Forbidden)
            return kind(
                problem,
                account=self.account,
                endpoint=endpoint.path,
                status=status,
                messages=() if is_refused else _error_messages(envelope, detector),
                correlation_id=_correlation_id(headers, detector, only_uuid=is_refused),
                retry_after=response.retry_after,
            )

        if status != HTTPStatus.OK:
            raise error(error_for(status), self._describe_status(response))
        if envelope is None:
            raise error(InvalidResponse, f"the response is not a JSON object but {response.describe_body()}")
        code = envelope.status_code if type(envelope.status_code) is int else None
        # An envelope that contradicts itself is not a success.
        if envelope.success is not True or (envelope.status_code is not None and code not in range(200, 300)):
            # HTTP 200 with `success: false`: the status of the envelope determines the error.
            kind = error_for(code) if code is not None and code != HTTPStatus.OK else InvalidResponse
            raise error(kind, f"HTTP 200, but the response reports a failure with statusCode {code}")
        lists = envelope.lists
        if lists is None or endpoint.required_list not in {name.lower() for name in lists}:
            missing = f"has no list named {endpoint.required_list}" if endpoint.required_list else "is not a list"
            raise error(InvalidResponse, f"the result in the response {missing}")
        return lists

    def _describe_status(self, response: Response) -> str:
        if response.status == HTTPStatus.NOT_FOUND and self.supports_version() is False:
            supported = ", ".join(self.supported_versions)[:100]
            return f"{response.status_line}; Tedee supports the API versions {supported}, not {self.version}"
        if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST:
            return f"{response.status_line}; redirects are not followed, so that the key is sent to no other server"
        return response.status_line


def _clear_frames(error: BaseException | None) -> None:
    """Delete the local variables of all frames that an error and its causes passed through."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _normalize_version(version: str) -> str:
    return version.strip().lower().removeprefix("v")


REDACTED = "[redacted: contains a part of the key]"


def _error_messages(envelope: Envelope | None, detector: SecretDetector) -> tuple[str, ...]:
    """Return the `errorMessages` of a response, made safe for a log line."""
    messages = envelope.error_messages if envelope else None
    if not isinstance(messages, list):
        return ()
    shown = [_single_line(each)[:300] for each in messages[:5] if isinstance(each, str)]
    return tuple(REDACTED if detector.finds_in(each) else each for each in shown)


def _correlation_id(headers: Mapping[str, str], detector: SecretDetector, *, only_uuid: bool) -> str | None:
    """Return the `X-Correlation-ID`, made safe for a log line; None if absent or not safe."""
    value = _single_line(headers.get("X-Correlation-ID", ""))[:100]
    if not value or detector.finds_in(value):
        return None
    try:
        return str(uuid.UUID(value))
    except ValueError:
        return None if only_uuid else value


def _parse_versions(header: str) -> tuple[str, ...]:
    """Return the versions in an `API-Supported-Versions` header."""
    return tuple(re.findall(r"(?<![^\s,])v?[0-9]{1,3}(?:\.[0-9]{1,3})?(?![^\s,])", header[:1000]))


def _single_line(text: str) -> str:
    """Return a text on one line, without control characters, which could control a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
