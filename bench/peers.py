"""The peers of the exporter: a usual collector for prometheus_client, which creates all families at each scrape.

python -m bench.peers SNAPSHOT PORT    # prometheus_client's own server
SNAPSHOT=… gunicorn "bench.peers:application()"
"""

import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from exporter.metrics import catalogue
from exporter.metrics.catalogue import LOCK_LABELS, Metric
from exporter.sync.snapshot import AccountStatus, Lock
from exporter.tedee.models import DeviceState, LockDetails, LockModel, SyncedLock

GAUGES: dict[Metric, Callable[[SyncedLock, DeviceState, LockDetails | None], float | None]] = {
    catalogue.LOCK_STATE: lambda lock, state, details: state.state,
    catalogue.LOCK_DOOR_STATE: lambda lock, state, details: state.door_state,
    catalogue.LOCK_BATTERY_LEVEL: lambda lock, state, details: state.battery_level,
    catalogue.LOCK_CONNECTED: lambda lock, state, details: lock.is_connected,
    catalogue.LOCK_LAST_STATE_CHANGE: lambda lock, state, details: state.last_state_changed_date,
    catalogue.LOCK_CHARGING: lambda lock, state, details: state.is_charging,
    catalogue.LOCK_STATE_CHANGE_RESULT: lambda lock, state, details: state.state_change_result,
    catalogue.LOCK_REVISION: lambda lock, state, details: lock.revision,
    catalogue.LOCK_FIRMWARE_UPDATE_AVAILABLE: lambda lock, state, details: (
        details.firmware_update_available if details else None
    ),
}
EMPTY_STATE = DeviceState()


class SnapshotCollector(Collector):
    """A custom collector for locks, as in the documentation of prometheus_client."""

    def __init__(self, statuses: Sequence[AccountStatus]) -> None:
        self._statuses = statuses

    def _locks(self) -> Iterator[tuple[list[str], Lock]]:
        for status in self._statuses:
            for lock in status.snapshot.locks if status.snapshot else ():
                yield [status.account, str(lock.id), lock.name], lock

    def collect(self) -> Iterator[Family]:
        """Yield new metric families."""
        for metric, value_of in GAUGES.items():
            gauge = GaugeMetricFamily(metric.name, metric.help, labels=LOCK_LABELS)
            for labels, lock in self._locks():
                if (value := value_of(lock.synced, lock.synced.device_state or EMPTY_STATE, lock.details)) is not None:
                    gauge.add_metric(labels, value)
            yield gauge
        info = InfoMetricFamily("lock", catalogue.LOCK_INFO.help, labels=LOCK_LABELS)
        for labels, lock in self._locks():
            if lock.details:
                info.add_metric(labels, _info_labels(lock.details))
        yield info


def _info_labels(details: LockDetails) -> dict[str, str]:
    facts = {
        "serial_number": details.serial_number,
        "model": None if details.type is None else LockModel.describe(details.type),
        "firmware_version": details.firmware_version,
        "bridge_id": details.connected_to_id,
        "time_zone": details.time_zone,
        "organization_id": details.organization_id,
    }
    return {key: "" if value is None else str(value) for key, value in facts.items()}


def registry(statuses: Sequence[AccountStatus]) -> CollectorRegistry:
    """Return a registry with only the locks of those accounts."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(statuses))
    return registry


def _read(path: str) -> CollectorRegistry:
    statuses: Sequence[AccountStatus] = pickle.loads(Path(path).read_bytes())
    return registry(statuses)


def application() -> Any:
    """Return the WSGI application for `gunicorn "bench.peers:application()"`."""
    return make_wsgi_app(_read(os.environ["SNAPSHOT"]))


if __name__ == "__main__":
    start_http_server(int(sys.argv[2]), "127.0.0.1", _read(sys.argv[1]))
    threading.Event().wait()
