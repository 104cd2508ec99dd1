"""A lock's battery: weeks of draining, hours of charging, over and over."""

from dataclasses import dataclass
from typing import NamedTuple


class Charge(NamedTuple):
    """What a lock says of its battery: percent, and whether a charger is plugged in."""

    level: int
    charging: bool


@dataclass(frozen=True)
class Battery:
    """Drains from 100 percent to `low` in `drain` seconds, then charges to 100 again in `charge` seconds.

    `phase` seconds set where in that cycle Unix time 0 falls, so that a house's batteries do not march in step.
    """

    drain: float
    charge: float
    low: int = 15
    phase: float = 0.0

    def at(self, t: float) -> Charge:
        """Its charge at `t` Unix seconds."""
        since_full = (t + self.phase) % (self.drain + self.charge)
        charging = since_full >= self.drain
        emptied = 1 - (since_full - self.drain) / self.charge if charging else since_full / self.drain
        return Charge(100 - round((100 - self.low) * emptied), charging)
