"""How the API writes things: locks and bridges as JSON, in the shape of each version, and its datetimes."""

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

# Every lock whose id leaves this remainder writes its datetimes without a zone and to seven digits.
SEVEN_DIGITS_MODULUS: Final = 4
SEVEN_DIGITS_REMAINDER: Final = 3


class Version(str):
    """A version of the API as the path writes it: `v1.36`, `v37`."""

    __slots__ = ()

    @property
    def order(self) -> tuple[int, ...]:
        """Sorts versions by age: (1, 34) before (1, 35) before (37,)."""
        return tuple(int(part) for part in self.removeprefix("v").split("."))

    @property
    def state_field(self) -> str:
        """What a lock's state object is called in this version."""
        return "lockProperties" if self.order <= (1, 34) else "deviceState"


def datetime_text(t: float, *, seven_digits: bool = False) -> str:
    """Unix seconds as the API writes UTC: `2021-04-26T06:02:04.197Z`, or `2021-04-26T06:02:04.1970000`."""
    written = datetime.fromtimestamp(round(t, 3), UTC).isoformat(timespec="milliseconds")[:-6]
    return f"{written}0000" if seven_digits else f"{written}Z"


def sync_entry(lock: Lock, t: float, version: Version) -> JSONObject:
    """A lock in the answer of `/my/lock/sync`."""
    entry: JSONObject = {
        "id": lock.id,
        "isConnected": lock.connected(t),
        version.state_field: _state(lock, t),
        "revision": lock.revision,
    }
    overrides = lock.overrides
    if not overrides:
        return entry
    ours = {name: value for name, value in overrides.items() if name not in DETAIL_FIELDS | STATE_FIELDS}
    return _laid_over(entry, ours, version)


def lock_entry(lock: Lock, t: float, version: Version) -> JSONObject:
    """A lock in the answer of `/my/lock`."""
    entry: JSONObject = sync_entry(lock, t, version) | _details(lock)
    ours = {name: value for name, value in lock.overrides.items() if name in DETAIL_FIELDS}
    return _laid_over(entry, ours, version)


def bridge_entry(bridge: Bridge, t: float) -> JSONObject:
    """A bridge in the answer of `/my/device/details`."""
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
    overrides = lock.overrides
    if "deviceState" in overrides:
        return overrides["deviceState"]
    ours = {name: value for name, value in overrides.items() if name in STATE_FIELDS}
    if not ours and overrides.get("isConnected", lock.connected(t)) is not True:
        return None
    moment = lock.at(t)
    charge = lock.battery.at(t)
    state: JSONObject = {
        "state": moment.state,
        "doorState": moment.door,
        "isCharging": charge.charging,
        "batteryLevel": charge.level,
        "stateChangeResult": moment.result,
        "lastStateChangedDate": datetime_text(
            moment.changed, seven_digits=lock.id % SEVEN_DIGITS_MODULUS == SEVEN_DIGITS_REMAINDER
        ),
    }
    return {name: value for name, value in (state | ours).items() if value is not MISSING}


def _laid_over(entry: JSONObject, overrides: Mapping[str, object], version: Version) -> JSONObject:
    renamed = {version.state_field if name == "deviceState" else name: value for name, value in overrides.items()}
    return {name: value for name, value in (entry | renamed).items() if value is not MISSING}
