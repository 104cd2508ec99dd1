"""The cost of a sync, from the request to the new exposition, compared with one `generate_latest` of the same locks."""

import json
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from operator import attrgetter
from typing import Any, NamedTuple

from prometheus_client import generate_latest

from exporter.accounts import Accounts
from exporter.config import Settings
from exporter.config.source import Source
from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.sync.scheduler import Scheduler
from exporter.sync.snapshot import StatusRegistry
from testing.clock import FakeClock
from testing.stores import memory_store

from . import peers
from .cloud import simulated
from .machine import MEASURING_CORE, Options, in_new_process
from .report import Goal, Part
from .rounds import Comparison

LOCKS = 10_000
FEW_CHANGED = "sync in which 1 % of the locks changed"
CHANGED = {
    "sync in which 0 % of the locks changed": 0.0,
    FEW_CHANGED: 0.01,
    "sync in which 100 % of the locks changed": 1.0,
}
"""Fractions of the locks that change in a sync."""
GENERATE_LATEST = "`generate_latest`"


class Cost(NamedTuple):
    """Seconds of one sync, until the new exposition can be served, or of one `generate_latest`."""

    after_response: float
    """From the last byte of the response."""
    processor_time: float
    """To request, receive, parse and compare the locks, and to render and compress the exposition in both formats."""


@dataclass(frozen=True)
class Syncs(Part):
    """The cost of syncs, and of one `generate_latest` of the same locks."""

    costs: Comparison[Cost]

    def goals(self) -> Iterable[Goal]:
        """Yield the goal for a few changed locks."""
        ratio = self.costs.ratio(FEW_CHANGED, GENERATE_LATEST)
        yield Goal(
            "sync to new exposition, 10,000 locks, 1 % changed, processor time relative to one `generate_latest`",
            "at most 0.1",
            str(ratio),
            ratio.median <= 0.1,
        )

    def results(self) -> Iterable[tuple[str, str]]:
        """Yield the costs."""
        peer = self.costs.median(GENERATE_LATEST)
        yield "one `generate_latest` of 10,000 locks, processor time", f"{peer:.2f} s"
        for name in CHANGED:
            ratio = self.costs.ratio(name, GENERATE_LATEST).spread
            yield f"{name}, processor time", f"{self.costs.median(name):.3f} s, {ratio} of a `generate_latest`"
            waited = self.costs.median(name, attrgetter("after_response"))
            yield "from the last byte of its response to the new exposition", f"{waited:.2f} s"


def measure(options: Options) -> Syncs:
    """Sync one account repeatedly, in a separate process, with a simulated clock."""
    return Syncs(in_new_process(_measure, options.rounds))


def _measure(most: int) -> Comparison[Cost]:
    with simulated(1, LOCKS) as cloud:
        (account,) = cloud.keys
        rows, details = cloud.rows(account)
    parent, child = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=_serve, args=(child, rows, details), daemon=True)
    server.start()
    clock = FakeClock()
    registry, scheduler = StatusRegistry(), Scheduler(clock)
    exposition = Exposition(registry, ExporterCollector("1", lambda: (True, 0.0), lambda: True), clock)
    accounts = [{"name": account, "personal_key": "key"}]
    settings = Source({"api": {"url": parent.recv()}, "accounts": accounts}).validated(Settings)
    Accounts(clock, memory_store(clock), registry, scheduler).apply(settings)

    def sync(changed: float) -> Cost:
        parent.send(changed)
        parent.recv()
        clock.advance(20.0)
        began = time.process_time()
        scheduler.run_due()
        exposition.render()
        used, now = time.process_time() - began, time.monotonic()
        parent.send(None)
        return Cost(now - parent.recv(), used)

    def render() -> Cost:
        began, used = time.monotonic(), time.process_time()
        generate_latest(peers.registry(registry.statuses()))
        return Cost(time.monotonic() - began, time.process_time() - used)

    sync(0.0)
    while any(
        lock.details is None for status in registry.statuses() if status.snapshot for lock in status.snapshot.locks
    ):
        clock.advance(1.0)
        scheduler.run_due()
    sync(0.0)
    costs: Comparison[Cost] = Comparison((GENERATE_LATEST, *CHANGED), attrgetter("processor_time"), most)
    while not costs.is_complete():
        costs.add({name: sync(CHANGED[name]) if name in CHANGED else render() for name in costs.order()})
    server.terminate()
    return costs


def _change(rows: list[dict[str, Any]], fraction: float, rng: random.Random) -> None:
    """Change the batteries of a fraction of the locks."""
    for row in rng.sample(rows, round(fraction * len(rows))):
        state = row["deviceState"] or {}
        state["batteryLevel"] = (state.get("batteryLevel", 0) + 1) % 101


def _body(result: object) -> bytes:
    envelope = {"result": result, "success": True, "errorMessages": [], "statusCode": 200}
    return json.dumps(envelope).encode()


def _serve(pipe: Connection, rows: list[dict[str, Any]], details: list[Any]) -> None:
    """Serve the locks until the process ends, and send the URL.

    A number in the pipe changes that fraction of the locks. The reply to each message is the time at which the last
    response ended, in monotonic seconds.
    """
    os.sched_setaffinity(0, {MEASURING_CORE})
    rng, body, finished = random.Random(1), _body(rows), 0.0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            nonlocal finished
            sent = body if self.path.endswith("/sync") else _body({"locks": details, "doorSensors": []})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)
            finished = time.monotonic()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(f"http://127.0.0.1:{server.server_port}")
    while True:
        fraction = pipe.recv()
        if fraction is not None:
            _change(rows, fraction, rng)
            body = _body(rows)
        pipe.send(finished)
