"""A simulated lock: what it is, how it lives, and what a test makes it say."""

import zlib
from collections.abc import Mapping
from enum import Enum
from typing import Final

from .battery import Battery
from .bridge import Bridge
from .usage_profile import FAMILY, HOUR, LockTimeline, Moment, UsageProfile

LOCK_PRO: Final = 2
LOCK_GO: Final = 4

DAY: Final = 24 * HOUR


class Missing(Enum):
    """The type of `MISSING`."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
"""As an override's value: leave that field out of the answer."""


class Lock:
    """One lock of an account.

    Its condition at any time is a pure function of (seed, serial number, time); `override` lays fixed values over it.
    A lock without a `bridge` was never paired with one. `id` may be set anew: a lock that is removed and added
    again keeps its serial number alone.
    """

    def __init__(
        self,
        lock_id: int,
        name: str,
        serial_number: str | None = None,
        *,
        seed: int = 1,
        rhythm: UsageProfile = FAMILY,
        battery: Battery | None = None,
        bridge: Bridge | None = None,
        device_type: int = LOCK_PRO,
        time_zone: str | None = "Europe/Warsaw",
        organization_id: int | None = None,
        access_level: int = 2,
        has_door_sensor: bool = True,
        created: str = "2020-01-01T00:00:00",
        software: str = "2.4.22125",
    ) -> None:
        self.id = lock_id
        self.name = name
        self.serial_number = serial_number or serial(lock_id)
        self.revision = 1
        self.bridge = bridge
        self.device_type = device_type
        self.time_zone = time_zone
        self.organization_id = organization_id
        self.access_level = access_level
        self.created = created
        self.software = software
        key = zlib.crc32(f"{seed}/{self.serial_number}".encode())
        self.battery = battery or usual_battery(key)
        self._life = LockTimeline(key, rhythm, time_zone, has_door_sensor=has_door_sensor)
        self._overrides: Mapping[str, object] = {}

    def __repr__(self) -> str:
        return f"Lock({self.id}, {self.name!r})"

    def at(self, t: float) -> Moment:
        """The condition of bolt and door at `t` Unix seconds, overrides apart."""
        return self._life.at(t)

    def connected(self, t: float) -> bool | None:
        """Whether it is connected to its bridge at `t`; None if it was never paired with one."""
        return None if self.bridge is None else self.bridge.connected(t)

    @property
    def overrides(self) -> Mapping[str, object]:
        """The wire fields a test has fixed. Never changed in place: the server reads it from its own thread."""
        return self._overrides

    def override(self, **fields: object) -> None:
        """Fix fields of the answers, by their wire names, to any JSON value or `MISSING`.

        Fields of the state (`batteryLevel`, `doorState`, …) go into the state object, which then is there even if
        the lock is not connected; `deviceState` replaces that object, under whatever name the version gives it.
        """
        self._overrides = {**self._overrides, **fields}

    def clear_overrides(self) -> None:
        """Let the lock speak for itself again."""
        self._overrides = {}

    def rename(self, name: str) -> None:
        """Change the name as its owner would in the app: the configuration's revision moves."""
        self.name = name
        self.revision += 1


def serial(number: int) -> str:
    """A serial number of the usual look, `111111-11111`; different for different numbers below 8,000,000,000."""
    return f"{111_111 + number // 90_000:06}-{10_000 + number % 90_000:05}"


def usual_battery(key: int) -> Battery:
    """A battery that lasts 4 to 12 weeks and charges in 3 to 6 hours, somewhere in its cycle."""
    drain = (28 + key % 57) * DAY
    charge = (3 + key // 57 % 4) * HOUR
    return Battery(drain, charge, low=5 + key % 20, phase=key * 7919 % (drain + charge))
