"""The endpoints of the Tedee API that are called: their paths and limits."""

from dataclasses import dataclass
from enum import IntEnum

SYNC_SPACING = 20.0
"""Seconds that Tedee requires between two calls of its sync endpoint (docs: endpoints/lock/sync)."""


class Priority(IntEnum):
    """Priority of an endpoint's calls. The call with the lowest number is made first."""

    HIGH = 0
    """It may use the whole hourly share. If Tedee refuses its calls with a `Retry-After`, no endpoint is called."""
    LOW = 1
    """It may use a third of the hourly share."""
    LOWEST = 2
    """It may use what the others leave of the hourly share, so that it delays none of them."""


@dataclass(frozen=True)
class Endpoint:
    """An endpoint and its limits, in addition to the hourly limit for all endpoints."""

    path: str
    """The path below the API version, such as `my/lock/sync`."""
    priority: Priority = Priority.LOW
    spacing: float = 0.0
    """Seconds from a response to the next request."""
    max_requests: int | None = None
    """Requests in `window` seconds; None if only the hourly limit applies."""
    window: float = 0.0
    required_list: str = ""
    """Name in lower case of a list that the result must have; empty if the result is a list itself."""

    def __str__(self) -> str:
        return self.path


SYNC = Endpoint("my/lock/sync", Priority.HIGH, spacing=SYNC_SPACING)
DEVICES = Endpoint("my/device/details", max_requests=4, window=600.0, required_list="locks")
"""Tedee documents no limit of its own, but 10 requests in 10 minutes for `my/lock`, which has the same details (docs:
release notes of 2023-07-24). Locks whose revisions change often must not use requests that syncs need."""
DOOR_SENSORS = Endpoint("my/doorsensor", required_list="doorsensors")
ACTIVITIES = Endpoint("my/deviceactivity", Priority.LOWEST)
PRIORITIES = {each.path: each.priority for each in (SYNC, DEVICES, DOOR_SENSORS, ACTIVITIES)}
"""By path."""
