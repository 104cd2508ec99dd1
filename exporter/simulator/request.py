"""A request to the cloud, with the account whose credential it contains."""

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import Scope

from .world import World

if TYPE_CHECKING:
    from .account import Account, Credential


class Request:
    """One call. The names of query parameters are case-insensitive.

    `account` and `credential` belong to the Authorization header, valid or not; both are None if its value is unknown.
    `account` may also be the account of a refresh token in the form. `credentials` are all texts of the request that
    may contain credentials.
    """

    def __init__(self, scope: Scope, body: bytes, world: World) -> None:
        headers = Headers(scope=scope)
        self.method: str = scope["method"]
        self.version: str = scope.get("path_params", {}).get("version", "")
        self.user_agent = headers.get("User-Agent", "")
        self.accepts_gzip = "gzip" in headers.get("Accept-Encoding", "").lower()
        text = body.decode("utf-8", "replace")
        self.form = dict(parse_qsl(text))
        self.credentials = (f"Authorization: {headers.get('Authorization', '')}", text)
        self._query = [(name.lower(), value) for name, value in parse_qsl(scope["query_string"].decode("latin-1"))]
        self.account: Account | None = None
        self.credential: Credential | None = None
        scheme, _, value = headers.get("Authorization", "").partition(" ")
        found: tuple[Account, Credential] | None = None
        if scheme.lower() == "personalkey":
            found = world.find(value.strip(), lambda account: account.keys)
        elif scheme.lower() == "bearer":
            found = world.find(value.strip(), lambda account: account.tokens)
        if found is not None:
            self.account, self.credential = found
        elif refreshed := world.find(self.form.get("refresh_token", ""), lambda account: account.refresh_tokens):
            self.account, _ = refreshed

    @property
    def account_name(self) -> str | None:
        """The name of the account. None if the credential is unknown."""
        return None if self.account is None else self.account.name

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of the requested devices; () for all, or if one is not a number."""
        try:
            return tuple(self.integers("id") + self.integers("deviceid"))
        except ValueError:
            return ()

    def integers(self, name: str) -> list[int]:
        """Return the integers of that query parameter. Raises ValueError if a value is not one."""
        return [int(value) for given, value in self._query if given == name]

    def flag(self, *names: str) -> bool:
        """Return True if one of these query parameters is `true`."""
        return any(given in names and value.lower() == "true" for given, value in self._query)

    def text(self, name: str) -> str:
        """Return the last value of that query parameter; "" if it is missing."""
        return next((value for given, value in reversed(self._query) if given == name), "")
