"""Families to bytes: negotiated, rendered and compressed ahead of the scrape.

An exposition has two parts. The fleet's part (accounts and locks) changes with a sync and is rendered on the thread
that synced; the exporter's own part (process metrics) is small and rendered at most once a second. prometheus_client
writes every line of both.
"""

import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder, generate_latest, gzip_accepted
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from exporter.clock import Clock
from exporter.sync.snapshot import AccountStatus, Board, Lock

from .catalogue import ACCOUNT_METRICS, LOCK_METRICS, Metric
from .collector import account_families, family, lock_families

OWN_PART_LIFE = 1.0
"""Seconds the exporter's own part is served before it is rendered again."""
REST = 0.02
"""Seconds between two renderings at the least: syncs that end together are rendered together."""
RESTS = 4.0
"""How often the processor time of a rendering is rested after it: a fifth of one core at the most."""
COMPRESSION = 1
"""zlib's level: a level up costs a third more time and saves a tenth of the bytes."""

TEXT, OPENMETRICS = "text", "openmetrics"
_ENCODERS: dict[str, Callable[[Collector], bytes]] = {
    TEXT: generate_latest,
    OPENMETRICS: openmetrics.generate_latest,
}
_END = b"# EOF\n"

Lines = dict[str, str]
"""Sample lines of one lock or account, by family name. Both formats write a sample the same way."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What is sent to a scraper."""

    parts: tuple[bytes, bytes]
    """One after the other. The first, which is large, is the same for everybody: put together, it would be copied."""
    content_type: str
    gzipped: bool

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.parts)


class _Families(Collector):
    """Families that exist already, as the collector that encoders ask for."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


@dataclass(frozen=True, slots=True)
class _FleetPart:
    """Accounts and locks in one format, and a compressor that goes on from its end."""

    plain: bytes
    gzipped: bytes
    compressor: "zlib._Compress"

    @classmethod
    def of(cls, plain: bytes) -> "_FleetPart":
        compressor = zlib.compressobj(COMPRESSION, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        gzipped = compressor.compress(plain) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return cls(plain, gzipped, compressor)

    def with_own_part(self, own: bytes, *, gzipped: bool) -> tuple[bytes, bytes]:
        """Both parts; compressed, they are one gzip member, for which only the small part is compressed now."""
        if not gzipped:
            return self.plain, own
        rest = self.compressor.copy()
        return self.gzipped, rest.compress(own) + rest.flush()


@dataclass(frozen=True, slots=True)
class _Fleet:
    """The fleet's part in each format, and until when (monotonic seconds) all of it is fresh."""

    parts: dict[str, _FleetPart]
    fresh_until: float


@dataclass(frozen=True, slots=True)
class _Own:
    """The exporter's own part in each format."""

    parts: dict[str, bytes]
    made_at: float


class Exposition:
    """The bytes of `/metrics`, ready before they are asked for."""

    def __init__(self, board: Board, exporter: Collector, clock: Clock) -> None:
        """Render what the board has now.

        Args:
            board: the newest status of each account.
            exporter: the exporter's own metrics; process and platform metrics come beside them.
            clock: for the age of snapshots.
        """
        self._board = board
        self._clock = clock
        self._registry = CollectorRegistry()
        self._registry.register(exporter)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._lock_lines: dict[tuple[str, int], tuple[Lock, Lines]] = {}
        self._headers = {
            name: {metric: _header(metric, name) for metric in LOCK_METRICS + ACCOUNT_METRICS} for name in _ENCODERS
        }
        self._rendering = threading.Lock()
        self._fleet = self._render_fleet()
        self._own = self._render_own()

    def refresh(self) -> None:
        """Render the fleet's part, on this thread."""
        with self._rendering:
            self._fleet = self._render_fleet()

    def scrape(self, accept: str, accept_encoding: str) -> Scrape:
        """The exposition, in the format and encoding that the headers ask for. To be called from one thread."""
        now = self._clock.monotonic()
        if now >= self._fleet.fresh_until:
            # Rare: a snapshot grew too old with no sync since. It must not be served for even one scrape.
            self.refresh()
        if now >= self._own.made_at + OWN_PART_LIFE:
            self._own = self._render_own()
        content_type = _negotiate(accept)
        gzipped = gzip_accepted(accept_encoding)
        name = OPENMETRICS if content_type.startswith("application/openmetrics-text") else TEXT
        parts = self._fleet.parts[name].with_own_part(self._own.parts[name], gzipped=gzipped)
        return Scrape(parts, content_type, gzipped)

    def _render_fleet(self) -> _Fleet:
        now = self._clock.monotonic()
        statuses = self._board.statuses()
        account_lines: list[Lines] = []
        lock_lines: dict[tuple[str, int], tuple[Lock, Lines]] = {}
        fresh_until = inf
        for status in statuses:
            snapshot = status.current(now)
            account_lines.append(_lines(account_families(status, fresh=snapshot is not None)))
            if snapshot:
                fresh_until = min(fresh_until, snapshot.fresh_until)
                for lock in snapshot.locks:
                    lock_lines[status.account, lock.id] = self._lines_of(status, lock)
        self._lock_lines = lock_lines
        blocks = {metric: _joined(metric, (lines for _, lines in lock_lines.values())) for metric in LOCK_METRICS}
        blocks |= {metric: _joined(metric, account_lines) for metric in ACCOUNT_METRICS}
        parts = {
            name: _FleetPart.of(
                "".join(part for metric, block in blocks.items() if block for part in (headers[metric], block)).encode()
            )
            for name, headers in self._headers.items()
        }
        return _Fleet(parts, fresh_until)

    def _lines_of(self, status: AccountStatus, lock: Lock) -> tuple[Lock, Lines]:
        """A lock's lines, those of the last rendering where the lock has not changed."""
        known = self._lock_lines.get((status.account, lock.id))
        return known if known and known[0] == lock else (lock, _lines(lock_families(status.account, lock)))

    def _render_own(self) -> _Own:
        parts = {name: encode(self._registry) for name, encode in _ENCODERS.items()}
        return _Own(parts, self._clock.monotonic())


class Renderer:
    """Renders the fleet's part on a thread of its own, after the syncs: soon, and not for each of many anew.

    Between two renderings it rests for longer than one takes, so that a large fleet, of which some account syncs all
    the time, costs a bounded part of a processor and holds up no worker.
    """

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition
        self._outdated = threading.Event()

    def start(self) -> None:
        """Begin; the thread is a daemon."""
        threading.Thread(target=self._run, name="renderer", daemon=True).start()

    def wake(self) -> None:
        """Say that there is something new. Costs nothing."""
        self._outdated.set()

    def _run(self) -> None:
        while True:
            self._outdated.wait()
            self._outdated.clear()
            began = time.thread_time()
            self._exposition.refresh()
            time.sleep(REST + RESTS * (time.thread_time() - began))


def _negotiate(accept: str) -> str:
    try:
        return choose_encoder(accept)[1]
    except (ValueError, TypeError):
        # The library compares a version that is no number with one that is.
        return choose_encoder("")[1]


def _header(metric: Metric, name: str) -> str:
    """The family's HELP and TYPE lines."""
    return _ENCODERS[name](_Families([family(metric)])).removesuffix(_END).decode()


def _lines(families: Iterator[Family]) -> Lines:
    """The sample lines of families, without their headers."""
    lines: Lines = {}
    for each in families:
        text = generate_latest(_Families([each])).decode()
        # HELP and TYPE are the first two lines; a newline in a label's value is escaped.
        lines[each.name] = text.split("\n", 2)[2]
    return lines


def _joined(metric: Metric, everything: Iterable[Lines]) -> str:
    name = family(metric).name
    return "".join(lines.get(name, "") for lines in everything)
