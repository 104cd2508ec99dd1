"""The program as a child process, in a clean environment."""

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parent.parent
# Time limits of all tests. They are long enough for an overloaded machine.
TIMEOUT = 120.0
"""Seconds to wait for a response, a condition or the end of a process, which normally take one or two. Also the
time-out of calls that must succeed."""
TOOL_SECONDS = 900.0
"""Seconds to wait for a slow tool, such as pip, promtool or podman."""
LONG_TEST = 3600
"""Seconds for a test that takes minutes. The limit of other tests is in pyproject.toml."""

T = TypeVar("T")


def eventually(condition: Callable[[], T | None], description: str, timeout: float = TIMEOUT) -> T:
    """Wait until a condition is true, and return its first result that is not None, False or empty.

    No test asserts how long that took.
    """
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError(f"timed out after {timeout:g} s waiting for {description}")


_STATES = tempfile.TemporaryDirectory(prefix="tedee-exporter-tests-")


def environment(**variables: str) -> dict[str, str]:
    """Return an environment with only the variables that the program needs, and a new state folder."""
    needed = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C.UTF-8",
        "XDG_STATE_HOME": tempfile.mkdtemp(dir=_STATES.name),
    }
    return needed | variables


def run(*arguments: str, timeout: float = TIMEOUT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "exporter", *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def configuration(folder: Path, url: str, accounts: list[dict[str, Any]], **sections: Any) -> Path:
    """Write a configuration file for accounts of a simulated cloud."""
    api = {"url": url} | sections.pop("api", {})
    path = folder / "tedee-exporter.yml"
    path.write_text(yaml.safe_dump({"api": api, "accounts": accounts, **sections}), "utf-8")
    path.chmod(0o600)
    return path


class Exporter:
    """A running exporter."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    @property
    def port(self) -> int:
        """The port on which the exporter listens. Waits until it does."""

        def logged_port() -> int | None:
            if self.process.poll() is not None:
                raise AssertionError(f"the exporter ended with {self.process.returncode}:\n{''.join(self.log)}")
            found = re.search(r"msg=listening .*port=(\d+)", "".join(self.log))
            return int(found[1]) if found else None

        return eventually(logged_port, "the exporter to listen")

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> requests.Response:
        """Request a path."""
        return requests.get(self.url + path, headers=headers, timeout=TIMEOUT)

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return the samples of a scrape: (name, labels) to value."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.get("/metrics").text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """Return a sample of a scrape, None if absent."""
        return self.samples().get((name, tuple(sorted(labels.items()))))

    def wait_until_ready(self, timeout: float = TIMEOUT) -> "Exporter":
        """Wait until the exporter is ready, and return it."""
        eventually(lambda: self.get("/-/ready").ok, "the exporter to be ready", timeout)
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(TIMEOUT)
        self._reader.join()
        return code

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def _read_log(self) -> None:
        assert self.process.stderr
        with self.process.stderr as lines:
            for line in lines:
                self.log.append(line)


def _with_address(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Add a free port of the loopback interface, unless the arguments have an address or use systemd's sockets."""
    has_address = any(each.startswith(("--web.listen-address", "--web.systemd-socket")) for each in arguments)
    return arguments if has_address else (*arguments, "--web.listen-address=127.0.0.1:0")


@contextlib.contextmanager
def running(
    *arguments: str, prefix: Sequence[str] = (), pass_fds: Sequence[int] = (), **variables: str
) -> Iterator[Exporter]:
    """Run the program on a free port of the loopback interface inside the context.

    Args:
        arguments: arguments of the program.
        prefix: command that runs the program.
        pass_fds: file descriptors that the command inherits.
        variables: additional environment variables.
    """
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "exporter", *_with_address(arguments)],
        env=environment(**variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=pass_fds,
    )
    exporter = Exporter(process)
    try:
        yield exporter
    finally:
        exporter.kill()


def lock_values(rows: Any, details: Any) -> dict[str, dict[int, float]]:
    """Return the value of each lock metric by lock id, as the rows of the simulated cloud's responses imply it.

    The function follows the documentation of the API and shares no code with the exporter.
    """
    fields = {
        "lock_state": "state",
        "lock_door_state": "doorState",
        "lock_battery_level": "batteryLevel",
        "lock_charging": "isCharging",
        "lock_state_change_result": "stateChangeResult",
    }
    derived = {
        "lock_locked": ("state", {6: 1.0, 2: 0.0, 3: 0.0, 4: 0.0, 5: 0.0, 7: 0.0, 8: 0.0, 255: 0.0}),
        "lock_door_open": ("doorState", {2: 1.0, 3: 0.0}),
        "lock_jammed": ("stateChangeResult", {1: 1.0, 0: 0.0}),
    }
    values: dict[str, dict[int, float]] = {name: {} for name in (*fields, *derived)}
    values |= {"lock_connected": {}, "lock_revision": {}, "lock_firmware_update_available": {}, "lock_info": {}}
    for row in rows:
        values["lock_revision"][row["id"]] = row["revision"]
        if row["isConnected"] is not None:
            values["lock_connected"][row["id"]] = float(row["isConnected"])
        for name, field in fields.items():
            if row["deviceState"]:
                values[name][row["id"]] = float(row["deviceState"][field])
        for name, (field, by_code) in derived.items():
            if row["deviceState"] and row["deviceState"][field] in by_code:
                values[name][row["id"]] = by_code[row["deviceState"][field]]
    for row in details:
        values["lock_info"][row["id"]] = 1.0
        for software in row["softwareVersions"]:
            values["lock_firmware_update_available"][row["id"]] = float(software["updateAvailable"])
    return values


def free_port() -> int:
    """Return a free port for programs that do not report which port they chose.

    It is below the ephemeral ports of the kernel, and each worker of pytest has its own range of 1,000.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 20
    while True:
        port = 12_000 + 1_000 * worker + next(_ports) % 1_000
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


_ports = itertools.count(os.getpid())
