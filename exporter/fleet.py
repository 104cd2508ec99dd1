"""The accounts of a configuration, put to work; and put to work again when the configuration changes."""

import hashlib
from functools import partial
from pathlib import Path

import structlog

from . import __version__
from .clock import Clock
from .config import Account, Api, ChosenLocks, OAuth, Settings, Sync
from .sync.account import AccountSync, Options
from .sync.budget import Budget, Rules
from .sync.directory import Chosen
from .sync.ledger import Ledger
from .sync.scheduler import Scheduler
from .sync.snapshot import Board
from .tedee.client import TedeeClient
from .tedee.credentials import SecretSource, Signer, access_token, personal_key
from .tedee.oauth import OAuthCredentials, RefreshTokens, TokenEndpoint
from .tedee.transport import session

log = structlog.get_logger(__name__)

USER_AGENT = f"tedee-exporter/{__version__}"
LAST_BYTES = 1.0
"""Seconds by which a call may outlast its time-out until it has ended for both sides."""


class Fleet:
    """All accounts, each with its own gate; they share one ledger, and no connections."""

    def __init__(self, clock: Clock, ledger: Ledger, board: Board, scheduler: Scheduler, *, shards: int = 1) -> None:
        """Begin without accounts.

        Args:
            clock: for all of them.
            ledger: has their calls.
            board: gets their statuses.
            scheduler: gives them their turns.
            shards: processes that share the accounts. An account that the ledger does not know, or knows from when
                they were more or fewer, may have been another one's a moment ago: it waits out one spacing.
        """
        self.accounts: dict[str, AccountSync] = {}
        self._clock = clock
        self._ledger = ledger
        self._board = board
        self._scheduler = scheduler
        self._longest_call = 0.0
        self._shards = shards
        self._applied: dict[str, tuple[Account, Api, Sync]] | None = None
        self._connections = session()
        self._refresh_tokens = RefreshTokens()

    def apply(self, settings: Settings) -> None:
        """Have just the accounts of these settings. One that stays keeps its gate, its snapshot and its counters."""
        applied = self._applied
        # Of those that may be under way, and of those to come.
        self._longest_call = max(self._longest_call, settings.api.timeout + LAST_BYTES)
        wanted = {account.name: (account, settings.api, settings.sync) for account in settings.accounts}
        gone = [self.accounts.pop(name) for name in list(self.accounts) if name not in wanted]
        self._scheduler.remove(gone)
        self._board.admit(wanted)
        new = []
        for name, what in wanted.items():
            if name not in self.accounts:
                self.accounts[name] = self._build(name, self._options(*what), is_reload=applied is not None)
                self._board.publish(self.accounts[name].status())
                new.append(self.accounts[name])
            elif applied is None or what != applied[name]:
                self.accounts[name].configure(self._options(*what))
        if not wanted and applied != {}:
            log.warning(
                "this shard holds none of the configured accounts; it runs on, for a reload may bring one",
                shards=self._shards,
            )
        self._applied = wanted
        self._scheduler.add(new, interval=settings.sync.interval)

    def _build(self, name: str, options: Options, *, is_reload: bool) -> AccountSync:
        budget = Budget(name, self._ledger, self._clock)
        if is_reload or (self._shards > 1 and not self._ledger.page(name).user):
            # It may be an account that was synced a moment ago, under a name that has just gone or by another shard.
            budget.distrust(self._longest_call)
        return AccountSync(name, options, budget, self._clock, self._board.publish)

    def _options(self, account: Account, api: Api, sync: Sync) -> Options:
        key, secret = account.credential
        connect = partial(
            TedeeClient,
            account.name,
            url=api.url,
            version=api.version,
            credentials=self._credentials(account, api),
            timeout=api.timeout,
            session=self._connections,
            user_agent=USER_AGENT,
        )
        rules = Rules(
            interval=sync.interval,
            requests_per_hour=sync.requests_per_hour,
            longest_call=api.timeout + LAST_BYTES,
        )
        chosen = account.locks or ChosenLocks.model_construct()
        user = _user(key, secret) + (f" {self._shards} shards" if self._shards > 1 else "")
        return Options(connect, rules, sync.stale_after, Chosen(chosen.ids or (), chosen.serial_numbers or ()), user)

    def _credentials(self, account: Account, api: Api) -> Signer:
        key, secret = account.credential
        if not isinstance(secret, OAuth):
            return personal_key(secret) if key.startswith("personal_key") else access_token(secret)
        endpoint = TokenEndpoint(
            account.name,
            url=secret.token_url,
            client_id=secret.client_id,
            client_secret=secret.client_secret_file,
            scope=secret.scope,
            timeout=api.timeout,
            session=self._connections,
            user_agent=USER_AGENT,
        )
        return OAuthCredentials(
            account.name,
            endpoint=endpoint,
            refresh_token_file=secret.refresh_token_file,
            refresh_tokens=self._refresh_tokens,
            monotonic=self._clock.monotonic,
            wall=self._clock.wall,
        )


def _user(key: str, secret: SecretSource | OAuth) -> str:
    """What tells a changed user from a rotated key: the file, or for want of one the key.

    It is written down, and a key may stand where the name of a file belongs: hence a digest, too short to be of use.
    """
    if isinstance(secret, OAuth):
        secret = secret.refresh_token_file
    what = str(secret) if isinstance(secret, Path) else secret.get_secret_value()
    return f"{key} {hashlib.sha256(what.encode(errors='surrogateescape')).hexdigest()[:8]}"
