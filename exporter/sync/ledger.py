"""What is written down about an account's calls, so that it outlives a call, the process, and a neighbour's process.

A page is immutable, and the gate's rules are pure functions of it (see `budget`): whoever keeps pages, in memory, in
a file or over a network, only has to replace one by the next, atomically.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from exporter.clock import Clock


class Pace(NamedTuple):
    """How one endpoint's calls go."""

    opens_at: float = 0.0
    """Monotonic seconds from which on the next call may be sent."""
    failures: int = 0
    """Calls that failed since the last that did not."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed, in plain words."""

    reason: str
    message: str
    at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Page:
    """All that the gate of one account has to know. Times are monotonic seconds."""

    user: str = ""
    """Whose calls these are, so that an account whose key became another user's is noticed."""
    paces: Mapping[str, Pace] = field(default_factory=dict)
    """By endpoint."""
    closed_until: float = 0.0
    """Until when Tedee itself asked not to be called."""
    sent: tuple[tuple[float, str], ...] = ()
    """When each request of the last hour was sent, and to which endpoint; oldest first."""

    def pace(self, endpoint: str) -> Pace:
        """How the endpoint's calls go; of one that was never called, that it is open."""
        return self.paces.get(endpoint, Pace())

    def with_pace(self, endpoint: str, pace: Pace) -> "Page":
        """The page with another pace of one endpoint."""
        return replace(self, paces={**self.paces, endpoint: pace})

    def moved(self, seconds: float) -> "Page":
        """The page with all its times that much later: as another clock shows them."""
        return Page(
            self.user,
            {endpoint: pace._replace(opens_at=pace.opens_at + seconds) for endpoint, pace in self.paces.items()},
            self.closed_until + seconds,
            tuple((at + seconds, endpoint) for at, endpoint in self.sent),
        )

    def merged(self, other: "Page") -> "Page":
        """What two pages of the same account know together; in doubt, the later time."""
        paces = {endpoint: max(self.pace(endpoint), other.pace(endpoint)) for endpoint in {*self.paces, *other.paces}}
        sent = tuple(sorted({*self.sent, *other.sent}))
        return Page(other.user, paces, max(self.closed_until, other.closed_until), sent)


@dataclass(frozen=True, slots=True)
class Stamp:
    """A moment as both clocks show it; the monotonic one means something within one boot of one machine."""

    boot: str
    monotonic: float
    wall: float

    @classmethod
    def now(cls, clock: Clock) -> "Stamp":
        """This moment."""
        return cls(clock.boot(), clock.monotonic(), clock.wall())

    def same_boot(self, other: "Stamp") -> bool:
        """Whether the monotonic times of two moments can be compared."""
        return self.boot == other.boot

    def age(self, now: "Stamp") -> float | None:
        """How many seconds ago it was; None where that is not known.

        Within a boot the monotonic clock knows. Across boots there is only wall time, and where that went back,
        nobody knows.
        """
        age = now.monotonic - self.monotonic if self.same_boot(now) else now.wall - self.wall
        return age if age >= 0 else None


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of an endpoint's calls beside the page: the last good answer, and how the last call failed."""

    user: str = ""
    """Whose locks these are."""
    rows: Sequence[bytes] | None = None
    """As `exporter.tedee.models` reads and writes them."""
    at: Stamp | None = None
    """When the rows came."""
    failure: Failure | None = None
    """None where the last call succeeded."""
    revisions: Mapping[int, int | None] = field(default_factory=dict)
    """With the list of names: the revisions that the synced locks had when its first page was fetched."""
    asked: tuple[int, ...] = ()
    """With a sync: the ids that the rows were asked for by; none for all."""


class CalledTooEarly(Exception):
    """A call was about to leave before it may. It did not leave."""


Change = Callable[[Page], Page]


class Ledger(Protocol):
    """Keeps the accounts' pages: the gate reserves a call on a page, and records its end there.

    A page is replaced by one process at a time: nobody's change is lost. A store over a network that can compare and
    swap can be one.
    """

    def page(self, account: str) -> Page:
        """The account's page as this process last saw it. Costs nothing."""
        ...

    def reserve(self, account: str, change: Change) -> None:
        """Replace the page by `change` of the newest there is, before a call is sent.

        Raises:
            CalledTooEarly: `change` said so, or the ledger cannot be asked just now.
        """
        ...

    def record(self, account: str, change: Change, kept: Mapping[str, Kept] | None = None) -> None:
        """Replace the page, after a call, and keep something by endpoint: all of it or nothing. It never fails."""
        ...

    def kept(self, account: str, endpoint: str) -> Kept | None:
        """What was last kept of an endpoint's calls, by this process or by another."""
        ...

    def usable(self) -> bool | None:
        """Whether what is recorded outlives the process; None where that is not wanted."""
        ...

    def close(self) -> None:
        """No call will follow."""
        ...


class MemoryLedger:
    """A ledger for as long as the process lives."""

    def __init__(self) -> None:
        self._pages: dict[str, Page] = {}
        self._lock = threading.Lock()

    def page(self, account: str) -> Page:
        """The account's page."""
        return self._pages.get(account, Page())

    def reserve(self, account: str, change: Change) -> None:
        """Replace the page."""
        with self._lock:
            self._pages[account] = change(self.page(account))

    def record(self, account: str, change: Change, kept: Mapping[str, Kept] | None = None) -> None:  # noqa: ARG002
        """Replace the page. There is nobody to keep anything for."""
        self.reserve(account, change)

    def kept(self, account: str, endpoint: str) -> Kept | None:  # noqa: ARG002
        """Nothing: an account itself remembers its answers as long as the process lives."""
        return None

    def usable(self) -> bool | None:
        """It is not wanted to outlive the process."""
        return None

    def close(self) -> None:
        """Nothing is open."""
