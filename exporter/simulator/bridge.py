"""The bridges that connect locks to the cloud."""

from dataclasses import dataclass

from .outages import Outages


@dataclass(frozen=True)
class Bridge:
    """A Tedee bridge. Its locks are connected while the bridge is. Without `outages` it is always connected."""

    id: int
    name: str
    serial_number: str
    outages: Outages | None = None

    def connected(self, t: float) -> bool:
        """Return True if the bridge is connected to the cloud at `t` Unix seconds."""
        return self.outages is None or not self.outages.active(t)
