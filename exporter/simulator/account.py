"""User accounts of the simulated cloud: their locks and what opens them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from .bridge import Bridge
from .lock import Lock

READ_SCOPES: Final = frozenset({"Device.Read", "Device.ReadWrite"})

# OAuth scopes are written as addresses; a personal key's are not.
SCOPE_PREFIX: Final = "https://tedee.onmicrosoft.com/api/"


@dataclass
class Credential:
    """Something that names an account: its value, what it may do, and until when (Unix seconds; None: for ever)."""

    value: str = field(repr=False)
    scopes: Sequence[str] = ("Device.Read",)
    expires_at: float | None = None
    revoked: bool = False

    def valid(self, now: float) -> bool:
        """Whether it is accepted at `now` Unix seconds."""
        return not self.revoked and (self.expires_at is None or now < self.expires_at)

    def may_read(self) -> bool:
        """Whether its scopes suffice to read devices."""
        return any(scope.removeprefix(SCOPE_PREFIX) in READ_SCOPES for scope in self.scopes)


class PersonalKey(Credential):
    """Sent as `Authorization: PersonalKey <value>`."""


class Token(Credential):
    """An OAuth access token, sent as `Authorization: Bearer <value>`."""


class RefreshToken(Credential):
    """An OAuth refresh token: good once, for a new access token and its own successor."""


class Account:
    """A user's account. The lists of credentials may be changed at any time; locks by `add` and `remove`."""

    def __init__(
        self,
        name: str,
        locks: Iterable[Lock] = (),
        *,
        keys: Iterable[PersonalKey] = (),
        tokens: Iterable[Token] = (),
        refresh_tokens: Iterable[RefreshToken] = (),
    ) -> None:
        self.name = name
        self.keys = list(keys)
        self.tokens = list(tokens)
        self.refresh_tokens = list(refresh_tokens)
        self._locks = tuple(locks)

    def __repr__(self) -> str:
        return f"Account({self.name!r})"

    @property
    def locks(self) -> Sequence[Lock]:
        """Its locks. Replaced, never changed in place: the server reads it from its own thread."""
        return self._locks

    @property
    def bridges(self) -> list[Bridge]:
        """The bridges of its locks, each once."""
        return list(dict.fromkeys(lock.bridge for lock in self._locks if lock.bridge is not None))

    def lock(self, which: int | str) -> Lock:
        """The lock of that id or name. Raises KeyError if the account has none."""
        for lock in self._locks:
            if which in (lock.id, lock.name):
                return lock
        raise KeyError(which)

    def add(self, lock: Lock) -> None:
        """Give the account one more lock."""
        self._locks = (*self._locks, lock)

    def remove(self, lock_id: int) -> Lock:
        """Take a lock out of the account, and return it. Raises KeyError if the account has none of that id."""
        removed = self.lock(lock_id)
        self._locks = tuple(lock for lock in self._locks if lock is not removed)
        return removed
