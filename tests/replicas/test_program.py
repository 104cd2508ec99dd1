"""Three exporters as programs, with a strict simulated cloud and a real database."""

import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from exporter.simulator import Address, Cloud, World, serve
from testing.postgresql import PostgreSQL
from testing.program import LONG_TEST, Exporter, configuration, eventually, run, running

REPLICAS = 3
UNUSABLE = "the state database cannot be used; nothing is requested until it can"


@pytest.fixture
def cloud() -> Cloud:
    return Cloud(World.of_size(accounts=2, locks=3), strict=True)


@pytest.fixture
def address(cloud: Cloud) -> Iterator[Address]:
    with serve(cloud) as address:
        yield address


def configure(folder: Path, cloud: Cloud, address: Address, url: str) -> str:
    """Write a configuration file for all accounts of a cloud, and return its flag."""
    accounts = [{"name": each.name, "personal_key": each.keys[0].value} for each in cloud.world.accounts]
    return f"--config.file={configuration(folder, address.url, accounts, state_url=url)}"


def syncs(exporter: Exporter, account: str) -> float:
    """Return the number of syncs that an exporter made."""
    labels = {"account": account, "endpoint": "my/lock/sync", "code": "200"}
    return exporter.value("tedee_api_requests_total", **labels) or 0.0


def _has_level(exporter: Exporter, lock_id: str, level: float) -> bool:
    return any(
        name == "lock_battery_level" and dict(labels)["lock_id"] == lock_id and value == level
        for (name, labels), value in exporter.samples().items()
    )


def values(exporter: Exporter) -> dict[object, float]:
    """Return the values of the locks that an exporter serves."""
    return {key: value for key, value in exporter.samples().items() if key[0] in {"lock_state", "lock_battery_level"}}


@pytest.mark.timeout(LONG_TEST)
def test_all_replicas_serve_what_one_of_them_receives(
    database: PostgreSQL, cloud: Cloud, address: Address, tmp_path: Path
) -> None:
    flag = configure(tmp_path, cloud, address, database.url)
    accounts = [each.name for each in cloud.world.accounts]
    with ExitStack() as stack:
        replicas = [stack.enter_context(running(flag)) for _ in range(REPLICAS)]
        eventually(lambda: all(len(values(each)) == 12 for each in replicas), "all replicas to serve all locks")
        lock = cloud.world.accounts[0].locks[0]
        lock.override(batteryLevel=7)
        for each in replicas:
            eventually(partial(_has_level, each, str(lock.id), 7), "the new level")
            assert each.value("tedee_exporter_state_usable") == 1
        # The caller of an account is killed.
        caller = max(replicas, key=lambda each: syncs(each, accounts[0]))
        others = [each for each in replicas if each is not caller]
        before = sum(syncs(each, accounts[0]) for each in others)
        caller.kill()
        eventually(lambda: sum(syncs(each, accounts[0]) for each in others) > before, "another replica to call")
        # The database is killed.
        database.kill()
        eventually(lambda: all(each.value("tedee_exporter_state_usable") == 0 for each in others), "the metric")
        eventually(lambda: all(UNUSABLE in "".join(each.log) for each in others), "the log lines")
        assert all(len(values(each)) == 12 for each in others)
        before = sum(syncs(each, accounts[0]) for each in others)
        database.start(fsync="off")
        eventually(lambda: sum(syncs(each, accounts[0]) for each in others) > before, "a sync after the restart")
        assert all(each.value("tedee_exporter_state_usable") == 1 for each in others)
        logs = "".join(line for each in replicas for line in each.log)
    assert "the state database can be used again" in logs
    assert cloud.violations == []


def test_check_of_the_configuration_connects(
    database: PostgreSQL, cloud: Cloud, address: Address, tmp_path: Path
) -> None:
    assert run(configure(tmp_path, cloud, address, database.url), "--config.check").returncode == 0
    assert not database.execute("SELECT FROM pg_tables WHERE schemaname = 'tedee_exporter'")
    database.execute("CREATE ROLE checker LOGIN PASSWORD 'opens-the-database'")
    try:
        url = database.url.replace("tedee@", "checker:opens-the-database@")
        flag = configure(tmp_path, cloud, address, url)
        refused = run(flag, "--config.check")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith(
            f"the state database 127.0.0.1:{database.port}/tedee cannot be used: it has no tables; the user needs "
        )
        assert "opens-the-database" not in refused.stderr
        refused = run(configure(tmp_path, cloud, address, url.replace("/tedee", "/other")), "--config.check")
        assert 'database "other" does not exist' in refused.stderr
    finally:
        database.execute("DROP ROLE checker")


@pytest.mark.soak
@pytest.mark.timeout(LONG_TEST)
def test_ten_minutes_in_which_something_is_killed_every_ten_seconds(database: PostgreSQL, tmp_path: Path) -> None:
    cloud = Cloud(World.of_size(accounts=20, locks=5), strict=True)
    rng = random.Random(1)
    with serve(cloud) as address, ExitStack() as stack:
        flag = configure(tmp_path, cloud, address, database.url)
        replicas = [stack.enter_context(running(flag)) for _ in range(REPLICAS)]
        ages: list[float] = []
        end = time.monotonic() + 600
        while time.monotonic() < end:
            killed = rng.randrange(REPLICAS + 3)
            if killed < REPLICAS:
                replicas[killed].kill()
                replicas[killed] = stack.enter_context(running(flag))
            elif killed == REPLICAS:
                stopped = replicas[0].process
                stopped.send_signal(signal.SIGSTOP)
                time.sleep(40)
                stopped.send_signal(signal.SIGCONT)
            elif killed == REPLICAS + 1:
                database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            else:
                database.kill()
                database.start(fsync="off")
            time.sleep(10)
            times = [
                value
                for each in replicas
                for (name, _), value in each.samples().items()
                if name == "tedee_last_sync_timestamp_seconds"
            ]
            ages += [time.time() - at for at in times]
    gaps = []
    for account in cloud.world.accounts:
        arrived = [each.arrived for each in cloud.calls if (each.account, each.endpoint) == (account.name, "sync")]
        gaps += [later - earlier for earlier, later in pairwise(arrived)]
    print(f"{len(gaps)} gaps from {min(gaps):.3f} to {max(gaps):.1f} s; largest age {max(ages):.1f} s")
    assert cloud.violations == []
