"""The JSON format of the API: locks and bridges in the format of each version, and datetimes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from .bridge import Bridge
from .lock import MISSING, Lock

JSONObject = dict[str, object]

STATE_FIELDS: Final = frozenset(
    {"state", "doorState", "isCharging", "batteryLevel", "stateChangeResult", "lastStateChangedDate"}
)

SETTINGS: Final[Mapping[str, object]] = {
    "autoLockEnabled": True,
    "autoLockDelay": 10,
    "autoLockImplicitEnabled": False,
    "autoLockImplicitDelay": 10,
    "pullSpringEnabled": True,
    "pullSpringDuration": 10,
    "autoPullSpringEnabled": False,
    "postponedLockEnabled": False,
    "postponedLockDelay": 10,
    "buttonLockEnabled": False,
    "buttonUnlockEnabled": False,
    "isAsync": False,
    "openDoorAlertEnabled": False,
    "openDoorAlertThreshold": 300,
    "autoLockAfterDoorClosedEnabled": False,
    "doorStateEventLoggingEnabled": False,
}

# Locks whose ids have this remainder report datetimes without a zone and with seven digits. Tedee uses both formats.
SEVEN_DIGITS_MODULUS: Final = 4
SEVEN_DIGITS_REMAINDER: Final = 3


class Version(str):
    """A version of the API as written in the path: `v1.36`, `v37`."""

    __slots__ = ()

    @property
    def order(self) -> tuple[int, ...]:
        """The numbers of the version, as a sort key: (1, 34) before (1, 35) before (37,)."""
        return tuple(int(part) for part in self.removeprefix("v").split("."))

    @property
    def state_field(self) -> str:
        """The name of a lock's state object in this version."""
        return "lockProperties" if self.order <= (1, 34) else "deviceState"


def datetime_text(t: float, *, seven_digits: bool = False) -> str:
    """Format Unix seconds as the API does, in UTC: `2021-04-26T06:02:04.197Z` or `2021-04-26T06:02:04.1970000`."""
    text = datetime.fromtimestamp(round(t, 3), UTC).isoformat(timespec="milliseconds")[:-6]
    return f"{text}0000" if seven_digits else f"{text}Z"


def sync_entry(lock: Lock, t: float, version: Version) -> JSONObject:
    """Return a lock as an object of `/my/lock/sync`."""
    entry: JSONObject = {
        "id": lock.id,
        "isConnected": lock.connected(t),
        version.state_field: _state(lock, t),
        "revision": lock.revision,
    }
    if not lock.overrides:
        return entry
    overrides = {name: value for name, value in lock.overrides.items() if name not in DETAIL_FIELDS | STATE_FIELDS}
    return _apply_overrides(entry, overrides, version)


def lock_entry(lock: Lock, t: float, version: Version) -> JSONObject:
    """Return a lock as an object of `/my/lock`."""
    entry: JSONObject = sync_entry(lock, t, version) | _details(lock)
    overrides = {name: value for name, value in lock.overrides.items() if name in DETAIL_FIELDS}
    return _apply_overrides(entry, overrides, version)


def bridge_entry(bridge: Bridge, t: float) -> JSONObject:
    """Return a bridge as an object of `/my/device/details`."""
    return {
        "id": bridge.id,
        "name": bridge.name,
        "serialNumber": bridge.serial_number,
        "isConnected": bridge.connected(t),
        "isUpdating": False,
        "timeZone": "Europe/Warsaw",
        "softwareVersions": [
            {"softwareType": 0, "version": "2.2.11", "updateAvailable": False},
            {"softwareType": 1, "version": "4.1.0", "updateAvailable": False},
        ],
    }


def _details(lock: Lock) -> JSONObject:
    return {
        "name": lock.name,
        "serialNumber": lock.serial_number,
        "type": lock.device_type,
        "connectedToId": None if lock.bridge is None else lock.bridge.id,
        "timeZone": lock.time_zone,
        "organizationId": lock.organization_id,
        "accessLevel": lock.access_level,
        "accessDetails": None,
        "created": lock.created,
        "deviceRevision": lock.revision,
        "targetDeviceRevision": lock.revision,
        "userIdentity": None,
        "deviceSettings": dict(SETTINGS),
        "softwareVersions": [{"softwareType": 0, "version": lock.software, "updateAvailable": lock.id % 5 == 0}]
        if lock.software
        else [],
    }


DETAIL_FIELDS: Final = frozenset(_details(Lock(0, "")))


def _state(lock: Lock, t: float) -> object:
    if "deviceState" in lock.overrides:
        return lock.overrides["deviceState"]
    overrides = {name: value for name, value in lock.overrides.items() if name in STATE_FIELDS}
    if not overrides and lock.overrides.get("isConnected", lock.connected(t)) is not True:
        return None
    state = lock.at(t)
    battery = lock.battery.at(t)
    entry: JSONObject = {
        "state": state.state,
        "doorState": state.door,
        "isCharging": battery.charging,
        "batteryLevel": battery.level,
        "stateChangeResult": state.result,
        "lastStateChangedDate": datetime_text(
            state.changed_at, seven_digits=lock.id % SEVEN_DIGITS_MODULUS == SEVEN_DIGITS_REMAINDER
        ),
    }
    return _without_missing(entry | overrides)


def _apply_overrides(entry: JSONObject, overrides: Mapping[str, object], version: Version) -> JSONObject:
    renamed = {version.state_field if name == "deviceState" else name: value for name, value in overrides.items()}
    return _without_missing(entry | renamed)


def _without_missing(entry: JSONObject) -> JSONObject:
    return {name: value for name, value in entry.items() if value is not MISSING}
