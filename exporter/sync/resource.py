"""A resource: what one endpoint of Tedee returns for an account, and when it is fetched."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from exporter.state.responses import CachedResponse
from exporter.tedee.client import TedeeClient
from exporter.tedee.devices import AnyDevice
from exporter.tedee.endpoint import Endpoint

from .lock_filter import LockFilter
from .snapshot import RecentEvent


@dataclass(frozen=True)
class ResourceOptions:
    """Options of the resources of one account, from the configuration."""

    stale_after: float
    """Seconds for which the response of a sync is served."""
    lock_filter: LockFilter = field(default_factory=LockFilter)
    devices_interval: float = 600.0
    """Seconds between two fetches of the devices."""
    events_interval: float | None = None
    """Minimum number of seconds between two fetches of the events of a lock; None if events are not fetched."""


class Resource(ABC):
    """What one endpoint returns.

    A resource decides when it is due and what it requests. `AccountSync` makes the calls, handles their failures, and
    stores and publishes their results, in the same way for all resources.
    """

    endpoint: Endpoint
    """Its priority is that of the resource. Only the leader of several processes fetches resources of low priority."""
    title: str
    """Name of a fetch in log lines, such as `sync`."""
    max_age: float = inf
    """Seconds for which a response is used."""

    @abstractmethod
    def time_until_due(self, now: float) -> float:
        """Return the seconds until the next fetch, apart from rate limits; infinity if none is needed.

        Args:
            now: Present time in monotonic seconds.
        """

    @abstractmethod
    def fetch(self, client: TedeeClient, now: float) -> CachedResponse | None:
        """Make one call, and use its response.

        Returns:
            The response to store, without its time. None if the last stored one is still right.

        Raises:
            CallError: The call failed, or the response lacks what is needed.
        """

    @abstractmethod
    def restore(self, response: CachedResponse, received_at: float) -> bool:
        """Use a stored response that has rows. If it lacks what is needed, change nothing and return False.

        Args:
            response: The response.
            received_at: Time of the response in monotonic seconds; minus infinity if unknown.
        """

    def devices(self) -> Sequence[AnyDevice]:
        """Return the devices in the last response that have metrics of their own."""
        return ()

    @property
    def is_enabled(self) -> bool:
        """False if the configuration disables the resource."""
        return True

    @property
    def is_permitted(self) -> bool | None:
        """False if the credential lacks a scope that the sync does not need; None if unknown."""
        return None

    def recent_events(self) -> Sequence[RecentEvent]:
        """Return the newest events, newest first."""
        return ()

    @property
    def devices_max_age(self) -> float:
        """Seconds for which the devices in a response are served."""
        return self.max_age

    def prerequisite(self) -> "Resource | None":
        """Return the resource that must be fetched first; None if there is none."""
        return None

    def configure(self, options: ResourceOptions) -> bool:  # noqa: ARG002
        """Use other options. If the last response lacks what they need, forget it and return False."""
        return True

    def expire(self) -> None:  # noqa: B027 - without devices, there is nothing that another user must not see
        """Make a fetch due, since the devices may be those of another user."""

    def retry(self) -> None:  # noqa: B027 - most resources need the same permission as the sync
        """Try again what Tedee refused: the configuration was reloaded, or the credential has changed."""
