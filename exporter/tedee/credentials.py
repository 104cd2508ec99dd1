"""Credentials: a personal access key or an access token, read at each use so that it can be replaced."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

from requests import PreparedRequest
from requests.auth import AuthBase

from exporter.secrets import Secret, safe_path

from .secret_source import CredentialsUnavailable, SecretSource, read_secret

BEARER = "Bearer"


class CredentialInUse(CredentialsUnavailable):
    """Another account uses the credential of the same user."""


@dataclass(frozen=True)
class Authorization(AuthBase):
    """The `Authorization` header of one request."""

    scheme: str
    secret: Secret
    user: str
    """Digest that identifies the user. Requests of the same user share Tedee's limits."""
    fingerprint: str
    """Digest of the credential, as `Credentials.fingerprint` returns it."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign the request."""
        request.headers["Authorization"] = f"{self.scheme} {self.secret.get_secret_value()}"
        return request


class Credentials(Protocol):
    """Credentials of any kind."""

    def refresh(self) -> Authorization:
        """Return the authorization of the next request. This may request a new access token.

        Raises:
            CredentialsUnavailable: A secret cannot be used.
            CallError: The request for an access token failed.
        """
        ...

    def longest_refresh(self) -> float:
        """Return the maximum number of seconds that `refresh` takes now; 0.0 if it requests no access token."""
        ...

    def user(self) -> str | None:
        """Return the user of the next request; None if unknown without a request."""
        ...

    def fingerprint(self) -> str:
        """Return a digest of the credential. If it changes, a retry after HTTP 401 may succeed."""
        ...

    def invalidate(self) -> None:
        """Discard the last authorization, which Tedee refused."""
        ...

    def expires_at(self) -> float | None:
        """Return the Unix time at which the credentials expire; None if unknown or never."""
        ...

    def refresh_token_stored(self) -> bool | None:
        """Return False while the refresh token is in memory only; None if there is no refresh token."""
        ...


@dataclass(frozen=True)
class _Claim:
    """The use of a user's credential by an account."""

    user: str
    read_user: Callable[[], str | None]
    """Returns the current user of the credential, since files can change."""


class CredentialOwners:
    """Registry of the users whose credentials the accounts of this process use.

    Two accounts must not use the credential of one user: each would export the locks of that user, at half the rate.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accounts: frozenset[str] = frozenset()
        self._claims: dict[str, _Claim] = {}
        """By account."""
        self._claimants: dict[str, set[str]] = {}
        """Accounts with a claim, by user. A search of all claims would be slow with many accounts."""

    def set_accounts(self, accounts: Iterable[str]) -> None:
        """Allow only these accounts to use credentials from now on."""
        with self._lock:
            self._accounts = frozenset(accounts)
            for account in self._claims.keys() - self._accounts:
                self._end_claim(account)

    def release(self, account: str) -> None:
        """End the claim of an account whose credentials were replaced."""
        with self._lock:
            self._end_claim(account)

    def claim(self, account: str, user: str, read_user: Callable[[], str | None]) -> str | None:
        """Record that an account uses the credential of a user. Returns another account that uses it already, if any.

        In either case, the previous claim of the account ends. Otherwise two accounts whose keys were swapped would
        block each other for ever.

        Args:
            account: Name of the account.
            user: As in `Authorization`.
            read_user: Returns the current user of the credentials, since files can change.

        Raises:
            CredentialsUnavailable: The account is no longer configured.
        """
        with self._lock:
            if account not in self._accounts:
                raise CredentialsUnavailable("the account is no longer configured")
            self._end_claim(account)
            claimants = self._claimants.setdefault(user, set())
            for other in claimants:
                if self._claims[other].read_user() == user:
                    return other
            claimants.add(account)
            self._claims[account] = _Claim(user, read_user)
            return None

    def _end_claim(self, account: str) -> None:
        if claim := self._claims.pop(account, None):
            claimants = self._claimants[claim.user]
            claimants.discard(account)
            if not claimants:
                del self._claimants[claim.user]


@dataclass(frozen=True)
class StaticCredentials:
    """A personal key or an access token."""

    scheme: str
    source: SecretSource
    account: str = ""
    owners: CredentialOwners | None = None
    """Registry of the users of all accounts; None if there is one account."""
    expiry: float | None = None
    """Unix time at which a personal key expires; None if unknown."""

    def refresh(self) -> Authorization:
        """Read the secret.

        Raises:
            CredentialsUnavailable: The secret cannot be read or sent, or another account uses it.
        """
        secret = read_secret(self.source)
        user = user_of(self.scheme, secret)
        if self.owners and (other := self.owners.claim(self.account, user, self._read_user)):
            raise CredentialInUse(f"{self._describe_source()} contains the key of account {other}")
        return Authorization(self.scheme, secret, user, digest(self.scheme, secret.get_secret_value()))

    def longest_refresh(self) -> float:
        """Return 0.0, since no access token is requested."""
        return 0.0

    def user(self) -> str | None:
        """Return the user; None if the secret cannot be used."""
        try:
            return self.refresh().user
        except CredentialsUnavailable:
            return None

    def fingerprint(self) -> str:
        """Return a digest of the secret; an error message if it cannot be used."""
        try:
            return self.refresh().fingerprint
        except CredentialsUnavailable as error:
            return str(error)

    def refresh_token_stored(self) -> None:
        """Return None, since there is no refresh token."""

    def invalidate(self) -> None:
        """Do nothing, since nothing is cached."""

    def expires_at(self) -> float | None:
        """Return the Unix time at which the secret expires; None if unknown. An access token contains it."""
        if self.scheme != BEARER:
            return self.expiry
        try:
            return _expiry(jwt_claims(read_secret(self.source)))
        except CredentialsUnavailable:
            return None

    def _read_user(self) -> str | None:
        try:
            return user_of(self.scheme, read_secret(self.source))
        except CredentialsUnavailable:
            return None

    def _describe_source(self) -> str:
        return "the key" if isinstance(self.source, Secret) else f"key file {safe_path(self.source)}"


def personal_key(
    source: SecretSource, account: str = "", owners: CredentialOwners | None = None, expiry: float | None = None
) -> StaticCredentials:
    """Return the credentials of a personal access key, which the Tedee portal issues."""
    return StaticCredentials("PersonalKey", source, account, owners, expiry)


def access_token(source: SecretSource, account: str = "", owners: CredentialOwners | None = None) -> StaticCredentials:
    """Return the credentials of an OAuth access token that another program refreshes."""
    return StaticCredentials(BEARER, source, account, owners)


def user_of(scheme: str, secret: Secret, default: str = "") -> str:
    """Return a digest of the user in a token. Without a user, return the default, or else a digest of the secret."""
    claims = jwt_claims(secret) if scheme == BEARER else {}
    issuer, subject = claims.get("iss"), claims.get("sub")
    if isinstance(issuer, str) and isinstance(subject, str) and subject:
        return digest("subject", issuer, subject)
    return default or digest(scheme, secret.get_secret_value())


def digest(*parts: str) -> str:
    """Return a digest that does not reveal the texts."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def jwt_claims(token: Secret) -> Mapping[str, object]:
    """Return the claims of a JSON Web Token (RFC 7519); empty if the token is not one.

    The signature is not verified, since a wrong claim can only delay calls or show a wrong expiry.
    """
    parts = token.get_secret_value().split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _expiry(claims: Mapping[str, object]) -> float | None:
    expiry = claims.get("exp")
    if isinstance(expiry, bool) or not isinstance(expiry, int | float):
        return None
    try:
        at = float(expiry)
    except OverflowError:
        return None
    return at if isfinite(at) else None
