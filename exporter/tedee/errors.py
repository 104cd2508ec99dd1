"""Every way a call to Tedee can end without an answer that can be used."""

from typing import ClassVar


class CallError(Exception):
    """A call that brought nothing usable. Each subclass is one reason, and knows what a person can do about it."""

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
        """Keep the facts of the call.

        Args:
            problem: what happened, without a full stop.
            account: the account's name in the configuration.
            endpoint: the path below `/api/{version}/`.
            status: the HTTP status, where one came.
            messages: Tedee's own `errorMessages`.
            correlation_id: Tedee's `X-Correlation-ID`, which its support asks for.
            retry_after: seconds Tedee asked to wait, where it did.
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
        """All of it but the account's name, for where that stands already."""
        said = f' (Tedee says: "{"; ".join(self.messages)}")' if self.messages else ""
        trace = f" [X-Correlation-ID {self.correlation_id}]" if self.correlation_id else ""
        return f"{self.endpoint}: {self.problem}{said}{trace}: {self.advice}"


class Unauthorized(CallError):
    """HTTP 401."""

    reason = "auth"
    advice = (
        "check that the key (or token) is complete, not expired and not revoked; "
        "a new personal access key with scope Device.Read is made in the Tedee portal"
    )


class KeyUnusable(Unauthorized):
    """The key could not be read, or cannot be one; nothing was sent."""

    advice = "put the key, and nothing else, into the file, and let the exporter's user read it; no restart is needed"


class KeyInUse(Unauthorized):
    """The key is that of another account; nothing was sent."""

    advice = "Tedee counts calls by user, so give each account the key of a user of its own; no restart is needed"


class Forbidden(CallError):
    """HTTP 403: the key is good but lacks a scope."""

    reason = "forbidden"
    advice = "give the key the scope Device.Read in the Tedee portal, or make a new key that has it"


class NotFound(CallError):
    """HTTP 404: the API version is retired, or a chosen lock is not in the account."""

    reason = "not_found"
    advice = "check api.version and the account's chosen locks in the configuration"


class RateLimited(CallError):
    """HTTP 429: the user's 700 requests an hour are used up, by all of the user's apps together."""

    reason = "rate_limited"
    advice = "other apps of the same user share Tedee's hourly limit; the exporter goes on by itself when it may"


class ServerFailed(CallError):
    """HTTP 5xx."""

    reason = "server"
    advice = "Tedee or a gateway before it has a problem; the exporter tries again by itself"


class TimedOut(CallError):
    """No complete answer within `api.timeout`."""

    reason = "timeout"
    advice = "check the network, and api.timeout in the configuration; the exporter tries again by itself"


class ConnectionFailed(CallError):
    """No connection, or one that broke."""

    reason = "connection"
    advice = "check the network, DNS, proxy and api.url; the exporter tries again by itself"


class TlsFailed(CallError):
    """The other side could not prove that it is Tedee."""

    reason = "tls"
    advice = "check api.url, this machine's clock and CA certificates (REQUESTS_CA_BUNDLE names a private CA)"


class InvalidResponse(CallError):
    """An answer that is not what the API promises."""

    reason = "invalid_response"
    advice = "check that api.url is Tedee's API and that no proxy answers in its place"


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
    """The error that an HTTP status other than 200 means."""
    named: dict[int, type[CallError]] = {401: Unauthorized, 403: Forbidden, 404: NotFound, 429: RateLimited}
    if status >= 500:  # noqa: PLR2004
        return ServerFailed
    return named.get(status, InvalidResponse)
