"""The world behind the simulated cloud: accounts, their locks, and the time of day."""

import time
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from .account import Account, Credential, PersonalKey
from .bridge import Bridge
from .demo_locks import hotel, house
from .lock import LOCK_GO, LOCK_PRO, Lock, serial
from .usage_profile import BUSY, FAMILY, GUEST, OPEN_BY_DAY, SELDOM, STAFF

AnyCredential = TypeVar("AnyCredential", bound=Credential)

LOCKS_OF_A_BRIDGE = 10
ORDINARY_RHYTHMS = (FAMILY, GUEST, SELDOM, OPEN_BY_DAY, STAFF)


class World:
    """Accounts and a wall clock in Unix seconds, by which all their locks live."""

    def __init__(self, accounts: Sequence[Account], clock: Callable[[], float] = time.time) -> None:
        self.accounts = list(accounts)
        self.clock = clock

    @classmethod
    def demo(cls, seed: int = 1, clock: Callable[[], float] = time.time) -> Self:
        """A family's house ("home") and a small hotel ("hotel"); keys `simulated-key-home`, `simulated-key-hotel`."""
        return cls([house(seed), hotel(seed)], clock)

    @classmethod
    def of_size(cls, accounts: int, locks: int, seed: int = 1, clock: Callable[[], float] = time.time) -> Self:
        """Accounts "account-0001", … with keys `key-account-0001`, …, and `locks` locks each; for load tests."""
        return cls([_crowd(number, locks, seed) for number in range(1, accounts + 1)], clock)

    def now(self) -> float:
        """The world's time, in Unix seconds."""
        return self.clock()

    def account(self, name: str) -> Account:
        """The account of that name. Raises KeyError if there is none."""
        for account in self.accounts:
            if account.name == name:
                return account
        raise KeyError(name)

    def find(
        self, value: str, kept: Callable[[Account], Sequence[AnyCredential]]
    ) -> tuple[Account, AnyCredential] | None:
        """The credential of that value among those `kept` by an account, and whose it is, valid or not."""
        return next(
            (
                (account, credential)
                for account in self.accounts
                for credential in kept(account)
                if credential.value == value
            ),
            None,
        )


def _crowd(number: int, locks: int, seed: int) -> Account:
    name = f"account-{number:04}"
    first = number * 1_000_000
    bridges = [
        Bridge(first + index, f"Bridge {index + 1}", serial(first + 500_000 + index))
        for index in range(-(-locks // LOCKS_OF_A_BRIDGE))
    ]
    return Account(
        name,
        (
            Lock(
                first + index,
                f"Lock {index + 1}",
                seed=seed,
                # The first lock of an account never rests, that something is always seen to happen.
                rhythm=ORDINARY_RHYTHMS[index % len(ORDINARY_RHYTHMS)] if index else BUSY,
                bridge=bridges[index // LOCKS_OF_A_BRIDGE],
                device_type=LOCK_GO if index % 4 == 3 else LOCK_PRO,  # noqa: PLR2004 - every fourth
            )
            for index in range(locks)
        ),
        keys=[PersonalKey(f"key-{name}")],
    )
