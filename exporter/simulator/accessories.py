"""The devices that belong to a lock or stand alone: keypads, door sensors, gates and dry contacts."""

import zlib
from typing import TYPE_CHECKING, Any, Final

from .battery import Battery, BatteryReading
from .device import DOOR_SENSOR, DRY_CONTACT, GATE, KEYPAD, KEYPAD_PRO, Device, Firmware
from .outages import Outages

if TYPE_CHECKING:
    from .lock import Lock

DAY: Final = 86_400.0

REPORTED_FOR: Final = 30 * DAY
"""Seconds after the last change of a level for which Tedee reports it (release notes of 2024-10-07)."""

KEYPAD_FIRMWARE: Final = (Firmware("1.3.21744"),)
KEYPAD_PRO_FIRMWARE: Final = (Firmware("1.0.38810"),)
DOOR_SENSOR_FIRMWARE: Final = (Firmware("1.0.45281"),)
DRY_CONTACT_FIRMWARE: Final = (Firmware("1.0.37625"),)


class Accessory(Device):
    """A keypad or door sensor. `lock` is the lock that it is paired with; None if it is not paired.

    Its battery is replaced, not charged.
    """

    def __init__(self, device_id: int, name: str, *, battery: Battery | None = None, **common: Any) -> None:
        """Take also the options of `Device`."""
        super().__init__(device_id, name, **common)
        self._battery = battery
        self.lock: Lock | None = None

    @property
    def battery(self) -> Battery:
        """The battery. By default it depends on the serial number."""
        return self._battery or default_battery(self.serial_number)

    def reading(self, t: float) -> BatteryReading | None:
        """Return the level that Tedee knows at `t` Unix seconds. Returns None if its last change is too long ago."""
        if self.lock is None:
            return None
        reading = self._last_reading(self.lock, t)
        return reading if reading is not None and t - reading.changed_at <= REPORTED_FOR else None

    def _last_reading(self, lock: "Lock", t: float) -> BatteryReading | None:  # noqa: ARG002 - for subclasses
        return self.battery.reading(t)


class Keypad(Accessory):
    """A keypad, or a Keypad PRO with a fingerprint reader. Its level reaches Tedee only when it is used.

    `wrong_pins` is the average number of bursts of wrong PINs a day, `unauthorized_pins` that of PINs which are typed
    outside their times.
    """

    def __init__(
        self,
        device_id: int,
        name: str,
        *,
        pro: bool = False,
        wrong_pins: float = 0.5,
        unauthorized_pins: float = 0.3,
        battery: Battery | None = None,
        firmware: Firmware | None = None,
        **common: Any,
    ) -> None:
        """Take also the options of `Device`."""
        super().__init__(
            device_id,
            name,
            battery=battery,
            device_type=KEYPAD_PRO if pro else KEYPAD,
            firmware=(firmware,) if firmware else KEYPAD_PRO_FIRMWARE if pro else KEYPAD_FIRMWARE,
            **common,
        )
        self.wrong_pins = wrong_pins
        self.unauthorized_pins = unauthorized_pins

    def _last_reading(self, lock: "Lock", t: float) -> BatteryReading | None:
        last = lock.last_keypad_use(t, not_before=t - REPORTED_FOR)
        if last is None:
            return None
        level, fell_at = self.battery.reading(last)
        return BatteryReading(level, lock.first_keypad_use(fell_at, last))

    @property
    def pro(self) -> bool:
        """True if the keypad has a fingerprint reader."""
        return self.device_type == KEYPAD_PRO


class DoorSensor(Accessory):
    """A door sensor. Whether the door is open is in the state of its lock."""

    def __init__(
        self,
        device_id: int,
        name: str,
        *,
        battery: Battery | None = None,
        firmware: Firmware | None = None,
        **common: Any,
    ) -> None:
        """Take also the options of `Device`."""
        super().__init__(
            device_id,
            name,
            battery=battery,
            device_type=DOOR_SENSOR,
            firmware=(firmware,) if firmware else DOOR_SENSOR_FIRMWARE,
            **common,
        )


class Gate(Device):
    """A gate of BleBox that is linked with Tedee. It is not connected during `outages`."""

    def __init__(self, device_id: int, name: str, *, outages: Outages | None = None, **common: Any) -> None:
        """Take also the options of `Device`."""
        super().__init__(device_id, name, device_type=GATE, **common)
        self.outages = outages

    def connected(self, t: float) -> bool:
        """Return True if the gate is connected at `t` Unix seconds."""
        return self.outages is None or not self.outages.active(t)


class DryContact(Device):
    """A dry contact. Tedee documents nothing but its existence."""

    def __init__(self, device_id: int, name: str, **common: Any) -> None:
        """Take also the options of `Device`."""
        super().__init__(device_id, name, device_type=DRY_CONTACT, firmware=DRY_CONTACT_FIRMWARE, **common)


def default_battery(serial_number: str) -> Battery:
    """Return a battery that lasts 200 to 400 days. Its phase depends on the serial number."""
    key = zlib.crc32(serial_number.encode())
    drain = (200 + key % 201) * DAY
    return Battery(drain, 0, low=10, phase=key * 7919 % drain)
