"""The resources of an account: the states of its locks from Tedee's sync endpoint, and the other resources."""

from collections.abc import Mapping, Sequence
from math import inf

from exporter.clock import Clock
from exporter.state.responses import CachedResponse
from exporter.tedee.client import TedeeClient
from exporter.tedee.endpoint import SYNC
from exporter.tedee.errors import CallError, NotFound
from exporter.tedee.models import SyncedLock, read_sync

from .devices import DeviceDetails, DoorSensors, connections
from .event_log import EventLog
from .events import LockEvents
from .resource import Resource, ResourceOptions
from .snapshot import NO_CONNECTIONS, Connections, LastKnownState, Lock
from .state_changes import StateChanges


class LockStates(Resource):
    """The selected locks in the last successful sync."""

    endpoint = SYNC
    title = "sync"

    def __init__(
        self,
        details: DeviceDetails,
        door_sensors: DoorSensors,
        events: LockEvents,
        state_changes: StateChanges,
        options: ResourceOptions,
    ) -> None:
        """Create the resource without a response.

        Args:
            details: Resolves the lock filter to ids, and has the names of the locks.
            door_sensors: The door sensors of the locks.
            events: Counts the events of the locks.
            state_changes: Counts the state changes in the responses.
            options: Options of the account.
        """
        self.max_age = options.stale_after
        self._lock_filter = options.lock_filter
        self._details = details
        self._door_sensors = door_sensors
        self._events = events
        self._connections: tuple[object, object, Mapping[int, Connections]] = (None, None, {})
        """Devices of each lock, and the two mappings of devices from which they were determined."""
        self._state_changes = state_changes
        self._synced: tuple[SyncedLock, ...] = ()
        self._received_at = 0.0
        """Time of the last response in monotonic seconds."""
        self._last_known: dict[int, LastKnownState] = {}
        """Last known states of locks that are not connected."""
        self._requested_ids: tuple[int, ...] = ()
        """The ids that the locks were requested by; empty for all locks."""
        self.changed = 0
        """Number of locks whose rows in the last sync were new or had changed."""

    def time_until_due(self, now: float) -> float:  # noqa: ARG002
        """Return 0.0: the rate limit alone determines the interval."""
        return 0.0

    def prerequisite(self) -> Resource | None:
        """Return the lock details if they must resolve serial numbers to ids first."""
        return self._details if self._details.is_unresolved() else None

    def fetch(self, client: TedeeClient, now: float) -> CachedResponse:
        """Make a sync."""
        ids = self._details.ids
        try:
            parsed = client.sync(ids)
        except CallError as error:
            self._details.sync_failed(has_unknown_id=bool(ids) and isinstance(error, NotFound))
            raise
        self._update(tuple(parsed.rows.values()), ids, now)
        return CachedResponse(parsed.raw_rows, requested_ids=ids)

    def restore(self, response: CachedResponse, received_at: float) -> bool:
        """Use a stored sync, unless it lacks a selected lock."""
        if response.rows is None or not self._details.is_covered_by(response.requested_ids):
            return False
        self._update(self._details.select(read_sync(response.rows).rows.values()), response.requested_ids, received_at)
        if response.failure:
            self._details.sync_failed(has_unknown_id=False)
        return True

    def configure(self, options: ResourceOptions) -> bool:
        """Select other locks of the last response, if it has all of them. The lock details are configured before."""
        self.max_age = options.stale_after
        if options.lock_filter == self._lock_filter:
            return True
        self._lock_filter = options.lock_filter
        is_covered = self._details.is_covered_by(self._requested_ids)
        self._synced = self._details.synced = self._details.select(self._synced) if is_covered else ()
        if not is_covered:
            self._requested_ids = ()
            self._details.sync_failed(has_unknown_id=False)
        return is_covered

    @property
    def missing(self) -> Sequence[str]:
        """Selected locks that the account does not have, by id or serial number as configured."""
        return self._details.missing

    @property
    def count(self) -> int:
        """Number of the selected locks in the last sync."""
        return len(self._synced)

    def locks(self) -> tuple[Lock, ...]:
        """Return the locks, with their details, devices, state changes and events."""
        details, changes, connected = self._details.locks, self._state_changes.counts, self._connected_devices()
        return tuple(
            Lock(
                synced,
                details.get(synced.id),
                changes.get(synced.id),
                connected.get(synced.id, NO_CONNECTIONS),
                self._events.counts(synced.id),
                self._last_known.get(synced.id),
            )
            for synced in self._synced
        )

    def _connected_devices(self) -> Mapping[int, Connections]:
        fetched = self._details.fetched, self._door_sensors.fetched
        details, door_sensors, known = self._connections
        if details is not fetched[0] or door_sensors is not fetched[1]:
            known = connections(*fetched)
            self._connections = (*fetched, known)
        return known

    def _update(self, synced: tuple[SyncedLock, ...], requested_ids: tuple[int, ...], received_at: float) -> None:
        known = {each.id: each for each in self._synced}
        self.changed = sum(known.get(each.id) != each for each in synced)
        self._last_known = self._last_known_states(synced)
        self._synced, self._requested_ids, self._received_at = synced, requested_ids, received_at
        self._state_changes.update(synced)
        self._details.sync_succeeded(synced)
        self._events.sync_succeeded(synced)

    def _last_known_states(self, synced: tuple[SyncedLock, ...]) -> dict[int, LastKnownState]:
        """Return the last known states of the locks in a response that are not connected."""
        offline = {lock.id for lock in synced if lock.is_connected is False}
        known = {lock_id: state for lock_id, state in self._last_known.items() if lock_id in offline}
        if offline and self._received_at > -inf:
            known |= {
                lock.id: LastKnownState(lock.device_state, self._received_at)
                for lock in self._synced
                if lock.device_state and lock.id in offline
            }
        return known


def create_resources(
    options: ResourceOptions, state_changes: StateChanges, event_logs: dict[int, EventLog], clock: Clock
) -> tuple[LockStates, *tuple[Resource, ...]]:
    """Return the resources of an account, the sync first. Each is restored and configured before those before it."""
    details, events = DeviceDetails(options), LockEvents(event_logs, options, clock)
    door_sensors = DoorSensors(details, options)
    return LockStates(details, door_sensors, events, state_changes, options), details, door_sensors, events
