"""The devices of an account other than the states of its locks: names, firmware and batteries."""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from .rows import (
    DeviceId,
    Number,
    ParseResult,
    Percent,
    RejectionCollector,
    RowParser,
    ShortText,
    Timestamp,
    intern,
)


class DeviceType(IntEnum):
    """Type of a device, which is also its model (docs: enums/device-type)."""

    BRIDGE = 1
    LOCK_PRO = 2
    KEYPAD = 3
    LOCK_GO = 4
    GATE = 5
    DRY_CONTACT = 6
    DOOR_SENSOR = 8
    KEYPAD_PRO = 10

    @classmethod
    def describe(cls, number: int) -> str:
        """Return the name of a model as Tedee writes it; `type 9` if unknown."""
        try:
            words = cls(number).name.split("_")
        except ValueError:
            return f"type {number}"
        first, *others = (word if word in {"PRO", "GO"} else word.lower() for word in words)
        return " ".join([first.capitalize(), *others])


class SoftwareVersion(Struct, frozen=True, gc=False, rename="camel"):
    """Version of a part of the device's software."""

    software_type: Number | None = None
    """0 for the device, 1 for Wi-Fi."""
    version: ShortText | None = None
    update_available: bool | None = None


class Device(Struct, frozen=True, gc=False, rename="camel", tag_field="kind"):
    """What Tedee reports for all devices."""

    id: DeviceId
    name: str | None = None
    serial_number: str | None = None
    type: Number | None = None
    software_versions: Annotated[tuple[SoftwareVersion | None, ...], Meta(max_length=20)] | None = None

    @property
    def label(self) -> str:
        """The name that the owner chose; the id if it is unknown."""
        return self.name if self.name and not self.name.isspace() else str(self.id)

    @property
    def model(self) -> str | None:
        """Name of the model; None if unknown."""
        return None if self.type is None else DeviceType.describe(self.type)

    @property
    def firmware_version(self) -> str | None:
        """Version of the firmware of the device; None if unknown."""
        return self._version(0)

    @property
    def wifi_firmware_version(self) -> str | None:
        """Version of the firmware of the Wi-Fi module; None if unknown, or if the device has no such module."""
        return self._version(1)

    @property
    def firmware_update_available(self) -> bool | None:
        """True if Tedee offers an update for any part of the software; None if unknown."""
        offered = [each.update_available for each in self._software() if each.update_available is not None]
        return any(offered) if offered else None

    def _version(self, software_type: int) -> str | None:
        return next((each.version for each in self._software() if each.software_type == software_type), None)

    def _software(self) -> Iterable[SoftwareVersion]:
        return (each for each in self.software_versions or () if each is not None)


class LockDetails(Device, frozen=True, gc=False, tag="lock"):
    """A lock, without its state."""

    connected_to_id: Number | None = None
    """Id of the bridge."""
    time_zone: ShortText | None = None
    organization_id: Number | None = None


class Bridge(Device, frozen=True, gc=False, tag="bridge"):
    """A bridge, which connects locks to Tedee."""

    is_connected: bool | None = None
    """True if the bridge is connected to Tedee."""
    is_updating: bool | None = None
    """True during an update of the firmware."""


class AccessoryState(Struct, frozen=True, gc=False, rename="camel"):
    """State of a keypad or door sensor. Tedee omits both fields if the level did not change for 30 days."""

    battery_level: Percent | None = None
    battery_level_modified_time: Timestamp | None = None
    """Time of the last change of the level."""


class Accessory(Device, frozen=True, gc=False):
    """A device that belongs to a lock."""

    connected_to_lock_id: Number | None = None
    device_state: AccessoryState | None = None

    @property
    def battery_level(self) -> int | None:
        """Percent; None if Tedee omits it."""
        return self.device_state.battery_level if self.device_state else None

    @property
    def battery_changed_at(self) -> float | None:
        """Unix time of the last change of the level; None if Tedee omits it."""
        return self.device_state.battery_level_modified_time if self.device_state else None


class Keypad(Accessory, frozen=True, gc=False, tag="keypad"):
    """A keypad."""


class DoorSensor(Accessory, frozen=True, gc=False, tag="door_sensor"):
    """A door sensor. Whether the door is open is in the state of its lock."""


class Gate(Device, frozen=True, gc=False, tag="gate"):
    """A gate of another manufacturer that is linked to Tedee."""

    is_connected: bool | None = None
    """True if the gate was connected when Tedee last asked for it, up to a day ago."""


class DryContact(Device, frozen=True, gc=False, tag="dry_contact"):
    """A dry contact. Its other fields are not documented."""


AnyDevice = LockDetails | Bridge | Keypad | DoorSensor | Gate | DryContact
DeviceKey = tuple[type[Device], int]
"""Kind and id of a device."""
Devices = Mapping[DeviceKey, AnyDevice]

_PARSERS: Mapping[str, RowParser[Any]] = {
    "bridges": RowParser(Bridge),
    "locks": RowParser(LockDetails),
    "keypads": RowParser(Keypad),
    "gates": RowParser(Gate),
    "drycontacts": RowParser(DryContact),
    "doorsensors": RowParser(DoorSensor),
}
"""Parsers by the name of the list in lower case: dry contacts are documented as `dryContacts` and as `drycontacts`."""
_ENCODER = msgspec.json.Encoder(enc_hook=float)
_STORED_ROWS = msgspec.json.Decoder(AnyDevice, dec_hook=lambda kind, value: kind(value))


def read_devices(lists: Mapping[str, Sequence[bytes]]) -> ParseResult[DeviceKey, AnyDevice]:
    """Parse the lists of devices in a response. Unknown lists are ignored.

    If a device is in a list twice, the later row is used.
    """
    rejections = RejectionCollector()
    devices: dict[DeviceKey, AnyDevice] = {}
    for name, raw_rows in lists.items():
        if parser := _PARSERS.get(name.lower()):
            for each in raw_rows:
                if device := parser.parse(each, rejections):
                    devices[type(device), device.id] = _interned(device)
    # Only the fields in use: a row has over a kilobyte.
    rows = [_ENCODER.encode(each) for each in devices.values()]
    return ParseResult(devices, rejections.counts, tuple(rejections.recorded), rows)


def restore_devices(rows: Iterable[bytes]) -> Devices:
    """Return the devices in the `raw_rows` of `read_devices`."""
    devices = (_STORED_ROWS.decode(row) for row in rows)
    return {(type(each), each.id): _interned(each) for each in devices}


def _interned(device: AnyDevice) -> AnyDevice:
    """Return an equal device, with the values that many devices have stored once in memory."""
    device = replace(device, software_versions=intern(device.software_versions))
    return replace(device, time_zone=intern(device.time_zone)) if isinstance(device, LockDetails) else device
