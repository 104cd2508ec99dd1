"""The rate limiter of one account: every request to Tedee passes it."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

from exporter.clock import Clock, boottime
from exporter.tedee.errors import CallError

from .rate_limits import HOUR, RateLimitPolicy, RateLimitState
from .store import States, StateStore, StoreBusy


class NotAllowedYet(Exception):
    """A request would exceed a limit. Nothing was sent."""

    def __init__(self, message: str, *, by_another: bool = False) -> None:
        """Keep the facts.

        Args:
            message: What may be called when.
            by_another: True if another process made a call that this one did not know of.
        """
        self.by_another = by_another
        super().__init__(message)


class RateLimiter:
    """Limits the calls of one account.

    The spacing counts from the response (or failure) of one call to the request of the next, so that no delay in the
    network can bring two calls closer together.
    """

    def __init__(
        self,
        account: str,
        store: StateStore,
        clock: Clock,
        policy: RateLimitPolicy | None = None,
        jitter: Callable[[], float] = lambda: random.uniform(1.05, 1.25),  # noqa: S311
        *,
        is_first_start: bool = False,
    ) -> None:
        """Look up what the store knows about the account.

        Args:
            account: Its name.
            store: Has the states of the account and of its user.
            clock: For its monotonic seconds.
            policy: What may be sent when.
            jitter: Factor above 1 on each wait after a failure. It separates accounts that failed together, and it
                keeps the spacing even if Tedee notices the end of a call later than this process gave it up.
            is_first_start: True if no exporter can have called for this account before: it may be called at once.
        """
        self.policy = policy or RateLimitPolicy()
        self._store = store
        self._clock = clock
        self._jitter = jitter
        self._is_first_start = is_first_start
        self._keys: tuple[str, ...] = (f"account {account}",)
        self._under_way: set[str] = set()
        self._record(lambda _now, states: states)

    def set_user(self, user: str | None) -> None:
        """Count the calls from now on under this user, too; under no user if it is None, that is not known yet."""
        keys = (self._keys[0], f"user {user}") if user else self._keys[:1]
        if keys != self._keys:
            self._keys = keys
            self._record(lambda _now, states: states)

    def wait(self, endpoint: str) -> float:
        """Return the seconds until the endpoint may be called: 0.0 for now, infinity while this process calls it."""
        if endpoint in self._under_way:
            return inf
        now = self._clock.monotonic()
        return max(self.policy.wait(state, endpoint, now) for state in self._states())

    def remaining(self) -> int:
        """Return the requests that are left of the hourly share."""
        now = self._clock.monotonic()
        return min(self.policy.remaining(state, now) for state in self._states())

    @contextmanager
    def acquire(self, endpoint: str, user: str) -> Iterator[float]:
        """Reserve one call, and record its end. The context has the time of the reservation, in seconds of `boottime`.

        Args:
            endpoint: That is called inside the context.
            user: Whom the credential of the call belongs to.

        Raises:
            NotAllowedYet: The call would exceed a limit.
        """
        self.set_user(user)
        if endpoint in self._under_way:
            raise NotAllowedYet(f"{endpoint} is being called")
        reserved_at = self._reserve(endpoint)
        self._under_way.add(endpoint)
        try:
            yield reserved_at
        except BaseException as error:
            jitter, retry_after = self._jitter(), error.retry_after if isinstance(error, CallError) else None

            def failed(now: float, states: tuple[RateLimitState, ...]) -> tuple[RateLimitState, ...]:
                account, user = (self.policy.failed(each, endpoint, now, jitter, retry_after) for each in states)
                # The user's state alone: an account with another credential need not wait for this one's failures.
                return account, self.policy.backed_off(user, endpoint, now, jitter)

            self._record(failed)
            raise
        else:
            self._record(lambda now, states: tuple(self.policy.succeeded(each, endpoint, now) for each in states))
        finally:
            self._under_way.discard(endpoint)

    def record_failure(self, endpoint: str, retry_after: float | None = None) -> None:
        """Wait as after a failed call, although none was sent: it was clear that it would fail."""
        jitter = self._jitter()

        def failed(now: float, states: tuple[RateLimitState, ...]) -> tuple[RateLimitState, ...]:
            account, *user = states
            account = self.policy.backed_off(account, endpoint, now, jitter)
            return (account if retry_after is None else account.blocked(now + min(retry_after, HOUR)), *user)

        self._record(failed)

    def end_backoff(self) -> None:
        """Forget the waits after failures. What Tedee requires stays: the spacing, the limits and `Retry-After`."""
        self._record(lambda _now, states: tuple(state.without_backoff() for state in states))

    def _states(self) -> tuple[RateLimitState, ...]:
        states = tuple(map(self._store.known, self._keys))
        return self._registered(self._clock.monotonic(), states)

    def _registered(self, now: float, states: States) -> tuple[RateLimitState, ...]:
        """Return the states, with one in place of each that the store does not have."""
        account, *user = states
        if account is None:
            account = RateLimitState() if self._is_first_start else self.policy.unknown(now)
        # The user of an account that was never called: this is the first start, or no key was readable until now.
        unknown = RateLimitState() if account.is_unused() else self.policy.unknown(now)
        return (account, *(unknown if state is None else state for state in user))

    def _reserve(self, endpoint: str) -> float:
        expected, wait, reserved_at = self.wait(endpoint), 0.0, 0.0

        def reserve(now: float, states: States) -> tuple[RateLimitState, ...]:
            # The time is read in the transaction: another process may have made a call while this one waited for it.
            nonlocal wait, reserved_at
            reserved_at = boottime()
            registered = self._registered(now, states)
            wait = max(self.policy.wait(state, endpoint, now) for state in registered)
            if wait > 0:
                return registered
            return tuple(self.policy.reserve(state, endpoint, now) for state in registered)

        try:
            self._store.update(self._keys, reserve)
        except StoreBusy as error:
            raise NotAllowedYet(str(error), by_another=True) from error
        if wait > 0:
            raise NotAllowedYet(f"{endpoint} may be called in {wait:.3f} s", by_another=expected <= 0)
        return reserved_at

    def _record(self, change: Callable[[float, tuple[RateLimitState, ...]], tuple[RateLimitState, ...]]) -> None:
        def registered_and_changed(now: float, states: States) -> tuple[RateLimitState, ...]:
            return change(now, self._registered(now, states))

        self._store.record(self._keys, registered_and_changed)
