"""The bridges that connect locks to the cloud."""

from collections.abc import Sequence
from typing import Final

from .device import BRIDGE, WIFI_SOFTWARE, Device, Firmware
from .outages import Outages

BRIDGE_FIRMWARE: Final = (Firmware("2.2.47682"), Firmware("1.1.20", software_type=WIFI_SOFTWARE))


class Bridge(Device):
    """A Tedee bridge. Its locks are connected while the bridge is. Without `outages` it is always connected.

    During `updates`, its firmware is being updated.
    """

    def __init__(
        self,
        bridge_id: int,
        name: str,
        serial_number: str | None = None,
        outages: Outages | None = None,
        *,
        updates: Outages | None = None,
        firmware: Sequence[Firmware] = BRIDGE_FIRMWARE,
    ) -> None:
        super().__init__(bridge_id, name, serial_number, device_type=BRIDGE, firmware=firmware)
        self.outages = outages
        self.updates = updates

    def connected(self, t: float) -> bool:
        """Return True if the bridge is connected to the cloud at `t` Unix seconds."""
        return self.outages is None or not self.outages.active(t)

    def updating(self, t: float) -> bool:
        """Return True if the bridge's firmware is being updated at `t` Unix seconds."""
        return self.updates is not None and self.updates.active(t)
