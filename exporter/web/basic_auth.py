"""Basic authentication against bcrypt hashes."""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network

import bcrypt

from exporter.secrets import Secret

MAX_WAITING = 8
"""Passwords of one client's address that may wait to be checked: a guard against guessing that starves the others."""

MAX_WAITING_ALTOGETHER = 64
"""Of all clients: with hashes of a usual cost the last of them waits less than a scrape's time-out of 10 seconds."""

BCRYPT_BYTES = 72
"""All that bcrypt looks at; longer passwords are cut there, as other servers do."""


class TooManyAttempts(Exception):
    """The client has more passwords waiting to be checked than it should need."""


class BasicAuth:
    """Checks the passwords that clients send.

    A check costs what the hash's author wanted it to, a tenth of a second perhaps. So it runs beside the loop that
    answers scrapes, one at a time, and what was right once is remembered: as a keyed digest, which is of no use in
    another process, and only while the user has the same hash. What was wrong is checked each time, for a user that
    does not exist, too, so that the time taken does not tell which users do.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes()
        self._right: set[bytes] = set()
        self._waiting: Counter[str] = Counter()
        self._turn = asyncio.Lock()

    async def authenticate(
        self, users: Mapping[str, Secret], authorization: str, client: str, gone: Callable[[], bool] = lambda: False
    ) -> bool:
        """Whether the header names a user and has the user's password.

        Args:
            users: name to bcrypt hash.
            authorization: the header.
            client: address that it came from.
            gone: whether the client no longer waits for the answer.

        Raises:
            TooManyAttempts: try again later.
        """
        parsed = _parse(authorization)
        if parsed is None:
            return False
        name, password = parsed
        known = name in users
        # For an unknown user the hash of a known one, always the same for a name: it has a cost that is in use here.
        hashed = users[name if known else _pick(sorted(users), self._digest(name))].get_secret_value()
        digest = self._digest(name, hashed, password)
        if known and digest in self._right:
            return True
        client = _network(client)
        if self._waiting[client] >= MAX_WAITING or self._waiting.total() >= MAX_WAITING_ALTOGETHER:
            raise TooManyAttempts
        self._waiting[client] += 1
        try:
            async with self._turn:
                if gone():
                    return False
                right = await asyncio.to_thread(_matches, password, hashed)
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]
        if known and right:
            self._right.add(digest)
        return known and right

    def _digest(self, *parts: str) -> bytes:
        return hmac.digest(self._key, b"".join(hashlib.sha256(part.encode()).digest() for part in parts), "sha256")


def _parse(authorization: str) -> tuple[str, str] | None:
    """User and password; None where the header has none."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    return (name, password) if colon and scheme.lower() == "basic" else None


def _network(client: str) -> str:
    """An IPv4 address, or the network of an IPv6 one: its owner has all of it."""
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if address.version == 4 or address.ipv4_mapped:  # noqa: PLR2004
        return str(address)
    return str(ip_network((address, 64), strict=False))


def _pick(names: list[str], digest: bytes) -> str:
    return names[int.from_bytes(digest) % len(names)]


def _matches(password: str, hashed: str) -> bool:
    try:
        return bcrypt.checkpw(password.encode()[:BCRYPT_BYTES], hashed.encode())
    except ValueError:
        return False
