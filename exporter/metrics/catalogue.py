"""All metrics of the exporter, with name, type, help and labels. The table in docs/metrics.md is generated from them.

python -m exporter.metrics.catalogue    # the table, in Markdown
"""

from dataclasses import dataclass
from typing import Literal

from exporter.tedee.models import DoorState, LockState

LOCK_LABELS = ("account", "lock_id", "lock_name")
ACCOUNT_LABELS = ("account",)


@dataclass(frozen=True)
class Metric:
    """A metric family, with the name of its samples in the Prometheus text format.

    The samples of a histogram have the suffixes `_bucket`, `_sum` and `_count`.
    """

    name: str
    type: Literal["gauge", "counter", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()


LOCK_STATE = Metric(
    "lock_state",
    "gauge",
    f"State of the lock: {LockState.legend()}. Other numbers are codes unknown to this version of the exporter. "
    "Absent while the lock is not connected.",
    LOCK_LABELS,
)
LOCK_DOOR_STATE = Metric(
    "lock_door_state", "gauge", f"State of the door as reported by its sensor: {DoorState.legend()}.", LOCK_LABELS
)
LOCK_BATTERY_LEVEL = Metric("lock_battery_level", "gauge", "Charge of the battery in percent, 0 to 100.", LOCK_LABELS)
LOCK_CONNECTED = Metric(
    "lock_connected",
    "gauge",
    "1 if the lock is connected to its bridge, otherwise 0. Absent if the lock is not paired with a bridge.",
    LOCK_LABELS,
)
LOCK_LAST_STATE_CHANGE = Metric(
    "lock_last_state_change_timestamp", "gauge", "Unix time of the last state change.", LOCK_LABELS
)
LOCK_CHARGING = Metric("lock_charging", "gauge", "1 if the battery is charging, otherwise 0.", LOCK_LABELS)
LOCK_STATE_CHANGE_RESULT = Metric(
    "lock_state_change_result",
    "gauge",
    "Result of the last state change: 0 success, 1 jammed, other numbers: error.",
    LOCK_LABELS,
)
LOCK_REVISION = Metric(
    "lock_revision",
    "gauge",
    "Revision of the lock's configuration. It changes when a setting or the name changes.",
    LOCK_LABELS,
)
LOCK_INFO = Metric(
    "lock_info",
    "info",
    "Properties of the lock as labels. The value is 1. A label is empty if Tedee did not report it.",
    (*LOCK_LABELS, "serial_number", "model", "firmware_version", "bridge_id", "time_zone", "organization_id"),
)
LOCK_FIRMWARE_UPDATE_AVAILABLE = Metric(
    "lock_firmware_update_available",
    "gauge",
    "1 if Tedee offers an update of the lock's firmware, otherwise 0.",
    LOCK_LABELS,
)

UP = Metric(
    "tedee_up",
    "gauge",
    "1 if the account's last sync succeeded and its data is not stale, otherwise 0.",
    ACCOUNT_LABELS,
)
LOCK_COUNT = Metric("tedee_locks", "gauge", "Number of locks in the account's last successful sync.", ACCOUNT_LABELS)
LAST_SYNC = Metric(
    "tedee_last_sync_timestamp_seconds", "gauge", "Unix time of the account's last successful sync.", ACCOUNT_LABELS
)
NEXT_SYNC = Metric(
    "tedee_next_sync_timestamp_seconds", "gauge", "Unix time at which the account's next sync is due.", ACCOUNT_LABELS
)
SYNC_DURATION = Metric(
    "tedee_sync_duration_seconds",
    "histogram",
    "Duration of a sync, from the request to the response or failure.",
    ACCOUNT_LABELS,
)
SYNC_FAILURES = Metric("tedee_sync_failures_total", "counter", "Failed syncs, by reason.", ("account", "reason"))
SYNC_FAILING = Metric(
    "tedee_sync_failing",
    "gauge",
    "1 if the account's last sync failed, with the reason as a label. Absent if it succeeded.",
    ("account", "reason"),
)
API_REQUESTS = Metric(
    "tedee_api_requests_total",
    "counter",
    "Requests sent to Tedee, by endpoint and HTTP status code, or failure reason if no response was received.",
    ("account", "endpoint", "code"),
)
API_REQUESTS_REMAINING = Metric(
    "tedee_api_requests_remaining",
    "gauge",
    "Requests left in this exporter's hourly share of Tedee's limit.",
    ACCOUNT_LABELS,
)
REJECTED_VALUES = Metric(
    "tedee_rejected_values_total",
    "counter",
    "Values in Tedee's responses that could not be used, by field.",
    ("account", "field"),
)
API_VERSION_SUPPORTED = Metric(
    "tedee_api_version_supported",
    "gauge",
    "1 if Tedee lists the API version in use as supported, otherwise 0.",
    ("account", "version"),
)
CREDENTIALS_EXPIRY = Metric(
    "tedee_credentials_expiry_timestamp_seconds",
    "gauge",
    "Unix time at which the account's access token or, with OAuth, its refresh token expires. Absent for personal "
    "keys.",
    ACCOUNT_LABELS,
)
REFRESH_TOKEN_STORED = Metric(
    "tedee_refresh_token_stored",
    "gauge",
    "1 if the account's OAuth refresh token is stored in its file, 0 if it is in memory only and a restart would lose "
    "it. Absent without OAuth.",
    ACCOUNT_LABELS,
)

BUILD_INFO = Metric(
    "tedee_exporter_build_info", "info", "The exporter's version. The value is 1.", ("version", "python_version")
)
CONFIG_RELOAD_SUCCESSFUL = Metric(
    "tedee_exporter_config_last_reload_successful",
    "gauge",
    "1 if the last load of the configuration succeeded, otherwise 0.",
)
CONFIG_RELOAD_SUCCESS_TIMESTAMP = Metric(
    "tedee_exporter_config_last_reload_success_timestamp_seconds",
    "gauge",
    "Unix time of the last successful load of the configuration.",
)
STATE_FILE_USABLE = Metric(
    "tedee_exporter_state_file_usable",
    "gauge",
    "1 if calls to Tedee are recorded in the state file, 0 if that fails and a restart would lose them.",
)

LOG_LINES_DROPPED = Metric(
    "tedee_exporter_log_lines_dropped_total",
    "counter",
    "Log lines that were dropped because standard error was blocked.",
)

LOCK_METRICS = (
    LOCK_STATE,
    LOCK_DOOR_STATE,
    LOCK_BATTERY_LEVEL,
    LOCK_CONNECTED,
    LOCK_LAST_STATE_CHANGE,
    LOCK_CHARGING,
    LOCK_STATE_CHANGE_RESULT,
    LOCK_REVISION,
    LOCK_INFO,
    LOCK_FIRMWARE_UPDATE_AVAILABLE,
)
ACCOUNT_METRICS = (
    UP,
    LOCK_COUNT,
    LAST_SYNC,
    NEXT_SYNC,
    SYNC_DURATION,
    SYNC_FAILURES,
    SYNC_FAILING,
    API_REQUESTS,
    API_REQUESTS_REMAINING,
    REJECTED_VALUES,
    API_VERSION_SUPPORTED,
    CREDENTIALS_EXPIRY,
    REFRESH_TOKEN_STORED,
)
EXPORTER_METRICS = (
    BUILD_INFO,
    CONFIG_RELOAD_SUCCESSFUL,
    CONFIG_RELOAD_SUCCESS_TIMESTAMP,
    STATE_FILE_USABLE,
    LOG_LINES_DROPPED,
)
CATALOGUE = LOCK_METRICS + ACCOUNT_METRICS + EXPORTER_METRICS


def markdown() -> str:
    """Return the catalogue as the table in docs/metrics.md."""
    rows = [
        f"| `{metric.name}` | {metric.type} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in CATALOGUE
    ]
    return "\n".join(["| metric | type | labels | description |", "|---|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
