"""OAuth credentials: access tokens that are refreshed before they expire, and refresh tokens that are not lost.

Authlib implements the protocol. This module decides when to refresh and where tokens are stored, limits the time of an
exchange, and classifies its errors.
"""

import http.client
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import structlog

from exporter.secrets import Secret

from .client import describe_body, parse_retry_after
from .credentials import (
    BEARER,
    Authorization,
    CredentialInUse,
    CredentialOwners,
    CredentialsUnavailable,
    SecretSource,
    digest,
    read_secret,
    user_of,
    validate_secret,
)
from .envelope import json_object
from .errors import (
    CallError,
    ConnectionFailed,
    InvalidResponse,
    RateLimited,
    ServerFailed,
    TimedOut,
    TlsFailed,
    Unauthorized,
)
from .refresh_tokens import REFRESH_TOKEN, Closed, Exchange, RefreshTokens
from .token_file import ADVICE, CannotStore
from .transport import NETWORK_ERRORS, Deadline, enforce_deadline, is_loopback

if TYPE_CHECKING:
    from authlib.integrations.requests_client import OAuth2Session, OAuthError

log = structlog.get_logger(__name__)

ENDPOINT = "oauth2/token"
"""Name of the token endpoint in errors."""
TOKEN_URL = "https://tedee.b2clogin.com/tedee.onmicrosoft.com/B2C_1A_Signup_Signin_With_Kmsi/oauth2/v2.0/token"  # noqa: S105
"""Tedee's token endpoint (docs: howtos/authenticate)."""
SCOPE = (
    "offline_access https://tedee.onmicrosoft.com/api/user_impersonation https://tedee.onmicrosoft.com/api/Device.Read"
)
"""The scope to read devices, and the two scopes that Tedee requires (docs: howtos/authenticate)."""

REFRESH_AHEAD = 300.0
"""Seconds before its expiry at which an access token is refreshed. This leaves time for retries."""
DEFAULT_ACCESS_LIFETIME = 3600.0
"""Lifetime of an access token in seconds if the response has none. Tedee's tokens are valid for four hours."""
DEFAULT_REFRESH_LIFETIME = 14 * 86_400.0
"""Lifetime of a new refresh token in seconds if the response has none (docs: howtos/authenticate)."""
MAX_RESPONSE_BYTES = 2**20
"""Limit of a decompressed response. Tedee's have about 5,000 bytes."""
MIN_TIMEOUT = 10.0
"""Minimum time-out of an exchange in seconds. Without its response, the refresh token is lost."""

CLIENT_SECRET = "client secret"  # noqa: S105


class SignInRequired(Unauthorized):
    """The refresh token has expired, was used or revoked, or is missing."""

    advice = (
        "sign in to Tedee again with this OAuth client and the scopes of oauth.scope, and put the new refresh token "
        "into the file of oauth.refresh_token_file; no restart is needed"
    )


class RefreshTokenNotStorable(Unauthorized):
    """A new refresh token could not be stored, so the current one was not used. Nothing was sent."""

    advice = ADVICE


class OAuthClientInvalid(Unauthorized):
    """The token endpoint does not know the OAuth client, or its secret is wrong."""

    advice = "check oauth.client_id and the file of oauth.client_secret_file; Tedee issues both"


class TokenRequestInvalid(Unauthorized):
    """The token endpoint refused the request for another reason."""

    advice = "check oauth.scope and oauth.token_url"


class TokenEndpointUnreachable(ConnectionFailed):
    """The connection to the token endpoint could not be opened or was lost."""

    advice = "check the network, DNS, proxy and oauth.token_url; the exporter retries automatically"


class Stopping(ConnectionFailed):
    """The process is stopping. Nothing was sent."""

    advice = "start the exporter again"


class TokenEndpointUntrusted(TlsFailed):
    """TLS failed, for instance because the certificate of the token endpoint is not valid."""

    advice = "check oauth.token_url, this machine's clock and CA certificates (REQUESTS_CA_BUNDLE names a private CA)"


class TokenResponseInvalid(InvalidResponse):
    """A response of the token endpoint that does not conform to OAuth."""

    advice = "check that oauth.token_url is Tedee's token endpoint and that no proxy responds instead"


TOKEN_ENDPOINT_ERRORS: dict[type[CallError], type[CallError]] = {
    ConnectionFailed: TokenEndpointUnreachable,
    TlsFailed: TokenEndpointUntrusted,
    InvalidResponse: TokenResponseInvalid,
}
"""Errors whose advice for an exchange differs from that for a sync."""

OAUTH_ERRORS: dict[str, type[CallError]] = {
    "invalid_grant": SignInRequired,
    "interaction_required": SignInRequired,
    "login_required": SignInRequired,
    "consent_required": SignInRequired,
    "invalid_client": OAuthClientInvalid,
    "unauthorized_client": OAuthClientInvalid,
    "invalid_request": TokenRequestInvalid,
    "invalid_scope": TokenRequestInvalid,
    "unsupported_grant_type": TokenRequestInvalid,
    "server_error": ServerFailed,
    "temporarily_unavailable": ServerFailed,
}
"""Errors by OAuth error code (RFC 6749 section 5.2, and the codes that Microsoft adds)."""


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
        user_agent: str,
    ) -> None:
        """Create a client. No request is sent.

        Args:
            account: Name of the account, for errors.
            url: URL of the token endpoint; plain HTTP only to this machine.
            client_id: Issued by Tedee.
            client_secret: Issued by Tedee, read at each exchange; None if the client has none.
            scope: Scopes, separated by spaces.
            timeout: Seconds for a whole exchange.
            session: The session of `transport.session()`, whose connections are used.
            user_agent: `User-Agent` header.

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
        self._timeout = timeout
        self._session = session
        self._user_agent = user_agent

    def refresh(self, token: Secret, origin: str, store: Callable[[Secret], None]) -> TokenResponse:
        """Exchange a refresh token for an access token.

        Args:
            token: A refresh token. It may be invalid as soon as the request has been sent.
            origin: The file of the token, for messages.
            store: Called with the new refresh token, if there is one, before the rest of the response is validated.

        Raises:
            CallError: There is no new access token.
        """
        # Imported here since Authlib takes 11 MB of memory, and most accounts have a personal key.
        from authlib.integrations.requests_client import OAuth2Session, OAuthError  # noqa: PLC0415

        oauth = self._oauth_session(OAuth2Session)
        with enforce_deadline(self._timeout) as deadline:
            oauth.register_compliance_hook("refresh_token_response", partial(self._filter_response, deadline))
            try:
                fields = oauth.refresh_token(
                    self._url,
                    refresh_token=token.get_secret_value(),
                    timeout=self._timeout,
                    # A redirect would send the secrets to its target.
                    allow_redirects=False,
                    stream=True,
                )
            except OAuthError as error:
                # No exception chain: this error contains text of the response.
                raise self._oauth_error(error, origin) from None
            except NETWORK_ERRORS as error:
                kind, problem = deadline.classify(error)
                raise self.error(TOKEN_ENDPOINT_ERRORS.get(kind, kind), problem) from None
        refresh = self._read_token(fields, "refresh_token")
        # Without a refresh token in the response, Authlib returns the one that was sent.
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
        secret = read_secret(self._client_secret, CLIENT_SECRET).get_secret_value() if self._client_secret else ""
        return digest(CLIENT_SECRET, secret)

    def _oauth_session(self, kind: "type[OAuth2Session]") -> "OAuth2Session":
        """Return an Authlib session for one exchange, whose connections respect the deadline."""
        secret = ""
        if self._client_secret:
            try:
                secret = read_secret(self._client_secret, CLIENT_SECRET).get_secret_value()
            except CredentialsUnavailable as error:
                raise self.error(OAuthClientInvalid, str(error)) from error
        oauth = kind(
            self._client_id,
            secret,
            token_endpoint_auth_method="client_secret_post" if secret else "none",
            scope=self._scope,
        )
        for prefix, adapter in self._session.adapters.items():
            oauth.mount(prefix, adapter)
        oauth.headers["User-Agent"] = self._user_agent
        return oauth

    def _filter_response(self, deadline: Deadline, response: requests.Response) -> requests.Response:
        """Return a response for Authlib that has only the fields in use, with a numeric lifetime.

        An unexpected value in another field must not make the exchange fail, since the refresh token that was sent may
        already be invalid.
        """
        status = response.status_code
        status_line = f"HTTP {status} {http.client.responses.get(status, '')}".rstrip()
        facts = {"status": status, "retry_after": parse_retry_after(response.headers)}
        with response:
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise self.error(ServerFailed, status_line, **facts)
            if status == HTTPStatus.TOO_MANY_REQUESTS:
                raise self.error(RateLimited, status_line, **facts)
            if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
                problem = f"{status_line}; redirects are not followed, so that the secrets are sent to no other server"
                raise self.error(TokenResponseInvalid, problem, **facts)
            body = bytearray()
            while len(body) <= MAX_RESPONSE_BYTES and (chunk := response.raw.read1(65536, decode_content=True)):
                body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            problem = f"{status_line} with over {MAX_RESPONSE_BYTES:,} bytes"
            raise self.error(TokenResponseInvalid, problem, **facts)
        fields = json_object(body)
        if fields is None:
            if deadline.expired:
                raise self.error(TimedOut, deadline.problem)
            problem = f"{status_line} with a body that is not a JSON object but {describe_body(response.headers, body)}"
            raise self.error(TokenResponseInvalid, problem, **facts)
        # A proxy may have changed 200 to 203; the refresh token in the response is valid anyway.
        if status >= HTTPStatus.MULTIPLE_CHOICES and not fields.get("error"):
            raise self.error(TokenResponseInvalid, f"{status_line} without an OAuth error code", **facts)
        return _build_response(status, fields)

    def _oauth_error(self, error: "OAuthError", origin: str) -> CallError:
        """Return the error for an OAuth error response. Only known codes are shown: the server controls other text."""
        kind = OAUTH_ERRORS.get(str(error.error), TokenRequestInvalid)
        code = str(error.error) if str(error.error) in OAUTH_ERRORS else "unknown OAuth error code"
        # Microsoft's number of the error, which its documentation explains.
        if number := re.search(r"\bAAD(B2C|STS)[0-9]{4,7}\b", str(error.description)):
            code = f"{code} ({number.group()})"
        if kind is SignInRequired:
            return self.error(kind, f"Tedee refused the {REFRESH_TOKEN} of {origin}: {code}")
        if kind is OAuthClientInvalid:
            return self.error(kind, f"Tedee refused the OAuth client: {code}")
        return self.error(kind, f"Tedee refused to issue an access token: {code}")

    def _token_response(self, fields: dict[str, Any], refresh: Secret | None) -> TokenResponse:
        kind = fields.get("token_type", BEARER)
        if not isinstance(kind, str) or kind.lower() != BEARER.lower():
            raise self.error(TokenResponseInvalid, f"the access token in the response is not a {BEARER} token")
        access = self._read_token(fields, "access_token")
        if access is None:
            raise self.error(TokenResponseInvalid, "the response has no access token")
        return TokenResponse(
            access, fields["expires_in"], refresh, _positive_seconds(fields.get("refresh_token_expires_in"))
        )

    def _read_token(self, fields: dict[str, Any], key: str) -> Secret | None:
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
        if access is None or self._monotonic() >= access.refresh_at:
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
                    error=error.message(),
                )
        if self._owners and (other := self._owners.claim(self._account, access.user, self.user)):
            raise CredentialInUse(f"the {REFRESH_TOKEN} of {self._file} belongs to the user of account {other}")
        return Authorization(BEARER, access.token, access.user, access.fingerprint)

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


def _positive_seconds(value: object) -> float | None:
    """Return a number of seconds, given as a number or as text; None if it is not positive and finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if isfinite(seconds) and seconds > 0 else None


def _build_response(status: int, fields: dict[str, object]) -> requests.Response:
    """Return a response of the token endpoint that has only the fields in use."""
    keys = ("access_token", "token_type", "refresh_token", "refresh_token_expires_in", "error", "error_description")
    content = {key: fields[key] for key in keys if fields.get(key) is not None}
    content["expires_in"] = _positive_seconds(fields.get("expires_in")) or DEFAULT_ACCESS_LIFETIME
    response = requests.Response()
    response.status_code = status
    response.raw = BytesIO(json.dumps(content).encode())
    return response
