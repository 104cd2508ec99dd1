"""User accounts of the simulated cloud, with their locks and credentials."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from .bridge import Bridge
from .lock import Lock
from .outages import Outages

READ_SCOPES: Final = frozenset({"Device.Read", "Device.ReadWrite"})

# OAuth scopes are URLs. The scopes of a personal key are plain names.
SCOPE_PREFIX: Final = "https://tedee.onmicrosoft.com/api/"


@dataclass
class Credential:
    """A credential of an account. `expires_at` is in Unix seconds; None means that it does not expire."""

    value: str = field(repr=False)
    scopes: Sequence[str] = ("Device.Read",)
    expires_at: float | None = None
    revoked: bool = False

    def valid(self, now: float) -> bool:
        """Return True if the credential is accepted at `now` Unix seconds."""
        return not self.revoked and (self.expires_at is None or now < self.expires_at)

    def may_read(self) -> bool:
        """Return True if the scopes allow reading devices."""
        return any(scope.removeprefix(SCOPE_PREFIX) in READ_SCOPES for scope in self.scopes)


class PersonalKey(Credential):
    """A personal access key, sent as `Authorization: PersonalKey <value>`."""


class Token(Credential):
    """An OAuth access token, sent as `Authorization: Bearer <value>`."""


class RefreshToken(Credential):
    """An OAuth refresh token. It can be used once, for an access token and the next refresh token."""


class Account:
    """A user's account. Its lists of credentials may be changed at any time, its locks with `add` and `remove`.

    During `outages`, the API does not respond to the account. `highlights` are texts about it for users of the demo.
    """

    def __init__(
        self,
        name: str,
        locks: Iterable[Lock] = (),
        *,
        keys: Iterable[PersonalKey] = (),
        tokens: Iterable[Token] = (),
        refresh_tokens: Iterable[RefreshToken] = (),
        outages: Outages | None = None,
        highlights: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.outages = outages
        self.highlights = tuple(highlights)
        self.keys = list(keys)
        self.tokens = list(tokens)
        self.refresh_tokens = list(refresh_tokens)
        self._locks = tuple(locks)

    def __repr__(self) -> str:
        return f"Account({self.name!r})"

    @property
    def locks(self) -> Sequence[Lock]:
        """The locks. The sequence is replaced, never changed in place, because the server's thread reads it."""
        return self._locks

    @property
    def bridges(self) -> list[Bridge]:
        """The bridges of the locks, without duplicates."""
        return list(dict.fromkeys(lock.bridge for lock in self._locks if lock.bridge is not None))

    def has_outage(self, t: float) -> bool:
        """Return True if the API does not respond to the account at `t` Unix seconds."""
        return self.outages is not None and self.outages.active(t)

    def lock(self, id_or_name: int | str) -> Lock:
        """Return the lock with that id or name. Raises KeyError if there is none."""
        for lock in self._locks:
            if id_or_name in (lock.id, lock.name):
                return lock
        raise KeyError(id_or_name)

    def add(self, lock: Lock) -> None:
        """Add a lock to the account."""
        self._locks = (*self._locks, lock)

    def remove(self, lock_id: int) -> Lock:
        """Remove a lock from the account and return it. Raises KeyError if there is none with that id."""
        removed = self.lock(lock_id)
        self._locks = tuple(lock for lock in self._locks if lock is not removed)
        return removed
