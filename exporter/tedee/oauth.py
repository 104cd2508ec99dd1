"""An OAuth client's credentials: access tokens that are refreshed in time, and refresh tokens that are not lost.

The protocol is Authlib's. What is ours is around it: when to refresh, where the tokens are kept, how long an exchange
may take, and what its failures are called.
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

from .client import kind_of, retry_after
from .credentials import (
    BEARER,
    Authorization,
    CredentialInUse,
    CredentialOwners,
    CredentialsUnavailable,
    SecretSource,
    checked_secret,
    digest,
    read_secret,
    user_of,
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
from .transport import NETWORK_ERRORS, Deadline, deadline, is_loopback

if TYPE_CHECKING:
    from authlib.integrations.requests_client import OAuth2Session, OAuthError

log = structlog.get_logger(__name__)

ENDPOINT = "oauth2/token"
"""What errors call the token endpoint."""
TOKEN_URL = "https://tedee.b2clogin.com/tedee.onmicrosoft.com/B2C_1A_Signup_Signin_With_Kmsi/oauth2/v2.0/token"  # noqa: S105
"""Tedee's token endpoint (docs: howtos/authenticate)."""
SCOPE = (
    "offline_access https://tedee.onmicrosoft.com/api/user_impersonation https://tedee.onmicrosoft.com/api/Device.Read"
)
"""To read devices, and the two that Tedee requires (docs: howtos/authenticate)."""

REFRESH_AHEAD = 300.0
"""Seconds before an access token expires at which it is refreshed: time for some more tries."""
ACCESS_LIFE = 3600.0
"""Seconds an access token is taken to be good for where the answer does not say. Tedee's are for four hours."""
REFRESH_LIFE = 14 * 86_400.0
"""Seconds a new refresh token is taken to be good for where the answer does not say (docs: howtos/authenticate)."""
MAX_RESPONSE_BYTES = 2**20
"""Of a decompressed answer. Tedee's have about 5,000."""
MIN_TIMEOUT = 10.0
"""Seconds that an exchange is given at least, since giving up on its response loses the refresh token."""

CLIENT_SECRET = "client secret"  # noqa: S105


class SignInAgain(Unauthorized):
    """The refresh token has expired, was used up or revoked, or there is none."""

    advice = (
        "sign in to Tedee again with this OAuth client and the scopes of oauth.scope, and put the new refresh token "
        "into the file that oauth.refresh_token_file names; it is used at the next try, without a restart"
    )


class SuccessorNotStorable(Unauthorized):
    """The next refresh token could not be stored, so the present one was not used. Nothing was sent."""

    advice = ADVICE


class ClientRefused(Unauthorized):
    """The token endpoint does not know the OAuth client, or its secret is wrong."""

    advice = "check oauth.client_id and the file that oauth.client_secret_file names; Tedee issues both"


class RequestRefused(Unauthorized):
    """The token endpoint does not do what it is asked for."""

    advice = "check oauth.scope and oauth.token_url"


class TokenEndpointUnreachable(ConnectionFailed):
    """No connection to the token endpoint, or one that broke."""

    advice = "check the network, DNS, proxy and oauth.token_url; the exporter tries again by itself"


class Stopping(ConnectionFailed):
    """The process ends. Nothing was sent."""

    advice = "start the exporter again"


class TokenEndpointUntrusted(TlsFailed):
    """The token endpoint could not prove that it is Tedee's."""

    advice = "check oauth.token_url, this machine's clock and CA certificates (REQUESTS_CA_BUNDLE names a private CA)"


class TokenAnswerInvalid(InvalidResponse):
    """An answer of the token endpoint that is not what OAuth promises."""

    advice = "check that oauth.token_url is Tedee's token endpoint and that no proxy answers in its place"


OWN_ADVICE: dict[type[CallError], type[CallError]] = {
    ConnectionFailed: TokenEndpointUnreachable,
    TlsFailed: TokenEndpointUntrusted,
    InvalidResponse: TokenAnswerInvalid,
}
"""The failures of an exchange of which a person has to look elsewhere than for those of a sync."""

REFUSALS: dict[str, type[CallError]] = {
    "invalid_grant": SignInAgain,
    "interaction_required": SignInAgain,
    "login_required": SignInAgain,
    "consent_required": SignInAgain,
    "invalid_client": ClientRefused,
    "unauthorized_client": ClientRefused,
    "invalid_request": RequestRefused,
    "invalid_scope": RequestRefused,
    "unsupported_grant_type": RequestRefused,
    "server_error": ServerFailed,
    "temporarily_unavailable": ServerFailed,
}
"""By OAuth's error code (RFC 6749 section 5.2, and what Microsoft adds)."""


@dataclass(frozen=True)
class TokenResponse:
    """What a refresh brings."""

    access: Secret
    life: float
    """Seconds for which the access token is good."""
    refresh: Secret | None
    """The next refresh token; None if the one in use stays."""
    refresh_life: float | None
    """Seconds for which the refresh token is good, if the answer says so."""


class TokenEndpoint:
    """Exchanges refresh tokens for access tokens, in the name of one OAuth client."""

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
        """Prepare exchanges; none is made here.

        Args:
            account: the name that errors carry.
            url: of the token endpoint; plain HTTP only if it is on this machine.
            client_id: issued by Tedee.
            client_secret: issued by Tedee, read anew at each exchange; None for a client that has none.
            scope: scopes, separated by spaces.
            timeout: seconds for a whole exchange.
            session: lends its connections, see `transport.session()`.
            user_agent: says to Tedee who calls.

        Raises:
            ValueError: the URL would send secrets unencrypted over a network.
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
            store: Called with the next refresh token, if there is one, before the rest of the response is checked.

        Raises:
            CallError: There is no new access token.
        """
        # Authlib takes 11 MB of memory, and most accounts have a personal key.
        from authlib.integrations.requests_client import OAuth2Session, OAuthError  # noqa: PLC0415

        oauth = self._session_of(OAuth2Session)
        with deadline(self._timeout) as bound:
            oauth.register_compliance_hook("refresh_token_response", partial(self._opened, bound))
            try:
                answer = oauth.refresh_token(
                    self._url,
                    refresh_token=token.get_secret_value(),
                    timeout=self._timeout,
                    # A redirect would carry the secrets to where it points.
                    allow_redirects=False,
                    stream=True,
                )
            except OAuthError as error:
                # The chain is cut: this exception carries what the answer says.
                raise self._refusal(error, origin) from None
            except NETWORK_ERRORS as error:
                kind, problem = bound.meaning(error)
                raise self.error(OWN_ADVICE.get(kind, kind), problem) from None
        refresh = self._token(answer, "refresh_token")
        # Authlib fills in the token that was sent if the response has none.
        successor = None if refresh == token else refresh
        if successor:
            store(successor)
        return self._issued(answer, successor)

    def error(self, kind: type[CallError], problem: str, **facts: Any) -> CallError:
        """A failure of the account's refresh."""
        return kind(problem, account=self._account, endpoint=ENDPOINT, **facts)

    def client_fingerprint(self) -> str:
        """Return a digest of the client's secret.

        Raises:
            CredentialsUnavailable: It cannot be used.
        """
        secret = read_secret(self._client_secret, CLIENT_SECRET).get_secret_value() if self._client_secret else ""
        return digest(CLIENT_SECRET, secret)

    def _session_of(self, kind: "type[OAuth2Session]") -> "OAuth2Session":
        """Authlib's session for one exchange, over connections that keep to the deadline."""
        secret = ""
        if self._client_secret:
            try:
                secret = read_secret(self._client_secret, CLIENT_SECRET).get_secret_value()
            except CredentialsUnavailable as error:
                raise self.error(ClientRefused, str(error)) from error
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

    def _opened(self, bound: Deadline, response: requests.Response) -> requests.Response:
        """What Authlib is to parse: of the answer what is used, with a lifetime that is a number.

        Anything else in it must not end the exchange: the refresh token it was made with may be good no more.
        """
        status = response.status_code
        told = f"HTTP {status} {http.client.responses.get(status, '')}".rstrip()
        facts = {"status": status, "retry_after": retry_after(response.headers)}
        with response:
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise self.error(ServerFailed, told, **facts)
            if status == HTTPStatus.TOO_MANY_REQUESTS:
                raise self.error(RateLimited, told, **facts)
            if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
                problem = f"{told}; redirects are not followed, so that the secrets go nowhere else"
                raise self.error(TokenAnswerInvalid, problem, **facts)
            body = bytearray()
            while len(body) <= MAX_RESPONSE_BYTES and (chunk := response.raw.read1(65536, decode_content=True)):
                body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise self.error(TokenAnswerInvalid, f"{told} with over {MAX_RESPONSE_BYTES:,} bytes", **facts)
        answer = json_object(body)
        if answer is None:
            if bound.passed:
                raise self.error(TimedOut, bound.problem)
            kind = kind_of(response.headers, body)
            raise self.error(TokenAnswerInvalid, f"{told}, which is not a JSON object but {kind}", **facts)
        # A proxy may have turned a 200 into a 203; the refresh token in it is as good.
        if status >= HTTPStatus.MULTIPLE_CHOICES and not answer.get("error"):
            raise self.error(TokenAnswerInvalid, f"{told} without an error code of OAuth", **facts)
        return _response(status, answer)

    def _refusal(self, error: "OAuthError", origin: str) -> CallError:
        """What an OAuth error means. Of its text only codes are told: the rest is whatever the server likes."""
        kind = REFUSALS.get(str(error.error), RequestRefused)
        told = str(error.error) if str(error.error) in REFUSALS else "an error that OAuth does not define"
        # Microsoft's own number of the error, which its documentation explains.
        number = re.search(r"\bAAD(B2C|STS)[0-9]{4,7}\b", str(error.description))
        code = f"{told} ({number.group()})" if number else told
        if kind is SignInAgain:
            return self.error(kind, f"Tedee refused the {REFRESH_TOKEN} of {origin}: {code}")
        if kind is ClientRefused:
            return self.error(kind, f"Tedee refused the OAuth client: {code}")
        return self.error(kind, f"Tedee refused to issue an access token: {code}")

    def _issued(self, answer: dict[str, Any], refresh: Secret | None) -> TokenResponse:
        kind = answer.get("token_type", BEARER)
        if not isinstance(kind, str) or kind.lower() != BEARER.lower():
            raise self.error(TokenAnswerInvalid, f"the answer's access token is not a {BEARER} token")
        access = self._token(answer, "access_token")
        if access is None:
            raise self.error(TokenAnswerInvalid, "the answer has no access token")
        return TokenResponse(access, answer["expires_in"], refresh, _seconds(answer.get("refresh_token_expires_in")))

    def _token(self, answer: dict[str, Any], key: str) -> Secret | None:
        value = answer.get(key)
        if value is None or value == "":
            return None
        what = key.replace("_", " ")
        if not isinstance(value, str):
            raise self.error(TokenAnswerInvalid, f"the answer's {what} is not text")
        try:
            return checked_secret(value, f"the answer's {what}", "token")
        except CredentialsUnavailable as error:
            raise self.error(TokenAnswerInvalid, str(error)) from error


@dataclass(frozen=True)
class _Access:
    token: Secret
    user: str
    credential: str
    """Digest of the refresh token: the data belong to its user, also if the file gets another one."""
    refresh_at: float
    expires_at: float
    """Both in monotonic seconds."""


class OAuthCredentials:
    """Access tokens of a user who has signed in with an OAuth client, refreshed in time."""

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
        """Prepare refreshes; none is made here.

        Args:
            account: Name that log lines carry.
            endpoint: Issues access tokens.
            refresh_token_file: Read at each refresh, and written when Tedee replaces the token.
            refresh_tokens: Stores it; one for the whole process.
            owners: Registry of the accounts that have credentials, if there are several.
            monotonic: Seconds, by which access tokens expire.
            wall: Unix seconds, for `expires_at`.
        """
        self._account = account
        self._endpoint = endpoint
        self._file = refresh_token_file
        self._refresh_tokens = refresh_tokens
        self._owners = owners
        self._monotonic = monotonic
        self._wall = wall
        self._access: _Access | None = None
        self._expires_at: float | None = None

    def refresh(self) -> Authorization:
        """Return an access token that is good for the next minutes. This takes at most one exchange.

        A refresh that fails is no failure as long as the present access token is good.

        Raises:
            CallError: There is no access token.
            CredentialInUse: Another account has the same user.
        """
        self._save_again()
        access = self._access
        if access is None or self._monotonic() >= access.refresh_at:
            try:
                access = self._access = self._refresh()
            except CallError as error:
                if access is None or self._monotonic() >= access.expires_at:
                    self._access = None
                    raise
                log.warning(
                    "access token not refreshed yet", account=self._account, reason=error.reason, error=error.message()
                )
        if self._owners and (other := self._owners.claim(self._account, access.user, self.user)):
            raise CredentialInUse(f"the {REFRESH_TOKEN} of {self._file} is that of the user of account {other}")
        return Authorization(BEARER, access.token, access.user, access.credential)

    def user(self) -> str | None:
        """Return the user of the access token; None as long as there is none."""
        return self._access.user if self._access else None

    def fingerprint(self) -> str:
        """Return a digest of the refresh token and the client's secret, or why they cannot be used."""
        try:
            token = self._refresh_tokens.current(self._file)
            return digest(REFRESH_TOKEN, token.get_secret_value(), self._endpoint.client_fingerprint())
        except CredentialsUnavailable as error:
            return str(error)

    def invalidate(self) -> None:
        """Fetch another access token for the next authorization."""
        self._access = None

    def expires_at(self) -> float | None:
        """Return the Unix time at which the refresh token expires; None before the first refresh."""
        return self._expires_at

    def refresh_token_stored(self) -> bool:
        """Return False while the refresh token is in memory only, and would be lost with the process."""
        return self._refresh_tokens.stored(self._file)

    def _refresh(self) -> _Access:
        # Lives count from before the exchange: tokens are never thought good for longer than they are.
        monotonic, wall = self._monotonic(), self._wall()
        try:
            with self._refresh_tokens.exchange(self._file) as exchange:
                issued = self._endpoint.refresh(exchange.token, str(self._file), partial(self._store, exchange))
        except CredentialsUnavailable as error:
            raise self._endpoint.error(SignInAgain, str(error)) from error
        except CannotStore as error:
            raise self._endpoint.error(SuccessorNotStorable, f"{error}; it has not been used") from error
        except Closed as error:
            raise self._endpoint.error(Stopping, "the exporter stops") from error
        life = issued.refresh_life or (REFRESH_LIFE if issued.refresh else None)
        self._expires_at = wall + life if life else self._expires_at
        # A token that names no user is that of the one whose refresh token is in the file.
        user = user_of(BEARER, issued.access, digest(REFRESH_TOKEN, str(self._file)))
        return _Access(
            issued.access,
            user,
            self.fingerprint(),
            refresh_at=monotonic + issued.life - min(REFRESH_AHEAD, issued.life / 2),
            expires_at=monotonic + issued.life,
        )

    def _store(self, exchange: Exchange, successor: Secret) -> None:
        try:
            exchange.store(successor)
        except CannotStore as error:
            log.warning(
                "new refresh token cannot be stored and is in memory only; it is tried again, and a restart before "
                "that makes it necessary to sign in to Tedee again",
                account=self._account,
                error=str(error),
            )

    def _save_again(self) -> None:
        try:
            if self._refresh_tokens.save(self._file):
                log.info("refresh token is stored", account=self._account, file=str(self._file))
        except CannotStore as error:
            # It was logged when the token arrived; `refresh_token_stored` has it from then on.
            log.debug("refresh token is still in memory only", account=self._account, error=str(error))


def _seconds(value: object) -> float | None:
    """Seconds, written as a number or as text; None for anything that is no time to come."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if isfinite(seconds) and seconds > 0 else None


def _response(status: int, answer: dict[str, object]) -> requests.Response:
    """An answer of the token endpoint without what could trip up its parser."""
    keys = ("access_token", "token_type", "refresh_token", "refresh_token_expires_in", "error", "error_description")
    kept = {key: answer[key] for key in keys if answer.get(key) is not None}
    kept["expires_in"] = _seconds(answer.get("expires_in")) or ACCESS_LIFE
    response = requests.Response()
    response.status_code = status
    response.raw = BytesIO(json.dumps(kept).encode())
    return response
