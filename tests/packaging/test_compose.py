"""compose.yaml provides the locks to Grafana, and compose.replicas.yaml runs two exporters.

Grafana is not run. Prometheus and Alertmanager of this machine use the files that compose.yaml mounts, with local
addresses instead of the names of services.
"""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import requests
import yaml
from psycopg.conninfo import conninfo_to_dict

from exporter.simulator import Cloud, World, serve
from testing.postgresql import running_server
from testing.program import ROOT, TIMEOUT, Exporter, eventually, free_port, running
from tests.conftest import require_program
from tests.end_to_end.prometheus import Prometheus

from .command import run_checked

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
REPLICAS: dict[str, Any] = yaml.safe_load((ROOT / "compose.replicas.yaml").read_text("utf-8"))["services"]
PORTS = {"exporter": 10333, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000}


def mounts(service: str) -> dict[PurePosixPath, Path]:
    """Return the files and folders of this repository that a service mounts, by path in its container."""
    volumes = [volume.split(":") for volume in SERVICES[service]["volumes"]]
    return {PurePosixPath(there): ROOT / here for here, there, *_ in volumes if here.startswith(".")}


def read(service: str, path: str) -> Any:
    return yaml.safe_load(mounts(service)[PurePosixPath(path)].read_text("utf-8"))


def place(service: str, folder: Path, **addresses: str) -> Path:
    """Copy the mounted files of a service to a folder, with addresses instead of names of services."""
    for there, here in mounts(service).items():
        text = here.read_text("utf-8")
        for name, address in addresses.items():
            text = text.replace(f"{name}:{PORTS[name]}", address)
        path = folder / there.relative_to("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


@contextlib.contextmanager
def started(program: str, *flags: str, log: Path, url: str) -> Iterator[str]:
    """Run a program and wait until it is ready."""
    with log.open("w") as output:
        process = subprocess.Popen([require_program(program), *flags], cwd=log.parent, stdout=output, stderr=output)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{url}/-/ready", timeout=TIMEOUT).ok
        return False

    try:
        eventually(ready, f"{program} to be ready")
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def exporter() -> Iterator[Exporter]:
    with running("--demo") as exporter:
        yield exporter.wait_until_ready()


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = place("alertmanager", tmp_path_factory.mktemp("alertmanager"))
    address = f"127.0.0.1:{free_port()}"
    flags = [
        f"--config.file={folder / 'etc/alertmanager/alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with started("prometheus-alertmanager", *flags, log=folder / "log", url=f"http://{address}"):
        yield address


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, exporter: Exporter, alertmanager: str) -> Iterator[Prometheus]:
    addresses = {"exporter": f"127.0.0.1:{exporter.port}", "alertmanager": alertmanager}
    folder = place("prometheus", tmp_path_factory.mktemp("prometheus"), **addresses)
    address = f"127.0.0.1:{free_port()}"
    flags = [
        f"--config.file={folder / 'etc/prometheus/prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={address}",
    ]
    with started("prometheus", *flags, log=folder / "log", url=f"http://{address}") as url:
        yield Prometheus(url)


@pytest.mark.parametrize("name", ["compose.yaml", "compose.replicas.yaml"])
def test_compose_file_matches_schema(name: str) -> None:
    run_checked(sys.executable, "-m", "check_jsonschema", "--builtin-schema=vendor.compose-spec", ROOT / name)


def test_mounted_files_exist() -> None:
    assert {str(here) for service in SERVICES if service != "exporter" for here in mounts(service).values()}
    assert [str(here) for service in SERVICES for here in mounts(service).values() if not here.exists()] == []


def test_all_ports_are_bound_to_loopback() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items()} == {
        name: [f"127.0.0.1:{port}:{port}"] for name, port in PORTS.items()
    }


def test_exporter_can_be_reached_from_other_containers() -> None:
    assert SERVICES["exporter"]["command"] == [f"--web.listen-address=:{PORTS['exporter']}"]


def test_images_have_a_version() -> None:
    images = {service["image"] for service in SERVICES.values() if "image" in service}
    assert len(images) == 3
    assert [image for image in images if not re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", image)] == []


def test_prometheus_scrapes_the_exporter(prometheus: Prometheus) -> None:
    up = eventually(lambda: prometheus.values("lock_state", "lock_name"), "locks in Prometheus")
    assert ("Front door",) in up
    target = prometheus.target()
    assert (target["labels"]["job"], target["health"], target["lastError"]) == ("tedee", "up", "")


def test_prometheus_evaluates_the_alerting_rules(prometheus: Prometheus) -> None:
    def evaluated() -> list[dict[str, Any]]:
        groups = requests.get(f"{prometheus.url}/api/v1/rules", timeout=TIMEOUT).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"] if rule["health"] != "unknown"]

    rules = eventually(evaluated, "rules to be evaluated")
    assert {rule["health"] for rule in rules} == {"ok"}
    assert (ROOT / "alerts" / "tedee.rules.yml") in mounts("prometheus").values()


def test_prometheus_sends_alerts_to_alertmanager(prometheus: Prometheus, alertmanager: str) -> None:
    def active() -> list[dict[str, str]]:
        response = requests.get(f"{prometheus.url}/api/v1/alertmanagers", timeout=TIMEOUT).json()
        alertmanagers: list[dict[str, str]] = response["data"]["activeAlertmanagers"]
        return alertmanagers

    assert eventually(active, "Prometheus to know Alertmanager") == [{"url": f"http://{alertmanager}/api/v2/alerts"}]


def test_alertmanager_sends_no_notifications(alertmanager: str) -> None:
    alert = [{"labels": {"alertname": "TedeeTest", "account": "home"}}]
    assert requests.post(f"http://{alertmanager}/api/v2/alerts", json=alert, timeout=TIMEOUT).ok

    def shown() -> list[dict[str, Any]]:
        alerts: list[dict[str, Any]] = requests.get(f"http://{alertmanager}/api/v2/alerts", timeout=TIMEOUT).json()
        return alerts

    assert eventually(shown, "the alert")[0]["receivers"] == [{"name": "none"}]
    assert read("alertmanager", "/etc/alertmanager/alertmanager.yml")["receivers"] == [{"name": "none"}]


def test_grafana_data_source_has_scrape_interval() -> None:
    sources = read("grafana", "/etc/grafana/provisioning/datasources/tedee.yml")["datasources"]
    scraping = read("prometheus", "/etc/prometheus/prometheus.yml")
    assert {source["type"]: source["url"] for source in sources} == {
        name: f"http://{name}:{PORTS[name]}" for name in ("prometheus", "alertmanager")
    }
    (default,) = [source for source in sources if source.get("isDefault")]
    assert default["type"] == "prometheus"
    assert default["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]


def test_grafana_loads_dashboards_and_home_dashboard() -> None:
    (provider,) = read("grafana", "/etc/grafana/provisioning/dashboards/tedee.yml")["providers"]
    folder = mounts("grafana")[PurePosixPath(provider["options"]["path"])]
    home = PurePosixPath(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    dashboards = {path.name: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}
    assert str(home.parent) == provider["options"]["path"]
    assert home.name in dashboards
    assert len({dashboard["uid"] for dashboard in dashboards.values()}) == len(dashboards)


# compose.replicas.yaml


def test_replicas_differ_only_in_their_port() -> None:
    first, second = (dict(REPLICAS[name]) for name in ("exporter-1", "exporter-2"))
    ports = first.pop("ports") + second.pop("ports")
    assert ports == ["127.0.0.1:10333:10333", "127.0.0.1:10334:10333"]
    assert first == second
    assert "ports" not in REPLICAS["postgres"]
    assert re.fullmatch(r"postgres:\d+\.\d+", REPLICAS["postgres"]["image"])


def test_replicas_use_the_database() -> None:
    created = REPLICAS["postgres"]["environment"]
    given = REPLICAS["exporter-1"]["environment"]
    assert given["PGPASSWORD"] == created["POSTGRES_PASSWORD"]
    with running_server() as server, serve(Cloud(World.demo(), strict=True)) as cloud:
        # The server of the tests has the same user and, by default of the image, a database with its name.
        database = conninfo_to_dict(server.url) | {"host": "postgres"}
        url = conninfo_to_dict(given["TEDEE_STATE_URL"])
        assert url == {key: value for key, value in database.items() if key != "port"}
        assert url["user"] == created["POSTGRES_USER"]
        variables = given | {"TEDEE_API_URL": cloud.url, "TEDEE_PERSONAL_KEY": "simulated-key-home"}
        variables["TEDEE_STATE_URL"] = given["TEDEE_STATE_URL"].replace("@postgres/", f"@127.0.0.1:{server.port}/")
        with running(**variables) as first, running(**variables) as second:
            replicas = (first, second)

            def usable() -> bool:
                return all(each.value("tedee_exporter_state_file_usable") == 1 for each in replicas)

            eventually(usable, "the database to be usable")
            assert [line for each in replicas for line in each.log if "level=warn" in line] == []
