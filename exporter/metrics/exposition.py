"""Renders and compresses metric families before a scrape requests them.

An exposition has two parts. The account part (accounts and locks) changes with a sync and is rendered after it by the
Renderer. The process part (metrics of the exporter and its process) is small and rendered at most once a second.
prometheus_client writes every line of both.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any, NamedTuple
from zlib import Z_FINISH

import structlog
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from exporter import background, memory
from exporter.clock import Clock
from exporter.sync.snapshot import AccountStatus, Lock, StatusRegistry

from .catalogue import ACCOUNT_METRICS, DEVICE_METRICS, LOCK_METRICS, AnyMetric
from .collector import FamilyCollector, build_families, empty_family, names_of, sample_lines
from .compression import CompressedBlock, GzipBody
from .devices import RenderedDevices
from .negotiation import OPENMETRICS, TEXT, content_type, prefers_gzip

log = structlog.get_logger(__name__)

PROCESS_PART_MAX_AGE = 1.0
"""Seconds for which the process part is served before it is rendered again."""
MIN_RENDER_INTERVAL = 0.02
"""Minimum number of seconds between two renderings. Syncs that end within it are rendered together."""
IDLE_FACTOR = 4.0
"""Idle time after a rendering, as a multiple of its processor time: rendering takes at most a fifth of one core."""

_ENCODERS: dict[str, Callable[[Collector], bytes]] = {
    TEXT: generate_latest,
    OPENMETRICS: openmetrics.generate_latest,
}
_END = b"# EOF\n"

_KINDS: Mapping[type[Any], Sequence[AnyMetric]] = {
    Lock: LOCK_METRICS,
    **{
        kind: [metric for metric in DEVICE_METRICS if metric.KIND is kind]
        for kind in dict.fromkeys(metric.KIND for metric in DEVICE_METRICS)
    },
}
"""Metrics of each kind of devices, in the order of the exposition."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """The response to a scrape."""

    parts: tuple[bytes, bytes]
    """The parts of the body. All responses share the first, which is large; joining the parts would copy it."""
    content_type: str
    gzipped: bool

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.parts)


DeviceFamilies = Sequence[tuple[AnyMetric, Sequence[CompressedBlock]]]
"""The metrics of devices that have samples, each with the blocks of its lines, which are the same in both formats."""


@dataclass(frozen=True, slots=True)
class _AccountPart:
    """The account part in each format, and what it was assembled from."""

    statuses: tuple[AccountStatus, ...]
    devices: DeviceFamilies
    accounts: Sequence["_AccountLines"]
    bodies: dict[str, GzipBody]
    fresh_until: float
    """Time in monotonic seconds at which a snapshot becomes stale."""


@dataclass(frozen=True, slots=True)
class _ProcessPart:
    """The process part in each format, and its families."""

    families: Sequence[Family]
    blocks: dict[str, CompressedBlock]
    rendered_at: float


class _AccountLines(NamedTuple):
    """The rendered lines of an account, and the status that they were rendered from."""

    status: AccountStatus
    lines: Sequence[bytes]
    """For each of ACCOUNT_METRICS. They are the same in both formats."""


class Exposition:
    """The rendered metrics of all accounts and of the process."""

    def __init__(self, registry: StatusRegistry, exporter: Collector, clock: Clock) -> None:
        """Render the current statuses.

        Args:
            registry: The newest status of each account.
            exporter: The exporter's own metrics; process and platform metrics are added.
            clock: For the age of snapshots.
        """
        self._registry = registry
        self._clock = clock
        self._process_registry = CollectorRegistry()
        self._process_registry.register(exporter)
        ProcessCollector(registry=self._process_registry)
        PlatformCollector(registry=self._process_registry)
        self._devices: dict[type[Any], RenderedDevices[Any]] = {
            kind: RenderedDevices(metrics) for kind, metrics in _KINDS.items()
        }
        self._last_other_devices: Sequence[object] = ()
        """The rendered devices other than locks, by account and resource."""
        self._account_lines: dict[str, _AccountLines] = {}
        self._stale_accounts: set[str] = set()
        self._names: dict[AnyMetric, frozenset[str]] = {
            metric: names_of(empty_family(metric)) for metric in LOCK_METRICS + DEVICE_METRICS + ACCOUNT_METRICS
        }
        self._metadata: dict[str, dict[AnyMetric, CompressedBlock]] = {
            media_type: {
                metric: CompressedBlock.of(_metadata(metric, media_type))
                for metric in LOCK_METRICS + DEVICE_METRICS + ACCOUNT_METRICS
            }
            for media_type in _ENCODERS
        }
        self._rendering = threading.Lock()
        self._account_part = self._render_account_part()
        self._process_part = self._render_process_part()

    def render(self) -> None:
        """Render the account part in the current thread."""
        with self._rendering:
            self._account_part = self._render_account_part()

    def statuses(self) -> tuple[AccountStatus, ...]:
        """Return the statuses in the rendered account part, which may be older than those of the registry."""
        return self._account_part.statuses

    def scrape(self, accept: str, accept_encoding: str, names: Collection[str] = ()) -> Scrape:
        """Return the exposition in the format and encoding that the headers prefer. Not thread-safe.

        Args:
            accept: The header of this name.
            accept_encoding: The header of this name.
            names: Names of metrics or of their samples. If there are any, only these metrics are returned.
        """
        now = self._clock.monotonic()
        if now >= self._account_part.fresh_until:
            # Rare: a snapshot has become stale since the last rendering. No scrape may contain it.
            self.render()
        if now >= self._process_part.rendered_at + PROCESS_PART_MAX_AGE:
            self._process_part = self._render_process_part()
        preferred = content_type(accept)
        gzipped = prefers_gzip(accept_encoding)
        media_type = preferred.partition(";")[0]
        body, last = self._account_part.bodies[media_type], self._process_part.blocks[media_type]
        if names:
            body, last = self._restricted(media_type, frozenset(names))
        return Scrape(body.with_last_block(last, gzipped=gzipped), preferred, gzipped)

    def _restricted(self, media_type: str, names: frozenset[str]) -> tuple[GzipBody, CompressedBlock]:
        """Assemble a body and a last block of the metrics with these names. The blocks of devices are not copied."""
        part, process = self._account_part, self._process_part
        devices = [each for each in part.devices if not names.isdisjoint(self._names[each[0]])]
        metrics = [metric for metric in ACCOUNT_METRICS if not names.isdisjoint(self._names[metric])]
        families = [family for family in process.families if not names.isdisjoint(names_of(family))]
        last = CompressedBlock.of(_ENCODERS[media_type](FamilyCollector(families)), Z_FINISH)
        return self._assemble(media_type, devices, part.accounts, metrics), last

    def _render_account_part(self) -> _AccountPart:
        now = self._clock.monotonic()
        statuses = self._registry.statuses()
        served = [status.as_of(now) for status in statuses]
        self._log_stale(served)
        self._update_devices(served)
        self._account_lines = {
            each.account: self._lines_of(each, status) for each, status in zip(served, statuses, strict=True)
        }
        devices = [family for rendered in self._devices.values() for family in rendered.families()]
        accounts = [*self._account_lines.values()]
        bodies = {
            media_type: self._assemble(media_type, devices, accounts, ACCOUNT_METRICS) for media_type in _ENCODERS
        }
        fresh_until = min((each.fresh_until for each in served), default=inf)
        return _AccountPart(statuses, devices, accounts, bodies, fresh_until)

    def _log_stale(self, statuses: Sequence[AccountStatus]) -> None:
        """Log once for each account that its locks are no longer served."""
        stale = {each.account: each.snapshot for each in statuses if each.is_stale and each.snapshot}
        for account, snapshot in stale.items():
            if account not in self._stale_accounts:
                last_success = datetime.fromtimestamp(snapshot.at, UTC).isoformat(timespec="seconds")
                log.error(
                    "the last successful sync is too old; its locks are no longer served",
                    account=account,
                    last_success=last_success,
                )
        self._stale_accounts = set(stale)

    def _update_devices(self, statuses: Sequence[AccountStatus]) -> None:
        others = [(each.account, resource.devices) for each in statuses for resource in each.other_resources]
        for kind, rendered in self._devices.items():
            if kind is Lock:
                rendered.update(
                    [(each.account, lock) for each in statuses if each.snapshot for lock in each.snapshot.locks]
                )
            elif others != self._last_other_devices:
                rendered.update([(each.account, device) for each in statuses for device in each.devices(kind)])
        self._last_other_devices = others

    def _assemble(
        self,
        media_type: str,
        devices: DeviceFamilies,
        accounts: Sequence["_AccountLines"],
        account_metrics: Collection[AnyMetric],
    ) -> GzipBody:
        """Return the body of these metrics of devices and accounts in a format."""
        metadata = self._metadata[media_type]
        blocks = [block for metric, lines in devices for block in (metadata[metric], *lines)]
        families = zip(*(each.lines for each in accounts), strict=True)
        account_block = b"".join(
            part
            for metric, lines in zip(ACCOUNT_METRICS, families, strict=False)  # no families without accounts
            if metric in account_metrics and any(lines)
            for part in (metadata[metric].plain, *lines)
        )
        return GzipBody.of([*blocks, CompressedBlock.of(account_block)])

    def _lines_of(self, served: AccountStatus, status: AccountStatus) -> _AccountLines:
        """Return the lines of an account. They are rendered again if its status changed."""
        known = self._account_lines.get(status.account)
        if known and known.status is status and served is status:
            return known
        families = (build_families([metric], [((served.account,), served)]) for metric in ACCOUNT_METRICS)
        lines = [b"".join(line for family in each for line in sample_lines(family)) for each in families]
        return _AccountLines(status, lines)

    def _render_process_part(self) -> _ProcessPart:
        families = [*self._process_registry.collect()]
        blocks = {
            media_type: CompressedBlock.of(encode(FamilyCollector(families)), Z_FINISH)
            for media_type, encode in _ENCODERS.items()
        }
        return _ProcessPart(families, blocks, self._clock.monotonic())


class Renderer:
    """Renders the account part after syncs, in its own thread.

    After each rendering the thread is idle for a multiple of the processor time that it took. Rendering therefore takes
    a bounded part of a core, however many syncs end, and it delays no worker.
    """

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition
        self._outdated = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        background.start(self._run, name="renderer")

    def wake(self) -> None:
        """Request a rendering, without waiting for it."""
        self._outdated.set()

    def _run(self) -> None:
        while True:
            self._outdated.wait()
            self._outdated.clear()
            began = time.thread_time()
            self._exposition.render()
            # Rendering comes last after a response: what it took is free, except for what is served.
            memory.return_freed()
            time.sleep(MIN_RENDER_INTERVAL + IDLE_FACTOR * (time.thread_time() - began))


def _metadata(metric: AnyMetric, media_type: str) -> bytes:
    """Return the family's HELP and TYPE lines."""
    return _ENCODERS[media_type](FamilyCollector([empty_family(metric)])).removesuffix(_END)
