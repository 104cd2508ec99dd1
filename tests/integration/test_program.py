"""Lost if these fail: a program that starts, serves, prints and ends as its user expects."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
import requests

from exporter import background
from exporter.simulator import Address, Cloud, Fault
from tests.integration.conftest import HOME
from tests.program import PATIENCE, configuration, eventually, lock_values, run, running


def test_one_key_in_the_environment_is_all_it_takes(cloud: Cloud, address: Address) -> None:
    with running(
        TEDEE_PERSONAL_KEY="simulated-key-home", TEDEE_API_URL=address.url, TEDEE_ACCOUNT="my house"
    ) as exporter:
        exporter.wait_until_ready()
        eventually(lambda: exporter.value("lock_info", **info_of_the_front_door()), "names")
        assert exporter.value("tedee_up", account="my house") == 1.0
        assert exporter.value("tedee_locks", account="my house") == 6.0


def info_of_the_front_door() -> dict[str, str]:
    return {
        "account": "my house",
        "lock_id": "1001",
        "lock_name": "Front door",
        "serial_number": "111111-11001",
        "model": "Lock PRO",
        "firmware_version": "2.4.22125",
        "bridge_id": "11",
        "time_zone": "Europe/Warsaw",
        "organization_id": "",
    }


def test_what_is_served_is_what_tedee_said(cloud: Cloud, address: Address, tmp_path: Path) -> None:
    home = cloud.world.account("home")
    home.lock(1001).override(state=42, doorState=9, stateChangeResult=3)
    home.lock(1002).override(batteryLevel=255)
    home.lock(1003).override(lastStateChangedDate="not a date")
    home.lock(1004).override(isConnected=False)
    home.lock(1005).override(state="junk", isCharging=None)
    with running(f"--config.file={configuration(tmp_path, address.url, [HOME])}") as exporter:
        eventually(lambda: "Shed" in exporter.get("/metrics").text, "names")
        exposed = exporter.samples()
        expected = lock_values([], [])
        for row in cloud.last_result("home"):  # type: ignore[attr-defined]
            said = {} if row["id"] == 1004 else row["deviceState"]
            usable = {key: value for key, value in said.items() if value not in {255, "junk", None}}
            for name, field in FIELDS.items():
                if field in usable:
                    expected[name][row["id"]] = float(usable[field])
    for name in FIELDS:
        found = {int(dict(labels)["lock_id"]): value for (each, labels), value in exposed.items() if each == name}
        assert found == expected[name], name
    rejected = {dict(labels)["field"]: v for (n, labels), v in exposed.items() if n == "tedee_rejected_values_total"}
    assert rejected == {"battery_level": 1.0, "last_state_changed_date": 1.0, "state": 1.0}


FIELDS = {
    "lock_state": "state",
    "lock_door_state": "doorState",
    "lock_battery_level": "batteryLevel",
    "lock_charging": "isCharging",
    "lock_state_change_result": "stateChangeResult",
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(address: Address, tmp_path: Path, number: int) -> None:
    with running(f"--config.file={configuration(tmp_path, address.url, [HOME])}") as exporter:
        exporter.wait_until_ready()
        assert exporter.stop(number) == 0
        assert "msg=stopped" in exporter.log[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_the_middle_of_a_sync_that_tedee_never_answers(
    cloud: Cloud, address: Address, tmp_path: Path, number: int
) -> None:
    cloud.faults.script(Fault.silence(), forever=True)
    # Far longer than the patience of `stop`: waiting for the call would fail the test.
    path = configuration(tmp_path, address.url, [HOME], api={"timeout": "5m"})
    with running(f"--config.file={path}") as exporter:
        eventually(lambda: cloud.calls, "the call that is never answered")
        assert exporter.stop(number) == 0
        assert not [line for line in exporter.log if "Traceback" in line]


def test_a_scrape_never_waits_for_tedee_and_never_causes_a_call(cloud: Cloud, address: Address, tmp_path: Path) -> None:
    cloud.faults.script(Fault.silence(), forever=True)
    path = configuration(tmp_path, address.url, [HOME], api={"timeout": "5m"})
    with running(f"--config.file={path}") as exporter:
        eventually(lambda: cloud.calls, "the call that is never answered")
        for _ in range(20):
            assert exporter.get("/metrics").ok
            assert exporter.get("/").ok
        assert exporter.get("/-/ready").status_code == 503
        assert len(cloud.calls) == 1


def test_one_sync_prints_a_table_and_ends_with_0(cloud: Cloud, address: Address, tmp_path: Path) -> None:
    home = cloud.world.account("home")
    home.lock(1002).rename("Ga\x1b[31mrage\nnumber 2")
    home.lock(1003).override(isConnected=False)
    result = run(f"--config.file={configuration(tmp_path, address.url, [HOME])}", "--sync.once")
    assert result.returncode == 0
    header, _, *rows = result.stdout.splitlines()
    assert header.split() == ["account", "lock", "id", "state", "door", "battery", "connection", "changed"]
    assert len(rows) == 6
    assert [row.split()[0] for row in rows] == ["home"] * 6
    assert r"Ga\x1b[31mrage\nnumber 2" in rows[1]
    assert "offline" in rows[2]
    assert "\x1b" not in result.stdout
    assert [call.endpoint for call in cloud.calls][:2] == ["sync", "locks"]


def test_one_sync_that_fails_says_why_and_ends_with_1(address: Address, tmp_path: Path) -> None:
    accounts = [HOME, {"name": "wrong", "personal_key": "no-such-key"}]
    result = run(f"--config.file={configuration(tmp_path, address.url, accounts)}", "--sync.once", "--log.level=error")
    assert result.returncode == 1
    assert "Front door" in result.stdout
    assert "wrong: my/lock/sync: HTTP 401" in result.stderr
    assert "no-such-key" not in result.stdout + result.stderr


def test_a_shard_of_the_demo_waits_for_nobody_else() -> None:
    result = run("--demo", "--sync.once", "--shard=0/3")
    assert (result.returncode, "Waiting" in result.stderr) == (0, False)
    assert {row.split()[0] for row in result.stdout.splitlines()[2:]} == {"home"}


def test_the_demo_serves_living_locks_without_a_key() -> None:
    with running("--demo") as exporter:
        exporter.wait_until_ready()
        eventually(lambda: "Front door" in exporter.get("/").text, "names")
        assert exporter.value("tedee_locks", account="home") == 6.0
        assert exporter.value("tedee_locks", account="hotel") == 12.0
        assert exporter.stop() == 0


def test_slow_clients_do_not_hold_up_others(address: Address, tmp_path: Path) -> None:
    with running(f"--config.file={configuration(tmp_path, address.url, [HOME])}") as exporter:
        exporter.wait_until_ready()
        with requests.Session() as stalled:
            answers = [stalled.get(exporter.url + "/metrics", stream=True, timeout=PATIENCE) for _ in range(5)]
            assert exporter.get("/metrics").ok
            for answer in answers:
                answer.close()


def test_one_sync_beside_a_running_exporter_waits_for_that_one(cloud: Cloud, address: Address, tmp_path: Path) -> None:
    path = configuration(tmp_path, address.url, [HOME], state_file=str(tmp_path / "state.db"))

    def syncs() -> int:
        return sum(call.endpoint == "sync" for call in cloud.calls)

    with running(f"--config.file={path}") as exporter:
        exporter.wait_until_ready()
        for _ in range(2):
            before = syncs()
            result = run(f"--config.file={path}", "--sync.once")
            assert (result.returncode, "Front door" in result.stdout) == (0, True)
            assert "Waiting for" in result.stderr
            assert syncs() == before + 1
    assert cloud.violations == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness for each thread")
def test_syncs_and_rendering_give_way_to_scrapes(address: Address, tmp_path: Path) -> None:
    with running(f"--config.file={configuration(tmp_path, address.url, [HOME])}") as exporter:
        exporter.wait_until_ready()
        process = exporter.process.pid

        def niceness() -> list[int]:
            threads = [int(task.name) for task in Path(f"/proc/{process}/task").iterdir()]
            return sorted(os.getpriority(os.PRIO_PROCESS, thread) for thread in threads)

        usual = os.getpriority(os.PRIO_PROCESS, 0)
        main_program_output_reload_and_web = [usual] * 5
        renderer_and_worker = [min(19, usual + background.NICENESS)] * 2
        expected = main_program_output_reload_and_web + renderer_and_worker
        eventually(lambda: niceness() == expected, "each thread to have its niceness")


def test_many_scrapers_at_once_all_get_an_answer(address: Address, tmp_path: Path) -> None:
    with running(f"--config.file={configuration(tmp_path, address.url, [HOME])}") as exporter:
        exporter.wait_until_ready()
        codes: list[int] = []

        def scrape() -> None:
            codes.extend(exporter.get("/metrics", Accept="application/openmetrics-text").status_code for _ in range(5))

        threads = [threading.Thread(target=scrape) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert codes == [200] * 250


def test_the_program_leaves_no_secret_in_its_log_at_debug_level(address: Address, tmp_path: Path) -> None:
    path = configuration(tmp_path, address.url, [HOME])
    with running(f"--config.file={path}", "--log.level=debug") as exporter:
        exporter.wait_until_ready()
        eventually(lambda: "Front door" in exporter.get("/").text, "names")
        exporter.stop()
        assert len(exporter.log) > 5
        assert "simulated-key-home" not in "".join(exporter.log)
