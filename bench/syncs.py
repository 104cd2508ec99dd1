"""The cost of a sync, from the request to the new exposition, compared with one `generate_latest` of the same locks."""

import json
import multiprocessing
import os
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, NamedTuple

from prometheus_client import generate_latest

from exporter.accounts import Accounts
from exporter.config import Settings
from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.sync.scheduler import Scheduler
from exporter.sync.snapshot import StatusRegistry
from testing.clock import FakeClock
from testing.stores import memory_store

from . import peers
from .cloud import PAGE_SIZE, simulated
from .machine import MEASURED_CORE, MEASURING_CORE

LOCKS = 10_000
CHANGED = (0.0, 0.01, 1.0)
"""Fractions of the locks that change in a sync."""
SYNCS = 7


class Cost(NamedTuple):
    """Seconds of one sync, until the new exposition can be served."""

    after_response: float
    """From the last byte of the response."""
    processor_time: float
    """To request, receive, parse and compare the locks, and to render and compress the exposition in both formats."""


class Costs(NamedTuple):
    """The cost of syncs by fraction of changed locks, and of a scrape with prometheus_client."""

    syncs: dict[float, Cost]
    generate_latest: float
    """Seconds of processor time."""


def measure() -> Costs:
    """Sync one account repeatedly, in this process, with a simulated clock."""
    os.sched_setaffinity(0, {MEASURED_CORE})
    with simulated(1, LOCKS) as cloud:
        (account,) = cloud.keys
        rows, details = cloud.rows(account)
    parent, child = multiprocessing.Pipe()
    bodies = _bodies(rows)
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=_serve, args=(child, bodies, details), daemon=True)
    server.start()
    clock = FakeClock()
    registry, scheduler = StatusRegistry(), Scheduler(clock)
    exposition = Exposition(registry, ExporterCollector("1", lambda: (True, 0.0), lambda: True), clock)
    accounts = [{"name": account, "personal_key": "key"}]
    settings = Settings.model_validate({"api": {"url": parent.recv()}, "accounts": accounts})
    Accounts(clock, memory_store(clock), registry, scheduler).apply(settings)

    def sync() -> Cost:
        clock.advance(20.0)
        began = time.process_time()
        scheduler.run_due()
        exposition.render()
        used, now = time.process_time() - began, time.monotonic()
        parent.send("finished")
        return Cost(now - parent.recv(), used)

    sync()
    while any(
        lock.details is None for status in registry.statuses() if status.snapshot for lock in status.snapshot.locks
    ):
        clock.advance(1.0)
        scheduler.run_due()
    exposition.render()
    parent.send("change")
    parent.recv()
    costs = {fraction: _median([sync() for _ in range(SYNCS)]) for fraction in CHANGED}
    began = time.process_time()
    generate_latest(peers.registry(registry.statuses()))
    peer_time = time.process_time() - began
    server.terminate()
    return Costs(costs, peer_time)


def _median(costs: list[Cost]) -> Cost:
    return Cost(median(cost.after_response for cost in costs), median(cost.processor_time for cost in costs))


def _bodies(rows: list[dict[str, Any]]) -> list[bytes]:
    """Return the responses to consecutive syncs. A fraction of the locks changes from one to the next."""
    rng = random.Random(1)
    bodies = [_body(rows)]
    for fraction in CHANGED:
        for _ in range(SYNCS):
            for row in rng.sample(rows, round(fraction * len(rows))):
                state = row["deviceState"] or {}
                state["batteryLevel"] = (state.get("batteryLevel", 0) + 1) % 101
            bodies.append(_body(rows))
    return bodies


def _body(rows: list[dict[str, Any]]) -> bytes:
    envelope = {"result": rows, "success": True, "errorMessages": [], "statusCode": 200}
    return json.dumps(envelope).encode()


def _serve(pipe: Connection, bodies: list[bytes], details: list[Any]) -> None:
    os.sched_setaffinity(0, {MEASURING_CORE})
    # Tedee's limit of calls for lock details spreads those of 10,000 locks over many syncs, in which nothing changes.
    unchanged, *changed = bodies
    syncs, is_changing, finished = iter(changed), False, 0.0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            nonlocal finished
            path, _, query = self.path.partition("?")
            if path.endswith("/sync"):
                body = next(syncs) if is_changing else unchanged
            else:
                page = int(query.partition("Page=")[2].partition("&")[0]) - 1
                body = _body(details[page * PAGE_SIZE : (page + 1) * PAGE_SIZE])
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            finished = time.monotonic()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(f"http://127.0.0.1:{server.server_port}")
    while message := pipe.recv():
        is_changing = is_changing or message == "change"
        pipe.send(finished)
