"""A simulated Tedee cloud in a separate process, and the exporters that call it."""

import contextlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import requests

from exporter.simulator import Cloud, World, serve
from exporter.sync.snapshot import AccountStatus, Snapshot
from testing.factories import locks_of
from testing.program import configuration, eventually

from .machine import MEASURED_CORE, MEASURING_CORE, TIMEOUT, Options, Process, started

OURS, MINIMAL = "tedee-exporter", "minimal exporter"

Call = tuple[str, str, float, float | None]
"""Account and endpoint of a call, and the monotonic seconds at which it arrived and finished."""


class SimulatedCloud:
    """A cloud that records its calls."""

    def __init__(self, url: str, keys: dict[str, str], pipe: Connection) -> None:
        self.url = url
        self.keys = keys
        self._pipe = pipe

    def calls(self) -> list[Call]:
        """Return all calls."""
        self._pipe.send("calls")
        calls: list[Call] = self._pipe.recv()
        return calls

    def violations(self) -> int:
        """Return the number of violations of Tedee's limits."""
        self._pipe.send("violations")
        return int(self._pipe.recv())

    def _get(self, account: str, path: str) -> Any:
        headers = {"Authorization": f"PersonalKey {self.keys[account]}"}
        response = requests.get(f"{self.url}/api/v37/{path}", headers=headers, timeout=TIMEOUT)
        response.raise_for_status()
        return response.json()["result"]

    def rows(self, account: str) -> tuple[list[Any], list[Any]]:
        """Return the locks of an account as rows of `my/lock/sync` and of `my/device/details`."""
        return self._get(account, "my/lock/sync"), self._get(account, "my/device/details")["locks"]

    def status(self, account: str) -> AccountStatus:
        """Return the status of an account as an exporter has it after a sync."""
        rows, details = self.rows(account)
        locks = locks_of(rows, details)
        return AccountStatus(account, "v37", up=True, snapshot=Snapshot(locks, 1_800_000_000.0, float("inf")))


def _serve(pipe: Connection, accounts: int, locks: int) -> None:
    os.sched_setaffinity(0, {MEASURING_CORE})
    world = World.of_size(accounts, locks, 1)
    cloud = Cloud(world)
    with serve(cloud) as address:
        pipe.send((address.url, {account.name: account.keys[0].value for account in world.accounts}))
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            while True:
                if pipe.recv() == "calls":
                    pipe.send([(str(call.account), call.endpoint, call.arrived, call.finished) for call in cloud.calls])
                else:
                    pipe.send(len(cloud.violations))


@contextlib.contextmanager
def simulated(accounts: int, locks: int) -> Iterator[SimulatedCloud]:
    """Run a cloud with that many accounts and locks in each."""
    parent, child = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(child, accounts, locks), daemon=True)
    process.start()
    child.close()
    try:
        url, keys = parent.recv()
        yield SimulatedCloud(url, keys, parent)
    finally:
        parent.close()
        process.terminate()
        process.join()


@contextlib.contextmanager
def exporter(
    cloud: SimulatedCloud,
    port: int,
    options: Options,
    *,
    state_url: str | None = None,
    cores: Sequence[int] = (MEASURED_CORE,),
) -> Iterator[Process]:
    """Run an exporter with all accounts of a cloud. Environment variables configure a single one, as in the README.

    Args:
        cloud: The cloud.
        port: Port on which the exporter listens.
        options: The program.
        state_url: URL of the database with the state; a file if None.
        cores: Processor cores that the exporter may use.
    """
    flags = [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with tempfile.TemporaryDirectory() as folder:
        state_file = f"{folder}/state.db"
        variables: dict[str, str] = {}
        if len(cloud.keys) == 1 and not state_url:
            (key,) = cloud.keys.values()
            variables = {"TEDEE_API_URL": cloud.url, "TEDEE_PERSONAL_KEY": key, "TEDEE_STATE_FILE": state_file}
        else:
            accounts = [{"name": name, "personal_key": key} for name, key in cloud.keys.items()]
            state = {"state_url": state_url} if state_url else {"state_file": state_file}
            flags.append(f"--config.file={configuration(Path(folder), cloud.url, accounts, **state)}")
        with started(*options.exporter, *flags, cores=cores, variables=variables) as process:
            yield process


def run(program: str, cloud: SimulatedCloud, port: int, options: Options) -> AbstractContextManager[Process]:
    """Run the exporter, or the minimal exporter for the first account, in the same environment."""
    if program == OURS:
        return exporter(cloud, port, options)
    key = next(iter(cloud.keys.values()))
    return started(options.python, "-m", "bench.minimal_exporter", cloud.url, key, str(port))


def wait_for_data(port: int, locks: int, metric: str = "lock_info", timeout: float = TIMEOUT) -> None:
    """Wait until that many locks have the metric. The default is from their details, which are the last to arrive."""
    url = f"http://127.0.0.1:{port}/metrics"

    def complete() -> bool:
        time.sleep(0.5)
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(url, timeout=TIMEOUT).text.count(f"\n{metric}{{") == locks
        return False

    eventually(complete, f"{locks} locks", timeout)
