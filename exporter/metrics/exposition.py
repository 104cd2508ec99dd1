"""Families to bytes: negotiated, rendered and compressed ahead of the scrape.

An exposition has two parts. The fleet's part (accounts and locks) changes with a sync and is rendered on the thread
that synced; the exporter's own part (process metrics) is small and rendered at most once a second. prometheus_client
writes every line of both.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from math import inf
from zlib import Z_FINISH

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from exporter import background
from exporter.clock import Clock
from exporter.sync.snapshot import AccountStatus, StatusRegistry

from .catalogue import ACCOUNT_METRICS, LOCK_METRICS, Metric
from .chunks import Chunk, chunked
from .collector import account_families, family
from .compression import CompressedBlock, GzipBody
from .lines import Families, sample_lines
from .negotiation import OPENMETRICS, TEXT, content_type, prefers_gzip

OWN_PART_LIFE = 1.0
"""Seconds the exporter's own part is served before it is rendered again."""
REST = 0.02
"""Seconds between two renderings at the least: syncs that end together are rendered together."""
RESTS = 4.0
"""How often the processor time of a rendering is rested after it: a fifth of one core at the most."""

_ENCODERS: dict[str, Callable[[Collector], bytes]] = {
    TEXT: generate_latest,
    OPENMETRICS: openmetrics.generate_latest,
}
_END = b"# EOF\n"

Lines = dict[str, bytes]
"""Sample lines of one account, by family name. Both formats write a sample the same way."""


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


@dataclass(frozen=True, slots=True)
class _Fleet:
    """The fleet's part in each format, and until when (monotonic seconds) all of it is fresh."""

    statuses: tuple[AccountStatus, ...]
    parts: dict[str, GzipBody]
    fresh_until: float


@dataclass(frozen=True, slots=True)
class _Own:
    """The exporter's own part in each format."""

    parts: dict[str, CompressedBlock]
    made_at: float


class Exposition:
    """The bytes of `/metrics`, ready before they are asked for."""

    def __init__(self, registry: StatusRegistry, exporter: Collector, clock: Clock) -> None:
        """Render what the registry has now.

        Args:
            registry: the newest status of each account.
            exporter: the exporter's own metrics; process and platform metrics come beside them.
            clock: for the age of snapshots.
        """
        self._registry = registry
        self._clock = clock
        self._process_registry = CollectorRegistry()
        self._process_registry.register(exporter)
        ProcessCollector(registry=self._process_registry)
        PlatformCollector(registry=self._process_registry)
        self._chunks: list[Chunk] = []
        self._account_lines: dict[str, tuple[AccountStatus, bool, Lines]] = {}
        self._headers = {
            name: {metric: CompressedBlock.of(_header(metric, name)) for metric in LOCK_METRICS + ACCOUNT_METRICS}
            for name in _ENCODERS
        }
        self._rendering = threading.Lock()
        self._fleet = self._render_fleet()
        self._own = self._render_own()

    def refresh(self) -> None:
        """Render the fleet's part, on this thread."""
        with self._rendering:
            self._fleet = self._render_fleet()

    def statuses(self) -> tuple[AccountStatus, ...]:
        """The accounts as a scrape would show them now, which is a moment later than the registry does."""
        return self._fleet.statuses

    def scrape(self, accept: str, accept_encoding: str) -> Scrape:
        """The exposition, in the format and encoding that the headers ask for. To be called from one thread."""
        now = self._clock.monotonic()
        if now >= self._fleet.fresh_until:
            # Rare: a snapshot grew too old with no sync since. It must not be served for even one scrape.
            self.refresh()
        if now >= self._own.made_at + OWN_PART_LIFE:
            self._own = self._render_own()
        chosen = content_type(accept)
        gzipped = prefers_gzip(accept_encoding)
        name = chosen.partition(";")[0]
        parts = self._fleet.parts[name].followed_by(self._own.parts[name], gzipped=gzipped)
        return Scrape(parts, chosen, gzipped)

    def _render_fleet(self) -> _Fleet:
        now = self._clock.monotonic()
        statuses = self._registry.statuses()
        snapshots = {status.account: snapshot for status in statuses if (snapshot := status.current(now))}
        rows = [(account, lock) for account, snapshot in snapshots.items() for lock in snapshot.locks]
        self._chunks = chunked(rows, self._chunks)
        self._account_lines = {
            status.account: self._lines_of(status, fresh=status.account in snapshots) for status in statuses
        }
        parts = {name: GzipBody.of([*self._lock_pieces(name), self._account_piece(name)]) for name in _ENCODERS}
        return _Fleet(statuses, parts, min((snapshot.fresh_until for snapshot in snapshots.values()), default=inf))

    def _lock_pieces(self, name: str) -> Iterator[CompressedBlock]:
        for index, metric in enumerate(LOCK_METRICS):
            pieces = [piece for chunk in self._chunks if (piece := chunk.columns[index].piece).plain]
            if pieces:
                yield self._headers[name][metric]
                yield from pieces

    def _account_piece(self, name: str) -> CompressedBlock:
        accounts = [lines for _, _, lines in self._account_lines.values()]
        blocks = {metric: [lines.get(_family_name(metric), b"") for lines in accounts] for metric in ACCOUNT_METRICS}
        headers = self._headers[name]
        return CompressedBlock.of(
            b"".join(part for metric, block in blocks.items() if any(block) for part in (headers[metric].plain, *block))
        )

    def _lines_of(self, status: AccountStatus, *, fresh: bool) -> tuple[AccountStatus, bool, Lines]:
        """An account's lines, those of the last rendering where it has published nothing since."""
        known = self._account_lines.get(status.account)
        if known and known[0] is status and known[1] is fresh:
            return known
        return status, fresh, _lines(account_families(status, fresh=fresh))

    def _render_own(self) -> _Own:
        parts = {
            name: CompressedBlock.of(encode(self._process_registry), Z_FINISH) for name, encode in _ENCODERS.items()
        }
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
        """Begin."""
        background.start(self._run, name="renderer")

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


def _header(metric: Metric, name: str) -> bytes:
    """The family's HELP and TYPE lines."""
    return _ENCODERS[name](Families([family(metric)])).removesuffix(_END)


@cache
def _family_name(metric: Metric) -> str:
    return family(metric).name


def _lines(families: Iterator[Family]) -> Lines:
    return {each.name: b"".join(sample_lines(each)) for each in families}
