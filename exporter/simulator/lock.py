"""A simulated lock: its properties, its state at any time, and overrides for tests."""

import math
import zlib
from collections.abc import Container, Sequence
from datetime import tzinfo
from typing import Final

from .accessories import Accessory, Keypad
from .activity import FIRST_SCRIPTED_ID, KEYPAD_NUMBERS, Activity, Event, User
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

PHONE_INTERVAL: Final = HOUR
"""Seconds between two visits of a phone, which collects the events of a lock that has no connection to a bridge."""

RECONNECTION: Final = 5.0
"""Seconds after the end of a bridge's outage at which its locks deliver their events."""


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
        self.has_door_sensor = has_door_sensor
        self._key = key = zlib.crc32(f"{seed}/{self.serial_number}".encode())
        self.battery = battery or default_battery(key)
        self._timeline = (
            LockTimeline(key, profile, usage_zone or zone(time_zone), has_door_sensor=has_door_sensor)
            if profile
            else None
        )
        self._scripted: tuple[Event, ...] = ()
        self._next_id = FIRST_SCRIPTED_ID + key * 1000

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

    @property
    def keypads(self) -> list[Keypad]:
        """The keypads among the accessories."""
        return [accessory for accessory in self._accessories if isinstance(accessory, Keypad)]

    def events_between(self, start: float, end: float, numbers: Container[int] | None = None) -> list[Event]:
        """Return the events with dates in [start, end) in the order of dates, delivered or not.

        With `numbers`, only those events. They are a pure function of the same values as the states, of the paired
        keypads, and of scripted events.
        """
        events = self._activity.between(start, end, self.keypads, numbers)
        scripted = [
            event
            for event in self._scripted
            if start <= event.date < end and (numbers is None or event.number in numbers)
        ]
        return sorted([*events, *scripted], key=lambda event: event.date) if scripted else events

    def delivered_at(self, event: Event) -> float:
        """Return the time at which an event reaches the cloud, in Unix seconds.

        Events of a bridge's outage arrive together at its end. Those of a lock that is never connected are collected by
        a phone.
        """
        if event.delivered_at is not None:
            return event.delivered_at
        if self.bridge is None or not self.in_range:
            offset = self._key % PHONE_INTERVAL
            return (math.floor((event.date - offset) / PHONE_INTERVAL) + 1) * PHONE_INTERVAL + offset
        if self.bridge.outages is not None and self.bridge.outages.active(event.date):
            return self.bridge.outages.end(event.date) + RECONNECTION
        return event.date + event.delay

    def delivered_events(self, now: float, before: float | None = None, limit: int = 200) -> list[Event]:
        """Return the newest events that the cloud has at `now`, the newest first: those older than `before`."""
        found: list[Event] = []
        end, length, created_at = now if before is None else min(before, now), HOUR, self.created_at
        while len(found) < limit and end > created_at:
            start = max(end - length, created_at)
            events = self.events_between(start, end)
            found += [event for event in reversed(events) if self.delivered_at(event) <= now]
            end, length = start, 2 * length
        return found[:limit]

    def last_keypad_use(self, t: float, *, not_before: float) -> float | None:
        """Return the time of the last use of a keypad that the cloud knows at `t`. Returns None if there is none."""
        end, length = t, HOUR
        while end > not_before:
            start = max(end - length, not_before)
            for event in reversed(self.events_between(start, end, KEYPAD_NUMBERS)):
                if self.delivered_at(event) <= t:
                    return event.date
            end, length = start, 2 * length
        return None

    def first_keypad_use(self, t: float, last: float) -> float:
        """Return the time of the first use of a keypad from `t` on, at the latest the one at `last`."""
        start, length = t, HOUR
        while start < last:
            found = self.events_between(start, min(start + length, last), KEYPAD_NUMBERS)
            if found:
                return found[0].date
            start, length = start + length, 2 * length
        return last

    def add_event(
        self,
        number: int,
        date: float,
        *,
        delivered_at: float | None = None,
        user: User | None = None,
        pin_alias: str | None = None,
    ) -> Event:
        """Add an event to those of the usage, and return it. Times are Unix seconds.

        Without `delivered_at`, it is delivered as the others. The states of the lock do not change.
        """
        event = Event(self._next_id, round(date, 3), number, delivered_at, user, pin_alias)
        self._next_id += 1
        self._scripted = (*self._scripted, event)
        return event

    def clear_events(self) -> None:
        """Remove all events that were added."""
        self._scripted = ()

    @property
    def _activity(self) -> Activity:
        return Activity(self._key, self._timeline, self.battery, self.created_at)


def default_battery(key: int) -> Battery:
    """Return a battery that lasts 4 to 12 weeks and charges in 3 to 6 hours. Its phase depends on the key."""
    drain = (28 + key % 57) * DAY
    charge = (3 + key // 57 % 4) * HOUR
    return Battery(drain, charge, low=5 + key % 20, phase=key * 7919 % (drain + charge))
