"""The peers of the exporter, and short measurements of the programs."""

import sys
from typing import Any

import pytest
import requests
from prometheus_client import generate_latest

from bench import memory, peers, replicas, starts, syncs
from bench.cloud import MINIMAL, OURS
from bench.environment import users_environment
from bench.machine import Options, started
from exporter.simulator import Cloud, World, serve
from testing.clock import FakeClock
from testing.factories import locks_of, registry, status
from testing.postgresql import running_server
from testing.program import TIMEOUT, eventually, free_port
from tests.conftest import require_program
from tests.correctness.test_exposition import expose

FIVE = ("connected", "state", "door_state", "battery_level", "last_state_change_timestamp")
QUICK = Options(rounds=1)


@pytest.fixture
def _taskset() -> None:
    require_program("taskset")


def test_peer_exposes_the_same_lock_metrics(clock: FakeClock) -> None:
    ours = expose(registry(status(clock)), clock).scrape("", "").body.decode().splitlines()
    theirs = generate_latest(peers.registry([status(clock)])).decode().splitlines()
    of_locks = {line for line in ours if line.startswith(("lock_", "# HELP lock_", "# TYPE lock_"))}
    assert len(of_locks) > 20
    assert set(theirs) == of_locks


@pytest.mark.usefixtures("_taskset")
def test_minimal_exporter_exposes_five_metrics(clock: FakeClock) -> None:
    cloud = Cloud(World.demo(clock=clock.wall))
    port = free_port()

    def samples(text: str) -> set[str]:
        return {line for line in text.splitlines() if line.startswith(tuple(f"lock_{name}{{" for name in FIVE))}

    with (
        serve(cloud) as address,
        started(sys.executable, "-m", "bench.minimal_exporter", address.url, "simulated-key-home", str(port)),
    ):
        eventually(lambda: {call.endpoint for call in cloud.calls if call.status} == {"details", "sync"}, "both calls")
        rows: Any = cloud.last_result("home")
        details: Any = cloud.last_result("home", "details")
        ours = expose(registry(status(clock, locks_of(rows, details["locks"]))), clock).scrape("", "").body.decode()
        expected = samples(ours)
        assert len(expected) > 20
        scrape = f"http://127.0.0.1:{port}/metrics"
        eventually(lambda: samples(requests.get(scrape, timeout=TIMEOUT).text) == expected, "the same samples")


@pytest.mark.usefixtures("_taskset")
def test_start_is_measured_in_a_users_environment() -> None:
    with users_environment() as programs:
        folder = next(programs.parent.glob("lib/python*/site-packages/exporter"))
        assert (folder / "__pycache__" / f"cli.{sys.implementation.cache_tag}.pyc").exists()
        assert not list(folder.parent.glob("pytest*"))
        options = Options(exporter=(str(programs / "tedee-exporter"),), python=str(programs / "python"), rounds=1)
        (measured,) = starts.measure(options).starts.rounds
    assert measured.keys() == {OURS, MINIMAL}
    for start in measured.values():
        assert start.processor_time > 0
        assert start.elapsed > 0


@pytest.mark.usefixtures("_taskset")
def test_memory_of_both_exporters_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SIZES", (2, 3))
    monkeypatch.setattr(memory, "SETTLING_TIME", 0.0)
    for measured in memory.measure(QUICK).sizes.values():
        assert measured.median(OURS) > measured.median(MINIMAL) > 10 * 1024


@pytest.mark.usefixtures("_taskset")
def test_replicas_and_their_database_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "ACCOUNTS", 2)
    monkeypatch.setattr(replicas, "LOCKS", 2)
    with running_server() as server:
        several = replicas._observe(replicas.REPLICAS, Options(watch=90.0), server)
    assert several.late
    assert several.violations == 0
    assert len(several.cores) == len(several.memory) == replicas.REPLICAS
    assert several.database
    assert min(several.database) > 0


def test_syncs_and_generate_latest_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncs, "LOCKS", 200)
    (costs,) = syncs._measure(most=1).rounds
    assert costs.keys() == {syncs.GENERATE_LATEST, *syncs.CHANGED}
    assert all(cost.after_response > 0 for cost in costs.values())
