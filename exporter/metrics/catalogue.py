"""All metrics of the exporter: name, type, help, labels, and the function that returns the value.

python -m exporter.metrics.catalogue    # the table in docs/metrics.md
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from exporter.sync.snapshot import AccountStatus, Durations, Lock
from exporter.tedee.devices import Accessory, Bridge, Device, DoorSensor, DryContact, Gate, Keypad
from exporter.tedee.endpoint import ACTIVITIES
from exporter.tedee.models import DeviceState, DoorState, LockState, StateChangeResult

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
    """A metric of a lock."""

    SUBJECT_LABELS = LOCK_LABELS


@dataclass(frozen=True, eq=False)
class DeviceMetric(Metric[Subject]):
    """A metric of a device other than a lock."""

    KIND: ClassVar[type[Device]]


class BridgeMetric(DeviceMetric[Bridge]):
    """A metric of a bridge."""

    SUBJECT_LABELS = ("account", "bridge_id", "bridge_name")
    KIND = Bridge


class KeypadMetric(DeviceMetric[Keypad]):
    """A metric of a keypad."""

    SUBJECT_LABELS = ("account", "keypad_id", "keypad_name")
    KIND = Keypad


class DoorSensorMetric(DeviceMetric[DoorSensor]):
    """A metric of a door sensor."""

    SUBJECT_LABELS = ("account", "door_sensor_id", "door_sensor_name")
    KIND = DoorSensor


class GateMetric(DeviceMetric[Gate]):
    """A metric of a gate."""

    SUBJECT_LABELS = ("account", "gate_id", "gate_name")
    KIND = Gate


class DryContactMetric(DeviceMetric[DryContact]):
    """A metric of a dry contact."""

    SUBJECT_LABELS = ("account", "dry_contact_id", "dry_contact_name")
    KIND = DryContact


class AccountMetric(Metric[AccountStatus]):
    """A metric of an account."""

    SUBJECT_LABELS = ACCOUNT_LABELS


class ExporterMetric(Metric[ExporterStatus]):
    """A metric of the exporter itself."""


def _state(read: Callable[[DeviceState], Value]) -> Callable[[Lock], Value]:
    """Return a function of a lock that reads its state; None if Tedee did not report a state."""
    return lambda lock: read(lock.synced.device_state) if lock.synced.device_state else None


def _lock_info(lock: Lock) -> Mapping[str, str]:
    details, connections = lock.details, lock.connections
    if not details:
        return {}
    return _texts(
        serial_number=details.serial_number,
        model=details.model,
        firmware_version=details.firmware_version,
        bridge_id=details.connected_to_id,
        bridge_name=connections.bridge_name,
        keypad_id=", ".join(map(str, connections.keypad_ids)),
        door_sensor_id=", ".join(map(str, connections.door_sensor_ids)),
        time_zone=details.time_zone,
        organization_id=details.organization_id,
    )


def _device_info(device: Device) -> Mapping[str, str]:
    return _texts(model=device.model, serial_number=device.serial_number, firmware_version=device.firmware_version)


def _accessory_info(device: Accessory) -> Mapping[str, str]:
    return {**_texts(lock_id=device.connected_to_lock_id), **_device_info(device)}


def _texts(**values: object) -> Mapping[str, str]:
    """Return values as labels, empty if Tedee did not report them."""
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
LOCK_EVENTS = LockMetric(
    "lock_events_total",
    "counter",
    "Events in the activity log of the lock since events were enabled, by what happened and how the lock was operated. "
    "An event that is not documented is shown as code_95. Absent if events are not enabled.",
    lambda lock: lock.events,
    ("event", "source"),
)
LOCK_REVISION = LockMetric(
    "lock_revision",
    "gauge",
    "Revision of the lock's configuration. It changes when a setting or the name changes. Dashboards list locks by it.",
    lambda lock: lock.synced.revision,
)
LOCK_INFO = LockMetric(
    "lock_info",
    "info",
    "Properties of the lock as labels. The value is 1. A label is empty if Tedee did not report it.",
    _lock_info,
    (
        "serial_number",
        "model",
        "firmware_version",
        "bridge_id",
        "bridge_name",
        "keypad_id",
        "door_sensor_id",
        "time_zone",
        "organization_id",
    ),
)
LOCK_FIRMWARE_UPDATE_AVAILABLE = LockMetric(
    "lock_firmware_update_available",
    "gauge",
    "1 if Tedee offers an update of the lock's firmware, otherwise 0.",
    lambda lock: lock.details.firmware_update_available if lock.details else None,
)
BRIDGE_CONNECTED = BridgeMetric(
    "tedee_bridge_connected",
    "gauge",
    "1 if the bridge was connected to Tedee at the last fetch of devices, otherwise 0.",
    lambda bridge: bridge.is_connected,
)
BRIDGE_UPDATING = BridgeMetric(
    "tedee_bridge_updating",
    "gauge",
    "1 during an update of the bridge's firmware, otherwise 0.",
    lambda bridge: bridge.is_updating,
)
BRIDGE_FIRMWARE_UPDATE_AVAILABLE = BridgeMetric(
    "tedee_bridge_firmware_update_available",
    "gauge",
    "1 if Tedee offers an update of the bridge's firmware, otherwise 0.",
    lambda bridge: bridge.firmware_update_available,
)
BRIDGE_INFO = BridgeMetric(
    "tedee_bridge_info",
    "info",
    "Properties of the bridge as labels. The value is 1.",
    lambda bridge: _texts(
        serial_number=bridge.serial_number,
        firmware_version=bridge.firmware_version,
        wifi_firmware_version=bridge.wifi_firmware_version,
    ),
    ("serial_number", "firmware_version", "wifi_firmware_version"),
)
KEYPAD_BATTERY = KeypadMetric(
    "tedee_keypad_battery_percent",
    "gauge",
    "Charge of the keypad's battery in percent. Tedee omits a level that did not change for 30 days.",
    lambda keypad: keypad.battery_level,
)
KEYPAD_BATTERY_CHANGE = KeypadMetric(
    "tedee_keypad_battery_timestamp_seconds",
    "gauge",
    "Unix time of the last change of the keypad's battery level.",
    lambda keypad: keypad.battery_changed_at,
)
KEYPAD_INFO = KeypadMetric(
    "tedee_keypad_info",
    "info",
    "Properties of the keypad, and the id of its lock, as labels. The value is 1.",
    _accessory_info,
    ("lock_id", "model", "serial_number", "firmware_version"),
)
DOOR_SENSOR_BATTERY = DoorSensorMetric(
    "tedee_door_sensor_battery_percent",
    "gauge",
    "Charge of the door sensor's battery in percent. Tedee omits a level that did not change for 30 days.",
    lambda door_sensor: door_sensor.battery_level,
)
DOOR_SENSOR_BATTERY_CHANGE = DoorSensorMetric(
    "tedee_door_sensor_battery_timestamp_seconds",
    "gauge",
    "Unix time of the last change of the door sensor's battery level.",
    lambda door_sensor: door_sensor.battery_changed_at,
)
DOOR_SENSOR_INFO = DoorSensorMetric(
    "tedee_door_sensor_info",
    "info",
    "Properties of the door sensor, and the id of its lock, as labels. The value is 1.",
    _accessory_info,
    ("lock_id", "model", "serial_number", "firmware_version"),
)
GATE_CONNECTED = GateMetric(
    "tedee_gate_connected",
    "gauge",
    "1 if the gate was connected when Tedee last asked for it, up to a day ago, otherwise 0.",
    lambda gate: gate.is_connected,
)
GATE_INFO = GateMetric(
    "tedee_gate_info",
    "info",
    "Properties of the gate as labels. The value is 1.",
    _device_info,
    ("model", "serial_number", "firmware_version"),
)
DRY_CONTACT_INFO = DryContactMetric(
    "tedee_dry_contact_info",
    "info",
    "Properties of the dry contact as labels. The value is 1.",
    _device_info,
    ("model", "serial_number", "firmware_version"),
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
LAST_RESPONSE = AccountMetric(
    "tedee_last_response_timestamp_seconds",
    "gauge",
    "Unix time of the last successful response of an endpoint other than the sync.",
    lambda status: {(each.endpoint,): each.at for each in status.other_resources},
    ("endpoint",),
)
EVENTS_PERMITTED = AccountMetric(
    "tedee_events_permitted",
    "gauge",
    "1 if the account's key may read the activity log, 0 if Tedee refuses it. Absent if events are not enabled, and "
    "until the first response.",
    lambda status: next(
        (each.is_permitted for each in status.other_resources if each.endpoint == ACTIVITIES.path), None
    ),
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
    "Unix time at which the account's access token or, with OAuth, its refresh token expires; for a personal key, the "
    "date in the configuration. Absent if unknown.",
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
STATE_USABLE = ExporterMetric(
    "tedee_exporter_state_usable",
    "gauge",
    "1 if calls to Tedee are recorded in the state file or database, otherwise 0. Without the database nothing is "
    "requested.",
    lambda status: status.state_store_usable,
)
STATE_FILE_USABLE = ExporterMetric(
    "tedee_exporter_state_file_usable",
    "gauge",
    "The same as `tedee_exporter_state_usable`, under its older name.",
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
DEVICE_METRICS = tuple(each for each in CATALOGUE if isinstance(each, DeviceMetric))
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
