"""What all devices of an account have in common: names, revisions, firmware, and overrides for tests."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Final, NamedTuple

BRIDGE: Final = 1
LOCK_PRO: Final = 2
KEYPAD: Final = 3
LOCK_GO: Final = 4
GATE: Final = 5
DRY_CONTACT: Final = 6
DOOR_SENSOR: Final = 8
KEYPAD_PRO: Final = 10

DEVICE_SOFTWARE: Final = 0
WIFI_SOFTWARE: Final = 1


class Missing(Enum):
    """The type of `MISSING`."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
"""The value of an override that removes the field from the response."""


class Firmware(NamedTuple):
    """Firmware of a device: `DEVICE_SOFTWARE`, or `WIFI_SOFTWARE` of a bridge."""

    version: str
    update_available: bool = False
    software_type: int = DEVICE_SOFTWARE


class Device:
    """One device of an account. `override` replaces fields of its responses.

    `id` may be changed: Tedee assigns a new id to a device that is removed and added again; only the serial number
    remains the same.
    """

    def __init__(
        self,
        device_id: int,
        name: str,
        serial_number: str | None = None,
        *,
        device_type: int,
        firmware: Sequence[Firmware] = (),
        created: str = "2020-01-01T00:00:00",
        time_zone: str | None = "Europe/Warsaw",
        organization_id: int | None = None,
        access_level: int = 2,
    ) -> None:
        self.id = device_id
        self.name = name
        self.serial_number = serial_number or serial(device_id)
        self.revision = 1
        self.device_type = device_type
        self._firmware = firmware
        self.created = created
        self.time_zone = time_zone
        self.organization_id = organization_id
        self.access_level = access_level
        self._overrides: Mapping[str, object] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id}, {self.name!r})"

    @property
    def firmware(self) -> Sequence[Firmware]:
        """The firmware versions. Empty if Tedee does not know them."""
        return self._firmware

    @property
    def created_at(self) -> float:
        """The time at which the device was added to the account, in Unix seconds."""
        return datetime.fromisoformat(self.created).replace(tzinfo=UTC).timestamp()

    @property
    def overrides(self) -> Mapping[str, object]:
        """The overridden JSON fields. The mapping is replaced, never changed in place: the server's thread reads it."""
        return self._overrides

    def override(self, **fields: object) -> None:
        """Set fields of the responses, by their JSON names, to any JSON value or `MISSING`.

        Fields of the state (`batteryLevel`, `doorState`, …) are set in the state object, which is then present even if
        it would be absent otherwise. `deviceState` replaces that object, whatever its name in the version.
        """
        self._overrides = {**self._overrides, **fields}

    def clear_overrides(self) -> None:
        """Remove all overrides."""
        self._overrides = {}

    def rename(self, name: str) -> None:
        """Change the name, as a user does in the app. The device's revision increases."""
        self.name = name
        self.revision += 1


def serial(number: int) -> str:
    """Return a serial number like `111111-11111`. It is unique for numbers below 8,000,000,000."""
    return f"{111_111 + number // 90_000:06}-{10_000 + number % 90_000:05}"
