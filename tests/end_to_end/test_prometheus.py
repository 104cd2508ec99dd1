"""A Prometheus server that scrapes the exporter has the values of the simulated cloud."""

import subprocess
from collections.abc import Iterator
from datetime import datetime

import pytest

from exporter.metrics.catalogue import CATALOGUE, SYNC_FAILING, AnyMetric
from exporter.simulator import Cloud, Lock
from testing.program import Exporter, eventually, lock_values
from tests.conftest import require_program
from tests.end_to_end.conftest import ODD_NAME
from tests.end_to_end.prometheus import Prometheus, prometheus


@pytest.fixture(scope="module")
def scraped(exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{exporter.port}") as running:
        eventually(lambda: running.query("lock_info"), "the first scrape")
        yield running


LOCK_GAUGES = [
    "lock_state",
    "lock_door_state",
    "lock_battery_level",
    "lock_charging",
    "lock_state_change_result",
    "lock_locked",
    "lock_door_open",
    "lock_jammed",
    "lock_connected",
    "lock_revision",
    "lock_firmware_update_available",
    "lock_info",
]


@pytest.mark.parametrize("metric", LOCK_GAUGES)
def test_prometheus_has_the_values_of_tedee(scraped: Prometheus, cloud: Cloud, metric: str) -> None:
    expected: dict[tuple[str, ...], float] = {}
    for account in ("home", "hotel"):
        world = cloud.world.account(account)
        details = [{"id": lock.id, "softwareVersions": software(lock)} for lock in world.locks]
        for lock_id, value in lock_values(cloud.last_result(account), details)[metric].items():
            lock = world.lock(lock_id)
            if not (metric == "lock_battery_level" and lock.name == "Room 101"):
                expected[account, str(lock_id), lock.name] = value
    assert len(expected) >= 15
    assert scraped.values(metric, "account", "lock_id", "lock_name") == expected


def software(lock: Lock) -> list[dict[str, object]]:
    """Return the software versions that the simulated cloud reports: every fifth lock has an update."""
    return [{"updateAvailable": lock.id % 5 == 0}] if lock.bridge else []


def test_last_change_has_fractions_of_a_second(scraped: Prometheus, cloud: Cloud) -> None:
    expected = {
        (str(row["id"]),): datetime.fromisoformat(_utc(row["deviceState"]["lastStateChangedDate"])).timestamp()
        for account in ("home", "hotel")
        for row in cloud.last_result(account)  # type: ignore[attr-defined]
        if row["deviceState"]
    }
    found = scraped.values("lock_last_state_change_timestamp", "lock_id")
    assert found == pytest.approx(expected, abs=0.001)
    assert any(value % 1 for value in found.values())


def _utc(time: str) -> str:
    return time if time.endswith("Z") else f"{time}Z"


def test_name_with_special_characters_is_intact(scraped: Prometheus) -> None:
    names = {each["metric"]["lock_name"] for each in scraped.query("lock_state")}
    assert ODD_NAME in names


def test_lock_properties_are_labels_of_lock_info(scraped: Prometheus) -> None:
    (info,) = scraped.query('lock_info{lock_name="Main entrance"}')
    labels = {key: value for key, value in info["metric"].items() if key not in {"__name__", "instance", "job"}}
    assert labels == {
        "account": "hotel",
        "lock_id": "2001",
        "lock_name": "Main entrance",
        "serial_number": "111111-12001",
        "model": "Lock PRO",
        "firmware_version": "2.4.22125",
        "bridge_id": labels["bridge_id"],
        "bridge_name": "Lobby",
        "keypad_id": labels["keypad_id"],
        "door_sensor_id": labels["door_sensor_id"],
        "time_zone": "Europe/Berlin",
        "organization_id": "883",
    }


def test_account_metrics_describe_the_syncs(scraped: Prometheus, cloud: Cloud) -> None:
    assert scraped.values("tedee_up", "account") == {("home",): 1, ("hotel",): 1}
    assert scraped.values("tedee_locks", "account") == {("home",): 6, ("hotel",): 12}
    assert scraped.values("tedee_api_version_supported", "account", "version") == {
        ("home", "v37"): 1,
        ("hotel", "v37"): 1,
    }
    assert scraped.values("tedee_rejected_values_total > 0", "account", "field").keys() == {("hotel", "battery_level")}
    waits = scraped.values("tedee_next_sync_timestamp_seconds - tedee_last_sync_timestamp_seconds", "account")
    assert waits == pytest.approx({("home",): 20, ("hotel",): 20}, abs=1)


def test_no_failure_is_reported_without_one(scraped: Prometheus) -> None:
    assert scraped.query(SYNC_FAILING.name) == []


@pytest.mark.parametrize("metric", [each for each in CATALOGUE if each is not SYNC_FAILING], ids=lambda each: each.name)
def test_each_metric_of_the_catalogue_is_queryable(scraped: Prometheus, metric: AnyMetric) -> None:
    name = metric.name + ("_count" if metric.type == "histogram" else "")
    series = scraped.query(name)
    # Prometheus drops empty labels, such as the bridge of a lock without one. Tedee reports no firmware of gates.
    empty = {"firmware_version"} if name == "tedee_gate_info" else set()
    assert {*metric.labels} - empty <= {label for each in series for label in each["metric"]}
    assert series


def test_target_is_up_without_errors(scraped: Prometheus) -> None:
    target = scraped.target()
    assert (target["health"], target["lastError"]) == ("up", "")


def test_promtool_accepts_the_text_format(exporter: Exporter) -> None:
    promtool = require_program("promtool")
    text = exporter.get("/metrics").content
    result = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_openmetrics_and_text_have_as_many_samples(scraped: Prometheus, exporter: Exporter) -> None:
    response = exporter.get("/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    in_openmetrics = sum(not line.startswith("#") for line in response.text.splitlines())
    assert in_openmetrics == len(exporter.samples())
    assert set(scraped.values("scrape_samples_scraped").values()) == {in_openmetrics}
