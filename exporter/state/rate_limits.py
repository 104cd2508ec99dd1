"""The rate-limit policy: pure functions of the rate-limit state and the time.

Each call is counted twice: for the name of its account, and for the user of its credential, because Tedee counts calls
by user. This covers a renamed account, two accounts with one key, a key that moved to another account's file, and a
second process.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import NamedTuple

from exporter.tedee.endpoint import SYNC_SPACING, Endpoint, Priority

MAX_BACKOFF = 300.0
"""Maximum wait in seconds after consecutive failures."""
HOUR = 3600.0
"""Seconds over which Tedee counts the requests of a user."""
THROTTLE_BELOW = 0.2
"""Fraction of the hourly share. If less is left, syncs are spread over the time until more is available."""
BURST = 0.2
"""Fraction of its limit that an endpoint of the lowest priority may use at once. The rest is spread over the hour."""
LOW_PRIORITY_SHARE = 1 / 3
"""Fraction of the hourly share that an endpoint of low priority may use."""
LOW_PRIORITY_RESERVE = 36
"""Requests in an hour that endpoints of the lowest priority leave to those of low priority: the limit of `DEVICES`
allows 24, and the list of door sensors needs 12 at the shortest interval."""


class EndpointState(NamedTuple):
    """What is known about the calls of one endpoint. Times are seconds of the store's clock."""

    next_allowed_at: float = 0.0
    """Time from which Tedee allows the next request."""
    backoff_until: float = 0.0
    """Time until which requests wait because of failures. A new credential ends this wait, but not the one above."""
    consecutive_failures: int = 0
    reservation: int = 0
    """Number of the call that was reserved last. The end of an earlier one must not shorten its reservation."""

    def merged(self, other: "EndpointState") -> "EndpointState":
        """Return the union of two states, with the later of two times."""
        last = max(self, other)
        return last._replace(
            backoff_until=max(self.backoff_until, other.backoff_until),
            consecutive_failures=max(self.consecutive_failures, other.consecutive_failures),
        )


@dataclass(frozen=True, slots=True)
class RateLimitState:
    """What is known about the calls of one account or one user. Times are seconds of the store's clock."""

    endpoints: Mapping[str, EndpointState] = field(default_factory=dict)
    """By the path of the endpoint."""
    blocked_until: float = 0.0
    """Time until which no request may be sent: because of a `Retry-After`, or the end of the last call is unknown."""
    recent_requests: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Times of the requests of the last hour, oldest first, by the path of the endpoint."""

    def endpoint(self, path: str) -> EndpointState:
        """Return the state of an endpoint, the default one if it was never called."""
        return self.endpoints.get(path, EndpointState())

    def with_endpoint(self, path: str, **changes: float) -> "RateLimitState":
        """Return a copy with a changed state of one endpoint."""
        changed = self.endpoint(path)._replace(**changes)  # type: ignore[arg-type]
        return replace(self, endpoints={**self.endpoints, path: changed})

    def blocked(self, until: float) -> "RateLimitState":
        """Return a copy that is blocked at least until the given time."""
        return self if until <= self.blocked_until else replace(self, blocked_until=until)

    def ended(self, before: "RateLimitState", path: str, reservation: int) -> "RateLimitState":
        """Return the state after the end of a call, without shortening the reservation of another one.

        If the process of the call was stopped for a while, another process may have reserved the next call.

        Args:
            before: The state before the end.
            path: Path of the endpoint.
            reservation: Number of the call that ended.
        """
        known = before.endpoint(path)
        if known.reservation == reservation or known.next_allowed_at <= self.endpoint(path).next_allowed_at:
            return self
        return self.with_endpoint(path, next_allowed_at=known.next_allowed_at)

    def without_backoff(self) -> "RateLimitState":
        """Return a copy that does not wait because of earlier failures."""
        endpoints = {
            endpoint: state._replace(backoff_until=0.0, consecutive_failures=0)
            for endpoint, state in self.endpoints.items()
        }
        return replace(self, endpoints=endpoints)

    def is_unused(self) -> bool:
        """Return True if no request was ever sent and the first one need not wait."""
        allowed = all(state.next_allowed_at == 0 for state in self.endpoints.values())
        return allowed and self.blocked_until == 0 and not self.recent_requests

    def moved(self, seconds: float) -> "RateLimitState":
        """Return a copy in which all times are later by some seconds, for another clock."""
        return RateLimitState(
            {
                endpoint: state._replace(
                    next_allowed_at=state.next_allowed_at + seconds, backoff_until=state.backoff_until + seconds
                )
                for endpoint, state in self.endpoints.items()
            },
            self.blocked_until + seconds,
            {endpoint: tuple(at + seconds for at in times) for endpoint, times in self.recent_requests.items()},
        )

    def merged(self, other: "RateLimitState") -> "RateLimitState":
        """Return the union of two states, with the later of two times."""
        return RateLimitState(
            {
                endpoint: self.endpoint(endpoint).merged(other.endpoint(endpoint))
                for endpoint in {*self.endpoints, *other.endpoints}
            },
            max(self.blocked_until, other.blocked_until),
            {
                endpoint: tuple(
                    sorted({*self.recent_requests.get(endpoint, ()), *other.recent_requests.get(endpoint, ())})
                )
                for endpoint in {*self.recent_requests, *other.recent_requests}
            },
        )


@dataclass(frozen=True)
class RateLimitPolicy:
    """The rules that decide when an endpoint may be called."""

    interval: float = SYNC_SPACING
    """Seconds from the response of a sync to the next sync."""
    requests_per_hour: int = 350
    """Hourly share for all endpoints. Tedee allows each user 700, with all apps of the user."""
    longest_call: float = 10.0
    """Maximum duration in seconds of a call, even if its process was killed."""

    def __post_init__(self) -> None:
        """Validate the interval.

        Raises:
            ValueError: The interval is shorter than Tedee allows.
        """
        if self.interval < SYNC_SPACING:
            raise ValueError(f"an interval of {self.interval:g} s breaks Tedee's limit of one sync in 20 s")

    @property
    def lowest_priority_limit(self) -> int:
        """Requests in an hour that endpoints of the lowest priority may send if all others send as many as usual.

        With them, less than the part of the share is used from which on syncs are throttled.
        """
        return max(0, int(self.requests_per_hour * (1 - THROTTLE_BELOW) - self._usual_requests))

    @property
    def _usual_requests(self) -> float:
        return HOUR / self.interval + LOW_PRIORITY_RESERVE

    def unknown_state(self, now: float) -> RateLimitState:
        """Return the state of an unknown account or user, for which a call may have been sent just now."""
        return RateLimitState(blocked_until=now + self.longest_call + SYNC_SPACING)

    def wait(self, state: RateLimitState, endpoint: Endpoint, now: float) -> float:
        """Return the seconds until the endpoint may be called, 0.0 if it may be called now."""
        endpoint_state = state.endpoint(endpoint.path)
        allowed_at = max(
            endpoint_state.next_allowed_at,
            endpoint_state.backoff_until,
            state.blocked_until,
            self._limits_allow_at(state, endpoint, now),
        )
        return max(0.0, allowed_at - now)

    def remaining(self, state: RateLimitState, now: float) -> int:
        """Return the number of requests left of the hourly share."""
        return max(0, self.requests_per_hour - len(_all_times(_last_hour(state, now))))

    def reserve(self, state: RateLimitState, endpoint: Endpoint, now: float, reservation: int) -> RateLimitState:
        """Record a request sent now. Until its end is recorded, it is assumed to last `longest_call` seconds.

        Args:
            state: State before the request.
            endpoint: Endpoint that is called.
            now: Present time.
            reservation: A random number of the call.
        """
        recent = _last_hour(state, now)
        recent = {**recent, endpoint.path: (*recent.get(endpoint.path, ()), now)}
        allowed_at = now + self.longest_call + self._spacing(endpoint)
        return replace(state, recent_requests=recent).with_endpoint(
            endpoint.path, next_allowed_at=allowed_at, reservation=reservation
        )

    def succeeded(self, state: RateLimitState, endpoint: Endpoint, now: float) -> RateLimitState:
        """Record the end of a call that succeeded."""
        wait = max(self._spacing(endpoint), self._throttled_interval(state, endpoint, now))
        return state.with_endpoint(endpoint.path, next_allowed_at=now + wait, backoff_until=0.0, consecutive_failures=0)

    def failed(
        self, state: RateLimitState, endpoint: Endpoint, now: float, jitter: float, retry_after: float | None = None
    ) -> RateLimitState:
        """Record the end of a call that failed.

        Args:
            state: State before the end of the call.
            endpoint: Endpoint that was called.
            now: Time of the failure.
            jitter: Factor of at least 1.0 on each wait.
            retry_after: Seconds of the `Retry-After` header. They are limited to an hour, over which Tedee counts.
        """
        wait = max(self._spacing(endpoint) * jitter, self._throttled_interval(state, endpoint, now))
        state = state.with_endpoint(endpoint.path, next_allowed_at=now + wait)
        if retry_after is None:
            return state
        until = now + min(retry_after, HOUR)
        if endpoint.priority is Priority.HIGH:
            return state.blocked(until)
        return state.with_endpoint(endpoint.path, next_allowed_at=max(now + wait, until))

    def backed_off(self, state: RateLimitState, endpoint: Endpoint, now: float, jitter: float) -> RateLimitState:
        """Record a failure. Each consecutive one doubles the wait, from 20 s (or the interval) to 5 minutes."""
        first = max(self._spacing(endpoint), SYNC_SPACING)
        failures = state.endpoint(endpoint.path).consecutive_failures
        wait = min(first * 2.0 ** min(failures, 10) * jitter, max(first, MAX_BACKOFF))
        return state.with_endpoint(endpoint.path, backoff_until=now + wait, consecutive_failures=failures + 1)

    def _spacing(self, endpoint: Endpoint) -> float:
        return max(endpoint.spacing, self.interval) if endpoint.spacing else 0.0

    def _throttled_interval(self, state: RateLimitState, endpoint: Endpoint, now: float) -> float:
        """Return the interval at which the rest of the share lasts until the oldest request is an hour old."""
        recent = _last_hour(state, now)
        if endpoint.priority is Priority.LOW:
            return 0.0
        times = _all_times(recent) if endpoint.priority is Priority.HIGH else recent.get(endpoint.path, ())
        limit = self._max_in_hour(endpoint, recent)
        left = max(0, limit - len(times))
        throttle_below = THROTTLE_BELOW if endpoint.priority is Priority.HIGH else 1 - BURST
        if not times or left >= limit * throttle_below:
            return 0.0
        return (times[0] + HOUR - now) / (left + 1)

    def _max_in_hour(self, endpoint: Endpoint, recent: Mapping[str, tuple[float, ...]]) -> int:
        """Return the number of requests that the endpoint may send in an hour."""
        match endpoint.priority:
            case Priority.HIGH:
                return self.requests_per_hour
            case Priority.LOW:
                return max(1, int(self.requests_per_hour * LOW_PRIORITY_SHARE))
            case Priority.LOWEST:
                others = len(_all_times(recent)) - len(recent.get(endpoint.path, ()))
                return max(0, self.lowest_priority_limit - max(0, int(others - self._usual_requests)))

    def _limits_allow_at(self, state: RateLimitState, endpoint: Endpoint, now: float) -> float:
        """Return the time at which the limits on the number of requests allow the next one."""
        recent = _last_hour(state, now)
        endpoint_times = recent.get(endpoint.path, ())
        max_in_hour = self._max_in_hour(endpoint, recent)
        # A request may reach Tedee as late as `longest_call` seconds after it was recorded.
        window = endpoint.window + self.longest_call
        return max(
            _below_limit_at(_all_times(recent), self.requests_per_hour, HOUR),
            _below_limit_at(endpoint_times, max_in_hour, HOUR),
            _below_limit_at(endpoint_times, endpoint.max_requests, window) if endpoint.max_requests else -inf,
        )


def _below_limit_at(times: tuple[float, ...], limit: int, window: float) -> float:
    """Return the time from which fewer than `limit` of the requests are in the window."""
    if limit == 0:
        return inf
    return times[-limit] + window if len(times) >= limit else -inf


def _last_hour(state: RateLimitState, now: float) -> Mapping[str, tuple[float, ...]]:
    recent = state.recent_requests
    if all(times[0] + HOUR > now for times in recent.values() if times):
        return recent
    return {endpoint: tuple(at for at in times if at + HOUR > now) for endpoint, times in recent.items()}


def _all_times(requests: Mapping[str, tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(sorted(at for times in requests.values() for at in times))
