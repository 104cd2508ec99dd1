"""Lost if these fail: a new account without a restart, and a running exporter after a slip of the pen."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from exporter.simulator import Address, Cloud
from tests.integration.conftest import HOME, HOTEL
from tests.program import PATIENCE, Exporter, configuration, eventually, running


@pytest.fixture
def exporter(address: Address, tmp_path: Path) -> Iterator[Exporter]:
    path = configuration(tmp_path, address.url, [HOME], state_file=str(tmp_path / "state.db"))
    with running(f"--config.file={path}") as exporter:
        yield exporter.wait_until_ready()


def successful(exporter: Exporter) -> float | None:
    return exporter.value("tedee_exporter_config_last_reload_successful")


def test_a_hangup_signal_loads_the_configuration_again(exporter: Exporter, address: Address, tmp_path: Path) -> None:
    configuration(tmp_path, address.url, [HOME, HOTEL], state_file=str(tmp_path / "state.db"))
    exporter.process.send_signal(signal.SIGHUP)
    eventually(lambda: "hotel" in exporter.get("/").text, "the second account")
    assert successful(exporter) == 1


def test_a_hangup_signal_brings_no_account_of_the_environment_into_the_demo() -> None:
    with running("--demo", TEDEE_PERSONAL_KEY="a-key-that-opens-doors", TEDEE_ACCOUNT="mine") as exporter:
        exporter.wait_until_ready()
        exporter.process.send_signal(signal.SIGHUP)
        eventually(lambda: any("configuration reloaded" in line for line in exporter.log), "the reload")
        assert "mine" not in exporter.get("/metrics").text
        assert exporter.value("tedee_locks", account="home") == 6


def test_a_post_loads_the_configuration_again(
    exporter: Exporter, address: Address, tmp_path: Path, cloud: Cloud
) -> None:
    before = exporter.value("tedee_exporter_config_last_reload_success_timestamp_seconds")
    configuration(tmp_path, address.url, [HOTEL], state_file=str(tmp_path / "state.db"))
    answer = requests.post(f"{exporter.url}/-/reload", timeout=PATIENCE)
    assert (answer.status_code, answer.text) == (200, "reloaded\n")
    eventually(lambda: exporter.value("tedee_locks", account="home") is None, "the old account to be gone")
    eventually(lambda: exporter.value("tedee_locks", account="hotel") == 12, "the new account's locks")
    after = exporter.value("tedee_exporter_config_last_reload_success_timestamp_seconds")
    assert before
    assert after
    assert after > before
    assert cloud.violations == []


def test_a_broken_file_changes_nothing_and_is_told_in_the_answer_the_log_and_the_metric(
    exporter: Exporter, tmp_path: Path
) -> None:
    path = tmp_path / "tedee-exporter.yml"
    path.write_text(path.read_text() + "snyc: 5\nsync: {interval: 3s}\n")
    answer = requests.post(f"{exporter.url}/-/reload", timeout=PATIENCE)
    assert answer.status_code == 500
    assert f"not reloaded: {path}:" in answer.text
    assert "snyc: unknown key; did you mean 'sync'?" in answer.text
    assert "Tedee allows one sync in 20s" in answer.text
    assert eventually(lambda: [line for line in exporter.log if "not reloaded" in line], "the log")
    eventually(lambda: successful(exporter) == 0, "the metric")
    assert exporter.value("tedee_locks", account="home") == 6


def test_the_state_file_cannot_be_changed_by_a_reload(exporter: Exporter, address: Address, tmp_path: Path) -> None:
    configuration(tmp_path, address.url, [HOME], state_file=str(tmp_path / "other.db"))
    answer = requests.post(f"{exporter.url}/-/reload", timeout=PATIENCE)
    assert answer.status_code == 500
    assert "state_file: cannot be changed by a reload; restart the exporter" in answer.text


def test_a_get_reloads_nothing(exporter: Exporter) -> None:
    assert exporter.get("/-/reload").status_code == 405


def test_two_shards_with_one_configuration_have_each_account_once_also_after_a_reload(
    address: Address, cloud: Cloud, tmp_path: Path
) -> None:
    config = configuration(tmp_path, address.url, [HOME])
    with (
        running(f"--config.file={config}", "--shard=0/2") as first,
        running(f"--config.file={config}", "--shard=1/2") as second,
    ):
        assert second.wait_until_ready().value("tedee_up", account="home") is None
        assert len([line for line in second.log if "no accounts are assigned to this shard" in line]) == 1
        configuration(tmp_path, address.url, [HOME, HOTEL])
        for exporter in (first, second):
            assert requests.post(f"{exporter.url}/-/reload", timeout=PATIENCE).ok
        eventually(lambda: first.value("tedee_up", account="home"), "the first shard to sync home")
        eventually(lambda: second.value("tedee_up", account="hotel"), "the second shard to sync hotel")
        assert first.value("tedee_up", account="hotel") is second.value("tedee_up", account="home") is None
    assert not cloud.violations
