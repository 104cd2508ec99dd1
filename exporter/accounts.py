"""The accounts of a configuration, put to work; and put to work again when the configuration changes."""

from functools import partial

import structlog

from . import __version__
from .clock import Clock
from .config import Account, Api, ChosenLocks, OAuth, Settings, Sync
from .sync.account import AccountSync, Options
from .sync.limiter import RateLimiter
from .sync.lock_details import LockFilter
from .sync.rate_limits import RateLimitPolicy
from .sync.scheduler import Scheduler
from .sync.snapshot import StatusRegistry
from .sync.store import StateStore
from .tedee.client import TedeeClient
from .tedee.credentials import CredentialOwners, Credentials, access_token, personal_key
from .tedee.oauth import MIN_TIMEOUT, OAuthCredentials, TokenEndpoint
from .tedee.refresh_tokens import RefreshTokens
from .tedee.transport import session

log = structlog.get_logger(__name__)

USER_AGENT = f"tedee-exporter/{__version__}"
CALL_GRACE = 1.0
"""Seconds by which a call may outlast its time-out until it has ended for both sides."""


class Accounts:
    """All accounts, each with its own rate limiter; they share one state store, and no connections."""

    def __init__(
        self, clock: Clock, store: StateStore, registry: StatusRegistry, scheduler: Scheduler, *, shards: int = 1
    ) -> None:
        """Create a fleet without accounts.

        Args:
            clock: For all of them.
            store: Has the state of their rate limits, and their last responses.
            registry: Gets their statuses.
            scheduler: Runs their turns.
            shards: Processes that share the accounts: another one may have called an account that is new here.
        """
        self.syncs: dict[str, AccountSync] = {}
        self._clock = clock
        self._store = store
        self._registry = registry
        self._scheduler = scheduler
        self._longest_call = 0.0
        self._shards = shards
        self._applied: dict[str, tuple[Account, Api, Sync]] | None = None
        self._connections = session()
        self._refresh_tokens = RefreshTokens()
        self._owners = CredentialOwners()

    def apply(self, settings: Settings) -> None:
        """Have just the accounts of these settings. One that stays keeps its limiter, its snapshot and its counters."""
        applied = self._applied
        # Of calls that may be under way, and of those to come.
        self._longest_call = max(self._longest_call, settings.api.timeout + CALL_GRACE)
        self._store.longest_call = self._longest_call
        wanted = {account.name: (account, settings.api, settings.sync) for account in settings.accounts}
        gone = [self.syncs.pop(name) for name in list(self.syncs) if name not in wanted]
        for account in gone:
            account.remove()
        self._scheduler.remove(gone)
        self._registry.set_accounts(wanted)
        self._owners.set_accounts(wanted)
        new, changed = [], []
        for name, what in wanted.items():
            before = (applied or {}).get(name)
            if name not in self.syncs:
                self.syncs[name] = self._build(name, self._options(*what), is_reload=applied is not None)
                self._registry.publish(self.syncs[name].status())
                new.append(self.syncs[name])
            elif what != before:
                if before is None or what[0].credential != before[0].credential:
                    self._owners.release(name)
                    # The data may be of another user's locks, and a call may be under way.
                    self._registry.remove_snapshot(name)
                self.syncs[name].configure(self._options(*what))
                changed.append(self.syncs[name])
            else:
                self.syncs[name].retry()
        if not wanted and applied != {}:
            log.warning("no accounts are assigned to this shard", shards=self._shards)
        self._applied = wanted
        self._store.delete_other_accounts(wanted)
        self._scheduler.reschedule(changed)
        self._scheduler.add(new, interval=settings.sync.interval)

    def close(self) -> bool:
        """Wait for refresh tokens that are being exchanged and store those in memory. Return False if one is lost."""
        return self._refresh_tokens.close(max(self._longest_call, MIN_TIMEOUT + CALL_GRACE))

    def _build(self, name: str, options: Options, *, is_reload: bool) -> AccountSync:
        limiter = RateLimiter(
            name,
            self._store,
            self._clock,
            options.policy,
            # An account that a reload brings, or a shard, may be one that was called a moment ago.
            is_first_start=self._store.is_new and self._shards == 1 and not is_reload,
        )
        return AccountSync(
            name, options, limiter=limiter, store=self._store, clock=self._clock, publish=self._registry.publish
        )

    def _options(self, account: Account, api: Api, sync: Sync) -> Options:
        create_client = partial(
            TedeeClient,
            account.name,
            url=api.url,
            version=api.version,
            credentials=self._credentials(account, api),
            timeout=api.timeout,
            session=self._connections,
            user_agent=USER_AGENT,
        )
        policy = RateLimitPolicy(
            interval=sync.interval,
            requests_per_hour=sync.requests_per_hour,
            longest_call=self._longest_call,
        )
        chosen = account.locks or ChosenLocks.model_construct()
        return Options(
            create_client, policy, sync.stale_after, LockFilter(chosen.ids or (), chosen.serial_numbers or ())
        )

    def _credentials(self, account: Account, api: Api) -> Credentials:
        key, secret = account.credential
        if not isinstance(secret, OAuth):
            kind = personal_key if key.startswith("personal_key") else access_token
            return kind(secret, account.name, self._owners)
        endpoint = TokenEndpoint(
            account.name,
            url=secret.token_url,
            client_id=secret.client_id,
            client_secret=secret.client_secret_file,
            scope=secret.scope,
            timeout=max(api.timeout, MIN_TIMEOUT),
            session=self._connections,
            user_agent=USER_AGENT,
        )
        return OAuthCredentials(
            account.name,
            endpoint=endpoint,
            refresh_token_file=secret.refresh_token_file,
            refresh_tokens=self._refresh_tokens,
            owners=self._owners,
            monotonic=self._clock.monotonic,
            wall=self._clock.wall,
        )
