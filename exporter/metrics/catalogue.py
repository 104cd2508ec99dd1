"""All metrics of the exporter: name, type, help, labels, and the function that returns the value.

python -m exporter.metrics.catalogue    # the table in docs/metrics.md
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from exporter.sync.snapshot import AccountStatus, Durations, Lock
from exporter.tedee.models import DeviceState, DoorState, LockModel, LockState, StateChangeResult

LOCK_LABELS = ("account", "lock_id", "lock_name")
ACCOUNT_LABELS = ("account",)

Value = float | None
"""A value of None is absent."""
Subject = TypeVar("Subject")


@dataclass(frozen=True)
class ExporterStatus:
    """Status of the exporter itself."""

    version: str
    python_version: str
    reload_succeeded: bool
    """True if the last load of the configuration succeeded."""
    reload_succeeded_at: float
    """Time of the last successful load in Unix seconds."""
    state_store_usable: bool | None
    """None if there is no store."""
    log_lines_dropped: int


@dataclass(frozen=True, eq=False)
class Metric(Generic[Subject]):
    """A metric family, with the name of its samples in the Prometheus text format.

    The samples of a histogram have the suffixes `_bucket`, `_sum` and `_count`.
    """

    SUBJECT_LABELS: ClassVar[tuple[str, ...]] = ()
    """Labels that identify a subject: a lock, an account, or the exporter."""

    name: str
    type: Literal["gauge", "counter", "histogram", "info"]
    help: str
    value: Callable[[Subject], Value | Mapping[Any, Any] | Durations]
    """Returns the value for a subject: a number; or, with own labels, a number for each tuple of their values. For an
    info it returns the values of the own labels by name, for a histogram Durations."""
    own_labels: tuple[str, ...] = ()
    """Labels in addition to those of the subject."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Return all labels."""
        return (*self.SUBJECT_LABELS, *self.own_labels)


AnyMetric = Metric[Any]


class LockMetric(Metric[Lock]):
    """A metric of a lock. A lock has at most one sample in it."""

    SUBJECT_LABELS = LOCK_LABELS


class AccountMetric(Metric[AccountStatus]):
    """A metric of an account."""

    SUBJECT_LABELS = ACCOUNT_LABELS


class ExporterMetric(Metric[ExporterStatus]):
    """A metric of the exporter itself."""


def _state(read: Callable[[DeviceState], Value]) -> Callable[[Lock], Value]:
    """Return a function of a lock that reads its state; None if Tedee did not report a state."""
    return lambda lock: read(lock.synced.device_state) if lock.synced.device_state else None


def _lock_info(lock: Lock) -> Mapping[str, str]:
    details = lock.details
    if not details:
        return {}
    values = {
        "serial_number": details.serial_number,
        "model": None if details.type is None else LockModel.describe(details.type),
        "firmware_version": details.firmware_version,
        "bridge_id": details.connected_to_id,
        "time_zone": details.time_zone,
        "organization_id": details.organization_id,
    }
    return {label: "" if value is None else str(value) for label, value in values.items()}


# A code that is not in these mappings does not show which of the two is true, and the sample is absent.
_IS_LOCKED: Mapping[int | None, bool] = {
    LockState.LOCKED: True,
    LockState.UNLOCKED: False,
    LockState.SEMI_LOCKED: False,
    LockState.UNLOCKING: False,
    LockState.LOCKING: False,
    LockState.PULLED: False,
    LockState.PULLING: False,
    LockState.UNPULLING: False,
}
_IS_OPEN: Mapping[int | None, bool] = {DoorState.OPENED: True, DoorState.CLOSED: False}
_IS_JAMMED: Mapping[int | None, bool] = {StateChangeResult.JAMMED: True, StateChangeResult.SUCCESS: False}

LOCK_STATE = LockMetric(
    "lock_state",
    "gauge",
    f"State of the lock: {LockState.legend()}. Other numbers are codes unknown to this version of the exporter. "
    "Absent while the lock is not connected.",
    _state(lambda state: state.state),
)
LOCK_DOOR_STATE = LockMetric(
    "lock_door_state",
    "gauge",
    f"State of the door as reported by its sensor: {DoorState.legend()}.",
    _state(lambda state: state.door_state),
)
LOCK_BATTERY_LEVEL = LockMetric(
    "lock_battery_level",
    "gauge",
    "Charge of the battery in percent, 0 to 100.",
    _state(lambda state: state.battery_level),
)
LOCK_CONNECTED = LockMetric(
    "lock_connected",
    "gauge",
    "1 if the lock is connected to its bridge, otherwise 0. Absent if the lock is not paired with a bridge.",
    lambda lock: lock.synced.is_connected,
)
LOCK_LAST_STATE_CHANGE = LockMetric(
    "lock_last_state_change_timestamp",
    "gauge",
    "Unix time of the last state change.",
    _state(lambda state: state.last_state_changed_date),
)
LOCK_CHARGING = LockMetric(
    "lock_charging",
    "gauge",
    "1 if the battery is charging, otherwise 0.",
    _state(lambda state: state.is_charging),
)
LOCK_STATE_CHANGE_RESULT = LockMetric(
    "lock_state_change_result",
    "gauge",
    f"Result of the last state change: {StateChangeResult.legend()}, other numbers: error.",
    _state(lambda state: state.state_change_result),
)
LOCK_LOCKED = LockMetric(
    "lock_locked",
    "gauge",
    "1 if the lock is locked, 0 if it is unlocked, semi locked or pulled, or its bolt is moving. Absent in all other "
    "states, since they do not show whether the lock is locked.",
    _state(lambda state: _IS_LOCKED.get(state.state)),
)
LOCK_DOOR_OPEN = LockMetric(
    "lock_door_open",
    "gauge",
    "1 if the door is open, 0 if it is closed. Absent if the door sensor is not paired, disconnected or uncalibrated.",
    _state(lambda state: _IS_OPEN.get(state.door_state)),
)
LOCK_JAMMED = LockMetric(
    "lock_jammed",
    "gauge",
    "1 if the last state change jammed, 0 if it succeeded. Absent if it failed with another error.",
    _state(lambda state: _IS_JAMMED.get(state.state_change_result)),
)
LOCK_STATE_CHANGES = LockMetric(
    "lock_state_changes_total",
    "counter",
    "State changes of the lock since the start of the exporter. A sync in which the time of the last change is later "
    "than in the sync before counts as one.",
    lambda lock: lock.state_changes,
)
LOCK_REVISION = LockMetric(
    "lock_revision",
    "gauge",
    "Revision of the lock's configuration. It changes when a setting or the name changes.",
    lambda lock: lock.synced.revision,
)
LOCK_INFO = LockMetric(
    "lock_info",
    "info",
    "Properties of the lock as labels. The value is 1. A label is empty if Tedee did not report it.",
    _lock_info,
    ("serial_number", "model", "firmware_version", "bridge_id", "time_zone", "organization_id"),
)
LOCK_FIRMWARE_UPDATE_AVAILABLE = LockMetric(
    "lock_firmware_update_available",
    "gauge",
    "1 if Tedee offers an update of the lock's firmware, otherwise 0.",
    lambda lock: lock.details.firmware_update_available if lock.details else None,
)
UP = AccountMetric(
    "tedee_up",
    "gauge",
    "1 if the account's last sync succeeded and its data is not stale, otherwise 0.",
    lambda status: False if status.is_stale else status.up,
)
LOCK_COUNT = AccountMetric(
    "tedee_locks",
    "gauge",
    "Number of locks in the account's last successful sync.",
    lambda status: len(status.snapshot.locks) if status.snapshot and not status.is_stale else None,
)
LAST_SYNC = AccountMetric(
    "tedee_last_sync_timestamp_seconds",
    "gauge",
    "Unix time of the account's last successful sync.",
    lambda status: status.snapshot.at if status.snapshot else None,
)
NEXT_SYNC = AccountMetric(
    "tedee_next_sync_timestamp_seconds",
    "gauge",
    "Unix time at which the account's next sync is due.",
    lambda status: status.next_sync,
)
SYNC_DURATION = AccountMetric(
    "tedee_sync_duration_seconds",
    "histogram",
    "Duration of a sync, from the request to the response or failure.",
    lambda status: status.durations,
)
SYNC_FAILURES = AccountMetric(
    "tedee_sync_failures_total",
    "counter",
    "Failed syncs, by reason.",
    lambda status: {(reason,): count for reason, count in status.failures.items()},
    ("reason",),
)
SYNC_FAILING = AccountMetric(
    "tedee_sync_failing",
    "gauge",
    "1 if the account's last sync failed, with the reason as a label. Absent if it succeeded.",
    lambda status: {(status.failure.reason,): 1} if status.failure else {},
    ("reason",),
)
API_REQUESTS = AccountMetric(
    "tedee_api_requests_total",
    "counter",
    "Requests sent to Tedee, by endpoint and HTTP status code, or failure reason if no response was received.",
    lambda status: status.requests,
    ("endpoint", "code"),
)
API_REQUESTS_REMAINING = AccountMetric(
    "tedee_api_requests_remaining",
    "gauge",
    "Requests left in this exporter's hourly share of Tedee's limit.",
    lambda status: status.requests_remaining,
)
REJECTED_VALUES = AccountMetric(
    "tedee_rejected_values_total",
    "counter",
    "Values in Tedee's responses that could not be used, by field.",
    lambda status: {(field,): count for field, count in status.rejection_counts.items()},
    ("field",),
)
API_VERSION_SUPPORTED = AccountMetric(
    "tedee_api_version_supported",
    "gauge",
    "1 if Tedee lists the API version in use as supported, otherwise 0.",
    lambda status: {(status.api_version,): status.version_supported},
    ("version",),
)
CREDENTIALS_EXPIRY = AccountMetric(
    "tedee_credentials_expiry_timestamp_seconds",
    "gauge",
    "Unix time at which the account's access token or, with OAuth, its refresh token expires. Absent for personal "
    "keys.",
    lambda status: status.credentials_expire_at,
)
REFRESH_TOKEN_STORED = AccountMetric(
    "tedee_refresh_token_stored",
    "gauge",
    "1 if the account's OAuth refresh token is stored in its file, 0 if it is in memory only and a restart would lose "
    "it. Absent without OAuth.",
    lambda status: status.refresh_token_stored,
)
BUILD_INFO = ExporterMetric(
    "tedee_exporter_build_info",
    "info",
    "The exporter's version. The value is 1.",
    lambda status: {"version": status.version, "python_version": status.python_version},
    ("version", "python_version"),
)
CONFIG_RELOAD_SUCCESSFUL = ExporterMetric(
    "tedee_exporter_config_last_reload_successful",
    "gauge",
    "1 if the last load of the configuration succeeded, otherwise 0.",
    lambda status: status.reload_succeeded,
)
CONFIG_RELOAD_SUCCESS_TIMESTAMP = ExporterMetric(
    "tedee_exporter_config_last_reload_success_timestamp_seconds",
    "gauge",
    "Unix time of the last successful load of the configuration.",
    lambda status: status.reload_succeeded_at,
)
STATE_FILE_USABLE = ExporterMetric(
    "tedee_exporter_state_file_usable",
    "gauge",
    "1 if calls to Tedee are recorded in the state file, 0 if that fails and a restart would lose them.",
    lambda status: status.state_store_usable,
)
LOG_LINES_DROPPED = ExporterMetric(
    "tedee_exporter_log_lines_dropped_total",
    "counter",
    "Log lines that were dropped because standard error was blocked.",
    lambda status: status.log_lines_dropped,
)

CATALOGUE: tuple[AnyMetric, ...] = tuple(each for each in [*globals().values()] if isinstance(each, Metric))
"""All metrics, in the order of the exposition."""
LOCK_METRICS = tuple(each for each in CATALOGUE if isinstance(each, LockMetric))
ACCOUNT_METRICS = tuple(each for each in CATALOGUE if isinstance(each, AccountMetric))
EXPORTER_METRICS = tuple(each for each in CATALOGUE if isinstance(each, ExporterMetric))


def markdown() -> str:
    """Return the catalogue as the table in docs/metrics.md."""
    rows = [
        f"| `{metric.name}` | {metric.type} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in CATALOGUE
    ]
    return "\n".join(["| metric | type | labels | description |", "|---|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
