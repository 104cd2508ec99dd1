"""Reloads of the configuration of a running exporter, by a signal or a request."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from exporter.simulator import Address, Cloud
from testing.program import TIMEOUT, Exporter, configuration, eventually, running
from tests.integration.conftest import HOME, HOTEL


@pytest.fixture
def exporter(address: Address, tmp_path: Path) -> Iterator[Exporter]:
    path = configuration(tmp_path, address.url, [HOME], state_file=str(tmp_path / "state.db"))
    with running(f"--config.file={path}") as exporter:
        yield exporter.wait_until_ready()


def successful(exporter: Exporter) -> float | None:
    return exporter.value("tedee_exporter_config_last_reload_successful")


def test_sighup_reloads_the_configuration(exporter: Exporter, address: Address, tmp_path: Path) -> None:
    configuration(tmp_path, address.url, [HOME, HOTEL], state_file=str(tmp_path / "state.db"))
    exporter.process.send_signal(signal.SIGHUP)
    eventually(lambda: "hotel" in exporter.get("/").text, "the second account")
    assert successful(exporter) == 1


def test_first_sync_of_each_account_is_logged(exporter: Exporter, address: Address, tmp_path: Path) -> None:
    def logged() -> list[str]:
        return [line.partition("account=")[2].split()[0] for line in exporter.log if "first sync succeeded" in line]

    eventually(lambda: logged() == ["home"], "the first sync")
    configuration(tmp_path, address.url, [HOME, HOTEL], state_file=str(tmp_path / "state.db"))
    exporter.process.send_signal(signal.SIGHUP)
    eventually(lambda: logged() == ["home", "hotel"], "the first sync of the new account")


def test_sighup_does_not_add_environment_account_to_demo() -> None:
    with running("--demo", TEDEE_PERSONAL_KEY="a-key-that-opens-doors", TEDEE_ACCOUNT="mine") as exporter:
        exporter.wait_until_ready()
        exporter.process.send_signal(signal.SIGHUP)
        eventually(lambda: any("configuration reloaded" in line for line in exporter.log), "the reload")
        assert "mine" not in exporter.get("/metrics").text
        assert exporter.value("tedee_locks", account="home") == 6


def test_post_reloads_the_configuration(exporter: Exporter, address: Address, tmp_path: Path, cloud: Cloud) -> None:
    before = exporter.value("tedee_exporter_config_last_reload_success_timestamp_seconds")
    configuration(tmp_path, address.url, [HOTEL], state_file=str(tmp_path / "state.db"))
    response = requests.post(f"{exporter.url}/-/reload", timeout=TIMEOUT)
    assert (response.status_code, response.text) == (200, "reloaded\n")
    eventually(lambda: exporter.value("tedee_locks", account="home") is None, "the removal of the old account")
    eventually(lambda: exporter.value("tedee_locks", account="hotel") == 12, "the new account's locks")
    after = exporter.value("tedee_exporter_config_last_reload_success_timestamp_seconds")
    assert before
    assert after
    assert after > before
    assert cloud.violations == []


def test_invalid_file_changes_nothing_and_is_reported(exporter: Exporter, tmp_path: Path) -> None:
    path = tmp_path / "tedee-exporter.yml"
    path.write_text(path.read_text() + "snyc: 5\nsync: {interval: 3s}\n")
    response = requests.post(f"{exporter.url}/-/reload", timeout=TIMEOUT)
    assert response.status_code == 500
    assert f"not reloaded: {path}:" in response.text
    assert "snyc: unknown key; did you mean 'sync'?" in response.text
    assert "Tedee allows one sync in 20s" in response.text
    assert eventually(lambda: [line for line in exporter.log if "not reloaded" in line], "the log")
    eventually(lambda: successful(exporter) == 0, "the metric")
    assert exporter.value("tedee_locks", account="home") == 6


def test_reload_cannot_change_the_state_file(exporter: Exporter, address: Address, tmp_path: Path) -> None:
    configuration(tmp_path, address.url, [HOME], state_file=str(tmp_path / "other.db"))
    response = requests.post(f"{exporter.url}/-/reload", timeout=TIMEOUT)
    assert response.status_code == 500
    assert "state_file: cannot be changed by a reload; restart the exporter" in response.text


def test_get_does_not_reload(exporter: Exporter) -> None:
    assert exporter.get("/-/reload").status_code == 405


def test_two_shards_divide_accounts_also_after_reload(address: Address, cloud: Cloud, tmp_path: Path) -> None:
    config = configuration(tmp_path, address.url, [HOME])
    with (
        running(f"--config.file={config}", "--shard=0/2") as first,
        running(f"--config.file={config}", "--shard=1/2") as second,
    ):
        assert second.wait_until_ready().value("tedee_up", account="home") is None
        assert len([line for line in second.log if "no accounts are assigned to this shard" in line]) == 1
        configuration(tmp_path, address.url, [HOME, HOTEL])
        for exporter in (first, second):
            assert requests.post(f"{exporter.url}/-/reload", timeout=TIMEOUT).ok
        eventually(lambda: first.value("tedee_up", account="home"), "the first shard to sync home")
        eventually(lambda: second.value("tedee_up", account="hotel"), "the second shard to sync hotel")
        assert first.value("tedee_up", account="hotel") is second.value("tedee_up", account="home") is None
    assert not cloud.violations
