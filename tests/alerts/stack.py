"""A real Prometheus with the rules, a real Alertmanager with the example, and a webhook that receives notifications."""

import contextlib
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import requests
import yaml

from testing.program import TIMEOUT, TOOL_SECONDS, eventually, free_port
from tests.alerts.rules import ALERTMANAGER, load
from tests.conftest import require_program
from tests.end_to_end.prometheus import Prometheus

Labels = frozenset[tuple[str, str]]


class Notification(NamedTuple):
    """One alert in a notification to a receiver."""

    receiver: str
    status: str
    labels: Labels


class Webhook:
    """All receivers of the example, and the notifications that they received."""

    def __init__(self) -> None:
        notifications: set[Notification] = set()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for alert in message["alerts"]:
                    labels = frozenset(alert["labels"].items())
                    notifications.add(Notification(self.path.removeprefix("/"), alert["status"], labels))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._notifications = notifications
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Webhook":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def receivers(self, status: str) -> dict[Labels, str]:
        """Return the receiver of each alert with the given status, by the alert's labels."""
        return {each.labels: each.receiver for each in self._notifications.copy() if each.status == status}


def accelerated(path: Path) -> Any:
    """Return the rules of a file with minutes replaced by seconds in all delays.

    A delay is a `for`, a `keep_firing_for`, the interval of a group, the step of a subquery or the time after charging.
    Other ranges are unchanged, because the history is written into Prometheus before it starts.
    """
    groups = load(path)
    for group in groups["groups"]:
        if "interval" in group:
            group["interval"] = group["interval"].replace("m", "s")
        for rule in group["rules"]:
            rule["expr"] = re.sub(r"(:|charging:held\[)(\d+)m\]", r"\1\2s]", str(rule["expr"]))
            for key in {"for", "keep_firing_for"} & rule.keys():
                rule[key] = rule[key].replace("m", "s")
    return groups


@contextlib.contextmanager
def prometheus(
    folder: Path,
    *,
    rules: Sequence[Any] = (),
    targets: Sequence[str] = (),
    alertmanagers: Sequence[str] = (),
    history: str = "# EOF\n",
) -> Iterator[Prometheus]:
    """Run Prometheus, which scrapes and evaluates every second; `history` is a text in the OpenMetrics format."""
    folder.mkdir()
    for number, content in enumerate(rules):
        (folder / f"{number}.rules.yml").write_text(yaml.safe_dump(content))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["*.rules.yml"],
        "scrape_configs": [{"job_name": "tedee", "static_configs": [{"targets": list(targets)}]}],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]},
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "history").write_text(history)
    backfill = ["tsdb", "create-blocks-from", "openmetrics", "-q", "history", "data"]
    subprocess.run([require_program("promtool"), *backfill], cwd=folder, check=True, timeout=TOOL_SECONDS)
    port = free_port()
    arguments = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=30d",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with child(require_program("prometheus"), arguments, f"http://127.0.0.1:{port}/-/ready", folder / "log"):
        yield Prometheus(f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def alertmanager(folder: Path, webhook: Webhook) -> Iterator[str]:
    """Run Alertmanager with the example, the webhook and short delays; yield its address."""
    folder.mkdir()
    config = folder / "alertmanager.yml"
    text = ALERTMANAGER.read_text("utf-8").replace("http://127.0.0.1:8080", webhook.url)
    config.write_text(re.sub(r"(group_wait|group_interval): \w+", r"\1: 1s", text))
    port = free_port()
    arguments = [
        f"--config.file={config}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    # Debian's package uses another name.
    program = require_program("alertmanager" if shutil.which("alertmanager") else "prometheus-alertmanager")
    with child(program, arguments, f"http://127.0.0.1:{port}/-/ready", folder / "log"):
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def child(program: str, arguments: Sequence[str], ready: str, log: Path) -> Iterator[None]:
    """Run a program until the end of the test; yield when it is ready."""
    with log.open("w") as output:
        process = subprocess.Popen([program, *arguments], stdout=output, stderr=output)

    def is_ready() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"{program} ended:\n{log.read_text()}")
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(ready, timeout=TIMEOUT).ok
        return False

    try:
        eventually(is_ready, f"{program} to be ready")
        yield
    finally:
        process.kill()
        process.wait()
