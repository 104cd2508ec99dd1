"""Snapshots to prometheus_client's metric families."""

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
    """An empty family of the metric. prometheus_client takes an info's name without its `_info`."""
    name = metric.name.removesuffix("_info") if metric.type == "info" else metric.name
    return _FAMILIES[metric.type](name, metric.help)


class FamilyBuilder:
    """Samples under way to their families. What is None is not said: it makes no sample."""

    def __init__(self, metrics: Iterable[Metric], **labels: str) -> None:
        self.labels = labels
        """Of all samples that are added from now on, beside their own."""
        self._families = {metric: family(metric) for metric in metrics}

    def add(self, metric: Metric, value: float | None, suffix: str = "", **labels: str) -> None:
        """Add a sample, with these labels beside the sheet's."""
        if value is not None:
            self._families[metric].add_sample(metric.name + suffix, {**self.labels, **labels}, float(value))

    def families(self) -> Iterator[Family]:
        """The families that have samples."""
        return (family for family in self._families.values() if family.samples)


def lock_families(locks: Iterable[tuple[str, Lock]]) -> Iterator[Family]:
    """The families of locks, each with the name of its account; a lock has one sample in each, or none."""
    sheet = FamilyBuilder(LOCK_METRICS)
    for account, lock in locks:
        sheet.labels = {"account": account, "lock_id": str(lock.id), "lock_name": lock.name}
        _add_lock(sheet, lock)
    return sheet.families()


def _add_lock(sheet: FamilyBuilder, lock: Lock) -> None:
    sheet.add(catalogue.LOCK_CONNECTED, lock.synced.is_connected)
    sheet.add(catalogue.LOCK_REVISION, lock.synced.revision)
    if state := lock.synced.device_state:
        sheet.add(catalogue.LOCK_STATE, state.state)
        sheet.add(catalogue.LOCK_DOOR_STATE, state.door_state)
        sheet.add(catalogue.LOCK_BATTERY_LEVEL, state.battery_level)
        sheet.add(catalogue.LOCK_LAST_STATE_CHANGE, state.last_state_changed_date)
        sheet.add(catalogue.LOCK_CHARGING, state.is_charging)
        sheet.add(catalogue.LOCK_STATE_CHANGE_RESULT, state.state_change_result)
    if details := lock.details:
        sheet.add(catalogue.LOCK_FIRMWARE_UPDATE_AVAILABLE, details.firmware_update_available)
        sheet.add(
            catalogue.LOCK_INFO,
            1,
            serial_number=_text(details.serial_number),
            model="" if details.type is None else LockModel.describe(details.type),
            firmware_version=_text(details.firmware_version),
            bridge_id=_text(details.connected_to_id),
            time_zone=_text(details.time_zone),
            organization_id=_text(details.organization_id),
        )


def account_families(status: AccountStatus, *, fresh: bool) -> Iterator[Family]:
    """The families of one account, those of its locks aside.

    Args:
        status: the account's newest.
        fresh: whether its snapshot is young enough to be served.
    """
    sheet = FamilyBuilder(ACCOUNT_METRICS, account=status.account)
    # Without a result for that long nobody knows whether a sync would succeed; none has, in any case.
    sheet.add(catalogue.UP, status.up if fresh or not status.snapshot else False)
    if status.snapshot:
        sheet.add(catalogue.LOCKS, len(status.snapshot.locks) if fresh else None)
        sheet.add(catalogue.LAST_SYNC, status.snapshot.at)
    sheet.add(catalogue.NEXT_SYNC, status.next_sync)
    for bound, count in status.durations.cumulative():
        sheet.add(catalogue.SYNC_DURATION, count, "_bucket", le=floatToGoString(bound))  # type: ignore[no-untyped-call]
    sheet.add(catalogue.SYNC_DURATION, sum(status.durations.counts), "_count")
    sheet.add(catalogue.SYNC_DURATION, status.durations.total, "_sum")
    for reason, count in status.failures.items():
        sheet.add(catalogue.SYNC_FAILURES, count, reason=reason)
    if status.failure:
        sheet.add(catalogue.SYNC_FAILING, 1, reason=status.failure.reason)
    for (endpoint, code), count in status.requests.items():
        sheet.add(catalogue.API_REQUESTS, count, endpoint=endpoint, code=code)
    sheet.add(catalogue.API_REQUESTS_REMAINING, status.requests_remaining)
    for field, count in status.rejections.items():
        sheet.add(catalogue.REJECTED_VALUES, count, field=field)
    sheet.add(catalogue.API_VERSION_SUPPORTED, status.version_supported, version=status.api_version)
    sheet.add(catalogue.CREDENTIALS_EXPIRY, status.credentials_expire_at)
    sheet.add(catalogue.REFRESH_TOKEN_STORED, status.refresh_token_stored)
    return sheet.families()


class ExporterCollector(Collector):
    """What the exporter says of itself."""

    def __init__(
        self,
        version: str,
        reloaded: Callable[[], tuple[bool, float]],
        state_usable: Callable[[], bool | None],
        log_lines_dropped: Callable[[], int] = int,
    ) -> None:
        """Collect for a version.

        Args:
            version: of the exporter.
            reloaded: whether the configuration was last loaded successfully, and when it last was (Unix seconds).
            state_usable: whether the state file can be used; None where there is none.
            log_lines_dropped: number of log lines that were not written.
        """
        self._version = version
        self._reloaded = reloaded
        self._state_usable = state_usable
        self._log_lines_dropped = log_lines_dropped

    def collect(self) -> Iterator[Family]:
        """The families, made anew."""
        successful, at = self._reloaded()
        sheet = FamilyBuilder(EXPORTER_METRICS)
        sheet.add(catalogue.BUILD_INFO, 1, version=self._version, python_version=platform.python_version())
        sheet.add(catalogue.CONFIG_RELOAD_SUCCESSFUL, successful)
        sheet.add(catalogue.CONFIG_RELOAD_SUCCESS_TIMESTAMP, at)
        sheet.add(catalogue.STATE_FILE_USABLE, self._state_usable())
        sheet.add(catalogue.LOG_LINES_DROPPED, self._log_lines_dropped())
        return sheet.families()


def _text(value: str | int | None) -> str:
    return "" if value is None else str(value)
