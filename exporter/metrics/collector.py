"""Converts snapshots to prometheus_client's metric families."""

import platform
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from exporter.sync.snapshot import AccountStatus, Lock
from exporter.tedee.models import LockModel

from . import catalogue
from .catalogue import ACCOUNT_METRICS, EXPORTER_METRICS, LOCK_METRICS, Metric

_FAMILIES: dict[str, type[GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily | InfoMetricFamily]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
    "info": InfoMetricFamily,
}


def family(metric: Metric) -> Family:
    """Return an empty family of the metric. prometheus_client takes the name of an info metric without `_info`."""
    name = metric.name.removesuffix("_info") if metric.type == "info" else metric.name
    return _FAMILIES[metric.type](name, metric.help)


class FamilyBuilder:
    """Builds metric families sample by sample. A value of None adds no sample."""

    def __init__(self, metrics: Iterable[Metric], **labels: str) -> None:
        self.labels = labels
        """Labels of the samples that are added next, in addition to their own."""
        self._families = {metric: family(metric) for metric in metrics}

    def add(self, metric: Metric, value: float | None, suffix: str = "", **labels: str) -> None:
        """Add a sample with these labels, in addition to those of the builder."""
        if value is not None:
            self._families[metric].add_sample(metric.name + suffix, {**self.labels, **labels}, float(value))

    def families(self) -> Iterator[Family]:
        """Return the families that have samples."""
        return (family for family in self._families.values() if family.samples)


def lock_families(locks: Iterable[tuple[str, Lock]]) -> Iterator[Family]:
    """Return the families of locks, each given with the name of its account. A lock has at most one sample in each."""
    builder = FamilyBuilder(LOCK_METRICS)
    for account, lock in locks:
        builder.labels = {"account": account, "lock_id": str(lock.id), "lock_name": lock.name}
        _add_lock(builder, lock)
    return builder.families()


def _add_lock(builder: FamilyBuilder, lock: Lock) -> None:
    builder.add(catalogue.LOCK_CONNECTED, lock.synced.is_connected)
    builder.add(catalogue.LOCK_REVISION, lock.synced.revision)
    if state := lock.synced.device_state:
        builder.add(catalogue.LOCK_STATE, state.state)
        builder.add(catalogue.LOCK_DOOR_STATE, state.door_state)
        builder.add(catalogue.LOCK_BATTERY_LEVEL, state.battery_level)
        builder.add(catalogue.LOCK_LAST_STATE_CHANGE, state.last_state_changed_date)
        builder.add(catalogue.LOCK_CHARGING, state.is_charging)
        builder.add(catalogue.LOCK_STATE_CHANGE_RESULT, state.state_change_result)
    if details := lock.details:
        builder.add(catalogue.LOCK_FIRMWARE_UPDATE_AVAILABLE, details.firmware_update_available)
        builder.add(
            catalogue.LOCK_INFO,
            1,
            serial_number=_label_value(details.serial_number),
            model="" if details.type is None else LockModel.describe(details.type),
            firmware_version=_label_value(details.firmware_version),
            bridge_id=_label_value(details.connected_to_id),
            time_zone=_label_value(details.time_zone),
            organization_id=_label_value(details.organization_id),
        )


def account_families(status: AccountStatus, *, fresh: bool) -> Iterator[Family]:
    """Return the families of one account, without those of its locks.

    Args:
        status: The newest status of the account.
        fresh: Whether its snapshot is not stale.
    """
    builder = FamilyBuilder(ACCOUNT_METRICS, account=status.account)
    # A stale snapshot means that no sync has succeeded for `sync.stale_after`, even if the last one did.
    builder.add(catalogue.UP, status.up if fresh or not status.snapshot else False)
    if status.snapshot:
        builder.add(catalogue.LOCK_COUNT, len(status.snapshot.locks) if fresh else None)
        builder.add(catalogue.LAST_SYNC, status.snapshot.at)
    builder.add(catalogue.NEXT_SYNC, status.next_sync)
    for bound, count in status.durations.cumulative():
        builder.add(catalogue.SYNC_DURATION, count, "_bucket", le=floatToGoString(bound))  # type: ignore[no-untyped-call]
    builder.add(catalogue.SYNC_DURATION, sum(status.durations.counts), "_count")
    builder.add(catalogue.SYNC_DURATION, status.durations.total, "_sum")
    for reason, count in status.failures.items():
        builder.add(catalogue.SYNC_FAILURES, count, reason=reason)
    if status.failure:
        builder.add(catalogue.SYNC_FAILING, 1, reason=status.failure.reason)
    for (endpoint, code), count in status.requests.items():
        builder.add(catalogue.API_REQUESTS, count, endpoint=endpoint, code=code)
    builder.add(catalogue.API_REQUESTS_REMAINING, status.requests_remaining)
    for field, count in status.rejection_counts.items():
        builder.add(catalogue.REJECTED_VALUES, count, field=field)
    builder.add(catalogue.API_VERSION_SUPPORTED, status.version_supported, version=status.api_version)
    builder.add(catalogue.CREDENTIALS_EXPIRY, status.credentials_expire_at)
    builder.add(catalogue.REFRESH_TOKEN_STORED, status.refresh_token_stored)
    return builder.families()


class ExporterCollector(Collector):
    """Collector of the exporter's own metrics."""

    def __init__(
        self,
        version: str,
        reloaded: Callable[[], tuple[bool, float]],
        state_usable: Callable[[], bool | None],
        log_lines_dropped: Callable[[], int] = int,
    ) -> None:
        """Create a collector.

        Args:
            version: Version of the exporter.
            reloaded: Returns whether the last load of the configuration succeeded, and the time of the last successful
                one (Unix seconds).
            state_usable: Returns whether the state file can be used; None if there is none.
            log_lines_dropped: Returns the number of log lines that were not written.
        """
        self._version = version
        self._reloaded = reloaded
        self._state_usable = state_usable
        self._log_lines_dropped = log_lines_dropped

    def collect(self) -> Iterator[Family]:
        """Return the families with current values."""
        successful, at = self._reloaded()
        builder = FamilyBuilder(EXPORTER_METRICS)
        builder.add(catalogue.BUILD_INFO, 1, version=self._version, python_version=platform.python_version())
        builder.add(catalogue.CONFIG_RELOAD_SUCCESSFUL, successful)
        builder.add(catalogue.CONFIG_RELOAD_SUCCESS_TIMESTAMP, at)
        builder.add(catalogue.STATE_FILE_USABLE, self._state_usable())
        builder.add(catalogue.LOG_LINES_DROPPED, self._log_lines_dropped())
        return builder.families()


def _label_value(value: str | int | None) -> str:
    return "" if value is None else str(value)
