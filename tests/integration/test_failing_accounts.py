"""Failing accounts affect neither Tedee's limits nor the data of other accounts.

These tests take a minute, because the program waits for the real 20 seconds.
"""

import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from exporter.simulator import Account, Lock, PersonalKey, World, serve
from testing.faults import Fault, FaultyCloud
from testing.program import Exporter, configuration, eventually, running

SYNCS = 3
GOOD = ("malformed", "home", "hotel")


class Scrapers:
    """Fifty clients that scrape five times a second."""

    def __init__(self, exporter: Exporter) -> None:
        self.codes: list[int] = []
        self._url = exporter.url
        self._exporter = exporter
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._scrape, daemon=True) for _ in range(50)]

    def __enter__(self) -> "Scrapers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _scrape(self) -> None:
        while not self._over.wait(0.2):
            self.codes.append(self._exporter.get("/metrics").status_code)


@pytest.fixture(scope="module")
def cloud() -> FaultyCloud:
    world = World.demo()
    malformed = Account("malformed", [Lock(1, "Good"), Lock(2, "Bad")], keys=[PersonalKey("key-malformed")])
    silent = Account("silent", [Lock(3, "Silent")], keys=[PersonalKey("key-silent")])
    world.accounts += [malformed, silent]
    malformed.lock(2).override(deviceState="junk", revision=None, isConnected="perhaps")
    return FaultyCloud(world)


@pytest.fixture(scope="module")
def exporter(cloud: FaultyCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """An exporter that has synced its good accounts three times while fifty clients scraped it."""
    cloud.faults.script(Fault.silence(), account="silent", forever=True)
    accounts = [
        {"name": "bad key", "personal_key": "revoked-long-ago"},
        {"name": "silent", "personal_key": "key-silent"},
        {"name": "malformed", "personal_key": "key-malformed"},
        {"name": "home", "personal_key": "simulated-key-home"},
        {"name": "hotel", "personal_key": "simulated-key-hotel"},
    ]
    with serve(cloud) as address:
        path = configuration(tmp_path_factory.mktemp("hours"), address.url, accounts)
        with running(f"--config.file={path}") as exporter:
            exporter.wait_until_ready()
            with Scrapers(exporter) as scrapers:
                eventually(lambda: all(syncs(cloud, account) >= SYNCS for account in GOOD), "three syncs of each", 120)
            assert scrapers.codes
            assert set(scrapers.codes) == {200}
            yield exporter


def syncs(cloud: FaultyCloud, account: str) -> int:
    return sum(call.endpoint == "sync" and call.account == account for call in cloud.calls)


def test_syncs_of_an_account_are_20_seconds_apart(exporter: Exporter, cloud: FaultyCloud) -> None:
    assert min(syncs(cloud, account) for account in GOOD) >= SYNCS
    assert cloud.violations == []


def test_good_accounts_sync_on_time(exporter: Exporter, cloud: FaultyCloud) -> None:
    counts = [syncs(cloud, account) for account in GOOD]
    assert max(counts) - min(counts) <= 1
    for account in GOOD:
        assert exporter.value("tedee_up", account=account) == 1.0


def test_failures_are_reported_by_reason(exporter: Exporter) -> None:
    assert exporter.value("tedee_up", account="bad key") == 0.0
    assert exporter.value("tedee_up", account="silent") == 0.0
    assert (exporter.value("tedee_sync_failures_total", account="bad key", reason="auth") or 0) >= 2
    assert (exporter.value("tedee_sync_failures_total", account="silent", reason="timeout") or 0) >= 1
    assert exporter.value("tedee_api_requests_total", account="silent", endpoint="my/lock/sync", code="timeout")


def test_malformed_lock_does_not_affect_other_locks(exporter: Exporter, cloud: FaultyCloud) -> None:
    good = cloud.world.account("malformed").lock(1)
    labels = {"account": "malformed", "lock_id": "1", "lock_name": "Good"}
    assert exporter.value("lock_revision", **labels) == good.revision
    assert exporter.value("lock_connected", account="malformed", lock_id="2", lock_name="Bad") is None

    def counted(field: str) -> bool:
        return (exporter.value("tedee_rejected_values_total", account="malformed", field=field) or 0) >= SYNCS

    # The cloud may have sent the third response before the exporter received it.
    eventually(lambda: counted("device_state") and counted("is_connected"), "the count of three syncs")
    assert len([line for line in exporter.log if "device_state" in line]) == 1


def test_devices_are_fetched_once_per_account(exporter: Exporter, cloud: FaultyCloud) -> None:
    calls = Counter(call.endpoint for call in cloud.calls if call.account == "home")
    assert (calls["details"], calls["door_sensors"]) == (1, 1)


def test_requests_remaining_match_the_cloud(exporter: Exporter, cloud: FaultyCloud) -> None:
    def agree() -> bool:
        counted = sum(call.account == "hotel" for call in cloud.calls)
        return exporter.value("tedee_api_requests_remaining", account="hotel") == 350 - counted

    eventually(agree, "the same count on both sides")
