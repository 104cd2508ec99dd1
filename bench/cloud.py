"""A simulated Tedee cloud in a process of its own, and an exporter that asks it."""

import contextlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import requests

from exporter.simulator import Cloud, World, serve
from exporter.sync.snapshot import AccountStatus, Snapshot
from tests.factories import locks_of
from tests.program import configuration, eventually

from .machine import EXPORTER_PYTHON, MEASURED_CORE, MEASURING_CORE, PATIENCE, Process, started

PAGE = 100


class SimulatedCloud:
    """A cloud that keeps record of its calls."""

    def __init__(self, url: str, keys: dict[str, str], asks: Connection) -> None:
        self.url = url
        self.keys = keys
        self._asks = asks

    def calls(self) -> list[tuple[str, str, float, float | None]]:
        """Account, endpoint, and when (monotonic seconds) each call arrived and was answered."""
        self._asks.send("calls")
        calls: list[tuple[str, str, float, float | None]] = self._asks.recv()
        return calls

    def violations(self) -> int:
        """How often Tedee's limits were broken."""
        self._asks.send("violations")
        return int(self._asks.recv())

    def _get(self, account: str, path: str) -> list[Any]:
        headers = {"Authorization": f"PersonalKey {self.keys[account]}"}
        answer = requests.get(f"{self.url}/api/v37/{path}", headers=headers, timeout=PATIENCE)
        answer.raise_for_status()
        result: list[Any] = answer.json()["result"]
        return result

    def rows(self, account: str) -> tuple[list[Any], list[Any]]:
        """The locks of an account as a sync has them, and as the list of names has them."""
        details: list[Any] = []
        while page := self._get(account, f"my/lock?Page={len(details) // PAGE + 1}&ItemsPerPage={PAGE}"):
            details += page
        return self._get(account, "my/lock/sync"), details

    def status(self, account: str) -> AccountStatus:
        """What an exporter knows of an account."""
        rows, details = self.rows(account)
        locks = locks_of(rows, details)
        return AccountStatus(account, "v37", up=True, snapshot=Snapshot(locks, 1_800_000_000.0, float("inf")))


def _serve(asks: Connection, accounts: int, locks: int) -> None:
    os.sched_setaffinity(0, {MEASURING_CORE})
    world = World.of_size(accounts, locks, 1)
    # One page for all: otherwise Tedee's limit of 10 requests for names in 10 minutes would be measured.
    cloud = Cloud(world, smallest_page=locks)
    with serve(cloud) as address:
        asks.send((address.url, {account.name: account.keys[0].value for account in world.accounts}))
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            while True:
                asked = asks.recv()
                if asked == "calls":
                    asks.send([(str(call.account), call.endpoint, call.arrived, call.finished) for call in cloud.calls])
                else:
                    asks.send(len(cloud.violations))


@contextlib.contextmanager
def simulated(accounts: int, locks: int) -> Iterator[SimulatedCloud]:
    """A cloud with so many accounts of so many locks."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, accounts, locks), daemon=True)
    process.start()
    there.close()
    try:
        url, keys = here.recv()
        yield SimulatedCloud(url, keys, here)
    finally:
        here.close()
        process.terminate()
        process.join()


@contextlib.contextmanager
def exporter(cloud: SimulatedCloud, port: int, *flags: str) -> Iterator[Process]:
    """An exporter that asks a cloud for all its accounts."""
    with tempfile.TemporaryDirectory() as folder:
        accounts = [{"name": name, "personal_key": key} for name, key in cloud.keys.items()]
        config = configuration(Path(folder), cloud.url, accounts, state_file=f"{folder}/state.db")
        address = f"--web.listen-address=127.0.0.1:{port}"
        command = (EXPORTER_PYTHON, "-m", "exporter", f"--config.file={config}", address, "--log.level=error", *flags)
        with started(*command, core=MEASURED_CORE) as process:
            yield process


def wait_for_data(port: int, locks: int) -> None:
    """Wait until so many locks have all that is said of them."""
    url = f"http://127.0.0.1:{port}/metrics"

    def complete() -> bool:
        time.sleep(0.5)
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(url, timeout=PATIENCE).text.count("\nlock_info{") == locks
        return False

    eventually(complete, f"{locks} locks", PATIENCE)
