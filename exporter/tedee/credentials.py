"""Credentials: a personal access key or an access token, read at every use so that it can be replaced."""

import base64
import codecs
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Protocol

from requests import PreparedRequest
from requests.auth import AuthBase

from exporter.secrets import Secret, read_regular_file, safe_path

SecretSource = Secret | Path
"""A secret itself, or the file that holds it."""

MAX_SECRET_BYTES = 16 * 2**10
"""Of a file that holds a secret. Tedee's keys have some 60 bytes, its tokens about 2,000."""

MISTAKES = {
    r"([\"']).*\1": "is in quotes; write the {what} without them",
    "<.*>": "is in angle brackets, as documentation writes a placeholder; write the {what} in place of all of it",
    r"\$\{.*\}|\$\(.*\)|\$[A-Za-z_]\w*|%\w+%|\{\{.*\}\}": (
        "is the name of a variable that nothing replaced; write the {what} in place of it"
    ),
    r"(?i)(export )?\w*(key|token|secret) ?[=:] ?[^=].*": "is of the form NAME=value; write the value alone",
    "(?i)replace-with-.*": "is the example's placeholder; write the {what} in place of it",
}
"""Forms of a secret that cannot be right, and the messages about them."""

BEARER = "Bearer"


class CredentialsUnavailable(Exception):
    """A secret could not be read or cannot be sent. The text names the file and never the secret."""


class CredentialInUse(CredentialsUnavailable):
    """The credential is that of another account."""


@dataclass(frozen=True)
class Authorization(AuthBase):
    """The `Authorization` header of one request."""

    scheme: str
    secret: Secret
    user: str
    """Digest of what is known about the user: requests of the same user share Tedee's limits."""
    credential: str
    """Digest of the credential, as `Credentials.fingerprint` returns it."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign the request."""
        request.headers["Authorization"] = f"{self.scheme} {self.secret.get_secret_value()}"
        return request


class Credentials(Protocol):
    """Credentials of any kind."""

    def refresh(self) -> Authorization:
        """Return what signs the next request. This may take a request of its own.

        Raises:
            CredentialsUnavailable: A secret cannot be used.
            CallError: A request of its own failed.
        """
        ...

    def user(self) -> str | None:
        """Return the user of the next request, None if that is not known without a request."""
        ...

    def fingerprint(self) -> str:
        """Return a digest that changes when a refused credential may be worth another try."""
        ...

    def invalidate(self) -> None:
        """Note that Tedee refused the last authorization."""
        ...

    def expires_at(self) -> float | None:
        """Return the Unix time at which the user has to sign in again; None if that is not known or never."""
        ...

    def refresh_token_stored(self) -> bool | None:
        """Return False while a refresh token is in memory only, None if the credentials have none."""
        ...


class CredentialOwners:
    """The accounts of this process, and whose credentials they use.

    Two accounts must not use the credential of one user: each would show the user's locks, at half the rate.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accounts: frozenset[str] = frozenset()
        self._claims: dict[str, tuple[str, Callable[[], str | None]]] = {}

    def set_accounts(self, accounts: Iterable[str]) -> None:
        """Allow these accounts alone to use credentials from now on."""
        with self._lock:
            self._accounts = frozenset(accounts)
            self._claims = {account: claim for account, claim in self._claims.items() if account in self._accounts}

    def release(self, account: str) -> None:
        """End the claim of an account whose credentials were replaced."""
        with self._lock:
            self._claims.pop(account, None)

    def claim(self, account: str, user: str, read_user: Callable[[], str | None]) -> str | None:
        """Note that an account uses the credential of a user. Returns the account that does already, if there is one.

        In either case the account's earlier claim ends: otherwise accounts whose keys were swapped in the
        configuration would wait for each other for ever.

        Args:
            account: The account's name.
            user: As in `Authorization`.
            read_user: Returns the user that these credentials belong to now, since files change.

        Raises:
            CredentialsUnavailable: The account is no longer configured.
        """
        with self._lock:
            if account not in self._accounts:
                raise CredentialsUnavailable("the account is no longer configured")
            self._claims.pop(account, None)
            for other, (claimed, read_other) in self._claims.items():
                if claimed == user and read_other() == user:
                    return other
            self._claims[account] = (user, read_user)
            return None


@dataclass(frozen=True)
class StaticCredentials:
    """A personal key or an access token, read at each use so that it can be replaced."""

    scheme: str
    source: SecretSource
    account: str = ""
    owners: CredentialOwners | None = None
    """Registry of the accounts that have credentials, if there are several."""

    def refresh(self) -> Authorization:
        """Read the secret.

        Raises:
            CredentialsUnavailable: It cannot be read, cannot be sent, or is that of another account.
        """
        secret = read_secret(self.source)
        user = user_of(self.scheme, secret)
        if self.owners and (other := self.owners.claim(self.account, user, self._read_user)):
            raise CredentialInUse(f"{self._where()} holds the key of account {other}")
        return Authorization(self.scheme, secret, user, digest(self.scheme, secret.get_secret_value()))

    def user(self) -> str | None:
        """Return the user; None if the secret cannot be used."""
        try:
            return self.refresh().user
        except CredentialsUnavailable:
            return None

    def fingerprint(self) -> str:
        """Return a digest of the secret, or why it cannot be used."""
        try:
            return self.refresh().credential
        except CredentialsUnavailable as error:
            return str(error)

    def refresh_token_stored(self) -> None:
        """Return None: there is no refresh token."""

    def invalidate(self) -> None:
        """Do nothing: nothing is cached."""

    def expires_at(self) -> float | None:
        """Return the expiry that an access token states, in Unix seconds; a personal key states none."""
        if self.scheme != BEARER:
            return None
        try:
            return _expiry(jwt_claims(read_secret(self.source)))
        except CredentialsUnavailable:
            return None

    def _read_user(self) -> str | None:
        try:
            return user_of(self.scheme, read_secret(self.source))
        except CredentialsUnavailable:
            return None

    def _where(self) -> str:
        return "the key" if isinstance(self.source, Secret) else f"key file {safe_path(self.source)}"


def personal_key(source: SecretSource, account: str = "", owners: CredentialOwners | None = None) -> StaticCredentials:
    """Return the credentials of a personal access key, made in the Tedee portal."""
    return StaticCredentials("PersonalKey", source, account, owners)


def access_token(source: SecretSource, account: str = "", owners: CredentialOwners | None = None) -> StaticCredentials:
    """Return the credentials of an OAuth access token that another program refreshes."""
    return StaticCredentials(BEARER, source, account, owners)


def user_of(scheme: str, secret: Secret, default: str = "") -> str:
    """Return a digest of the user that a token names; the default, or a digest of the secret, if it names none."""
    claims = jwt_claims(secret) if scheme == BEARER else {}
    issuer, subject = claims.get("iss"), claims.get("sub")
    if isinstance(issuer, str) and isinstance(subject, str) and subject:
        return digest("subject", issuer, subject)
    return default or digest(scheme, secret.get_secret_value())


def digest(*parts: str) -> str:
    """Return a digest of some texts that tells nothing about them."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def read_secret(source: SecretSource, what: str = "key") -> Secret:
    """The secret, without the white space that editors and `echo` leave around it.

    Args:
        source: the secret or its file.
        what: kind of secret, for the messages.

    Raises:
        CredentialsUnavailable: it could not be read, is empty, or cannot stand in a header.
    """
    if isinstance(source, Secret):
        return checked_secret(source.get_secret_value(), f"the {what}", what)
    where = f"{what} file {safe_path(source)}"
    try:
        content = read_regular_file(source, MAX_SECRET_BYTES + 1)
    except OSError as error:
        # The chain is cut: this exception repeats the file's name, which may be a secret in its place.
        raise CredentialsUnavailable(f"{where} cannot be read: {error.strerror}") from None
    if content is None:
        raise CredentialsUnavailable(f"{where} is not a regular file")
    if len(content) > MAX_SECRET_BYTES:
        raise CredentialsUnavailable(f"{where} is too large to be a {what}")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CredentialsUnavailable(f"{where} is UTF-16 text, as PowerShell writes it; save it as ASCII")
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("ascii")
    except UnicodeDecodeError:
        # The chain is cut: this exception carries the bytes it could not decode.
        raise CredentialsUnavailable(f"{where} contains bytes that no {what} has") from None
    return checked_secret(text, where, what)


def checked_secret(text: str, where: str, what: str) -> Secret:
    """What can stand in a header, without white space around it.

    Args:
        text: the secret.
        where: where it stands, for the messages.
        what: kind of secret, for the messages.

    Raises:
        CredentialsUnavailable: it is empty, too large, or cannot stand in a header.
    """
    secret = text.strip()
    if not secret:
        raise CredentialsUnavailable(f"{where} is empty")
    if len(secret) > MAX_SECRET_BYTES:
        raise CredentialsUnavailable(f"{where} is too large to be a {what}")
    for form, problem in MISTAKES.items():
        if re.fullmatch(form, secret):
            raise CredentialsUnavailable(f"{where} {problem.format(what=what)}")
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise CredentialsUnavailable(f"{where} contains characters that no {what} has, such as spaces or line breaks")
    return Secret(secret)


def jwt_claims(token: Secret) -> Mapping[str, object]:
    """Return the claims of a JSON Web Token (RFC 7519), none if it is not one.

    The signature is not verified: a wrong claim can only delay calls, or show a wrong expiry.
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
