"""A simulated lock: its properties, its state at any time, and overrides for tests."""

import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from enum import Enum
from typing import Final

from .battery import Battery
from .bridge import Bridge
from .usage_profile import (
    DONE,
    DOOR_NOT_PAIRED,
    FAMILY,
    HOUR,
    UNCALIBRATED,
    LockState,
    LockTimeline,
    UsageProfile,
    zone,
)

LOCK_PRO: Final = 2
LOCK_GO: Final = 4

DAY: Final = 24 * HOUR


class Missing(Enum):
    """The type of `MISSING`."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
"""The value of an override that removes the field from the response."""


class Lock:
    """One lock of an account.

    Its state at any time is a pure function of (seed, serial number, time); `override` replaces fields of it. A lock
    without a `bridge` was never paired with one; a lock that is not `in_range` of it is never connected. A lock without
    a `profile` was never calibrated and is not used. The hours of the profile are those of `usage_zone`, by default of
    `time_zone`. `id` may be changed: Tedee assigns a new id to a lock that is removed and added again; only the serial
    number remains the same.
    """

    def __init__(
        self,
        lock_id: int,
        name: str,
        serial_number: str | None = None,
        *,
        seed: int = 1,
        profile: UsageProfile | None = FAMILY,
        battery: Battery | None = None,
        bridge: Bridge | None = None,
        in_range: bool = True,
        device_type: int = LOCK_PRO,
        time_zone: str | None = "Europe/Warsaw",
        usage_zone: tzinfo | None = None,
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
        self.in_range = in_range
        self.device_type = device_type
        self.time_zone = time_zone
        self.organization_id = organization_id
        self.access_level = access_level
        self.created = created
        self.software = software
        key = zlib.crc32(f"{seed}/{self.serial_number}".encode())
        self.battery = battery or default_battery(key)
        self._timeline = (
            LockTimeline(key, profile, usage_zone or zone(time_zone), has_door_sensor=has_door_sensor)
            if profile
            else None
        )
        self._overrides: Mapping[str, object] = {}

    def __repr__(self) -> str:
        return f"Lock({self.id}, {self.name!r})"

    def at(self, t: float) -> LockState:
        """Return the state of bolt and door at `t` Unix seconds, without overrides."""
        if self._timeline is None:
            created = datetime.fromisoformat(self.created).replace(tzinfo=UTC).timestamp()
            return LockState(created, UNCALIBRATED, DOOR_NOT_PAIRED, DONE, created)
        return self._timeline.at(t)

    def connected(self, t: float) -> bool | None:
        """Return True if the lock is connected to its bridge at `t`; None if it was never paired with one."""
        return None if self.bridge is None else self.in_range and self.bridge.connected(t)

    @property
    def overrides(self) -> Mapping[str, object]:
        """The overridden JSON fields. The mapping is replaced, never changed in place: the server's thread reads it."""
        return self._overrides

    def override(self, **fields: object) -> None:
        """Set fields of the responses, by their JSON names, to any JSON value or `MISSING`.

        Fields of the state (`batteryLevel`, `doorState`, …) are set in the state object, which is then present even if
        the lock is not connected. `deviceState` replaces that object, whatever its name in the version.
        """
        self._overrides = {**self._overrides, **fields}

    def clear_overrides(self) -> None:
        """Remove all overrides."""
        self._overrides = {}

    def rename(self, name: str) -> None:
        """Change the name, as a user does in the app. The lock's revision increases."""
        self.name = name
        self.revision += 1


def serial(number: int) -> str:
    """Return a serial number like `111111-11111`. It is unique for numbers below 8,000,000,000."""
    return f"{111_111 + number // 90_000:06}-{10_000 + number % 90_000:05}"


def default_battery(key: int) -> Battery:
    """Return a battery that lasts 4 to 12 weeks and charges in 3 to 6 hours. Its phase depends on the key."""
    drain = (28 + key % 57) * DAY
    charge = (3 + key // 57 % 4) * HOUR
    return Battery(drain, charge, low=5 + key % 20, phase=key * 7919 % (drain + charge))
