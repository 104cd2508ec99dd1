"""The results of the benchmark as Markdown."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from testing.soak import Week

from .lateness import Lateness
from .refreshes import Latencies
from .scrapes import GUNICORN, NGINX, OURS, PROMETHEUS_CLIENT, Load, Measurement
from .starts import Start
from .syncs import Costs


class Figures(NamedTuple):
    """All results."""

    scrapes: dict[Load, dict[str, Measurement]]
    refreshes: Latencies
    syncs: Costs
    start: Start
    memory: dict[int, float]
    lateness: Lateness
    week: Week


def goals(figures: Figures) -> str:
    """Return a table of the goals and the results."""
    small = figures.scrapes[Load(10, 1, "text", "plain")]
    large = figures.scrapes[Load(10_000, 1, "text", "gzip")]
    few, many = sorted(figures.memory)
    each_lock = (figures.memory[many] - figures.memory[few]) / (many - few)
    against_nginx = small[OURS].p50 / small[NGINX].p50
    large_against_nginx = large[OURS].p50 / large[NGINX].p50
    speedup = large[PROMETHEUS_CLIENT].p50 / large[OURS].p50
    refreshing = figures.refreshes.during_refresh / figures.refreshes.between_refreshes
    sync = figures.syncs.syncs[0.01].processor_time / figures.syncs.generate_latest
    start, lateness = figures.start, figures.lateness
    rows: list[tuple[str, str, str, bool]] = [
        ("scrape p50, 10 locks, relative to nginx", "at most 3", f"{against_nginx:.2f}", against_nginx <= 3),
        (
            "scrape p50, 10,000 locks gzip, relative to nginx",
            "at most 1",
            f"{large_against_nginx:.2f}",
            large_against_nginx <= 1,
        ),
        (
            "speed of a scrape, 10,000 locks gzip, relative to the server of prometheus_client",
            "at least 1,000",
            f"{speedup:,.0f}",
            speedup >= 1000,
        ),
        (
            "scrape p99 during a refresh of 10,000 locks, relative to the p99 between refreshes",
            "at most 5",
            f"{refreshing:.1f}",
            refreshing <= 5,
        ),
        (
            "sync to new exposition, 10,000 locks, 1 % changed, processor time relative to one `generate_latest`",
            "at most 0.1",
            f"{sync:.3f}",
            sync <= 0.1,
        ),
        (
            "start to first data, processor time",
            "less than 0.6 s",
            f"{start.processor_time:.2f} s",
            start.processor_time < 0.6,
        ),
        (
            "resident memory, 10 locks",
            "at most 60 MiB",
            f"{figures.memory[few] / 1024:.1f} MiB",
            figures.memory[few] <= 60 * 1024,
        ),
        ("resident memory, each additional lock", "at most 6 KiB", f"{each_lock:.1f} KiB", each_lock <= 6),
        (
            "1,000 accounts of 10 locks, p99 lateness of a sync",
            "at most 1 s, on one core",
            f"{lateness.p99:.2f} s",
            lateness.p99 <= 1,
        ),
        (
            "calls to Tedee less than 20 s apart",
            "none",
            f"{lateness.violations} of {lateness.syncs:,}",
            lateness.violations == 0,
        ),
    ]
    return table(
        ["measurement", "goal", "result", ""],
        ([name, goal, result, "" if reached else "**missed**"] for name, goal, result, reached in rows),
    )


def scrapes(figures: Figures) -> str:
    """Return a table with a row for each load: the exporter's results, and those of its peers as multiples of them."""

    def ratios(servers: dict[str, Measurement]) -> Iterable[str]:
        ours = servers[OURS]
        for name in (PROMETHEUS_CLIENT, GUNICORN, NGINX):
            other = servers.get(name)
            if other:
                yield f"{_ratio(other.p50 / ours.p50)} / {_ratio(other.processor_time / ours.processor_time)}"
            else:
                yield "-"

    rows = [
        [
            f"{load.locks:,}",
            str(load.connections),
            f"{load.format} {load.encoding}",
            f"{1000 * servers[OURS].p50:.2f}",
            f"{1000 * servers[OURS].p99:.2f}",
            f"{servers[OURS].rate:,.0f}",
            f"{1e6 * servers[OURS].processor_time:,.0f}",
            *ratios(servers),
        ]
        for load, servers in figures.scrapes.items()
    ]
    header = ["locks", "connections", "format", "p50 ms", "p99 ms", "scrapes/s", "processor µs"]
    return table([*header, "prometheus_client", "gunicorn", "nginx"], rows)


def _ratio(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def other_results(figures: Figures) -> str:
    """Return a table of all results except those of scrapes."""
    refreshes, syncs, start, lateness = figures.refreshes, figures.syncs, figures.start, figures.lateness
    peer = syncs.generate_latest
    rows = [
        [
            "scrape p99, 10,000 locks gzip, one connection, between refreshes",
            f"{1000 * refreshes.between_refreshes:.1f} ms",
        ],
        [
            f"the same during one of {refreshes.refreshes} refreshes",
            f"{1000 * refreshes.during_refresh:.1f} ms",
        ],
        [
            "longest refresh, from Tedee's response to the first scrape with new data",
            f"{refreshes.longest_refresh:.2f} s",
        ],
        ["one `generate_latest` of 10,000 locks, processor time", f"{peer:.2f} s"],
    ]
    for fraction, cost in syncs.syncs.items():
        name = f"sync in which {100 * fraction:g} % of the locks changed, processor time"
        rows.append([name, f"{cost.processor_time:.3f} s, {cost.processor_time / peer:.2f} of a `generate_latest`"])
        rows.append(["from the last byte of its response to the new exposition", f"{cost.after_response:.2f} s"])
    rows.append(
        ["start to first data", f"{start.processor_time:.2f} s of processor time, {start.elapsed:.2f} s in total"]
    )
    rows += [[f"resident memory, {n:,} locks", f"{kib / 1024:.0f} MiB"] for n, kib in sorted(figures.memory.items())]
    rows += [
        [
            f"1,000 accounts of 10 locks: lateness of {lateness.syncs:,} syncs, median, p99, worst",
            f"{lateness.median:.2f} s, {lateness.p99:.2f} s, {lateness.worst:.2f} s",
        ],
        [
            "resources of these syncs",
            f"{lateness.cores:.2f} cores, {lateness.threads} threads, {lateness.memory / 1024:.0f} MiB",
        ],
    ]
    first, last = figures.week.days[0].memory, figures.week.days[-1].memory
    rows.append(["memory growth from the end of day 1 to the end of day 7", f"{last - first:+,} KiB of {first:,}"])
    return table(["measurement", "result"], rows)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
