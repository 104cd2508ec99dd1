"""Outages of bridges and of the API, as a pure function of time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outages:
    """An outage of `length` seconds in every `period` seconds. One of them begins at `start` Unix seconds."""

    period: float
    length: float
    start: float = 0.0

    def active(self, t: float) -> bool:
        """Return True if there is an outage at `t` Unix seconds."""
        return (t - self.start) % self.period < self.length

    def end(self, t: float) -> float:
        """Return the end of the outage that is active at `t`, in Unix seconds."""
        return t - (t - self.start) % self.period + self.length
