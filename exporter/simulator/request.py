"""What a call asks for, and in whose name."""

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import Scope

from .world import World

if TYPE_CHECKING:
    from .account import Account, Credential


class Request:
    """One call as the endpoints see it. The names in its query are case-insensitive.

    `account` and `credential` are those its Authorization header names, valid or not; both None if it names nobody's.
    The `account` may also be that of a refresh token in its form. `says` is all that it says of who calls.
    """

    def __init__(self, scope: Scope, body: bytes, world: World) -> None:
        headers = Headers(scope=scope)
        self.method: str = scope["method"]
        self.version: str = scope.get("path_params", {}).get("version", "")
        self.user_agent = headers.get("User-Agent", "")
        self.takes_gzip = "gzip" in headers.get("Accept-Encoding", "").lower()
        written = body.decode("utf-8", "replace")
        self.form = dict(parse_qsl(written))
        self.says = (f"Authorization: {headers.get('Authorization', '')}", written)
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
        """The name of its account, if it has one."""
        return None if self.account is None else self.account.name

    @property
    def ids(self) -> tuple[int, ...]:
        """The locks asked for by `id`; () for all, or if one of them is no number."""
        try:
            return tuple(self.numbers("id"))
        except ValueError:
            return ()

    def numbers(self, name: str) -> list[int]:
        """The whole numbers the query gives under that name. Raises ValueError if one is none."""
        return [int(value) for given, value in self._query if given == name]
