"""The token endpoint. It exchanges a refresh token for an access token and the next refresh token."""

import base64
import json
import secrets
import uuid
from typing import Final

from .account import Account, RefreshToken, Token
from .request import Request
from .response import Response
from .world import World

TOKEN_PATH: Final = "/tedee.onmicrosoft.com/B2C_1A_Signup_Signin_With_Kmsi/oauth2/v2.0/token"  # noqa: S105 - a path

ACCESS_TOKEN_LIFETIME: Final = 4 * 3600
REFRESH_TOKEN_LIFETIME: Final = 14 * 24 * 3600


def refresh(world: World, request: Request) -> Response:
    """Handle `grant_type=refresh_token`. The response is OAuth's JSON, without Tedee's envelope.

    The refresh token is revoked and replaced. Any client id and secret are accepted.
    """
    form = request.form
    if request.method != "POST" or form.get("grant_type") != "refresh_token" or not form.get("client_id"):
        return _error("invalid_request", "The request is not a POST of grant_type=refresh_token with a client_id.")
    found = world.find(form.get("refresh_token", ""), lambda account: account.refresh_tokens)
    now = world.now()
    if found is None or not found[1].valid(now):
        return _error("invalid_grant", "The provided grant has expired. Please re-authenticate and try again.")
    account, used = found
    access = Token(
        _access_token(account, now), form.get("scope", "").split() or used.scopes, now + ACCESS_TOKEN_LIFETIME
    )
    successor = RefreshToken(f"simulated-refresh-{secrets.token_hex(16)}", used.scopes, now + REFRESH_TOKEN_LIFETIME)
    used.revoked = True
    account.tokens = [*account.tokens, access]
    account.refresh_tokens = [*account.refresh_tokens, successor]
    return Response.json(
        {
            "access_token": access.value,
            "token_type": "Bearer",
            # A string, as in responses of the real endpoint.
            "expires_in": str(ACCESS_TOKEN_LIFETIME),
            "expires_on": str(int(now) + ACCESS_TOKEN_LIFETIME),
            "refresh_token": successor.value,
            "refresh_token_expires_in": str(REFRESH_TOKEN_LIFETIME),
            "scope": " ".join(access.scopes),
        }
    )


def _access_token(account: Account, now: float) -> str:
    """Return a JSON Web Token with the account's user as subject and a signature that is not valid."""
    subject = str(uuid.uuid5(uuid.NAMESPACE_DNS, account.name))
    claims = {
        "iss": "https://tedee.b2clogin.com/",
        "sub": subject,
        "iat": int(now),
        "exp": int(now) + ACCESS_TOKEN_LIFETIME,
    }
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return ".".join([*encoded, f"simulated-token-{secrets.token_hex(16)}"])


def _error(error: str, description: str) -> Response:
    return Response.json({"error": error, "error_description": description}, status=400)
