"""Lost if these fail: what Prometheus, and with it every dashboard and alert, believes about the doors."""

import subprocess
from collections.abc import Iterator
from datetime import datetime

import pytest

from exporter.metrics.catalogue import CATALOGUE, SYNC_FAILING, Metric
from exporter.simulator import Cloud, Lock
from tests.conftest import real_part
from tests.end_to_end.conftest import ODD_NAME
from tests.end_to_end.prometheus import Prometheus, prometheus
from tests.program import Exporter, eventually, lock_values


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
    "lock_connected",
    "lock_revision",
    "lock_firmware_update_available",
    "lock_info",
]


@pytest.mark.parametrize("metric", LOCK_GAUGES)
def test_each_lock_has_in_prometheus_the_value_that_tedee_said(scraped: Prometheus, cloud: Cloud, metric: str) -> None:
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
    """As the simulated cloud gives it: a fifth of the locks have an update, the one never paired has no software."""
    return [{"updateAvailable": lock.id % 5 == 0}] if lock.bridge else []


def test_the_last_change_has_its_fractions_of_a_second(scraped: Prometheus, cloud: Cloud) -> None:
    expected = {
        (str(row["id"]),): datetime.fromisoformat(_utc(row["deviceState"]["lastStateChangedDate"])).timestamp()
        for account in ("home", "hotel")
        for row in cloud.last_result(account)  # type: ignore[attr-defined]
        if row["deviceState"]
    }
    found = scraped.values("lock_last_state_change_timestamp", "lock_id")
    assert found == pytest.approx(expected, abs=0.001)
    assert any(value % 1 for value in found.values())


def _utc(written: str) -> str:
    return written if written.endswith("Z") else f"{written}Z"


def test_a_name_of_quotes_backslashes_newlines_and_emoji_arrives_intact(scraped: Prometheus) -> None:
    names = {each["metric"]["lock_name"] for each in scraped.query("lock_state")}
    assert ODD_NAME in names


def test_the_facts_of_a_lock_are_labels_of_its_info(scraped: Prometheus) -> None:
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
        "time_zone": "Europe/Berlin",
        "organization_id": "883",
    }


def test_the_accounts_metrics_say_how_the_syncs_went(scraped: Prometheus, cloud: Cloud) -> None:
    assert scraped.values("tedee_up", "account") == {("home",): 1, ("hotel",): 1}
    assert scraped.values("tedee_locks", "account") == {("home",): 6, ("hotel",): 12}
    assert scraped.values("tedee_api_version_supported", "account", "version") == {
        ("home", "v37"): 1,
        ("hotel", "v37"): 1,
    }
    assert scraped.values("tedee_rejected_values_total > 0", "account", "field").keys() == {("hotel", "battery_level")}
    waits = scraped.values("tedee_next_sync_timestamp_seconds - tedee_last_sync_timestamp_seconds", "account")
    assert waits == pytest.approx({("home",): 20, ("hotel",): 20}, abs=0.1)


def test_nothing_is_said_to_fail_where_all_is_well(scraped: Prometheus) -> None:
    assert scraped.query(SYNC_FAILING.name) == []


@pytest.mark.parametrize("metric", [each for each in CATALOGUE if each is not SYNC_FAILING], ids=lambda each: each.name)
def test_a_query_for_each_metric_of_the_catalogue_answers(scraped: Prometheus, metric: Metric) -> None:
    name = metric.name + ("_count" if metric.type == "histogram" else "")
    series = scraped.query(name)
    # Prometheus drops labels that are empty: the bridge of a lock that has none.
    assert set(metric.labels) <= {label for each in series for label in each["metric"]}
    assert series


def test_prometheus_has_nothing_to_complain_about(scraped: Prometheus) -> None:
    target = scraped.target()
    assert (target["health"], target["lastError"]) == ("up", "")


def test_promtool_has_nothing_to_say_about_the_text_format(exporter: Exporter) -> None:
    promtool = real_part("promtool")
    text = exporter.get("/metrics").content
    result = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_prometheus_reads_as_many_samples_from_openmetrics_as_the_text_format_has(
    scraped: Prometheus, exporter: Exporter
) -> None:
    answer = exporter.get("/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    in_openmetrics = sum(not line.startswith("#") for line in answer.text.splitlines())
    assert in_openmetrics == len(exporter.samples())
    assert set(scraped.values("scrape_samples_scraped").values()) == {in_openmetrics}
