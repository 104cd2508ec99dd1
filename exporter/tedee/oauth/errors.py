"""The errors of a token refresh, with their advice."""

from exporter.tedee.errors import (
    CallError,
    ConnectionFailed,
    InvalidResponse,
    ServerFailed,
    TlsFailed,
    Unauthorized,
)

from .token_file import ADVICE


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

    advice = "check the network, DNS, proxy and oauth.token_url"


class Stopping(ConnectionFailed):
    """The process is stopping. Nothing was sent."""

    advice = "start the exporter again"


class TokenEndpointUntrusted(TlsFailed):
    """TLS failed, for instance because the certificate of the token endpoint is not valid."""

    advice = "check oauth.token_url, this machine's clock and CA certificates (REQUESTS_CA_BUNDLE or SSL_CERT_FILE)"


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
