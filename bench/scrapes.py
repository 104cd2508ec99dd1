"""Latency, rate and processor time of scrapes, compared with prometheus_client's server, gunicorn and nginx."""

import contextlib
import gzip
import json
import pickle
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple

import requests

from testing.program import eventually, free_port

from .cloud import exporter, simulated, wait_for_data
from .machine import MEASURING_CORE, TIMEOUT, Process, started

SIZES = (1, 10, 1_000, 10_000)
CONNECTIONS = (1, 4, 64)
ACCEPTS = {"text": "text/plain;version=0.0.4", "OpenMetrics": "application/openmetrics-text;version=1.0.0"}
ENCODINGS = {"plain": "identity", "gzip": "gzip"}
MAX_LATENCY = 10.0
"""Seconds. Servers with a higher expected latency are not measured, because Prometheus would time out by default."""


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


OURS, PROMETHEUS_CLIENT, GUNICORN, NGINX = "tedee-exporter", "prometheus_client", "gunicorn", "nginx"
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
def servers(locks: int) -> Iterator[list[Server]]:
    """Run all servers with the same locks."""
    ports = dict(zip(SERVERS, (free_port() for _ in SERVERS), strict=True))
    with (
        tempfile.TemporaryDirectory() as name,
        simulated(1, locks) as cloud,
        exporter(cloud, ports[OURS]) as ours,
    ):
        folder = Path(name)
        wait_for_data(ports[OURS], locks)
        snapshot = folder / "snapshot"
        snapshot.write_bytes(pickle.dumps([cloud.status(account) for account in cloud.keys]))
        conf = _nginx(folder, ports)
        gunicorn = ("--workers=1", "--threads=2", f"--bind=127.0.0.1:{ports[GUNICORN]}", "bench.peers:application()")
        with (
            started(sys.executable, "-m", "bench.peers", str(snapshot), str(ports[PROMETHEUS_CLIENT])) as peer,
            started(sys.executable, "-m", "gunicorn", *gunicorn, SNAPSHOT=str(snapshot)) as gunicorn_server,
            started("nginx", "-c", str(conf)) as nginx_server,
        ):
            processes = (ours, peer, gunicorn_server, nginx_server)
            found = [Server(name, ports[name], process) for name, process in zip(SERVERS, processes, strict=True)]
            for server in found:
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
    if result["failures"] or not result["requests"]:
        raise RuntimeError(f"{server.name} failed under {load}: {result}")
    return Measurement(result["p50"], result["p99"], result["requests"] / result["seconds"], used / result["requests"])


def _expected_seconds(server: Server, load: Load) -> float:
    """Return the expected seconds of a scrape under the load, extrapolated from one scrape."""
    headers = {"Accept": ACCEPTS[load.format], "Accept-Encoding": ENCODINGS[load.encoding]}
    response = requests.get(server.url(load), headers=headers, timeout=TIMEOUT)
    return response.elapsed.total_seconds() * load.connections


def measure(seconds: float, rounds: int) -> dict[Load, dict[str, Measurement]]:
    """Return the median of the rounds for each server under each load. Each round measures all servers.

    Args:
        seconds: length of each round. A round takes at least the time of three responses.
        rounds: at least one.
    """
    everything: dict[Load, dict[str, Measurement]] = {}
    for locks in SIZES:
        with servers(locks) as candidates:
            for rest in product(CONNECTIONS, ACCEPTS, ENCODINGS):
                load = Load(locks, *rest)
                expected = {server: _expected_seconds(server, load) for server in candidates}
                runs: dict[str, list[Measurement]] = defaultdict(list)
                for _ in range(rounds):
                    for server in candidates:
                        if expected[server] < MAX_LATENCY:
                            runs[server.name].append(_run_wrk(server, load, max(seconds, 3 * expected[server])))
                everything[load] = {name: _median(measured) for name, measured in runs.items()}
                print(".", end="", flush=True, file=sys.stderr)
    return everything


def _median(runs: list[Measurement]) -> Measurement:
    return Measurement(
        median(run.p50 for run in runs),
        median(run.p99 for run in runs),
        median(run.rate for run in runs),
        median(run.processor_time for run in runs),
    )
