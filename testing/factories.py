"""Factories of locks, snapshots, statuses and registries."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporter.sync.devices import connections
from exporter.sync.snapshot import (
    NO_CONNECTIONS,
    AccountStatus,
    Durations,
    Lock,
    ResourceStatus,
    Snapshot,
    StatusRegistry,
)
from exporter.sync.state_changes import StateChanges
from exporter.tedee.devices import AnyDevice, LockDetails, read_devices
from exporter.tedee.endpoint import DEVICES, DOOR_SENSORS
from exporter.tedee.errors import REASONS
from exporter.tedee.models import DeviceState, SyncedLock, read_sync

from .clock import FakeClock

FIXTURES = Path(__file__).parent / "fixtures"
"""Responses of Tedee's documentation. Those of devices other than locks have its format and invented values."""


def load_fixture(name: str) -> Any:
    """Return a response of Tedee's documentation."""
    return json.loads((FIXTURES / name).read_text("utf-8"))


def json_rows(values: Sequence[Any]) -> list[bytes]:
    """Return the rows of a response as JSON texts."""
    return [json.dumps(value).encode() for value in values]


def documented_locks() -> tuple[Lock, ...]:
    """Return the locks of the responses in Tedee's documentation."""
    return locks_of(load_fixture("sync-v37.json")["result"], load_fixture("locks-v37.json")["result"])


def locks_of(
    rows: list[dict[str, Any]], details: list[dict[str, Any]], **others: list[dict[str, Any]]
) -> tuple[Lock, ...]:
    """Return the locks of response rows.

    Args:
        rows: Rows of a sync.
        details: Rows of the list `locks` in the details of the devices.
        others: Rows of the other lists, such as `bridges`.
    """
    lists = {name: json_rows(each) for name, each in {"locks": details, **others}.items()}
    devices = read_devices(lists).rows
    details_by_id = {each.id: each for each in devices.values() if isinstance(each, LockDetails)}
    connected = connections(devices, {})
    rows_by_id, changes = read_sync(json_rows(rows)).rows, StateChanges()
    changes.update([*rows_by_id.values()])
    return tuple(
        Lock(row, details_by_id.get(row.id), changes.counts.get(row.id), connected.get(row.id, NO_CONNECTIONS))
        for row in rows_by_id.values()
    )


def documented_devices() -> dict[str, tuple[AnyDevice, ...]]:
    """Return the devices other than locks in the responses of Tedee's documentation, by the path of the endpoint."""
    responses = {DEVICES: "device-details.json", DOOR_SENSORS: "doorsensor.json"}
    found: dict[str, tuple[AnyDevice, ...]] = {}
    for endpoint, name in responses.items():
        result = load_fixture(name)["result"]
        lists = {key: json_rows(rows) for key, rows in result.items() if isinstance(rows, list)}
        devices = read_devices(lists).rows.values()
        found[endpoint.path] = tuple(each for each in devices if not isinstance(each, LockDetails))
    return found


def device_statuses(clock: FakeClock, stale_after: float = 1_800.0) -> tuple[ResourceStatus, ...]:
    """Return the statuses of documented devices that were fetched just now. They are stale after that many seconds."""
    return tuple(
        ResourceStatus(
            "fetch of devices", endpoint, clock.wall(), devices=devices, fresh_until=clock.monotonic() + stale_after
        )
        for endpoint, devices in documented_devices().items()
    )


def lock_with_state(lock_id: int = 1, **fields: Any) -> Lock:
    """Return a connected lock whose state has only these fields."""
    return Lock(SyncedLock(lock_id, True, DeviceState(**fields)))


def snapshot(clock: FakeClock, locks: tuple[Lock, ...], stale_after: float = 300.0) -> Snapshot:
    """Return a snapshot of a sync that has just succeeded. It is stale after that many seconds."""
    return Snapshot(locks, clock.wall(), clock.monotonic() + stale_after)


def status(
    clock: FakeClock, locks: tuple[Lock, ...] | None = None, account: str = "home", **changes: Any
) -> AccountStatus:
    """Return the status of an account whose sync has just succeeded."""
    fields: dict[str, Any] = {
        "up": True,
        "snapshot": snapshot(clock, documented_locks() if locks is None else locks),
        "next_sync": clock.wall() + 20,
        "requests_remaining": 347,
        "version_supported": True,
        "credentials_expire_at": 1_800_086_400.0,
        "refresh_token_stored": True,
        "durations": Durations().observe(0.3),
        "failures": dict.fromkeys(REASONS, 0),
        "requests": {("my/lock/sync", "200"): 1, ("my/device/details", "200"): 2},
        "rejection_counts": {"battery_level": 2},
    }
    return AccountStatus(account, "v37", **(fields | changes))


def registry(*statuses: AccountStatus) -> StatusRegistry:
    """Return a status registry with the accounts of these statuses."""
    created = StatusRegistry()
    created.set_accounts([each.account for each in statuses])
    for each in statuses:
        created.publish(each)
    return created
