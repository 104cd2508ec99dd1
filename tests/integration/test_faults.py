"""Killed processes, full disks and huge responses: Tedee's limits, the data and the memory of the exporter."""

import contextlib
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

from exporter.simulator import Address, World, serve
from testing.faults import Fault, FaultyCloud
from testing.program import LONG_TEST, ROOT, TIMEOUT, Exporter, configuration, environment, eventually, running
from tests.integration.conftest import HOME, HOTEL


class Load:
    """A thread that scrapes and reloads the exporter as fast as it can."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(requests.RequestException, AssertionError):
                self._exporter.get("/metrics")
                requests.post(f"{self._exporter.url}/-/reload", timeout=TIMEOUT)


@pytest.mark.parametrize("kills", [12, pytest.param(100, marks=pytest.mark.soak)])
@pytest.mark.timeout(LONG_TEST)
def test_killed_processes_keep_limits_and_data(
    cloud: FaultyCloud, address: Address, tmp_path: Path, kills: int
) -> None:
    rng = random.Random(kills)
    # Responses are slow, so that many kills happen during a call.
    cloud.faults.script(*[Fault.delayed(rng.uniform(0, 1.5)) for _ in range(1_000)])
    path = configuration(tmp_path, address.url, [HOME, HOTEL], state_file=str(tmp_path / "state.db"))
    known: dict[str, int] = {"home": 6, "hotel": 12}
    with running(f"--config.file={path}") as exporter:
        for account, count in known.items():
            eventually(lambda: locks(exporter, account) == count, "the first sync")  # noqa: B023
        exporter.kill()
    for _ in range(kills):
        with running(f"--config.file={path}") as exporter:
            served = {str(account): value for account in ("home", "hotel") if (value := locks(exporter, account))}
            # Values that a previous process served are served again at once.
            assert known.items() <= served.items()
            with Load(exporter):
                time.sleep(rng.uniform(0, 2.5))
                exporter.kill()
    assert cloud.violations == []
    syncs = [call for call in cloud.calls if call.endpoint == "sync" and call.account == "home"]
    # Twelve kills may take less than the spacing. A hundred take longer than the longest wait.
    assert len(syncs) >= (2 if kills == 100 else 1)


def locks(exporter: Exporter, account: str) -> int:
    return int(exporter.value("tedee_locks", account=account) or 0)


@pytest.mark.soak
@pytest.mark.timeout(LONG_TEST)
def test_two_processes_obey_limits_for_five_minutes(cloud: FaultyCloud, address: Address, tmp_path: Path) -> None:
    path = configuration(tmp_path, address.url, [HOME, HOTEL], state_file=str(tmp_path / "state.db"))
    with running(f"--config.file={path}") as one, running(f"--config.file={path}") as two:
        time.sleep(300)
        for account, count in (("home", 6), ("hotel", 12)):
            for exporter in (one, two):
                assert locks(exporter, account) == count
                assert exporter.value("tedee_up", account=account) == 1
            assert len([call for call in cloud.calls if (call.account, call.endpoint) == (account, "sync")]) <= 16
    assert cloud.violations == []


def test_full_disk_does_not_stop_the_exporter(cloud: FaultyCloud, address: Address, tmp_path: Path) -> None:
    path = configuration(tmp_path, address.url, [HOME], state_file=str(tmp_path / "state.db"))

    def limit_files_to_a_kibibyte() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    process = subprocess.Popen(
        [sys.executable, "-m", "exporter", "--web.listen-address=127.0.0.1:0", f"--config.file={path}"],
        env=environment(),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit_files_to_a_kibibyte,  # noqa: PLW1509  (no threads hold locks here)
    )
    exporter = Exporter(process)
    try:
        # A start without a valid state file waits half a minute first.
        eventually(lambda: locks(exporter, "home") == 6, "the first sync")
        assert exporter.value("tedee_exporter_state_file_usable") == 0
        assert [line for line in exporter.log if "the state file cannot be used" in line]
    finally:
        exporter.kill()
    assert cloud.violations == []


def test_compression_bomb_does_not_fill_memory(cloud: FaultyCloud, address: Address, tmp_path: Path) -> None:
    # The simulated cloud compresses the 300 MiB to a thousandth.
    cloud.faults.script(Fault.body(b" " * (300 * 2**20), "application/json"), account="home", endpoint="sync")
    path = configuration(tmp_path, address.url, [HOME, HOTEL])
    with running(f"--config.file={path}") as exporter:
        failures = {"account": "home", "reason": "invalid_response"}
        eventually(lambda: exporter.value("tedee_sync_failures_total", **failures), "the failure")
        eventually(lambda: locks(exporter, "hotel") == 12, "the other account")
        assert memory(exporter, "VmHWM") < 120
        assert "the response exceeds" in "".join(exporter.log)


def test_huge_responses_stay_below_memory_limit_of_chart(tmp_path: Path) -> None:
    """The limit is 256 MiB. The smallest rows take the most memory."""
    world = World.of_size(accounts=41, locks=1)
    cloud = FaultyCloud(world)
    huge = [Fault.body(b" " * 2**25, "application/json"), Fault.result([0] * 900_000)]
    *others, normal = world.accounts
    for number, account in enumerate(others):
        cloud.faults.script(huge[number % 2], account=account.name, endpoint="sync", forever=True)
    with serve(cloud) as address:
        keys = [{"name": each.name, "personal_key": each.keys[0].value} for each in world.accounts]
        path = configuration(tmp_path, address.url, keys, api={"timeout": "60s"})
        with running(f"--config.file={path}") as exporter:
            exporter.wait_until_ready(4 * TIMEOUT)
            assert locks(exporter, normal.name) == 1
            assert all(exporter.value("tedee_up", account=each.name) == 0 for each in others)
            assert memory(exporter, "VmHWM") < 200
            # Otherwise a busy machine has a response in memory at each moment.
            cloud.faults.clear()
            eventually(lambda: memory(exporter, "VmRSS") < 100, "freed memory to be returned to the system")


def memory(exporter: Exporter, kind: str) -> float:
    """Return the memory of the process in MiB, as the kernel reports it."""
    status = Path(f"/proc/{exporter.process.pid}/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024
