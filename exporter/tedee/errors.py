"""The errors of a call to Tedee."""

from typing import ClassVar

SCOPES = "Device.Read (for events also DeviceActivity.Read)"
"""The scopes that a key needs."""


class CallError(Exception):
    """A call without a usable response. Each subclass has a reason and advice for the user."""

    reason: ClassVar[str]
    """The `reason` label of `tedee_sync_failures_total`."""
    advice: ClassVar[str]
    """What to do next, in plain text."""

    def __init__(
        self,
        problem: str,
        *,
        account: str,
        endpoint: str,
        status: int | None = None,
        messages: tuple[str, ...] = (),
        correlation_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Create an error.

        Args:
            problem: What happened, without a full stop.
            account: Name of the account in the configuration.
            endpoint: The path below `/api/{version}/`.
            status: HTTP status of the response, if there was one.
            messages: The `errorMessages` of the response.
            correlation_id: The `X-Correlation-ID` of the response, which Tedee's support needs.
            retry_after: Seconds to wait before the next request, if the response has a `Retry-After`.
        """
        self.problem = problem
        self.account = account
        self.endpoint = endpoint
        self.status = status
        self.messages = messages
        self.correlation_id = correlation_id
        self.retry_after = retry_after
        super().__init__(f"account {account!r}: {self.message()}")

    def message(self) -> str:
        """Return what happened and the advice, without the name of the account."""
        trace = f" [X-Correlation-ID {self.correlation_id}]" if self.correlation_id else ""
        return f"{self.summary()}{trace}: {self.advice}"

    def log_values(self) -> dict[str, object]:
        """Return what happened, without the advice, as values of a log line."""
        correlation = {"correlation_id": self.correlation_id} if self.correlation_id else {}
        return {"error": self.summary(), **correlation}

    def summary(self) -> str:
        """Return what happened, without the name of the account, the `X-Correlation-ID` and the advice."""
        messages = f' (message from Tedee: "{"; ".join(self.messages)}")' if self.messages else ""
        return f"{self.endpoint}: {self.problem}{messages}"


class Unauthorized(CallError):
    """HTTP 401."""

    reason = "auth"
    advice = (
        "check that the key (or token) is complete, not expired and not revoked; create a new personal access key with "
        f"the scope {SCOPES} in the Tedee portal if necessary"
    )


class KeyUnusable(Unauthorized):
    """The key could not be read or is not valid. Nothing was sent."""

    advice = "put the key and nothing else into the file, readable by the exporter's user; no restart is needed"


class KeyInUse(Unauthorized):
    """The key is that of another account. Nothing was sent."""

    advice = "Tedee counts calls by user, so give each account the key of a different user; no restart is needed"


class Forbidden(CallError):
    """HTTP 403: the key is valid but lacks a scope."""

    reason = "forbidden"
    advice = f"give the key the scope {SCOPES}, or create a new key that has it"


class NotFound(CallError):
    """HTTP 404: the API version is retired, or a selected lock is not in the account."""

    reason = "not_found"
    advice = "check api.version, and the selected locks of the account if there are any, in the configuration"


class RateLimited(CallError):
    """HTTP 429: all apps of the user together have used up the 700 requests an hour."""

    reason = "rate_limited"
    advice = "other apps of the same user share Tedee's hourly limit"


class ServerFailed(CallError):
    """HTTP 5xx."""

    reason = "server"
    advice = "Tedee or a gateway in front of it has a problem"


class TimedOut(CallError):
    """No complete response within `api.timeout`."""

    reason = "timeout"
    advice = "check the network, and api.timeout in the configuration"


class ConnectionFailed(CallError):
    """The connection could not be opened or was lost."""

    reason = "connection"
    advice = "check the network, DNS, proxy and api.url"


class TlsFailed(CallError):
    """TLS failed, for instance because the certificate of the server is not valid."""

    reason = "tls"
    advice = "check api.url, this machine's clock and CA certificates (REQUESTS_CA_BUNDLE or SSL_CERT_FILE)"


class InvalidResponse(CallError):
    """A response that does not match the documentation of the API."""

    reason = "invalid_response"
    advice = "check that api.url is Tedee's API and that no proxy or sign-in page responds instead"


REASONS: tuple[str, ...] = tuple(
    error.reason
    for error in (
        Unauthorized,
        Forbidden,
        NotFound,
        RateLimited,
        ServerFailed,
        TimedOut,
        ConnectionFailed,
        TlsFailed,
        InvalidResponse,
    )
)


def error_for(status: int) -> type[CallError]:
    """Return the error class of an HTTP status other than 200."""
    by_status: dict[int, type[CallError]] = {401: Unauthorized, 403: Forbidden, 404: NotFound, 429: RateLimited}
    if status >= 500:  # noqa: PLR2004
        return ServerFailed
    return by_status.get(status, InvalidResponse)


class TransportError(OSError):
    """A failure that one kind of CallError describes. The text contains no secret.

    It is an OSError, so that the network libraries pass it on and close the connection.
    """

    def __init__(self, kind: type[CallError], problem: str) -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem
