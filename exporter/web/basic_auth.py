"""Basic authentication against bcrypt hashes."""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network

from exporter.secrets import Secret

MAX_PENDING_PER_CLIENT = 8
"""Passwords of one client that may wait for their check, so that a client that guesses does not block the others."""

MAX_PENDING = 64
"""Passwords of all clients that may wait. At the usual cost the last one waits less than 10 s, a scrape's time-out."""

BCRYPT_BYTES = 72
"""Bytes of a password that bcrypt uses. Longer passwords are truncated, as by other servers."""


class TooManyAttempts(Exception):
    """Too many passwords, of this client or of all clients, wait for their check."""


class BasicAuth:
    """Checks user names and passwords.

    A check is slow by design, a tenth of a second for example. It therefore runs in a thread, one check at a time, so
    that it does not block scrapes. A correct password is cached as a keyed digest, which is useless in another process,
    and is valid as long as the user has the same hash. Wrong passwords are not cached, and those of unknown users are
    checked as well, so that the duration does not reveal which users exist.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes()
        self._verified: set[bytes] = set()
        self._pending: Counter[str] = Counter()
        self._checking = asyncio.Lock()

    async def authenticate(
        self,
        users: Mapping[str, Secret],
        authorization: str,
        client: str,
        is_disconnected: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Check an `Authorization` header. Returns True if it has the name and the password of a user.

        Args:
            users: Name to bcrypt hash.
            authorization: Value of the header.
            client: Address of the client.
            is_disconnected: Returns True if the client has closed the connection, so that a check is needless.

        Raises:
            TooManyAttempts: The password was not checked.
        """
        credentials = _parse_authorization(authorization)
        if credentials is None:
            return False
        name, password = credentials
        known = name in users
        # The password of an unknown user is checked against the hash of a user, always the same one for a name, so that
        # it takes as long as for an existing user.
        hashed = users[name if known else _pick_user(users, self._digest(name))].get_secret_value()
        digest = self._digest(name, hashed, password)
        if known and digest in self._verified:
            return True
        client = _network(client)
        if self._pending[client] >= MAX_PENDING_PER_CLIENT or self._pending.total() >= MAX_PENDING:
            raise TooManyAttempts
        self._pending[client] += 1
        try:
            async with self._checking:
                if is_disconnected():
                    return False
                correct = await asyncio.to_thread(_matches, password, hashed)
        finally:
            self._pending[client] -= 1
            if not self._pending[client]:
                del self._pending[client]
        if known and correct:
            self._verified.add(digest)
        return known and correct

    def _digest(self, *parts: str) -> bytes:
        return hmac.digest(self._key, b"".join(hashlib.sha256(part.encode()).digest() for part in parts), "sha256")


def _parse_authorization(authorization: str) -> tuple[str, str] | None:
    """Return user name and password, or None if the header has none."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    return (name, password) if colon and scheme.lower() == "basic" else None


def _network(client: str) -> str:
    """Return an IPv4 address as it is, and the /64 network of an IPv6 address: one client may have all of it."""
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if address.version == 4 or address.ipv4_mapped:  # noqa: PLR2004
        return str(address)
    return str(ip_network((address, 64), strict=False))


def _pick_user(users: Mapping[str, Secret], digest: bytes) -> str:
    return sorted(users)[int.from_bytes(digest) % len(users)]


def _matches(password: str, hashed: str) -> bool:
    import bcrypt  # noqa: PLC0415  (it takes 0.4 MiB)

    try:
        return bcrypt.checkpw(password.encode()[:BCRYPT_BYTES], hashed.encode())
    except ValueError:
        return False
