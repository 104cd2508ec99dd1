"""Sends requests and receives their responses, limited in time and size."""

import http.client
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import requests

from .bodies import BODIES, MAX_BODY_BYTES, Bodies, Body
from .deadline import Deadline, enforce_deadline
from .errors import TimedOut, TransportError
from .network_errors import NETWORK_ERRORS, classify
from .session import ENCODINGS

MAX_ERROR_BYTES = 2**16
"""Limit up to which the body of an error response is received."""
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
"""The content types that are shown in messages. Any other text could be a secret that a gateway repeats."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response that was received up to its end, or up to the deadline."""

    status: int
    headers: Mapping[str, str]
    body: Body
    deadline: Deadline

    @property
    def status_line(self) -> str:
        """The status with its phrase, such as `HTTP 404 Not Found`."""
        return f"HTTP {self.status} {http.client.responses.get(self.status, '')}".rstrip()

    @property
    def retry_after(self) -> float | None:
        """The seconds of a `Retry-After`, a number or an HTTP date; None if absent or invalid.

        A date is compared with the `Date` of the response, so that the clock of this machine does not matter.
        """
        value = self.headers.get("Retry-After", "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:12])
        until = _parse_http_date(value)
        if until is None:
            return None
        return max(0.0, until - (_parse_http_date(self.headers.get("Date", "")) or time.time()))

    def describe_body(self) -> str:
        """Return type, size and unexpected encoding of a body that is not a JSON object."""
        content_type = self.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if content_type not in CONTENT_TYPES:
            content_type = "an unknown content type" if content_type else "no content type"
        description = f"{content_type} of {len(self.body.content):,} bytes"
        encodings = (each.strip().lower() for each in self.headers.get("Content-Encoding", "").split(","))
        unwanted = next((each for each in encodings if each not in (*ENCODINGS, "x-gzip", "identity", "")), None)
        if unwanted is None:
            return description
        name = unwanted if unwanted in ("br", "compress", "zstd") else "an unknown encoding"
        return f"{description}, compressed with {name}, which was not requested"

    def raise_if_late(self) -> None:
        """Raise TransportError if the deadline passed, so that the body may be incomplete."""
        if self.deadline.expired:
            raise TransportError(TimedOut, self.deadline.problem)


@contextmanager
def send(
    session: requests.Session,
    method: str,
    url: str,
    *,
    timeout: float,
    since: float | None = None,
    bodies: Bodies = BODIES,
    max_bytes: int = MAX_BODY_BYTES,
    **options: Any,
) -> Iterator[Response]:
    """Send one request, and provide its response until the context ends.

    Args:
        session: The session of `session.session()`.
        method: HTTP method.
        url: URL. It is the only one that is called, since redirects are not followed.
        timeout: Seconds for the whole call, from connecting to the last byte of the body.
        since: Start of the time-out, in seconds of `boottime`; None for now.
        bodies: Memory limit of all responses.
        max_bytes: Limit of the decompressed body. Of an error, about 64 KiB are received, and the rest is ignored.
        options: Arguments of `requests.Session.request`.

    Raises:
        TransportError: There is no response, or it exceeds a limit.
    """
    with bodies.body(max_bytes) as body:
        try:
            with enforce_deadline(timeout, since) as deadline:
                status, headers = _transfer(session, method, url, body, timeout=timeout, **options)
        except NETWORK_ERRORS as error:
            raise classify(error, deadline) from None
        with body.pinned():
            yield Response(status, headers, body, deadline)


def _transfer(
    session: requests.Session, method: str, url: str, body: Body, **options: Any
) -> tuple[int, Mapping[str, str]]:
    """Send a request, receive the body, and return status and headers."""
    # A redirect would send the secrets to its target.
    with session.request(method, url, allow_redirects=False, stream=True, **options) as response:
        is_error = response.status_code >= HTTPStatus.MULTIPLE_CHOICES
        while chunk := response.raw.read1(65536, decode_content=True):
            body.append(chunk)
            if is_error and len(body.content) > MAX_ERROR_BYTES:
                break
        return response.status_code, response.headers


def _parse_http_date(date: str) -> float | None:
    """Return the Unix time of an HTTP date; None if invalid."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
