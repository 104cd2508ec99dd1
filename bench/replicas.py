"""Several replicas that share a database, compared with one process that has a state file."""

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import NamedTuple

from testing.postgresql import PostgreSQL, running_server
from testing.program import free_port

from .cloud import exporter, simulated, wait_for_data
from .lateness import delays
from .machine import MEASURED_CORE, MEASURING_CORE, Options, Process
from .report import Goal, Part, table
from .rounds import number

REPLICAS, ACCOUNTS, LOCKS = 3, 1_000, 10
WARM_UP = 300.0
"""Seconds to wait until all replicas have all locks. The first syncs of all accounts are made in a short time."""
LEGEND = (
    f"{REPLICAS} replicas that share a PostgreSQL database, compared with one process that has a state file:\n"
    f"{ACCOUNTS:,} accounts of {LOCKS} locks, one round, all programs on both cores.\n"
)
CORES = (MEASURED_CORE, MEASURING_CORE)
"""Replicas run on machines of their own. All programs of this part may use all cores."""


class Database(NamedTuple):
    """The use of a database. Rates are per second."""

    transactions: float
    written: float
    """Bytes of the write-ahead log."""
    cores: float
    """Seconds of processor time, of all processes of the server."""
    size: float
    """Bytes of the tables and indexes at the end."""


@dataclass(frozen=True)
class Observation:
    """The syncs of all accounts, and what was used for them."""

    late: Sequence[float]
    """Seconds by which the syncs were late."""
    violations: int
    cores: Sequence[float]
    """Seconds of processor time per second, of each process."""
    memory: Sequence[float]
    """KiB of each process."""
    database: Database | None = None

    @property
    def p99(self) -> float:
        """The 99th percentile of the lateness in seconds."""
        return quantiles(self.late, n=100, method="inclusive")[-1]

    @property
    def all_cores(self) -> float:
        """Seconds of processor time per second, of all processes and the database."""
        return sum(self.cores) + (self.database.cores if self.database else 0.0)


@dataclass(frozen=True)
class Replicas(Part):
    """The syncs of one process with a state file, and of several with a database."""

    one: Observation
    several: Observation

    def goals(self) -> Iterable[Goal]:
        """Yield the goals of the replicas, which are those of one process."""
        accounts = f"{ACCOUNTS:,} accounts of {LOCKS} locks, {REPLICAS} replicas"
        p99 = self.several.p99
        yield Goal(f"{accounts}, p99 lateness of a sync", "at most 1 s", f"{p99:.2f} s", p99 <= 1)
        violations, syncs = self.several.violations, len(self.several.late)
        yield Goal(f"{accounts}, calls less than 20 s apart", "none", f"{violations} of {syncs:,}", not violations)

    def details(self) -> str:
        """Return a table of both."""
        one, several = self.one, self.several
        assert several.database
        rows = [
            _row("syncs", len(one.late), len(several.late), ",d"),
            _row("calls less than 20 s apart", one.violations, several.violations, "d"),
            _row("lateness of a sync, median", median(one.late), median(several.late), ".3f", "s"),
            _row("lateness of a sync, p99", one.p99, several.p99, ".2f", "s"),
            _row("lateness of a sync, worst", max(one.late), max(several.late), ".2f", "s"),
            *(
                _row(f"cores of replica {position}", sum(one.cores), cores, ".2f")
                for position, cores in enumerate(several.cores, 1)
            ),
            _row("cores of all replicas", sum(one.cores), sum(several.cores), ".2f"),
            ["cores of the database", "-", f"{several.database.cores:.2f}", "-"],
            _row("cores in total", one.all_cores, several.all_cores, ".2f"),
            _row("memory of a process", median(one.memory) / 1024, median(several.memory) / 1024, ".0f", "MiB"),
            ["transactions", "-", f"{several.database.transactions:,.0f} per second", "-"],
            ["write-ahead log", "-", f"{several.database.written / 1024:,.0f} KiB per second", "-"],
            ["size of the database", "-", f"{several.database.size / 1024**2:.0f} MiB", "-"],
        ]
        header = ["", "one process, SQLite", f"{REPLICAS} replicas, PostgreSQL", "ratio"]
        return f"{LEGEND}\n{table(header, rows)}"


def _row(measurement: str, one: float, several: float, form: str, unit: str = "") -> list[str]:
    ratio = number(several / one) if one > 0 and several > 0 else "-"
    return [measurement, f"{one:{form}} {unit}".strip(), f"{several:{form}} {unit}".strip(), ratio]


def measure(options: Options) -> Replicas:
    """Observe both for half of the time each."""
    one = _observe(1, options)
    with running_server(fsync="on") as server:
        return Replicas(one, _observe(REPLICAS, options, server))


def _observe(count: int, options: Options, server: PostgreSQL | None = None) -> Observation:
    """Observe the syncs of some processes, after each process has all locks."""
    with contextlib.ExitStack() as stack:
        cloud = stack.enter_context(simulated(ACCOUNTS, LOCKS))
        ports = [free_port() for _ in range(count)]
        url = server.url if server else None
        processes = [stack.enter_context(exporter(cloud, port, options, state_url=url, cores=CORES)) for port in ports]
        for port in ports:
            wait_for_data(port, ACCOUNTS * LOCKS, timeout=WARM_UP)
        observed = [*processes, Process(server.pid)] if server else processes
        began, used = time.monotonic(), [each.processor_time() for each in observed]
        commits, position = _counters(server) if server else (0, 0)
        time.sleep(options.watch / 2)
        seconds = time.monotonic() - began
        cores = [(each.processor_time() - before) / seconds for each, before in zip(observed, used, strict=True)]
        memory = [each.memory() for each in processes]
        database = None
        if server:
            last_commits, last_position = _counters(server)
            ((size,),) = server.execute("SELECT pg_database_size('tedee')")
            rates = (last_commits - commits) / seconds, (last_position - position) / seconds
            database = Database(*rates, cores.pop(), size)
        return Observation(delays(cloud.calls(), began), cloud.violations(), cores, memory, database)


def _counters(server: PostgreSQL) -> tuple[int, int]:
    """Return the number of transactions, and the position in bytes in the write-ahead log."""
    ((commits, position),) = server.execute(
        "SELECT xact_commit, (pg_current_wal_lsn() - '0/0')::bigint FROM pg_stat_database WHERE datname = 'tedee'"
    )
    return commits, position
