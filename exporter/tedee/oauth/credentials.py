"""OAuth credentials: access tokens that are refreshed before they expire."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from exporter.secrets import Secret
from exporter.tedee.credentials import (
    BEARER,
    Authorization,
    CredentialInUse,
    CredentialOwners,
    digest,
    user_of,
)
from exporter.tedee.errors import CallError
from exporter.tedee.secret_source import CredentialsUnavailable

from . import REFRESH_TOKEN
from .errors import RefreshTokenNotStorable, SignInRequired, Stopping
from .refresh_tokens import Closed, Exchange, RefreshTokens
from .token_endpoint import TokenEndpoint
from .token_file import CannotStore

log = structlog.get_logger(__name__)

REFRESH_AHEAD = 300.0
"""Seconds before its expiry at which an access token is refreshed. This leaves time for retries."""
DEFAULT_REFRESH_LIFETIME = 14 * 86_400.0
"""Lifetime of a new refresh token in seconds if the response has none (docs: howtos/authenticate)."""


@dataclass(frozen=True)
class _AccessToken:
    token: Secret
    user: str
    fingerprint: str
    """Fingerprint after the exchange. Data fetched with this access token keep it, even if the file changes."""
    refresh_at: float
    """Monotonic time in seconds, as is `expires_at`."""
    expires_at: float


class OAuthCredentials:
    """Credentials of a user who has signed in with an OAuth client. Access tokens are refreshed before they expire."""

    def __init__(
        self,
        account: str,
        *,
        endpoint: TokenEndpoint,
        refresh_token_file: Path,
        refresh_tokens: RefreshTokens,
        owners: CredentialOwners | None = None,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """Create credentials. No request is sent.

        Args:
            account: Name of the account, for log lines.
            endpoint: Issues access tokens.
            refresh_token_file: Read at each refresh, and written when Tedee replaces the token.
            refresh_tokens: Stores the refresh token; one instance per process.
            owners: Registry of the users of all accounts; None if there is one account.
            monotonic: Monotonic clock, for the expiry of access tokens.
            wall: Wall clock in Unix seconds, for `expires_at`.
        """
        self._account = account
        self._endpoint = endpoint
        self._file = refresh_token_file
        self._refresh_tokens = refresh_tokens
        self._owners = owners
        self._monotonic = monotonic
        self._wall = wall
        self._access: _AccessToken | None = None
        self._expires_at: float | None = None

    def refresh(self) -> Authorization:
        """Return an access token that is valid for the next minutes. This takes at most one exchange.

        A failed refresh is only logged as long as the current access token is valid.

        Raises:
            CallError: There is no access token.
            CredentialInUse: Another account has the same user.
        """
        self._retry_save()
        access = self._access
        if access is None or self._is_due(access):
            try:
                access = self._access = self._refresh()
            except CallError as error:
                if access is None or self._monotonic() >= access.expires_at:
                    self._access = None
                    raise
                log.warning(
                    "refreshing the access token failed; the current token is still valid",
                    account=self._account,
                    reason=error.reason,
                    **error.log_values(),
                    advice=error.advice,
                )
        if self._owners and (other := self._owners.claim(self._account, access.user, self.user)):
            raise CredentialInUse(f"the {REFRESH_TOKEN} of {self._file} belongs to the user of account {other}")
        return Authorization(BEARER, access.token, access.user, access.fingerprint)

    def longest_refresh(self) -> float:
        """Return the maximum number of seconds of the exchange that is due; 0.0 if none is."""
        return self._endpoint.timeout if self._access is None or self._is_due(self._access) else 0.0

    def user(self) -> str | None:
        """Return the user of the access token; None if there is no access token."""
        return self._access.user if self._access else None

    def fingerprint(self) -> str:
        """Return a digest of the refresh token and the client's secret; an error message if they cannot be used."""
        try:
            token = self._refresh_tokens.current(self._file)
            return digest(REFRESH_TOKEN, token.get_secret_value(), self._endpoint.client_fingerprint())
        except CredentialsUnavailable as error:
            return str(error)

    def invalidate(self) -> None:
        """Discard the access token, which Tedee refused."""
        self._access = None

    def expires_at(self) -> float | None:
        """Return the Unix time at which the refresh token expires; None before the first refresh."""
        return self._expires_at

    def refresh_token_stored(self) -> bool:
        """Return False while the refresh token is in memory only and would be lost with the process."""
        return self._refresh_tokens.stored(self._file)

    def _is_due(self, access: _AccessToken) -> bool:
        return self._monotonic() >= access.refresh_at

    def _refresh(self) -> _AccessToken:
        # Lifetimes count from before the exchange, so that a token is never used after its expiry.
        monotonic, wall = self._monotonic(), self._wall()
        try:
            with self._refresh_tokens.exchange(self._file) as exchange:
                response = self._endpoint.refresh(exchange.token, str(self._file), partial(self._store, exchange))
        except CredentialsUnavailable as error:
            raise self._endpoint.error(SignInRequired, str(error)) from error
        except CannotStore as error:
            raise self._endpoint.error(RefreshTokenNotStorable, f"{error}; it has not been used") from error
        except Closed as error:
            raise self._endpoint.error(Stopping, "the exporter is stopping") from error
        lifetime = response.refresh_lifetime or (DEFAULT_REFRESH_LIFETIME if response.refresh else None)
        self._expires_at = wall + lifetime if lifetime else self._expires_at
        # If the token names no user, its user is that of the refresh token file.
        user = user_of(BEARER, response.access, digest(REFRESH_TOKEN, str(self._file)))
        return _AccessToken(
            response.access,
            user,
            self.fingerprint(),
            refresh_at=monotonic + response.lifetime - min(REFRESH_AHEAD, response.lifetime / 2),
            expires_at=monotonic + response.lifetime,
        )

    def _store(self, exchange: Exchange, new_token: Secret) -> None:
        try:
            exchange.store(new_token)
        except CannotStore as error:
            log.warning(
                "new refresh token cannot be stored and is in memory only; storing it is retried; after a restart "
                "before that, it is necessary to sign in to Tedee again",
                account=self._account,
                error=str(error),
            )

    def _retry_save(self) -> None:
        try:
            if self._refresh_tokens.save(self._file):
                log.info("refresh token is stored", account=self._account, file=str(self._file))
        except CannotStore as error:
            # Not a warning: it was logged when the token was received, and a metric reports it.
            log.debug("refresh token is still in memory only", account=self._account, error=str(error))
