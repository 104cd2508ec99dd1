"""Who calls: a personal access key or an access token, read anew at every use so that it can be rotated."""

import base64
import codecs
import json
import re
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Protocol

from requests import PreparedRequest
from requests.auth import AuthBase

from .secret import Secret, file_named, read_regular_file

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


class Signer(Protocol):
    """Credentials of any kind, as a client uses them: `requests` calls them with each request, to sign it."""

    def prepare(self) -> None:
        """Get ready to sign, before the request's gate, since this may take a request of its own.

        Raises:
            CredentialsUnavailable: a secret cannot be used.
            CallError: a request of its own failed.
        """
        ...

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign the request.

        Raises:
            CredentialsUnavailable: a secret cannot be used.
        """
        ...

    def forget(self) -> None:
        """Take note that Tedee refused what a request was signed with."""
        ...

    def expires_at(self) -> float | None:
        """Unix seconds at which somebody has to sign in again; None where that is not known or never."""
        ...


@dataclass(frozen=True)
class Credentials(AuthBase):
    """Puts `Authorization: {scheme} {secret}` on a request.

    Raises:
        CredentialsUnavailable: the secret could not be read, is empty, or cannot stand in a header.
    """

    scheme: str
    source: SecretSource

    def prepare(self) -> None:
        """See that there is a secret to sign with. It is not kept: signing reads it once more."""
        read_secret(self.source)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign the request, with the secret as it is now."""
        request.headers["Authorization"] = f"{self.scheme} {read_secret(self.source).get_secret_value()}"
        return request

    def forget(self) -> None:
        """Nothing: nothing is kept."""

    def expires_at(self) -> float | None:
        """Unix seconds at which an access token says that it expires; of a personal key only the portal knows."""
        if self.scheme != BEARER:
            return None
        try:
            return jwt_expiry(read_secret(self.source))
        except CredentialsUnavailable:
            return None


def personal_key(source: SecretSource) -> Credentials:
    """Credentials of a personal access key, made in the Tedee portal."""
    return Credentials("PersonalKey", source)


def access_token(source: SecretSource) -> Credentials:
    """Credentials of an OAuth access token that somebody else keeps fresh."""
    return Credentials(BEARER, source)


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
    where = f"{what} file {file_named(source)}"
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
        raise CredentialsUnavailable(f"{where} holds bytes that no {what} has") from None
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
        raise CredentialsUnavailable(f"{where} holds characters that no {what} has (is it one line, and nothing else?)")
    return Secret(secret)


def jwt_expiry(token: Secret) -> float | None:
    """The claim `exp` of a JSON Web Token, Unix seconds; None where there is none.

    The signature is not verified: this is told to people and decides nothing.
    """
    parts = token.get_secret_value().split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature (RFC 7519)
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expiry = claims.get("exp") if isinstance(claims, dict) else None
        at = float(expiry) if isinstance(expiry, int | float) and not isinstance(expiry, bool) else None
    except (ValueError, OverflowError, RecursionError):
        return None
    return at if at is not None and isfinite(at) else None
