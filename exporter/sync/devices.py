"""The devices of an account: names and other details of the locks, bridges, keypads, door sensors, gates."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf

import structlog
from msgspec import MsgspecError

from exporter.state.responses import CachedResponse
from exporter.tedee.client import TedeeClient
from exporter.tedee.devices import (
    Accessory,
    AnyDevice,
    Bridge,
    Devices,
    DoorSensor,
    Keypad,
    LockDetails,
    restore_devices,
)
from exporter.tedee.endpoint import DEVICES, DOOR_SENSORS
from exporter.tedee.errors import NotFound
from exporter.tedee.models import SyncedLock

from .resource import Resource, ResourceOptions
from .snapshot import NO_CONNECTIONS, Connections

log = structlog.get_logger(__name__)

STALE_INTERVALS = 3
"""Fetch intervals after which devices are no longer served. The names of locks are kept: they are in all labels."""


class _IntervalResource(Resource):
    """A resource that is fetched once in an interval."""

    def __init__(self, options: ResourceOptions) -> None:
        self._interval = options.devices_interval
        self._next_at = -inf
        """Monotonic seconds."""
        self.fetched: Devices = {}
        """All devices in the last response."""

    @property
    def devices_max_age(self) -> float:
        """Return STALE_INTERVALS as seconds."""
        return STALE_INTERVALS * self._interval

    def time_until_due(self, now: float) -> float:
        """Return the seconds until the end of the interval."""
        return max(0.0, self._next_at - now)

    def restore(self, response: CachedResponse, received_at: float) -> bool:
        """Use the devices of a stored response."""
        try:
            devices = restore_devices(response.rows or ())
        except MsgspecError:
            # Another version of the exporter stored them.
            return False
        self._update(devices, received_at)
        return True

    def configure(self, options: ResourceOptions) -> bool:
        """Use another interval."""
        self._next_at += options.devices_interval - self._interval
        self._interval = options.devices_interval
        return True

    def expire(self) -> None:
        """Make a fetch due."""
        self._next_at = -inf

    def _update(self, devices: Devices, now: float) -> None:
        self.fetched = devices
        self._next_at = now + self._interval


class DeviceDetails(_IntervalResource):
    """All devices in the last response of `my/device/details`. It resolves the lock filter to ids.

    A new lock, and another revision of a lock, as after a change of its name, end the interval.
    """

    endpoint = DEVICES
    title = "fetch of devices"

    def __init__(self, options: ResourceOptions) -> None:
        super().__init__(options)
        self.lock_filter = options.lock_filter
        self.locks: Mapping[int, LockDetails] = {}
        """Details of the locks by id."""
        self.ids = self.lock_filter.ids
        """Ids of the locks to sync; empty for all locks."""
        self.missing: tuple[str, ...] = ()
        """Ids and serial numbers of selected locks that the account does not have."""
        self._revisions: Mapping[int, int | None] | None = None
        """Revisions of the locks in the last sync before the fetch; None before the first fetch. If a lock is renamed
        during the fetch, the next sync reports another one."""
        self.synced: Collection[SyncedLock] = ()
        """The selected locks of the last successful sync."""
        self.sync_succeeds = False
        """True if the last sync succeeded."""
        self._ids_may_be_outdated = False
        """True if Tedee does not know one of the ids, until the next fetch."""
        self._devices: tuple[AnyDevice, ...] = ()

    def sync_succeeded(self, synced: Collection[SyncedLock]) -> None:
        """Record the locks of a sync. New locks and other revisions make a fetch due."""
        self.synced, self.sync_succeeds, self._ids_may_be_outdated = synced, True, False

    def sync_failed(self, *, has_unknown_id: bool) -> None:
        """Record that the last sync failed. A fetch is not due until the next one succeeds.

        Args:
            has_unknown_id: True if Tedee does not know one of the ids. Then a fetch is due.
        """
        self.sync_succeeds, self._ids_may_be_outdated = False, has_unknown_id

    def time_until_due(self, now: float) -> float:
        """Return the seconds until the next fetch; infinity while syncs fail."""
        if self._ids_may_be_outdated:
            return 0.0
        if not self.sync_succeeds:
            return inf
        return 0.0 if self._has_changes() else super().time_until_due(now)

    def fetch(self, client: TedeeClient, now: float) -> CachedResponse:
        """Fetch all devices.

        Raises:
            CallError: The call failed.
            NotFound: The account has none of the selected locks, so there is nothing to sync.
        """
        revisions = {lock.id: lock.revision for lock in self.synced}
        parsed = client.devices()
        known_missing = self.missing
        self._revisions = revisions
        self._update(parsed.rows, now)
        missing = ", ".join(self.missing)
        if self.is_unresolved():
            problem = f"the account has none of the selected locks: {missing}"
            raise NotFound(problem, account=client.account, endpoint=self.endpoint.path)
        if missing and self.missing != known_missing:
            log.warning("selected locks are not in the account", account=client.account, missing=missing)
        return CachedResponse(parsed.raw_rows, revisions=revisions)

    def restore(self, response: CachedResponse, received_at: float) -> bool:
        """Use the devices of a stored response."""
        self._revisions = response.revisions
        return super().restore(response, received_at)

    def configure(self, options: ResourceOptions) -> bool:
        """Select other locks."""
        if options.lock_filter != self.lock_filter:
            self.lock_filter = options.lock_filter
            self.ids, self.missing = self.lock_filter.ids, ()
            if self.lock_filter and self._revisions is not None:
                self.ids, self.missing = self.lock_filter.resolve(self.locks.values())
            self._devices = self.select_devices(self.fetched.values())
        return super().configure(options)

    def devices(self) -> Sequence[AnyDevice]:
        """Return the devices other than locks."""
        return self._devices

    def is_unresolved(self) -> bool:
        """Return True if no id to sync is known: nothing was fetched yet, or no selected lock is in the account."""
        return bool(self.lock_filter) and not self.ids

    def is_covered_by(self, requested_ids: Collection[int]) -> bool:
        """Return True if a response for these ids, or for all locks if there are none, has all selected locks."""
        return not self.is_unresolved() and (
            not requested_ids or (bool(self.lock_filter) and {*self.ids} <= {*requested_ids})
        )

    def select(self, rows: Iterable[SyncedLock]) -> tuple[SyncedLock, ...]:
        """Return the selected locks of a response."""
        return tuple(row for row in rows if not self.lock_filter or row.id in self.ids)

    def select_devices(self, devices: Iterable[AnyDevice]) -> tuple[AnyDevice, ...]:
        """Return the devices other than locks: if locks are selected, only bridges and accessories of these."""
        if not self.lock_filter:
            return tuple(each for each in devices if not isinstance(each, LockDetails))
        bridges = {self.locks[lock_id].connected_to_id for lock_id in self.ids if lock_id in self.locks}
        return tuple(
            each
            for each in devices
            if (isinstance(each, Bridge) and each.id in bridges)
            or (isinstance(each, Accessory) and each.connected_to_lock_id in self.ids)
        )

    def _update(self, devices: Devices, now: float) -> None:
        super()._update(devices, now)
        locks = {each.id: each for each in devices.values() if isinstance(each, LockDetails)}
        # The names of a lock are in all of its labels: they stay if a response lacks a lock that syncs still report.
        synced = {lock.id for lock in self.synced}
        self.locks = {each.id: each for each in self.locks.values() if each.id in synced} | locks
        self._ids_may_be_outdated = False
        if self.lock_filter:
            self.ids, self.missing = self.lock_filter.resolve(self.locks.values())
        self._devices = self.select_devices(devices.values())

    def _has_changes(self) -> bool:
        """Return True if a synced lock is new or has another revision."""
        revisions = self._revisions
        # A lock that was fetched before its first sync counts as new: it may have been renamed between the two.
        return revisions is None or any(
            lock.id not in revisions or (lock.revision is not None and lock.revision != revisions[lock.id])
            for lock in self.synced
        )


class DoorSensors(_IntervalResource):
    """The door sensors, which the details of the devices lack."""

    endpoint = DOOR_SENSORS
    title = "fetch of door sensors"

    def __init__(self, details: DeviceDetails, options: ResourceOptions) -> None:
        super().__init__(options)
        self._details = details

    def time_until_due(self, now: float) -> float:
        """Return the seconds until the next fetch; infinity while syncs fail."""
        return super().time_until_due(now) if self._details.sync_succeeds else inf

    def fetch(self, client: TedeeClient, now: float) -> CachedResponse:
        """Fetch all door sensors."""
        parsed = client.door_sensors()
        self._update(parsed.rows, now)
        return CachedResponse(parsed.raw_rows)

    def devices(self) -> Sequence[AnyDevice]:
        """Return the door sensors."""
        return self._details.select_devices(self.fetched.values())


def connections(details: Devices, door_sensors: Devices) -> Mapping[int, Connections]:
    """Return the devices of each lock that has some, by the id of the lock.

    Args:
        details: All devices in the details.
        door_sensors: All door sensors.
    """
    bridges = {each.id: each.label for each in details.values() if isinstance(each, Bridge)}
    keypads: dict[int | None, list[int]] = {}
    sensors: dict[int | None, list[int]] = {}
    for each in {**details, **door_sensors}.values():
        if isinstance(each, Keypad):
            keypads.setdefault(each.connected_to_lock_id, []).append(each.id)
        elif isinstance(each, DoorSensor):
            sensors.setdefault(each.connected_to_lock_id, []).append(each.id)
    found = {}
    for lock in details.values():
        if isinstance(lock, LockDetails):
            of_lock = Connections(
                bridges.get(lock.connected_to_id) if lock.connected_to_id is not None else None,
                tuple(sorted(keypads.get(lock.id, ()))),
                tuple(sorted(sensors.get(lock.id, ()))),
            )
            if of_lock != NO_CONNECTIONS:
                found[lock.id] = of_lock
    return found
