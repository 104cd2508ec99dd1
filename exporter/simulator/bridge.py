"""The bridges that connect locks to the cloud, and their outages."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Outages:
    """The outages of a bridge, as a pure function of `key` and time.

    Each slot of `slot` seconds contains an outage with this `probability`. The outage lasts `shortest` to `longest`
    seconds and ends within its slot.
    """

    key: int
    probability: float
    slot: float = 3 * 3600.0
    shortest: float = 180.0
    longest: float = 2 * 3600.0

    def active(self, t: float) -> bool:
        """Return True if the bridge is offline at `t` Unix seconds."""
        number, offset = divmod(t, self.slot)
        rng = random.Random(self.key * 1_000_003 + int(number))  # noqa: S311 - not used for security
        if rng.random() >= self.probability:
            return False
        # A log-uniform length: a demo should show outages of minutes and of hours.
        length: float = self.shortest * (self.longest / self.shortest) ** rng.random()
        begin = (self.slot - length) * rng.random()
        return begin <= offset < begin + length


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
