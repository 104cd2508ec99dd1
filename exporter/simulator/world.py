"""The world of the simulated cloud: accounts, their locks, and a clock."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta, timezone
from typing import Self, TypeVar

from .accessories import Accessory, DoorSensor, Keypad
from .account import Account, Credential, PersonalKey
from .bridge import Bridge
from .demo_locks import demo_accounts
from .device import LOCK_GO, LOCK_PRO, serial
from .lock import DAY, Lock
from .usage_profile import BUSY, FAMILY, GUEST, HOUR, OPEN_BY_DAY, SELDOM, STAFF

AnyCredential = TypeVar("AnyCredential", bound=Credential)

# In the afternoon all locks of the demo are in use.
START_HOUR = 14
LOCKS_PER_BRIDGE = 10
DEFAULT_PROFILES = (FAMILY, GUEST, SELDOM, OPEN_BY_DAY, STAFF)


class World:
    """Accounts, and a wall clock in Unix seconds that determines the states of their locks."""

    def __init__(self, accounts: Sequence[Account], clock: Callable[[], float] = time.time) -> None:
        self.accounts = list(accounts)
        self.clock = clock

    @classmethod
    def demo(cls, seed: int = 1, clock: Callable[[], float] = time.time, *, start_hour: float | None = None) -> Self:
        """Return the accounts of the demo (see `demo_accounts`). The key of "home" is `simulated-key-home`, and so on.

        If `start_hour` is given, it is the hour of the day at which people use the locks now, whatever the time is.
        """
        if start_hour is None:
            return cls(demo_accounts(seed), clock)
        # The hour is shifted and nothing else: people live in a time zone in which it is `start_hour` now. All times in
        # responses are real, because the exporter, Prometheus and Grafana compare them with their own clocks.
        offset = int((start_hour * HOUR - clock()) % DAY)
        return cls(demo_accounts(seed, timezone(timedelta(seconds=offset))), clock)

    @classmethod
    def of_size(cls, accounts: int, locks: int, seed: int = 1, clock: Callable[[], float] = time.time) -> Self:
        """Return accounts "account-0001", … with keys `key-account-0001`, … and `locks` locks each, for load tests."""
        return cls([_generated_account(number, locks, seed) for number in range(1, accounts + 1)], clock)

    def now(self) -> float:
        """Return the world's time in Unix seconds."""
        return self.clock()

    def account(self, name: str) -> Account:
        """Return the account with that name. Raises KeyError if there is none."""
        for account in self.accounts:
            if account.name == name:
                return account
        raise KeyError(name)

    def find(
        self, value: str, credentials: Callable[[Account], Sequence[AnyCredential]]
    ) -> tuple[Account, AnyCredential] | None:
        """Return the credential with that value, valid or not, and its account.

        `credentials` returns the credentials of an account to search.
        """
        return next(
            (
                (account, credential)
                for account in self.accounts
                for credential in credentials(account)
                if credential.value == value
            ),
            None,
        )


def _generated_account(number: int, locks: int, seed: int) -> Account:
    name = f"account-{number:04}"
    first = number * 1_000_000
    bridges = [
        Bridge(first + 500_000 + index, f"Bridge {index + 1}", serial(first + 500_000 + index))
        for index in range(-(-locks // LOCKS_PER_BRIDGE))
    ]
    return Account(
        name,
        (
            Lock(
                first + index,
                f"Lock {index + 1}",
                seed=seed,
                # The first lock of each account changes often, so that every account has events.
                profile=DEFAULT_PROFILES[index % len(DEFAULT_PROFILES)] if index else BUSY,
                bridge=bridges[index // LOCKS_PER_BRIDGE],
                accessories=_generated_accessories(first, index),
                device_type=LOCK_GO if index % 4 == 3 else LOCK_PRO,  # noqa: PLR2004 - every fourth lock
            )
            for index in range(locks)
        ),
        keys=[PersonalKey(f"key-{name}")],
    )


def _generated_accessories(first: int, index: int) -> list[Accessory]:
    """Return a keypad for the first lock of each bridge, and a door sensor for every second lock.

    This is enough for load tests. The door states of the other locks are reported without a sensor among the devices.
    """
    accessories: list[Accessory] = []
    if index % LOCKS_PER_BRIDGE == 0:
        accessories.append(
            Keypad(first + 600_000 + index, f"Keypad {index + 1}", pro=index % (2 * LOCKS_PER_BRIDGE) == 0)
        )
    if index % 2 == 0:
        accessories.append(DoorSensor(first + 700_000 + index, f"Door sensor {index + 1}"))
    return accessories
