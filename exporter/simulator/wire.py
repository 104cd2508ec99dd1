"""The JSON format of the API: devices in the format of each version, and datetimes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from .accessories import Accessory, DoorSensor, DryContact, Gate, Keypad
from .activity import APP_NUMBERS, OPEN_DOOR_THRESHOLD, Event
from .bridge import Bridge
from .device import MISSING, Device
from .lock import Lock

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
    "openDoorAlertThreshold": OPEN_DOOR_THRESHOLD,
    "autoLockAfterDoorClosedEnabled": False,
}

KEYPAD_SETTINGS: Final[Mapping[str, object]] = {
    "batteryType": 0,
    "soundLevel": 1,
    "backlightLevel": 2,
    "bellButtonEnabled": True,
    "lockByButtonEnabled": False,
}

HOME: Final[Mapping[str, object]] = {"latitude": 52.22967561, "longitude": 21.01222871, "accuracy": 10.5}
"""The position of the user's home. A client that asks for the settings of the user receives it."""

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


@dataclass(frozen=True)
class Variants:
    """Formats in which Tedee's responses differ from its documentation, or may differ in the future.

    `dry_contacts` is the name of the list of dry contacts in the details, `battery_time` the name of the time of a
    battery level. `missing_level` is the form of `deviceState` if the level is unknown: the field is missing, null, an
    empty object, or an object with null values. `door_sensors_in_details` adds that list to the details, and
    `unknown_devices` adds a list and devices of types that are not documented.
    """

    dry_contacts: Literal["dryContacts", "drycontacts"] = "dryContacts"
    battery_time: Literal["batteryLevelModifiedTime", "batteryLevelModifiedDateTime"] = "batteryLevelModifiedTime"
    missing_level: Literal["missing", "null", "empty", "nulls"] = "missing"
    door_sensors_in_details: bool = False
    unknown_devices: bool = False


AS_DOCUMENTED: Final = Variants()


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


def lock_entry(
    lock: Lock, t: float, version: Version, *, accessories: bool = False, user_settings: bool = False
) -> JSONObject:
    """Return a lock as an object of `/my/lock`, with its accessories and the settings of the user if requested."""
    entry: JSONObject = sync_entry(lock, t, version) | _details(lock)
    if accessories:
        entry["accessories"] = [{"id": each.id, "deviceType": each.device_type} for each in lock.accessories]
    if user_settings:
        entry["userSettings"] = _user_settings()
    overrides = {name: value for name, value in lock.overrides.items() if name in DETAIL_FIELDS}
    return _apply_overrides(entry, overrides, version)


def bridge_entry(bridge: Bridge, t: float) -> JSONObject:
    """Return a bridge as an object of `/my/bridge` and the details."""
    entry: JSONObject = {
        **_common(bridge),
        "isConnected": bridge.connected(t),
        "isUpdating": bridge.updating(t),
        "wasConfigured": True,
        "localApiEnabled": False,
        "beaconMajor": 5121,
        "beaconMinor": bridge.id % 65_536,
    }
    return _without_missing({**entry, **bridge.overrides})


def keypad_entry(keypad: Keypad, t: float, variants: Variants = AS_DOCUMENTED) -> JSONObject:
    """Return a keypad as an object of `/my/keypad` and the details."""
    bridge = keypad.lock.bridge if keypad.lock else None
    entry: JSONObject = {
        **_common(keypad),
        "isConnected": None,
        "connectedToId": bridge.id if bridge else None,
        "connectedToLockId": keypad.lock.id if keypad.lock else None,
        "deviceSettings": dict(KEYPAD_SETTINGS),
    }
    return _with_battery(entry, keypad, t, variants)


def door_sensor_entry(
    sensor: DoorSensor, t: float, variants: Variants = AS_DOCUMENTED, *, user_settings: bool = False
) -> JSONObject:
    """Return a door sensor as an object of `/my/doorsensor`."""
    entry: JSONObject = {
        **_common(sensor),
        "isConnected": None,
        "connectedToLockId": sensor.lock.id if sensor.lock else None,
        "userSettings": {"favorite": False} if user_settings else None,
    }
    return _with_battery(entry, sensor, t, variants)


def gate_entry(gate: Gate, t: float, *, user_settings: bool = False) -> JSONObject:
    """Return a gate as an object of `/my/gate` and the details."""
    entry: JSONObject = {
        **_common(gate),
        "isConnected": gate.connected(t),
        "isPresentInExternal": True,
        "externalId": f"blebox-{gate.id}",
        "externalName": gate.name,
        "externalType": "gateBox",
        "impulseLength": 1200,
        "icon": 2,
        "userSettings": _user_settings() if user_settings else None,
        "location": dict(HOME) if user_settings else None,
    }
    return _without_missing({**entry, **gate.overrides})


def dry_contact_entry(contact: DryContact) -> JSONObject:
    """Return a dry contact as an object of the details."""
    return _without_missing({**_common(contact), "isConnected": None, **contact.overrides})


def activity_entry(event: Event, device_id: int) -> JSONObject:
    """Return an event as an object of `/my/deviceactivity`. Names of PINs and links are present if it has them."""
    entry: JSONObject = {
        "id": event.id,
        "deviceId": device_id,
        "userId": event.user.user_id if event.user else None,
        "username": event.user.name if event.user else None,
        "event": event.number,
        # 0: device, 1: mobile.
        "source": int(event.number in APP_NUMBERS),
        "date": local_text(event.date),
    }
    if event.pin_alias is not None:
        entry["pinAlias"] = event.pin_alias
    if event.access_link_name is not None:
        entry["accessLinkName"] = event.access_link_name
    return entry


def device_entry(device: Device, t: float, version: Version, variants: Variants = AS_DOCUMENTED) -> JSONObject:
    """Return a device of any kind in the format of its own endpoint."""
    match device:
        case Lock():
            return lock_entry(device, t, version)
        case Bridge():
            return bridge_entry(device, t)
        case Keypad():
            return keypad_entry(device, t, variants)
        case DoorSensor():
            return door_sensor_entry(device, t, variants)
        case Gate():
            return gate_entry(device, t)
        case DryContact():
            return dry_contact_entry(device)
    raise TypeError(device)


def unknown_device_entry(number: int, device_type: int) -> JSONObject:
    """Return a device of a type that is not documented."""
    device = Device(number, f"New device {number}", device_type=device_type)
    return {**_common(device), "isConnected": True, "deviceState": {"tilt": 4, "batteryLevel": "high"}}


def _common(device: Device) -> JSONObject:
    return {
        "id": device.id,
        "organizationId": device.organization_id,
        "serialNumber": device.serial_number,
        "name": device.name,
        "userIdentity": None,
        "type": device.device_type,
        "created": device.created,
        "revision": device.revision,
        "deviceRevision": device.revision,
        "targetDeviceRevision": device.revision,
        "timeZone": device.time_zone,
        "accessLevel": device.access_level,
        "accessDetails": None,
        "softwareVersions": [
            {
                "softwareType": firmware.software_type,
                "version": firmware.version,
                "updateAvailable": firmware.update_available,
            }
            for firmware in device.firmware
        ],
    }


def _details(lock: Lock) -> JSONObject:
    details = {
        **_common(lock),
        "connectedToId": None if lock.bridge is None else lock.bridge.id,
        "accessories": None,
        "userSettings": None,
        "deviceSettings": {
            **SETTINGS,
            "openDoorAlertEnabled": lock.has_door_sensor,
            "doorStateEventLoggingEnabled": lock.has_door_sensor,
        },
    }
    return {name: value for name, value in details.items() if name not in ("id", "revision")}


DETAIL_FIELDS: Final = frozenset(_details(Lock(0, "")))


def _user_settings() -> JSONObject:
    return {"autoUnlockEnabled": False, "location": dict(HOME)}


def _with_battery(entry: JSONObject, accessory: Accessory, t: float, variants: Variants) -> JSONObject:
    state: JSONObject | None
    reading = accessory.reading(t)
    if reading is not None:
        state = {"batteryLevel": reading.level, variants.battery_time: local_text(reading.changed_at)}
    else:
        state = {"batteryLevel": None, variants.battery_time: None} if variants.missing_level == "nulls" else {}
    names = {"batteryLevel", variants.battery_time}
    changed = {name: value for name, value in accessory.overrides.items() if name in names}
    if changed or reading is not None or variants.missing_level in ("empty", "nulls"):
        entry["deviceState"] = _without_missing(state | changed)
    elif variants.missing_level == "null":
        entry["deviceState"] = None
    overrides = {name: value for name, value in accessory.overrides.items() if name not in names}
    return _without_missing(entry | overrides)


def local_text(t: float) -> str:
    """Format Unix seconds as UTC without a zone, without trailing zeros: `2026-11-25T21:13:31.4`."""
    return datetime_text(t)[:-1].rstrip("0").removesuffix(".")


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
