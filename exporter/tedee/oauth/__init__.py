"""OAuth: the token endpoint, refresh tokens and their files, and credentials that are refreshed.

The modules are imported when an account uses OAuth. Names and defaults that other packages need are here.
"""

TOKEN_URL = "https://tedee.b2clogin.com/tedee.onmicrosoft.com/B2C_1A_Signup_Signin_With_Kmsi/oauth2/v2.0/token"  # noqa: S105
"""Tedee's token endpoint (docs: howtos/authenticate)."""
SCOPE = (
    "offline_access https://tedee.onmicrosoft.com/api/user_impersonation https://tedee.onmicrosoft.com/api/Device.Read"
)
"""The scope to read devices, and the two scopes that Tedee requires (docs: howtos/authenticate)."""

MIN_TIMEOUT = 10.0
"""Minimum time-out of an exchange in seconds. Without its response, the refresh token is lost."""

CLIENT_SECRET = "client secret"  # noqa: S105
"""Name of this secret in messages, as is REFRESH_TOKEN."""
REFRESH_TOKEN = "refresh token"  # noqa: S105
