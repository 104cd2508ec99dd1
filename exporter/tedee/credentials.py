"""Who calls: a personal access key or an access token, read anew at every use so that it can be rotated."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from requests import PreparedRequest
from requests.auth import AuthBase

SecretSource = SecretStr | Path
"""A secret itself, or the file that holds it."""


class CredentialsUnavailable(Exception):
    """A secret could not be read or cannot be sent. The text names the file and never the secret."""


@dataclass(frozen=True)
class Credentials(AuthBase):
    """Puts `Authorization: {scheme} {secret}` on a request.

    Raises:
        CredentialsUnavailable: the secret could not be read, is empty, or cannot stand in a header.
    """

    scheme: str
    source: SecretSource

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign the request, with the secret as it is now."""
        request.headers["Authorization"] = f"{self.scheme} {read_secret(self.source).get_secret_value()}"
        return request


def personal_key(source: SecretSource) -> Credentials:
    """Credentials of a personal access key, made in the Tedee portal."""
    return Credentials("PersonalKey", source)


def access_token(source: SecretSource) -> Credentials:
    """Credentials of an OAuth access token that somebody else keeps fresh."""
    return Credentials("Bearer", source)


def read_secret(source: SecretSource) -> SecretStr:
    """The secret, without the white space that editors and `echo` leave around it.

    Raises:
        CredentialsUnavailable: as the class says.
    """
    where = f"key file {source}" if isinstance(source, Path) else "the key"
    if isinstance(source, SecretStr):
        text = source.get_secret_value()
    else:
        try:
            text = source.read_text("ascii")
        except OSError as error:
            raise CredentialsUnavailable(f"{where} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            # The chain is cut: this exception carries the bytes it could not decode.
            raise CredentialsUnavailable(f"{where} holds bytes that no key has") from None
    secret = text.strip()
    if not secret:
        raise CredentialsUnavailable(f"{where} is empty")
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise CredentialsUnavailable(f"{where} holds characters that no key has (is it one line, and nothing else?)")
    return SecretStr(secret)
