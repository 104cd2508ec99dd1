"""The token endpoint, which exchanges refresh tokens for access tokens (RFC 6749 section 6)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from math import isfinite
from typing import Any
from urllib.parse import urlsplit

import requests

from exporter.secrets import Secret
from exporter.tedee.connections import is_loopback
from exporter.tedee.credentials import BEARER, digest
from exporter.tedee.envelope import json_object
from exporter.tedee.errors import CallError, RateLimited, ServerFailed, TransportError
from exporter.tedee.request import Response, send
from exporter.tedee.secret_source import CredentialsUnavailable, SecretSource, read_secret, validate_secret

from . import CLIENT_SECRET, REFRESH_TOKEN
from .errors import (
    OAUTH_ERRORS,
    TOKEN_ENDPOINT_ERRORS,
    OAuthClientInvalid,
    SignInRequired,
    TokenRequestInvalid,
    TokenResponseInvalid,
)

ENDPOINT = "oauth2/token"
"""Name of the token endpoint in errors."""
DEFAULT_ACCESS_LIFETIME = 3600.0
"""Lifetime of an access token in seconds if the response has none. Tedee's tokens are valid for four hours."""
MAX_RESPONSE_BYTES = 2**20
"""Limit of a decompressed response. Tedee's have about 5,000 bytes."""


@dataclass(frozen=True)
class TokenResponse:
    """The tokens in a response of the token endpoint."""

    access: Secret
    lifetime: float
    """Lifetime of the access token in seconds."""
    refresh: Secret | None
    """The new refresh token; None if the current one stays valid."""
    refresh_lifetime: float | None
    """Lifetime of the refresh token in seconds; None if unknown."""


class TokenEndpoint:
    """Client of the token endpoint, which exchanges refresh tokens for access tokens."""

    def __init__(
        self,
        account: str,
        *,
        url: str,
        client_id: str,
        client_secret: SecretSource | None,
        scope: str,
        timeout: float,
        session: requests.Session,
    ) -> None:
        """Create a client. No request is sent.

        Args:
            account: Name of the account, for errors.
            url: URL of the token endpoint; plain HTTP only to this machine.
            client_id: Issued by Tedee.
            client_secret: Issued by Tedee, read at each exchange; None if the client has none.
            scope: Scopes, separated by spaces.
            timeout: Seconds for a whole exchange.
            session: The session of `session.session()`.

        Raises:
            ValueError: Secrets would be sent unencrypted over a network.
        """
        host = urlsplit(url).hostname or ""
        if urlsplit(url).scheme != "https" and not (urlsplit(url).scheme == "http" and is_loopback(host)):
            raise ValueError(f"the token endpoint of account {account!r} is not an https:// URL")
        self._account = account
        self._url = url
        self._client_id = client_id
        self._client_secret = client_secret
        self._scope = scope
        self.timeout = timeout
        self._session = session

    def refresh(self, token: Secret, origin: str, store: Callable[[Secret], None]) -> TokenResponse:
        """Exchange a refresh token for an access token.

        Args:
            token: A refresh token. It may be invalid as soon as the request has been sent.
            origin: The file of the token, for messages.
            store: Called with the new refresh token, if there is one, before the rest of the response is validated.

        Raises:
            CallError: There is no new access token.
        """
        try:
            client_secret = self._read_client_secret()
        except CredentialsUnavailable as error:
            raise self.error(OAuthClientInvalid, str(error)) from error
        form = {
            "grant_type": "refresh_token",
            "refresh_token": token.get_secret_value(),
            "scope": self._scope,
            "client_id": self._client_id,
            "client_secret": client_secret,
        }
        try:
            with send(
                self._session, "POST", self._url, timeout=self.timeout, max_bytes=MAX_RESPONSE_BYTES, data=form
            ) as response:
                fields = self._fields(response)
        except TransportError as error:
            raise self.error(TOKEN_ENDPOINT_ERRORS.get(error.kind, error.kind), error.problem) from None
        if "error" in fields:
            raise self._oauth_error(fields["error"], fields.get("error_description"), origin)
        refresh = self._read_token(fields, "refresh_token")
        new_token = None if refresh == token else refresh
        if new_token:
            store(new_token)
        return self._token_response(fields, new_token)

    def error(self, kind: type[CallError], problem: str, **facts: Any) -> CallError:
        """Return an error of a token refresh of this account."""
        return kind(problem, account=self._account, endpoint=ENDPOINT, **facts)

    def client_fingerprint(self) -> str:
        """Return a digest of the client's secret.

        Raises:
            CredentialsUnavailable: The secret cannot be used.
        """
        return digest(CLIENT_SECRET, self._read_client_secret() or "")

    def _read_client_secret(self) -> str | None:
        return read_secret(self._client_secret, CLIENT_SECRET).get_secret_value() if self._client_secret else None

    def _fields(self, response: Response) -> dict[str, object]:
        """Return the JSON object in a response, without null values.

        If there is one, it is used even after the deadline, and with any status 2xx, to which a proxy may have changed
        200: the refresh token that was sent may already be invalid.
        """
        status, status_line = response.status, response.status_line
        facts = {"status": status, "retry_after": response.retry_after}
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise self.error(ServerFailed, status_line, **facts)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise self.error(RateLimited, status_line, **facts)
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            problem = f"{status_line}; redirects are not followed, so that the secrets are sent to no other server"
            raise self.error(TokenResponseInvalid, problem, **facts)
        fields = json_object(response.body.content)
        if fields is None:
            response.raise_if_late()
            problem = f"{status_line} with a body that is not a JSON object but {response.describe_body()}"
            raise self.error(TokenResponseInvalid, problem, **facts)
        if status >= HTTPStatus.MULTIPLE_CHOICES and not fields.get("error"):
            raise self.error(TokenResponseInvalid, f"{status_line} without an OAuth error code", **facts)
        return {key: value for key, value in fields.items() if value is not None}

    def _oauth_error(self, error: object, description: object, origin: str) -> CallError:
        """Return the error for an OAuth error response. Only known codes are shown: the server controls other text."""
        kind = OAUTH_ERRORS.get(str(error), TokenRequestInvalid)
        code = str(error) if str(error) in OAUTH_ERRORS else "unknown OAuth error code"
        # Microsoft's number of the error, which its documentation explains.
        if number := re.search(r"\bAAD(B2C|STS)[0-9]{4,7}\b", str(description)):
            code = f"{code} ({number.group()})"
        if kind is SignInRequired:
            return self.error(kind, f"Tedee refused the {REFRESH_TOKEN} of {origin}: {code}")
        if kind is OAuthClientInvalid:
            return self.error(kind, f"Tedee refused the OAuth client: {code}")
        return self.error(kind, f"Tedee refused to issue an access token: {code}")

    def _token_response(self, fields: dict[str, object], refresh: Secret | None) -> TokenResponse:
        kind = fields.get("token_type", BEARER)
        if not isinstance(kind, str) or kind.lower() != BEARER.lower():
            raise self.error(TokenResponseInvalid, f"the access token in the response is not a {BEARER} token")
        access = self._read_token(fields, "access_token")
        if access is None:
            raise self.error(TokenResponseInvalid, "the response has no access token")
        return TokenResponse(
            access,
            lifetime=_positive_seconds(fields.get("expires_in")) or DEFAULT_ACCESS_LIFETIME,
            refresh=refresh,
            refresh_lifetime=_positive_seconds(fields.get("refresh_token_expires_in")),
        )

    def _read_token(self, fields: dict[str, object], key: str) -> Secret | None:
        value = fields.get(key)
        if value is None or value == "":
            return None
        what = key.replace("_", " ")
        if not isinstance(value, str):
            raise self.error(TokenResponseInvalid, f"the {what} in the response is not text")
        try:
            return validate_secret(value, f"the {what} in the response", "token")
        except CredentialsUnavailable as error:
            raise self.error(TokenResponseInvalid, str(error)) from error


def _positive_seconds(value: object) -> float | None:
    """Return a number of seconds, given as a number or as text; None if it is not positive and finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if isfinite(seconds) and seconds > 0 else None
