"""Latency, rate and processor time of scrapes, compared with prometheus_client's server, gunicorn and nginx."""

import contextlib
import gzip
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import requests

from testing.program import eventually, free_port

from .cloud import OURS, exporter, simulated, wait_for_data
from .machine import MEASURING_CORE, TIMEOUT, Options, Process, started
from .report import Goal, Part, table
from .rounds import Comparison, number

SIZES = (10, 1_000, 10_000)
CONNECTIONS = (1, 64)
ACCEPTS = {"text": "text/plain;version=0.0.4", "OpenMetrics": "application/openmetrics-text;version=1.0.0"}
ENCODINGS = {"plain": "identity", "gzip": "gzip"}
MAX_LATENCY = 2.0
"""Seconds. Servers with a higher expected latency under several connections are not measured."""
LEGEND = """\
Scrapes. The p50 (lowest to highest) and the processor time of the peers are multiples of the exporter's. A star after
the p50: the halves of the rounds differ by more than a fifth.
"""
SECONDS, RESPONSES = 1.0, 2
"""The length of each measurement: a second, or the time of two responses if that is longer."""


class Load(NamedTuple):
    """A load of scrapes."""

    locks: int
    connections: int
    format: str
    encoding: str


@dataclass(frozen=True)
class Measurement:
    """The results of one server under one load; times in seconds."""

    p50: float
    p99: float
    rate: float
    processor_time: float
    """Per scrape."""


@dataclass(frozen=True)
class Server:
    """A server that can be scraped."""

    name: str
    port: int
    process: Process

    def url(self, load: Load) -> str:
        """Return the URL of its metrics. nginx serves each format at a separate path."""
        return f"http://127.0.0.1:{self.port}/{'metrics' if self.name != NGINX else load.format}"


PROMETHEUS_CLIENT, GUNICORN, NGINX = "prometheus_client", "gunicorn", "nginx"
SERVERS = (OURS, PROMETHEUS_CLIENT, GUNICORN, NGINX)

_NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; gzip_static on; keepalive_requests 1000000; open_file_cache max=10;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port}; root {folder}/www; default_type "text/plain; version=0.0.4; charset=utf-8"; }}
}}
"""


@contextlib.contextmanager
def servers(locks: int, options: Options) -> Iterator[dict[str, Server]]:
    """Run all servers with the same locks."""
    ports = dict(zip(SERVERS, (free_port() for _ in SERVERS), strict=True))
    with (
        tempfile.TemporaryDirectory() as name,
        simulated(1, locks) as cloud,
        exporter(cloud, ports[OURS], options) as ours,
    ):
        folder = Path(name)
        wait_for_data(ports[OURS], locks)
        snapshot = folder / "snapshot"
        snapshot.write_bytes(pickle.dumps([cloud.status(account) for account in cloud.keys]))
        conf = _nginx(folder, ports)
        gunicorn = ("--workers=1", "--threads=2", f"--bind=127.0.0.1:{ports[GUNICORN]}", "bench.peers:application()")
        with (
            started(sys.executable, "-m", "bench.peers", str(snapshot), str(ports[PROMETHEUS_CLIENT])) as peer,
            started(
                sys.executable, "-m", "gunicorn", *gunicorn, variables={"SNAPSHOT": str(snapshot)}
            ) as gunicorn_server,
            started("nginx", "-c", str(conf)) as nginx_server,
        ):
            processes = (ours, peer, gunicorn_server, nginx_server)
            found = {name: Server(name, ports[name], process) for name, process in zip(SERVERS, processes, strict=True)}
            for server in found.values():
                eventually(partial(_is_ready, server, locks), f"{server.name} to listen", TIMEOUT)
            yield found


def _nginx(folder: Path, ports: dict[str, int]) -> Path:
    """Write the exporter's exposition to files for nginx, and return the path of its configuration."""
    www = folder / "www"
    www.mkdir()
    for format_, accept in ACCEPTS.items():
        headers = {"Accept": accept, "Accept-Encoding": "gzip"}
        response = requests.get(
            f"http://127.0.0.1:{ports[OURS]}/metrics", headers=headers, stream=True, timeout=TIMEOUT
        )
        gzipped = response.raw.read(decode_content=False)
        (www / format_).write_bytes(gzip.decompress(gzipped))
        (www / f"{format_}.gz").write_bytes(gzipped)
    # The worker process of nginx runs as another user.
    folder.chmod(0o755)
    conf = folder / "nginx.conf"
    conf.write_text(_NGINX.format(folder=folder, port=ports[NGINX]))
    return conf


def _is_ready(server: Server, locks: int) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        response = requests.get(server.url(Load(locks, 1, "text", "plain")), timeout=TIMEOUT)
        return response.ok and response.text.count("\nlock_revision{") == locks
    return False


def _run_wrk(server: Server, load: Load, seconds: float) -> Measurement:
    before = server.process.processor_time()
    wrk = subprocess.run(
        [
            *("taskset", "--cpu-list", str(MEASURING_CORE), "wrk", "--threads=1"),
            *(f"--connections={load.connections}", f"--duration={max(1, round(seconds))}s", f"--timeout={TIMEOUT:g}s"),
            *(f"--script={Path(__file__).with_name('wrk.lua')}", f"--header=Accept: {ACCEPTS[load.format]}"),
            *(f"--header=Accept-Encoding: {ENCODINGS[load.encoding]}", server.url(load)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    used = server.process.processor_time() - before
    result = json.loads(wrk.stderr)
    if result["failures"] or (not result["requests"] and seconds > TIMEOUT):
        raise RuntimeError(f"{server.name} failed under {load}: {result}")
    if not result["requests"]:  # no response was complete within this time
        return _run_wrk(server, load, 2 * seconds)
    return Measurement(result["p50"], result["p99"], result["requests"] / result["seconds"], used / result["requests"])


def _expected_seconds(server: Server, load: Load) -> float:
    """Return the expected seconds of a scrape under the load, extrapolated from one scrape."""
    headers = {"Accept": ACCEPTS[load.format], "Accept-Encoding": ENCODINGS[load.encoding]}
    response = requests.get(server.url(load), headers=headers, timeout=TIMEOUT)
    return response.elapsed.total_seconds() * load.connections


@dataclass(frozen=True)
class Scrapes(Part):
    """The results of all servers by load."""

    loads: dict[Load, Comparison[Measurement]]

    def goals(self) -> Iterable[Goal]:
        """Yield the goals of small and large scrapes."""
        small = self.loads[Load(10, 1, "text", "plain")].ratio(OURS, NGINX)
        large = self.loads[Load(10_000, 1, "text", "gzip")].ratio(OURS, NGINX)
        speedup = self.loads[Load(10_000, 1, "text", "gzip")].ratio(PROMETHEUS_CLIENT, OURS)
        yield Goal("scrape p50, 10 locks, relative to nginx", "at most 3", str(small), small.median <= 3)
        yield Goal("scrape p50, 10,000 locks gzip, relative to nginx", "at most 1", str(large), large.median <= 1)
        yield Goal(
            "speed of a scrape, 10,000 locks gzip, relative to the server of prometheus_client",
            "at least 1,000",
            str(speedup),
            speedup.median >= 1000,
        )

    def details(self) -> str:
        """Return a table with a row for each load: the exporter's results, and its peers' as multiples of them."""
        header = ["locks", "connections", "format", "p50 ms", "p99 ms", "scrapes/s", "processor µs", "rounds"]
        rows = [
            [
                f"{load.locks:,}",
                str(load.connections),
                f"{load.format} {load.encoding}",
                f"{1000 * scrapes.median(OURS):.2f}",
                f"{1000 * scrapes.median(OURS, attrgetter('p99')):.2f}",
                f"{scrapes.median(OURS, attrgetter('rate')):,.0f}",
                f"{1e6 * scrapes.median(OURS, attrgetter('processor_time')):,.0f}",
                f"{len(scrapes.rounds)}",
                *(_relative(scrapes, peer) for peer in SERVERS[1:]),
            ]
            for load, scrapes in self.loads.items()
        ]
        return f"{LEGEND}\n{table([*header, *SERVERS[1:]], rows)}"


def _relative(scrapes: Comparison[Measurement], peer: str) -> str:
    if peer not in scrapes.programs:
        return "-"
    p50 = scrapes.ratio(peer, OURS)
    used = scrapes.ratio(peer, OURS, attrgetter("processor_time"))
    return f"{p50.spread}{'' if p50.agrees else '*'} / {number(used.median)}"


def measure(options: Options) -> Scrapes:
    """Measure all servers under each load. The rounds of all loads of one size alternate."""
    everything: dict[Load, Comparison[Measurement]] = {}
    for locks in SIZES:
        with servers(locks, options) as candidates:
            loads: dict[Load, Comparison[Measurement]] = {}
            seconds: dict[tuple[Load, str], float] = {}
            for rest in product(CONNECTIONS, ACCEPTS, ENCODINGS):
                load = Load(locks, *rest)
                expected = {name: _expected_seconds(server, load) for name, server in candidates.items()}
                measured = [name for name in SERVERS if load.connections == 1 or expected[name] <= MAX_LATENCY]
                loads[load] = Comparison(measured, attrgetter("p50"), options.rounds)
                seconds |= {(load, name): max(SECONDS, RESPONSES * expected[name]) for name in measured}
            while pending := {load: scrapes for load, scrapes in loads.items() if not scrapes.is_complete()}:
                for load, scrapes in pending.items():
                    order = scrapes.order()
                    scrapes.add({name: _run_wrk(candidates[name], load, seconds[load, name]) for name in order})
            everything |= loads
    return Scrapes(everything)
