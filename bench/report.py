"""What was measured, as Markdown."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.soak import Week

from .fleets import Punctuality
from .refreshes import Latencies
from .scrapes import GUNICORN, NGINX, OURS, OWN_SERVER, Load, Measured
from .starts import Start
from .syncs import Costs


class Figures(NamedTuple):
    """Everything that was measured."""

    scrapes: dict[Load, dict[str, Measured]]
    refreshes: Latencies
    syncs: Costs
    start: Start
    memory: dict[int, float]
    fleet: Punctuality
    week: Week


def goals(figures: Figures) -> str:
    """What was to be reached, and what was."""
    small = figures.scrapes[Load(10, 1, "text", "plain")]
    large = figures.scrapes[Load(10_000, 1, "text", "gzip")]
    few, many = sorted(figures.memory)
    each_lock = (figures.memory[many] - figures.memory[few]) / (many - few)
    against_nginx = small[OURS].p50 / small[NGINX].p50
    large_against_nginx = large[OURS].p50 / large[NGINX].p50
    against_peer = large[OWN_SERVER].p50 / large[OURS].p50
    refreshing = figures.refreshes.refreshing / figures.refreshes.quiet
    sync = figures.syncs.syncs[0.01].processor_time / figures.syncs.generate_latest
    start, fleet = figures.start, figures.fleet
    rows: list[tuple[str, str, str, bool]] = [
        ("scrape p50, 10 locks, against nginx's", "within 3 times", f"{against_nginx:.2f} times", against_nginx <= 3),
        (
            "scrape p50, 10,000 locks gzip, against nginx's",
            "equal or better",
            f"{large_against_nginx:.2f} times",
            large_against_nginx <= 1,
        ),
        (
            "scrape p50, 10,000 locks gzip, against prometheus_client's own server",
            "1,000 times faster",
            f"{against_peer:,.0f} times faster",
            against_peer >= 1000,
        ),
        (
            "scrape p99 during a refresh of 10,000 locks, against the quiet p99",
            "within 5 times",
            f"{refreshing:.1f} times",
            refreshing <= 5,
        ),
        (
            "sync to served, 10,000 locks, 1 % changed, processor time, against one `generate_latest`",
            "a tenth",
            f"{sync:.3f}",
            sync <= 0.1,
        ),
        (
            "start to first data, processor time",
            "under 0.6 s",
            f"{start.processor_time:.2f} s",
            start.processor_time < 0.6,
        ),
        (
            "resident memory, 10 locks",
            "60 MiB",
            f"{figures.memory[few] / 1024:.1f} MiB",
            figures.memory[few] <= 60 * 1024,
        ),
        ("resident memory, each further lock", "4 KiB", f"{each_lock:.1f} KiB", each_lock <= 4),
        (
            "1,000 accounts of 10 locks, p99 lateness of a sync",
            "1 s, on one core",
            f"{fleet.p99:.2f} s",
            fleet.p99 <= 1,
        ),
        (
            "calls to Tedee less than 20 s apart",
            "none",
            f"{fleet.violations} of {fleet.syncs:,}",
            fleet.violations == 0,
        ),
    ]
    return table(
        ["what", "at least", "reached", ""],
        ([what, goal, reached, "" if good else "**missed**"] for what, goal, reached, good in rows),
    )


def scrapes(figures: Figures) -> str:
    """Each load in a row: ours, and how many times as long, or as much, the others took."""

    def ratios(servers: dict[str, Measured]) -> Iterable[str]:
        ours = servers[OURS]
        for name in (OWN_SERVER, GUNICORN, NGINX):
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
    heads = ["locks", "connections", "", "p50 ms", "p99 ms", "a second", "processor µs"]
    return table([*heads, "prometheus_client", "gunicorn", "nginx"], rows)


def _ratio(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def rest(figures: Figures) -> str:
    """What is no scrape."""
    refreshes, syncs, start, fleet = figures.refreshes, figures.syncs, figures.start, figures.fleet
    peer = syncs.generate_latest
    rows = [
        ["p99 of a scrape (gzip, one connection) of 10,000 locks, quiet", f"{1000 * refreshes.quiet:.1f} ms"],
        [
            f"the same during a refresh, of which there were {refreshes.refreshes}",
            f"{1000 * refreshes.refreshing:.1f} ms",
        ],
        [
            "the longest refresh, from Tedee's answer to the first scrape with news",
            f"{refreshes.longest_refresh:.2f} s",
        ],
        ["one `generate_latest` of 10,000 locks, processor time", f"{peer:.2f} s"],
    ]
    for part, cost in syncs.syncs.items():
        what = f"a sync after which {100 * part:g} % of them have changed, processor time"
        rows.append([what, f"{cost.processor_time:.3f} s, {cost.processor_time / peer:.2f} of a `generate_latest`"])
        rows.append(["from the last byte of its answer to new bytes", f"{cost.after_answer:.2f} s"])
    rows.append(["from start to data", f"{start.processor_time:.2f} s of processor time, {start.elapsed:.2f} s in all"])
    rows += [[f"resident memory, {n:,} locks", f"{kib / 1024:.0f} MiB"] for n, kib in sorted(figures.memory.items())]
    rows += [
        [
            f"1,000 accounts of 10 locks: lateness of {fleet.syncs:,} syncs, median, p99, worst",
            f"{fleet.median:.2f} s, {fleet.p99:.2f} s, {fleet.latest:.2f} s",
        ],
        ["what that takes", f"{fleet.cores:.2f} cores, {fleet.threads} threads, {fleet.memory / 1024:.0f} MiB"],
    ]
    first, last = figures.week.days[0].memory, figures.week.days[-1].memory
    rows.append(
        ["a simulated week, from the end of its first day to that of its last", f"{last - first:+,} KiB of {first:,}"]
    )
    return table(["what", ""], rows)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
