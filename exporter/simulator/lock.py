"""A simulated lock: its properties, its state at any time, and overrides for tests."""

import zlib
from collections.abc import Sequence
from datetime import tzinfo
from typing import Final

from .accessories import Accessory
from .battery import Battery
from .bridge import Bridge
from .device import LOCK_PRO, Device, Firmware
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

DAY: Final = 24 * HOUR


class Lock(Device):
    """One lock of an account.

    Its state at any time is a pure function of (seed, serial number, time); `override` replaces fields of it. A lock
    without a `bridge` was never paired with one; a lock that is not `in_range` of it is never connected. A lock without
    a `profile` was never calibrated and is not used. The hours of the profile are those of `usage_zone`, by default of
    `time_zone`. Keypads and door sensors that are paired with it are its `accessories`.
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
        accessories: Sequence[Accessory] = (),
    ) -> None:
        super().__init__(
            lock_id,
            name,
            serial_number,
            device_type=device_type,
            created=created,
            time_zone=time_zone,
            organization_id=organization_id,
            access_level=access_level,
        )
        self.software = software
        self.bridge = bridge
        self.in_range = in_range
        self._accessories: tuple[Accessory, ...] = ()
        for accessory in accessories:
            self.pair(accessory)
        key = zlib.crc32(f"{seed}/{self.serial_number}".encode())
        self.battery = battery or default_battery(key)
        self._timeline = (
            LockTimeline(key, profile, usage_zone or zone(time_zone), has_door_sensor=has_door_sensor)
            if profile
            else None
        )

    @property
    def firmware(self) -> Sequence[Firmware]:
        """The firmware version `software`, if it is not empty. Every fifth lock has an update."""
        return [Firmware(self.software, update_available=self.id % 5 == 0)] if self.software else []

    @property
    def accessories(self) -> Sequence[Accessory]:
        """The paired accessories. The sequence is replaced, never changed in place."""
        return self._accessories

    def pair(self, accessory: Accessory) -> None:
        """Add an accessory to the lock."""
        accessory.lock = self
        self._accessories = (*self._accessories, accessory)

    def unpair(self, accessory: Accessory) -> None:
        """Remove an accessory from the lock."""
        accessory.lock = None
        self._accessories = tuple(each for each in self._accessories if each is not accessory)

    def at(self, t: float) -> LockState:
        """Return the state of bolt and door at `t` Unix seconds, without overrides."""
        if self._timeline is None:
            created_at = self.created_at
            return LockState(created_at, UNCALIBRATED, DOOR_NOT_PAIRED, DONE, created_at)
        return self._timeline.at(t)

    def connected(self, t: float) -> bool | None:
        """Return True if the lock is connected to its bridge at `t`; None if it was never paired with one."""
        return None if self.bridge is None else self.in_range and self.bridge.connected(t)


def default_battery(key: int) -> Battery:
    """Return a battery that lasts 4 to 12 weeks and charges in 3 to 6 hours. Its phase depends on the key."""
    drain = (28 + key % 57) * DAY
    charge = (3 + key // 57 % 4) * HOUR
    return Battery(drain, charge, low=5 + key % 20, phase=key * 7919 % (drain + charge))
