"""A resource: what one endpoint of Tedee returns for an account, and when it is fetched."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from exporter.tedee.client import TedeeClient
from exporter.tedee.endpoint import Endpoint

from .lock_filter import LockFilter
from .responses import CachedResponse


@dataclass(frozen=True)
class ResourceOptions:
    """Options of the resources of one account, from the configuration."""

    stale_after: float
    """Seconds for which the response of a sync is served."""
    lock_filter: LockFilter = field(default_factory=LockFilter)


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
    """Seconds for which a response is served."""

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
            The response to store, without its time. None if further calls are needed to complete it.

        Raises:
            CallError: The call failed, or the response lacks what is needed.
        """

    @abstractmethod
    def restore(self, response: CachedResponse, now: float) -> bool:
        """Use a stored response that has rows. If it lacks what is needed, change nothing and return False."""

    def devices(self) -> Sequence[object]:
        """Return the devices in the last response that have metrics of their own."""
        return ()

    def prerequisite(self) -> "Resource | None":
        """Return the resource that must be fetched first; None if there is none."""
        return None

    def configure(self, options: ResourceOptions) -> bool:  # noqa: ARG002
        """Use other options. If the last response lacks what they need, forget it and return False."""
        return True
