"""The devices that belong to a lock or stand alone: keypads, door sensors, gates and dry contacts."""

from typing import TYPE_CHECKING, Any, Final

from .battery import Battery, BatteryReading
from .device import DOOR_SENSOR, DRY_CONTACT, GATE, KEYPAD, KEYPAD_PRO, Device, Firmware
from .outages import Outages

if TYPE_CHECKING:
    from .lock import Lock

DAY: Final = 86_400.0

REPORTED_FOR: Final = 30 * DAY
"""Seconds after the last change of a level for which Tedee reports it (release notes of 2024-10-07)."""


class Accessory(Device):
    """A keypad or door sensor. `lock` is the lock that it is paired with; None if it is not paired.

    Its battery is replaced, not charged.
    """

    def __init__(self, device_id: int, name: str, *, battery: Battery | None = None, **common: Any) -> None:
        """Take also the options of `Device`."""
        super().__init__(device_id, name, **common)
        self.battery = battery or default_battery(device_id)
        self.lock: Lock | None = None

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

    `wrong_pins` is the average number of bursts of wrong PINs a day.
    """

    def __init__(
        self,
        device_id: int,
        name: str,
        *,
        pro: bool = False,
        wrong_pins: float = 0.5,
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
            firmware=[firmware or Firmware("1.0.38810" if pro else "1.3.21744")],
            **common,
        )
        self.wrong_pins = wrong_pins

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
            firmware=[firmware or Firmware("1.0.45281")],
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
        super().__init__(device_id, name, device_type=DRY_CONTACT, firmware=[Firmware("1.0.37625")], **common)


def default_battery(device_id: int) -> Battery:
    """Return a battery that lasts 200 to 400 days. Its phase depends on the device."""
    drain = (200 + device_id * 37 % 201) * DAY
    return Battery(drain, 0, low=10, phase=device_id * 7919 * DAY % drain)
