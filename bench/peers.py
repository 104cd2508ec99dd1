"""The peers of the exporter: a usual collector for prometheus_client, which creates all families at each scrape.

python -m bench.peers SNAPSHOT PORT    # prometheus_client's own server
SNAPSHOT=… gunicorn "bench.peers:application()"
"""

import os
import pickle
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from exporter.metrics.catalogue import LOCK_METRICS
from exporter.metrics.collector import empty_family
from exporter.sync.snapshot import AccountStatus, Lock


class SnapshotCollector(Collector):
    """A custom collector for locks, as in the documentation of prometheus_client."""

    def __init__(self, statuses: Sequence[AccountStatus]) -> None:
        self._statuses = statuses

    def _locks(self) -> Iterator[tuple[list[str], Lock]]:
        for status in self._statuses:
            for lock in status.snapshot.locks if status.snapshot else ():
                yield [status.account, str(lock.id), lock.label], lock

    def collect(self) -> Iterator[Family]:
        """Yield new metric families."""
        for metric in LOCK_METRICS:
            family = empty_family(metric)
            for labels, lock in self._locks():
                if (value := metric.value(lock)) not in (None, {}):
                    family.add_metric(labels, value)
            if family.samples:
                yield family


def registry(statuses: Sequence[AccountStatus]) -> CollectorRegistry:
    """Return a registry with only the locks of those accounts."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(statuses))
    return registry


def _read(path: str) -> CollectorRegistry:
    statuses: Sequence[AccountStatus] = pickle.loads(Path(path).read_bytes())
    return registry(statuses)


def application() -> Any:
    """Return the WSGI application for `gunicorn "bench.peers:application()"`."""
    return make_wsgi_app(_read(os.environ["SNAPSHOT"]))


if __name__ == "__main__":
    start_http_server(int(sys.argv[2]), "127.0.0.1", _read(sys.argv[1]))
    threading.Event().wait()
