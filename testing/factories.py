"""Factories of locks, snapshots, statuses and registries."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporter.sync.snapshot import AccountStatus, Durations, Lock, Snapshot, StatusRegistry
from exporter.sync.state_changes import StateChanges
from exporter.tedee.errors import REASONS
from exporter.tedee.models import DeviceState, SyncedLock, read_details, read_sync

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


def locks_of(rows: list[dict[str, Any]], details: list[dict[str, Any]]) -> tuple[Lock, ...]:
    """Return the locks of response rows."""
    details_by_id = read_details(json_rows(details)).rows
    rows_by_id, changes = read_sync(json_rows(rows)).rows, StateChanges()
    changes.update([*rows_by_id.values()])
    return tuple(Lock(row, details_by_id.get(row.id), changes.counts.get(row.id)) for row in rows_by_id.values())


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
        "requests": {("my/lock/sync", "200"): 1, ("my/lock", "200"): 2},
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
