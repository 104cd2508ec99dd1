"""The bridges that connect locks to the cloud, and the times when they do not."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Outages:
    """When a bridge is away: in each `slot` seconds with that `chance`, for `shortest` to `longest` seconds.

    A pure function of `key` and time. No outage reaches over the end of its slot.
    """

    key: int
    chance: float
    slot: float = 3 * 3600.0
    shortest: float = 180.0
    longest: float = 2 * 3600.0

    def at(self, t: float) -> bool:
        """Whether the bridge is away at `t` Unix seconds."""
        number, within = divmod(t, self.slot)
        rng = random.Random(self.key * 1_000_003 + int(number))  # noqa: S311 - a world, not a secret
        if rng.random() >= self.chance:
            return False
        # Short ones are as common as long ones: minutes and hours alike should be seen.
        length: float = self.shortest * (self.longest / self.shortest) ** rng.random()
        begin = (self.slot - length) * rng.random()
        return begin <= within < begin + length


@dataclass(frozen=True)
class Bridge:
    """A Tedee bridge. Its locks are connected while it is; without `outages` it always is."""

    id: int
    name: str
    serial_number: str
    outages: Outages | None = None

    def connected(self, t: float) -> bool:
        """Whether it reaches the cloud at `t` Unix seconds."""
        return self.outages is None or not self.outages.at(t)
