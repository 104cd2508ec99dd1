"""The rate limiter of one account. Every request to Tedee passes it."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

from exporter.clock import Clock, boottime
from exporter.state.cache import StateCache
from exporter.state.rate_limits import HOUR, RateLimitPolicy, RateLimitState
from exporter.state.store import States, StoreBusy
from exporter.tedee.endpoint import Endpoint
from exporter.tedee.errors import CallError


class NotAllowedYet(Exception):
    """A request would exceed a limit. Nothing was sent."""

    def __init__(self, message: str, *, by_another: bool = False) -> None:
        """Create the exception.

        Args:
            message: The endpoint, and the time until it may be called.
            by_another: True if another process made a call or has locked the store, or the store cannot be used.
        """
        self.by_another = by_another
        super().__init__(message)


class RateLimiter:
    """Limits the calls of one account.

    The spacing counts from the response (or failure) of one call to the request of the next, so that network delays
    cannot shorten it.
    """

    def __init__(
        self,
        account: str,
        states: StateCache,
        clock: Clock,
        policy: RateLimitPolicy | None = None,
        jitter: Callable[[], float] = lambda: random.uniform(1.05, 1.25),  # noqa: S311
        *,
        is_first_start: bool = False,
    ) -> None:
        """Load the states of the account.

        Args:
            account: Name of the account.
            states: Has the states of the account and of its user.
            clock: Clock for monotonic time.
            policy: The rules that decide when an endpoint may be called.
            jitter: Factor above 1 on each wait after a failure. It separates accounts that failed together. It also
                ensures the spacing if Tedee notices the end of a call later than this process.
            is_first_start: True if no exporter can have called for this account before. Then the first call may be
                sent at once.
        """
        self.policy = policy or RateLimitPolicy()
        self._known_states = states
        self._clock = clock
        self._jitter = jitter
        self._is_first_start = is_first_start
        self._keys: tuple[str, ...] = (f"account {account}",)
        self._in_progress: set[Endpoint] = set()
        self._record(lambda _now, states: states)

    def set_user(self, user: str | None) -> None:
        """Set the user whose limits also apply from now on; None if the user is unknown."""
        keys = (self._keys[0], f"user {user}") if user else self._keys[:1]
        if keys != self._keys:
            self._keys = keys
            self._record(lambda _now, states: states)

    def wait(self, endpoint: Endpoint) -> float:
        """Return the seconds until the endpoint may be called: 0.0 for now, infinity during a call of it."""
        if endpoint in self._in_progress:
            return inf
        now = self._clock.monotonic()
        return max(self.policy.wait(state, endpoint, now) for state in self._states())

    def remaining(self) -> int:
        """Return the number of requests left of the hourly share."""
        now = self._clock.monotonic()
        return min(self.policy.remaining(state, now) for state in self._states())

    @contextmanager
    def acquire(self, endpoint: Endpoint, user: str) -> Iterator[float]:
        """Reserve one call, and record its end. The value of the context is the time of the reservation in `boottime`.

        Args:
            endpoint: Endpoint that is called in the context.
            user: User to whom the credential of the call belongs.

        Raises:
            NotAllowedYet: The call would exceed a limit.
        """
        self.set_user(user)
        if endpoint in self._in_progress:
            raise NotAllowedYet(f"{endpoint} is being called")
        reservation = random.getrandbits(52)
        reserved_at = self._reserve(endpoint, reservation)
        self._in_progress.add(endpoint)
        try:
            yield reserved_at
        except BaseException as error:
            jitter, retry_after = self._jitter(), error.retry_after if isinstance(error, CallError) else None

            def failed(now: float, states: tuple[RateLimitState, ...]) -> tuple[RateLimitState, ...]:
                account, user = (
                    self.policy.failed(each, endpoint, now, jitter, retry_after).ended(each, endpoint.path, reservation)
                    for each in states
                )
                # Only the user's state: after a change of the credential the account must not wait for old failures.
                return account, self.policy.backed_off(user, endpoint, now, jitter)

            self._record(failed)
            raise
        else:
            self._record(
                lambda now, states: tuple(
                    self.policy.succeeded(each, endpoint, now).ended(each, endpoint.path, reservation)
                    for each in states
                )
            )
        finally:
            self._in_progress.discard(endpoint)

    def record_failure(self, endpoint: Endpoint, retry_after: float | None = None) -> None:
        """Record a call that failed before a request was sent. The wait is that after a failed request."""
        jitter = self._jitter()

        def failed(now: float, states: tuple[RateLimitState, ...]) -> tuple[RateLimitState, ...]:
            account, *user = states
            account = self.policy.backed_off(account, endpoint, now, jitter)
            return (account if retry_after is None else account.blocked(now + min(retry_after, HOUR)), *user)

        self._record(failed)

    def end_backoff(self) -> None:
        """End the waits after failures. Tedee's limits still apply: spacing, numbers of requests, `Retry-After`."""
        self._record(lambda _now, states: tuple(state.without_backoff() for state in states))

    def _states(self) -> tuple[RateLimitState, ...]:
        states = tuple(map(self._known_states.last_known, self._keys))
        return self._with_defaults(self._clock.monotonic(), states)

    def _with_defaults(self, now: float, states: States) -> tuple[RateLimitState, ...]:
        """Return the states, with a default for each that the store does not have."""
        account, *user = states
        if account is None:
            account = RateLimitState() if self._is_first_start else self.policy.unknown_state(now)
        # If the account was never called, this is the first start, or no key was readable until now.
        unknown = RateLimitState() if account.is_unused() else self.policy.unknown_state(now)
        return (account, *(unknown if state is None else state for state in user))

    def _reserve(self, endpoint: Endpoint, reservation: int) -> float:
        expected_wait, wait, reserved_at = self.wait(endpoint), 0.0, 0.0

        def reserve(now: float, states: States) -> tuple[RateLimitState, ...]:
            # Read in the transaction: another process may have made a call while this one waited for the store.
            nonlocal wait, reserved_at
            reserved_at = boottime()
            current = self._with_defaults(now, states)
            wait = max(self.policy.wait(state, endpoint, now) for state in current)
            if wait > 0:
                return current
            return tuple(self.policy.reserve(state, endpoint, now, reservation) for state in current)

        try:
            self._known_states.update(self._keys, reserve)
        except StoreBusy as error:
            raise NotAllowedYet(str(error), by_another=True) from error
        if wait > 0:
            by_another = expected_wait <= 0
            reason = "another process made a call; " if by_another else ""
            raise NotAllowedYet(f"{reason}{endpoint} may be called in {wait:.3f} s", by_another=by_another)
        return reserved_at

    def _record(self, change: Callable[[float, tuple[RateLimitState, ...]], tuple[RateLimitState, ...]]) -> None:
        def change_with_defaults(now: float, states: States) -> tuple[RateLimitState, ...]:
            return change(now, self._with_defaults(now, states))

        self._known_states.record(self._keys, change_with_defaults)
