"""A Prometheus server that scrapes the exporter."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
import yaml

from testing.program import TIMEOUT, eventually, free_port
from tests.conftest import require_program


class Prometheus:
    """A running Prometheus server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the instant vector of a query: a list of `{"metric": labels, "value": [time, text]}`."""
        response = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=TIMEOUT)
        response.raise_for_status()
        result: list[dict[str, Any]] = response.json()["data"]["result"]
        return result

    def values(self, metric: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the values of a metric by the given labels."""
        return {
            tuple(each["metric"][label] for label in labels): float(each["value"][1]) for each in self.query(metric)
        }

    def target(self) -> dict[str, Any]:
        """Return the only target of Prometheus. It is listed shortly after Prometheus is ready."""

        def targets() -> list[dict[str, Any]]:
            response = requests.get(f"{self.url}/api/v1/targets", timeout=TIMEOUT).json()
            active: list[dict[str, Any]] = response["data"]["activeTargets"]
            return active

        return eventually(targets, "Prometheus to list its target")[0]


@contextlib.contextmanager
def prometheus(folder: Path, target: str, **job: Any) -> Iterator[Prometheus]:
    """Run Prometheus, which scrapes `host:port` every second; `job` has further keys of its scrape configuration."""
    program = require_program("prometheus")
    config = folder / "prometheus.yml"
    jobs = [{"job_name": "tedee", "static_configs": [{"targets": [target]}], **job}]
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    port = free_port()
    log = folder / "prometheus.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=output,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: _ready(url, process, log), "Prometheus to be ready")
        yield Prometheus(url)
    finally:
        process.kill()
        process.wait()


def _ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    if process.poll() is not None:
        raise AssertionError(f"Prometheus ended:\n{log.read_text()}")
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"{url}/-/ready", timeout=TIMEOUT).ok
    return False
