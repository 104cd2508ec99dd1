"""The program as its user sees it: how it starts, what it serves and prints, and how it ends."""

import os
import re
import signal
import sys
import threading
from pathlib import Path
from queue import Queue

import pytest
import requests

from exporter import background
from exporter.simulator import Address
from testing.faults import Fault, FaultyCloud
from testing.program import TIMEOUT, configuration, eventually, lock_values, run, running
from tests.integration.conftest import HOME


def test_one_environment_variable_is_enough(cloud: FaultyCloud, address: Address) -> None:
    with running(
        TEDEE_PERSONAL_KEY="simulated-key-home", TEDEE_API_URL=address.url, TEDEE_ACCOUNT="my house"
    ) as exporter:
        exporter.wait_until_ready()
        eventually(lambda: exporter.value("lock_info", **front_door_labels()), "the devices")
        assert exporter.value("tedee_up", account="my house") == 1.0
        assert exporter.value("tedee_locks", account="my house") == 6.0


def front_door_labels() -> dict[str, str]:
    return {
        "account": "my house",
        "lock_id": "1001",
        "lock_name": "Front door",
        "serial_number": "111111-11001",
        "model": "Lock PRO",
        "firmware_version": "2.4.22125",
        "bridge_id": "11",
        "bridge_name": "Hallway",
        "keypad_id": "1101",
        "door_sensor_id": "1201",
        "time_zone": "Europe/Warsaw",
        "organization_id": "",
    }


def test_served_values_match_the_responses(cloud: FaultyCloud, address: Address, tmp_path: Path) -> None:
    home = cloud.world.account("home")
    home.lock(1001).override(state=42, doorState=9, stateChangeResult=3)
    home.lock(1002).override(batteryLevel=255)
    home.lock(1003).override(lastStateChangedDate="not a date")
    home.lock(1004).override(isConnected=False)
    home.lock(1005).override(state="junk", isCharging=None)
    with running(f"--config.file={configuration(tmp_path, address.url, [HOME])}") as exporter:
        eventually(lambda: "Shed" in exporter.get("/metrics").text, "the devices")
        exposed = exporter.samples()
        expected = lock_values([], [])
        for row in cloud.last_result("home"):  # type: ignore[attr-defined]
            state = {} if row["id"] == 1004 else row["deviceState"]
            usable = {key: value for key, value in state.items() if value not in {255, "junk", None}}
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
def test_signal_ends_the_program_with_0(address: Address, tmp_path: Path, number: int) -> None:
    with running(f"--config.file={configuration(tmp_path, address.url, [HOME])}") as exporter:
        exporter.wait_until_ready()
        assert exporter.stop(number) == 0
        assert "msg=stopped" in exporter.log[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_program_during_a_sync(
    cloud: FaultyCloud, address: Address, tmp_path: Path, number: int
) -> None:
    cloud.faults.script(Fault.silence(), forever=True)
    # Much longer than the time-out of `stop`: the test fails if the program waits for the call.
    path = configuration(tmp_path, address.url, [HOME], api={"timeout": "5m"})
    with running(f"--config.file={path}") as exporter:
        eventually(lambda: cloud.calls, "the call without a response")
        assert exporter.stop(number) == 0
        assert not [line for line in exporter.log if "Traceback" in line]


def test_scrape_neither_waits_for_tedee_nor_causes_a_call(cloud: FaultyCloud, address: Address, tmp_path: Path) -> None:
    cloud.faults.script(Fault.silence(), forever=True)
    path = configuration(tmp_path, address.url, [HOME], api={"timeout": "5m"})
    with running(f"--config.file={path}") as exporter:
        eventually(lambda: cloud.calls, "the call without a response")
        for _ in range(20):
            assert exporter.get("/metrics").ok
            assert exporter.get("/").ok
        assert exporter.get("/-/ready").status_code == 503
        assert len(cloud.calls) == 1


def test_sync_once_prints_a_table_and_exits_with_0(cloud: FaultyCloud, address: Address, tmp_path: Path) -> None:
    home = cloud.world.account("home")
    home.lock(1002).rename("Ga\x1b[31mrage\nnumber 2")
    home.lock(1003).override(isConnected=False)
    result = run(f"--config.file={configuration(tmp_path, address.url, [HOME])}", "--sync.once")
    assert result.returncode == 0
    locks, devices = result.stdout.split("\n\n")
    header, _, *rows = locks.splitlines()
    assert header.split() == ["account", "lock", "id", "state", "door", "battery", "connection", "changed"]
    assert len(rows) == 6
    assert [row.split()[0] for row in rows] == ["home"] * 6
    assert r"Ga\x1b[31mrage\nnumber 2" in rows[1]
    assert "offline" in rows[2]
    assert "\x1b" not in result.stdout
    assert {"Hallway", "Front door keypad", "Front door sensor"} <= {
        re.split(" {2,}", row)[1] for row in devices.splitlines()[2:]
    }
    assert [call.endpoint for call in cloud.calls] == ["sync", "details", "door_sensors"]


@pytest.mark.parametrize("level", ["info", "error"])
def test_failed_sync_once_prints_reason_once_and_exits_with_1(address: Address, tmp_path: Path, level: str) -> None:
    accounts = [HOME, {"name": "wrong", "personal_key": "no-such-key"}]
    path = configuration(tmp_path, address.url, accounts)
    result = run(f"--config.file={path}", "--sync.once", f"--log.level={level}")
    assert result.returncode == 1
    assert "Front door" in result.stdout
    assert result.stderr.startswith("wrong: my/lock/sync: HTTP 401")
    assert result.stderr.count("\n") == 1
    assert "retr" not in result.stderr
    assert "no-such-key" not in result.stdout + result.stderr


def test_shard_of_the_demo_does_not_wait() -> None:
    result = run("--demo", "--sync.once", "--shard=0/3")
    # One of the accounts of this shard may not read events.
    assert (result.returncode, "Waiting" in result.stderr) == (1, False)
    for table in result.stdout.split("\n\n"):
        assert {row.split()[0] for row in table.splitlines()[2:]} == {"home", "flats", "cabin"}


def test_demo_serves_simulated_locks() -> None:
    with running("--demo") as exporter:
        exporter.wait_until_ready()
        eventually(lambda: "Front door" in exporter.get("/").text, "the devices")
        assert exporter.value("tedee_locks", account="home") == 6.0
        assert exporter.value("tedee_locks", account="hotel") == 12.0
        assert exporter.value("tedee_up", account="office") == 0.0
        # The demo starts at 14:00. The garage is unlocked between 6:00 and 7:00.
        unlocked = exporter.value(
            "lock_last_state_change_timestamp", account="home", lock_id="1002", lock_name="Garage"
        )
        started = exporter.value("process_start_time_seconds")
        assert unlocked
        assert started
        assert 7 * 3600 - TIMEOUT < started - unlocked < 8 * 3600 + TIMEOUT
        assert exporter.stop() == 0


@pytest.mark.parametrize(
    "flags",
    [
        ["--web.external-url=https://example.org/locks/"],
        ["--web.external-url=https://example.org/", "--web.route-prefix=locks"],
        ["--web.route-prefix=/locks/", "--web.telemetry-path=/metrics"],
    ],
)
def test_flags_set_the_prefix_of_all_endpoints(address: Address, tmp_path: Path, flags: list[str]) -> None:
    with running(f"--config.file={configuration(tmp_path, address.url, [HOME])}", *flags) as exporter:
        eventually(lambda: exporter.get("/locks/-/ready").status_code == 200, "readiness")
        assert "lock_state{" in exporter.get("/locks/metrics").text
        assert "<h1>Tedee exporter</h1>" in exporter.get("/").text  # after a redirect
        assert exporter.get("/metrics").status_code == 404


def test_slow_clients_do_not_delay_others(address: Address, tmp_path: Path) -> None:
    with running(f"--config.file={configuration(tmp_path, address.url, [HOME])}") as exporter:
        exporter.wait_until_ready()
        with requests.Session() as stalled:
            responses = [stalled.get(exporter.url + "/metrics", stream=True, timeout=TIMEOUT) for _ in range(5)]
            assert exporter.get("/metrics").ok
            for response in responses:
                response.close()


def test_sync_once_waits_for_a_running_exporter(cloud: FaultyCloud, address: Address, tmp_path: Path) -> None:
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness of each thread")
def test_syncs_and_rendering_have_low_priority(address: Address, tmp_path: Path) -> None:
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a niceness of each thread")
def test_thread_started_by_a_low_priority_thread_has_the_same_priority() -> None:
    found: Queue[int] = Queue()

    def report() -> None:
        found.put(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    def report_twice() -> None:
        report()
        background.start(report, "second")

    background.start(report_twice, "first")
    assert found.get(timeout=TIMEOUT) == found.get(timeout=TIMEOUT)


def test_many_simultaneous_scrapes_get_a_response(address: Address, tmp_path: Path) -> None:
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


def test_debug_log_has_no_secret(address: Address, tmp_path: Path) -> None:
    path = configuration(tmp_path, address.url, [HOME])
    with running(f"--config.file={path}", "--log.level=debug") as exporter:
        exporter.wait_until_ready()
        eventually(lambda: "Front door" in exporter.get("/").text, "the devices")
        exporter.stop()
        assert len(exporter.log) > 5
        assert "simulated-key-home" not in "".join(exporter.log)
