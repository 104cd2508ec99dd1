"""Creates, changes and removes accounts when a configuration is loaded or reloaded."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from . import __version__
from .clock import Clock
from .config import AccessToken, Account, Api, Devices, Events, LockSelection, OAuth, PersonalKey, Settings, Sync
from .state.rate_limits import RateLimitPolicy
from .state.stores import OpenStore
from .sync.account import AccountSync, Options
from .sync.limiter import RateLimiter
from .sync.lock_filter import LockFilter
from .sync.resource import ResourceOptions
from .sync.scheduler import Scheduler
from .sync.snapshot import StatusRegistry
from .tedee.client import TedeeClient
from .tedee.credentials import CredentialOwners, Credentials, access_token, personal_key
from .tedee.oauth import MIN_TIMEOUT
from .tedee.session import session

if TYPE_CHECKING:
    from .tedee.oauth.refresh_tokens import RefreshTokens

log = structlog.get_logger(__name__)

USER_AGENT = f"tedee-exporter/{__version__}"
CALL_GRACE = 1.0
"""Seconds after its time-out until a call has ended on both sides."""


@dataclass(frozen=True)
class AccountSettings:
    """Settings that apply to one account. If a reload changes them, the account is configured again."""

    account: Account
    api: Api
    sync: Sync
    devices: Devices
    events: Events


class Accounts:
    """All accounts. Each has its own rate limiter; all share one state store. Connections are not reused."""

    def __init__(
        self,
        clock: Clock,
        store: OpenStore,
        registry: StatusRegistry,
        scheduler: Scheduler,
        *,
        shards: int = 1,
    ) -> None:
        """Create an empty collection.

        Args:
            clock: Clock of all accounts.
            store: Stores the rate-limit states and the last responses.
            registry: Receives the statuses.
            scheduler: Runs the accounts.
            shards: Number of processes that share the accounts. With several, another process may just have called
                an account that is new in this one.
        """
        self.syncs: dict[str, AccountSync] = {}
        self._clock = clock
        self._store = store
        self._registry = registry
        self._scheduler = scheduler
        self._longest_call = 0.0
        self._shards = shards
        self._applied: dict[str, AccountSettings] | None = None
        self._connections = session(USER_AGENT)
        self._refresh_tokens: RefreshTokens | None = None
        self._owners = CredentialOwners()
        store.responses.subscribe(self._load)

    def apply(self, settings: Settings) -> None:
        """Apply new settings. An account that remains keeps its rate limiter, snapshot and counters."""
        applied = self._applied
        # For calls in progress the previous time-out applies, which may be longer.
        self._longest_call = max(self._longest_call, settings.api.timeout + CALL_GRACE)
        self._store.states.set_longest_call(self._longest_call)
        configured = {
            account.name: AccountSettings(account, settings.api, settings.sync, settings.devices, settings.events)
            for account in settings.accounts
        }
        removed = [self.syncs.pop(name) for name in list(self.syncs) if name not in configured]
        for account in removed:
            account.remove()
        self._scheduler.remove(removed)
        self._registry.set_accounts(configured)
        self._owners.set_accounts(configured)
        new, changed = [], []
        for name, config in configured.items():
            previous = (applied or {}).get(name)
            if name not in self.syncs:
                self.syncs[name] = self._build(name, self._options(config), is_reload=applied is not None)
                self._registry.publish(self.syncs[name].status())
                new.append(self.syncs[name])
            elif config != previous:
                if previous is None or config.account.credential != previous.account.credential:
                    self._owners.release(name)
                    # The data may belong to another user, and a call may be in progress.
                    self._registry.remove_devices(name)
                self.syncs[name].configure(self._options(config))
                changed.append(self.syncs[name])
            else:
                self.syncs[name].retry()
        if not configured and applied != {}:
            log.warning("no accounts are assigned to this shard", shards=self._shards)
        self._applied = configured
        self._store.responses.delete_other_accounts(configured)
        self._scheduler.reschedule(changed)
        self._scheduler.add(new, interval=settings.sync.interval)

    def close(self) -> bool:
        """Wait for refresh token exchanges and store tokens that are only in memory. Returns False if one is lost."""
        longest_exchange = max(self._longest_call, MIN_TIMEOUT + CALL_GRACE)
        return self._refresh_tokens is None or self._refresh_tokens.close(longest_exchange)

    def _load(self, account: str) -> None:
        if sync := self.syncs.get(account):
            sync.load()
            self._scheduler.reschedule([sync])

    def _build(self, name: str, options: Options, *, is_reload: bool) -> AccountSync:
        limiter = RateLimiter(
            name,
            self._store.states,
            self._clock,
            options.policy,
            # An account that a reload adds, or another shard had, may have been called a moment ago.
            is_first_start=self._store.states.is_new and self._shards == 1 and not is_reload,
        )
        return AccountSync(
            name,
            options,
            limiter=limiter,
            store=self._store.responses,
            clock=self._clock,
            publish=self._registry.publish,
        )

    def _options(self, settings: AccountSettings) -> Options:
        account, api, sync = settings.account, settings.api, settings.sync
        create_client = partial(
            TedeeClient,
            account.name,
            url=api.url,
            version=api.version,
            credentials=self._credentials(account, api),
            timeout=api.timeout,
            session=self._connections,
        )
        policy = RateLimitPolicy(
            interval=sync.interval,
            requests_per_hour=sync.requests_per_hour,
            longest_call=self._longest_call,
        )
        selection = account.locks or LockSelection()
        lock_filter = LockFilter(selection.ids or (), selection.serial_numbers or ())
        resources = ResourceOptions(
            sync.stale_after,
            lock_filter,
            settings.devices.interval,
            settings.events.interval if settings.events.enabled else None,
        )
        return Options(create_client, policy, resources)

    def _credentials(self, account: Account, api: Api) -> Credentials:
        match account.credential:
            case PersonalKey(key, expires):
                return personal_key(key, account.name, self._owners, expires)
            case AccessToken(token):
                return access_token(token, account.name, self._owners)
            case OAuth() as oauth:
                return self._oauth_credentials(account.name, oauth, timeout=max(api.timeout, MIN_TIMEOUT))

    def _oauth_credentials(self, name: str, oauth: OAuth, *, timeout: float) -> Credentials:
        # Only accounts with OAuth need these imports.
        from .tedee.oauth.credentials import OAuthCredentials  # noqa: PLC0415
        from .tedee.oauth.refresh_tokens import RefreshTokens  # noqa: PLC0415
        from .tedee.oauth.token_endpoint import TokenEndpoint  # noqa: PLC0415

        self._refresh_tokens = self._refresh_tokens or RefreshTokens()
        endpoint = TokenEndpoint(
            name,
            url=oauth.token_url,
            client_id=oauth.client_id,
            client_secret=oauth.client_secret_file,
            scope=oauth.scope,
            timeout=timeout,
            session=self._connections,
        )
        return OAuthCredentials(
            name,
            endpoint=endpoint,
            refresh_token_file=oauth.refresh_token_file,
            refresh_tokens=self._refresh_tokens,
            owners=self._owners,
            monotonic=self._clock.monotonic,
            wall=self._clock.wall,
        )
