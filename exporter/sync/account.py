"""One account: the calls for its resources, their failures, and the status that it publishes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Protocol

import structlog

from exporter.clock import Clock, Instant, format_duration
from exporter.state.rate_limits import RateLimitPolicy
from exporter.state.responses import CachedResponse, Failure, ResponseStore
from exporter.tedee.client import LOW_PRIORITY_TIMEOUT, Limiter, Observer, TedeeClient
from exporter.tedee.endpoint import Endpoint, Priority
from exporter.tedee.errors import CallError, Forbidden, Unauthorized

from .counters import Counters
from .limiter import NotAllowedYet, RateLimiter
from .resource import Resource, ResourceOptions
from .resources import LockStates, create_resources
from .snapshot import AccountStatus, ResourceStatus, Snapshot

log = structlog.get_logger(__name__)

FOLLOWER_TTL = 600.0
"""Seconds after a call by another process during which the store is checked for its results."""
LONG_WAIT = 60.0
"""Seconds above which the wait of a resource that is due is logged."""
STORE_RETRY_DELAY = 1.0
"""Seconds until the next try if the store is locked or cannot be used."""
TAKEOVER_DELAY = 3.0
"""Seconds after the next sync of the leader is due, from which on another process makes it."""
LONGEST_LOW_PRIORITY_CALL = LOW_PRIORITY_TIMEOUT + 1.0
"""Seconds before a sync in which no other call begins. They do not include the request for an access token."""
CREDENTIAL_POLL_INTERVAL = 2.0
"""Seconds between two checks of a credential that was refused or could not be read."""
CREDENTIAL_REASONS = frozenset({Unauthorized.reason, Forbidden.reason})
"""Failures that another credential may end."""


class ClientFactory(Protocol):
    """Creates the account's client. It gets the rate limiter, so that no client exists without one."""

    def __call__(self, *, limiter: Limiter, observer: Observer) -> TedeeClient:  # noqa: D102
        ...


@dataclass(frozen=True)
class Options:
    """Options of an account, from the configuration."""

    create_client: ClientFactory
    policy: RateLimitPolicy
    resources: ResourceOptions


@dataclass
class Outage:
    """Consecutive failures of one resource, for log lines."""

    since: float
    """Monotonic time of the first failure in this process."""
    failures: int = 0
    last: type[CallError] | None = None
    """Kind of the last failure. Its advice is not logged again."""


class AccountSync:
    """Fetches the resources of one account and publishes a status after each run.

    Each run makes one call: for the most urgent resource that is due. The resource of high priority is the sync. The
    account is up if its last sync succeeded. If several processes share a store, the leader is the one that made the
    last sync, and the others load its results from the store.

    Runs of one account never overlap, so its attributes need no mutex.
    """

    def __init__(
        self,
        name: str,
        options: Options,
        *,
        limiter: RateLimiter,
        store: ResponseStore,
        clock: Clock,
        publish: Callable[[AccountStatus], None],
    ) -> None:
        """Load the responses that a previous run of the program, or another process, stored.

        Args:
            name: Name in the configuration and in the `account` label.
            options: Options of the account.
            limiter: Rate limiter of the account.
            store: Stores the last responses.
            clock: Clock for the time of responses and their age.
            publish: Receives each new status.
        """
        self.name = name
        self._options = self._newest_options = options
        self._limiter = limiter
        self._store = store
        self._clock = clock
        self._publish_status = publish
        self._counters = Counters(name)
        self._resources = self._create_resources()
        self._received_at: dict[Endpoint, Instant] = {}
        """Time of the last successful response of each resource."""
        self._failures: dict[Endpoint, Failure] = {}
        """Failure of the last fetch of each resource; absent if it succeeded."""
        self._outages: dict[Endpoint, Outage] = {}
        """Failures of this process since the last success of each resource."""
        self._success_logged = False
        """True if a successful sync of the present user was logged."""
        self._client = self._create_client()
        self._fingerprint = self._client.fingerprint()
        """Fingerprint of the credential that received the served data."""
        self._user = ""
        """Digest of the user of the last call that reached Tedee."""
        self._refused_fingerprint = ""
        self._is_removed = False
        self._removal_lock = threading.Lock()
        """Held while a status is published or a response is stored, so that neither happens after the removal."""
        self._retry = False
        """True if the configuration was reloaded since the last run."""
        self._credential_changed = False
        """True from the change of a refused credential until the next call."""
        self._follows_until = 0.0
        self._leader_due_at = 0.0
        """Monotonic time at which the leader is expected to make the next sync, if it is another process."""
        self._retry_at = 0.0
        """Monotonic time from which the store is used again, after it was locked or could not be used."""
        self._has_news = False
        """True if another process has stored a response since the last run."""
        self._is_leader = False
        self._load_from_store()

    def wait(self) -> float:
        """Return the seconds until the next run is due."""
        if self._newest_options is not self._options or self._has_news:
            return 0.0
        wait = max(min(map(self._wait_of, self._resources)), self._retry_at - self._clock.monotonic())
        if self._credential_is_refused():
            wait = min(wait, CREDENTIAL_POLL_INTERVAL)
        return min(wait, self._store.poll_interval) if self._clock.monotonic() < self._follows_until else wait

    def is_reliable(self) -> bool:
        """Return True if the last sync succeeded, so that the next one is expected to end soon."""
        return self._is_up() is True

    def run(self) -> None:
        """Make the call that is due. If another process makes the calls, load its results from the store."""
        changed = self._apply_options()
        changed = self._retry_credential() or changed
        if self._has_news:
            self._has_news = False
            if self._follow():
                if not self._is_leader:
                    self._leader_due_at = self._clock.monotonic() + self._options.policy.interval
                self._publish()
                return
        try:
            urgent = min(self._resources, key=lambda each: (self._wait_of(each) > 0, each.endpoint.priority))
            if self._wait_of(urgent) <= 0:
                self._fetch(urgent)
            elif not self._follow() and not changed:
                return
        except NotAllowedYet as error:
            log.debug("request not allowed yet", account=self.name, reason=str(error))
            if error.by_another:
                self._follows_until = self._clock.monotonic() + FOLLOWER_TTL
                self._retry_at = self._clock.monotonic() + STORE_RETRY_DELAY
            self._follow()
        self._publish()

    def configure(self, options: Options) -> None:
        """Use other options from the next run on. May be called from any thread."""
        self._newest_options = options
        self._retry = True

    def load(self) -> None:
        """Load the responses that another process has stored in the next run. May be called from any thread."""
        self._has_news = True

    def retry(self) -> None:
        """Try a refused credential again in the next run. May be called from any thread."""
        self._retry = True

    def remove(self) -> None:
        """Stop publishing and storing: the account is no longer configured. May be called from any thread.

        Another `AccountSync` may have the same name from now on.
        """
        with self._removal_lock:
            self._is_removed = True

    def status(self) -> AccountStatus:
        """Return the present status of the account."""
        return AccountStatus(
            account=self.name,
            api_version=self._client.version,
            up=self._is_up(),
            snapshot=self._snapshot(),
            failure=self._failures.get(self._sync.endpoint),
            next_sync=self._wall_time_in(self._wait_of(self._sync)),
            missing=tuple(self._sync.missing),
            other_resources=tuple(self._status_of(each) for each in self._resources[1:] if each.is_enabled),
            credential_changed=self._credential_changed,
            requests_remaining=self._limiter.remaining(),
            version_supported=self._client.supports_version(),
            credentials_expire_at=self._client.credentials_expire_at(),
            refresh_token_stored=self._client.refresh_token_stored(),
            durations=self._counters.durations,
            failures=dict(self._counters.failures),
            requests=dict(self._counters.requests),
            rejection_counts=dict(self._counters.rejections),
        )

    @property
    def _sync(self) -> LockStates:
        return self._resources[0]

    def _create_client(self) -> TedeeClient:
        self._limiter.policy = self._options.policy
        client = self._options.create_client(limiter=self._limiter, observer=self._counters)
        self._limiter.set_user(client.user())
        return client

    def _create_resources(self) -> tuple[LockStates, *tuple[Resource, ...]]:
        counters = self._counters
        return create_resources(self._options.resources, counters.state_changes, counters.event_logs, self._clock)

    def _is_up(self) -> bool | None:
        """Return True if the last sync succeeded; None if there is none."""
        if self._sync.endpoint in self._failures:
            return False
        return True if self._sync.endpoint in self._received_at else None

    # The time of the next call

    def _wait_of(self, resource: Resource) -> float:
        """Return the seconds until a resource is fetched; infinity if it is not needed, or the leader fetches it."""
        is_sync = resource is self._sync
        if not (is_sync or self._is_leader):
            return inf
        until_due = resource.time_until_due(self._clock.monotonic())
        if until_due == inf:
            return inf
        if is_sync and not self._is_leader:
            until_due = max(until_due, self._leader_due_at + TAKEOVER_DELAY - self._clock.monotonic())
        needed = filter(None, (resource, resource.prerequisite()))
        wait = max(until_due, *(self._limiter.wait(each.endpoint) for each in needed))
        if is_sync or wait > 0:
            return wait
        # No sync waits for the end of the call, nor for that of the request for an access token before it.
        until_sync = self._wait_of(self._sync)
        return until_sync if until_sync < LONGEST_LOW_PRIORITY_CALL + self._client.longest_refresh() else 0.0

    def _wall_time_in(self, seconds: float) -> float | None:
        return None if seconds == inf else self._clock.wall() + seconds

    # Changes of the options and of the credential

    def _apply_options(self) -> bool:
        """Apply the newest options. Returns True if they changed."""
        options = self._newest_options
        if options is self._options:
            return False
        self._options = options
        self._client = self._create_client()
        if (fingerprint := self._client.fingerprint()) != self._fingerprint:
            self._forget_user(fingerprint)
            self._limiter.end_backoff()
            return True
        for resource in reversed(self._resources):
            if not resource.configure(options.resources):
                self._forget_result(resource)
        return True

    def _forget_user(self, fingerprint: str) -> None:
        """Forget all responses, because the user of the new credential may have other locks."""
        self._fingerprint = fingerprint
        self._resources = self._create_resources()
        self._received_at.clear()
        self._failures.clear()
        self._outages.clear()
        self._success_logged = False

    def _forget_result(self, resource: Resource) -> None:
        for known in (self._received_at, self._failures, self._outages):
            known.pop(resource.endpoint, None)

    def _credential_is_refused(self) -> bool:
        """Return True if the account fails because of its credential."""
        return any(failure.reason in CREDENTIAL_REASONS for failure in self._failures.values())

    def _retry_credential(self) -> bool:
        """End the wait after a failure of the credential, if another try may succeed. Returns True if it may."""
        retry, self._retry = self._retry, False
        if retry:
            self._retry_refused()
        if not self._credential_is_refused():
            return False
        fingerprint = self._client.fingerprint()
        has_changed = fingerprint != self._refused_fingerprint
        if not (has_changed or retry):
            return False
        if has_changed:
            log.info("the credential has changed", account=self.name)
            self._credential_changed = True
        self._refused_fingerprint = fingerprint
        self._limiter.set_user(self._client.user())
        self._limiter.end_backoff()
        return True

    # Calls

    def _fetch(self, resource: Resource) -> None:
        """Make a call for a resource, or for its prerequisite, whose failure is a failure of the resource."""
        started = self._clock.monotonic()
        fetched = resource.prerequisite() or resource
        is_sync = fetched is self._sync
        try:
            response = fetched.fetch(self._client, started)
        except CallError as error:
            self._record_failure(resource, error)
        else:
            self._record_success(fetched, response, started)
        now = self._clock.monotonic()
        if is_sync:
            self._counters.durations = self._counters.durations.observe(now - started)
        elif self._is_delayed(fetched, now) and LONG_WAIT < (wait := self._wait_of(fetched)) < inf:
            self._log(log.info, f"next {fetched.title} is delayed", seconds=round(wait))

    def _retry_refused(self) -> None:
        for resource in self._resources:
            resource.retry()

    @staticmethod
    def _is_delayed(resource: Resource, now: float) -> bool:
        """Return True if the rate limits delay a fetch. Those of the lowest priority are always due."""
        return resource.endpoint.priority < Priority.LOWEST and resource.time_until_due(now) <= 0

    def _is_awaited(self, resource: Resource, now: Instant) -> bool:
        """Return True if a fetch is due. One of the lowest priority is awaited until its first response."""
        is_first = resource.is_permitted is None and resource.endpoint not in self._failures
        is_awaited = resource.endpoint.priority < Priority.LOWEST or is_first
        return is_awaited and resource.time_until_due(now.monotonic) <= 0

    def _record_success(self, resource: Resource, response: CachedResponse | None, started: float) -> None:
        duration = self._clock.monotonic() - started
        has_failed = self._failures.pop(resource.endpoint, None) is not None
        outage = self._outages.pop(resource.endpoint, None)
        if resource is self._sync:
            self._lead()
            self._log_sync(duration, outage, has_failed=has_failed)
            if self._user not in ("", self._client.last_user):
                self._forget_devices()
            self._use_fingerprint(self._client.last_fingerprint)
            self._user = self._client.last_user
        if response:
            self._received_at[resource.endpoint] = at = Instant.now(self._clock)
            # Stored before it is published, so that a restart never serves older data than an earlier scrape.
            self._store_response(resource, replace(response, at=at))
            if has_failed and resource is not self._sync:
                self._log(log.info, f"{resource.title} succeeds again", **self._describe(outage))

    def _log_sync(self, duration: float, outage: Outage | None, *, has_failed: bool) -> None:
        """Log a sync that succeeded: each one for debugging, and the first and each recovery for everybody."""
        values = {"locks": self._sync.count, "duration": format_duration(duration)}
        if not self._success_logged:
            self._success_logged = True
            self._log(log.info, "first sync succeeded", **values, **self._describe(outage))
        elif has_failed:
            self._log(log.info, "sync succeeds again", **values, **self._describe(outage))
        next_in = format_duration(self._wait_of(self._sync))
        self._log(log.debug, "synced", **values, changed=self._sync.changed, next_in=next_in)

    def _describe(self, outage: Outage | None) -> dict[str, object]:
        """Return what log lines about a recovery have in addition."""
        if outage is None:
            return {}
        return {"failures": outage.failures, "failed_for": format_duration(self._clock.monotonic() - outage.since)}

    def _use_fingerprint(self, fingerprint: str) -> None:
        """Store the responses for another fingerprint of the same user's credential."""
        if fingerprint == self._fingerprint:
            return
        stored = [(each, self._cached_response(each, self._fingerprint)) for each in self._resources]
        self._fingerprint = fingerprint
        for resource, response in stored:
            if response and (response.at is None or resource.endpoint in self._received_at):
                self._store_response(resource, response)
        self._retry_refused()

    def _forget_devices(self) -> None:
        """Fetch the devices again: the new key may be that of another user."""
        for resource in self._resources:
            if resource.devices():
                resource.expire()
                self._forget_result(resource)

    def _lead(self) -> None:
        """Record that this process made a sync. What another leader fetched before is not fetched again."""
        if not self._is_leader:
            for resource in reversed(self._resources[1:]):
                self._load(resource, self._fingerprint)
        self._is_leader, self._credential_changed = True, False

    def _record_failure(self, resource: Resource, error: CallError) -> None:
        if self._is_removed:
            return
        if resource is self._sync:
            if self._client.last_user not in ("", self._user):
                self._user = self._client.last_user
                if self._client.last_fingerprint != self._fingerprint:
                    self._forget_user(self._client.last_fingerprint)
            elif self._user:
                # The refresh token was replaced before the sync.
                self._use_fingerprint(self._client.last_fingerprint)
            self._lead()
            self._counters.failures[error.reason] += 1
        failure = Failure(error.reason, error.message(), self._clock.wall())
        self._failures[resource.endpoint] = failure
        if error.reason in CREDENTIAL_REASONS:
            self._refused_fingerprint = self._client.fingerprint()
        if self._limiter.wait(resource.endpoint) <= 0:
            # The call failed before a request was sent.
            self._limiter.record_failure(resource.endpoint, error.retry_after)
        self._log_failure(resource, error)
        stored = self._cached_response(resource, self._fingerprint) or CachedResponse()
        self._store_response(resource, replace(stored, failure=failure))

    def _log_failure(self, resource: Resource, error: CallError) -> None:
        """Log a failure, with the advice unless the previous failure had the same."""
        outage = self._outages.setdefault(resource.endpoint, Outage(self._clock.monotonic()))
        is_repeated = outage.last is type(error)
        outage.failures, outage.last = outage.failures + 1, type(error)
        values = error.log_values()
        if not is_repeated:
            values["advice"] = error.advice
        if outage.failures > 1:
            values["failures"] = outage.failures
        if (wait := self._wait_of(resource)) < inf:
            values["retry_in"] = format_duration(wait)
        self._log(log.warning, f"{resource.title} failed", reason=error.reason, **values)

    def _log(self, write: Callable[..., object], event: str, **values: object) -> None:
        write(event, account=self.name, **values)

    # Responses that a previous run or another process stored

    def _follow(self) -> bool:
        """Load responses of other processes, and log the first sync. Returns True if there are some."""
        loaded = self._load_from_store()
        if loaded and self._is_up() and not self._success_logged:
            self._success_logged = True
            self._log(log.info, "first sync of another process is served", locks=self._sync.count)
        return loaded

    def _load_from_store(self) -> bool:
        """Load responses that are newer than the present ones. Returns True if there are some."""
        fingerprint = self._client.fingerprint()
        loaded = [each for each in reversed(self._resources) if self._load(each, fingerprint)]
        if self._sync in loaded:
            self._is_leader = False
            self._fingerprint = fingerprint
            if self._credential_is_refused():
                self._refused_fingerprint = fingerprint
        return bool(loaded)

    def _load(self, resource: Resource, fingerprint: str) -> bool:
        """Load the stored response and failure of a resource. Returns True if one of them is news."""
        if not resource.is_enabled:
            return False
        endpoint = resource.endpoint
        stored = self._cached_response(resource, fingerprint)
        now = Instant.now(self._clock)
        received_at, failure = self._received_at.get(endpoint), self._failures.get(endpoint)
        if stored is None or (stored.at, stored.failure) == (received_at, failure):
            return False
        age = stored.at.age(now) if stored.at else None
        known_age = received_at.age(now) if received_at else None
        if known_age is not None and (age is None or age > known_age):
            # The last response of this process could not be stored.
            return False
        is_too_old = stored.at is None or (resource.max_age < inf and (age is None or age >= resource.max_age))
        if (
            stored.at
            and stored.rows is not None
            and not is_too_old
            and resource.restore(stored, -inf if age is None else now.monotonic - age)
        ):
            self._forget_result(resource)
            self._received_at[endpoint] = stored.at
        elif stored.failure in (None, failure):
            return False
        # The failure is the reason why there is no usable response.
        if stored.failure:
            self._failures[endpoint] = stored.failure
        return True

    def _store_response(self, resource: Resource, response: CachedResponse) -> None:
        with self._removal_lock:
            if not self._is_removed:
                self._store.store_response(self.name, resource.endpoint.path, self._fingerprint, response)

    def _cached_response(self, resource: Resource, fingerprint: str) -> CachedResponse | None:
        return self._store.cached_response(self.name, resource.endpoint.path, fingerprint)

    # The status

    def _status_of(self, resource: Resource) -> ResourceStatus:
        now = Instant.now(self._clock)
        received_at = self._received_at.get(resource.endpoint)
        age = received_at.age(now) if received_at else None
        return ResourceStatus(
            title=resource.title,
            endpoint=resource.endpoint.path,
            at=None if age is None or received_at is None else _wall_time(received_at, age, now),
            is_permitted=resource.is_permitted,
            recent_events=tuple(resource.recent_events()),
            devices=() if age is None else tuple(resource.devices()),
            fresh_until=now.monotonic + resource.devices_max_age - (age or 0.0),
            failure=self._failures.get(resource.endpoint),
            delayed_until=self._wall_time_in(self._wait_of(resource)) if self._is_awaited(resource, now) else None,
        )

    def _snapshot(self) -> Snapshot | None:
        at = self._received_at.get(self._sync.endpoint)
        now = Instant.now(self._clock)
        age = at.age(now) if at else None
        if at is None or age is None:
            return None
        return Snapshot(self._sync.locks(), _wall_time(at, age, now), now.monotonic + self._sync.max_age - age)

    def _publish(self) -> None:
        # A reload during the call may have replaced the credential: the data may be of another user's locks.
        self._apply_options()
        with self._removal_lock:
            if not self._is_removed:
                self._publish_status(self.status())


def _wall_time(at: Instant, age: float, now: Instant) -> float:
    """Return the Unix time of an instant by the current clock, so that the age is right even after a clock jump."""
    wall = now.wall - age
    return at.wall if abs(wall - at.wall) < 1 else wall
