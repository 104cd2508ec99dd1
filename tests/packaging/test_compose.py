"""compose.yaml provides the locks to Grafana, a release has files that need no checkout, and compose.replicas.yaml runs
two exporters.

Grafana is not run. Prometheus and Alertmanager of this machine use the files that compose.yaml mounts, with local
addresses instead of the names of services.
"""

import contextlib
import json
import os
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

from exporter.config.environment import ENVIRONMENT
from exporter.simulator import Cloud, World, serve
from testing.postgresql import running_server
from testing.program import ROOT, TIMEOUT, Exporter, eventually, free_port, running
from tests.conftest import require_program
from tests.end_to_end.prometheus import Prometheus

from .command import run_checked

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
REPLICAS: dict[str, Any] = yaml.safe_load((ROOT / "compose.replicas.yaml").read_text("utf-8"))["services"]
EXPORTER: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose/exporter.yaml").read_text("utf-8"))
IMAGE = "ghcr.io/tedee-exporter/tedee-exporter:${TAG:-latest}"
PORTS = {"exporter": 10333, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000}


def mounts(service: str) -> dict[PurePosixPath, Path]:
    """Return the files of this repository that a service mounts, by path in its container."""
    files = {name: ROOT / config["file"] for name, config in COMPOSE["configs"].items()}
    return {PurePosixPath(each["target"]): files[each["source"]] for each in SERVICES[service].get("configs", [])}


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


@pytest.mark.parametrize("name", ["compose.yaml", "compose.replicas.yaml", "deploy/compose/exporter.yaml"])
def test_compose_file_matches_schema(name: str) -> None:
    run_checked(sys.executable, "-m", "check_jsonschema", "--builtin-schema=vendor.compose-spec", ROOT / name)


def test_mounted_files_exist() -> None:
    mounted = {here for service in SERVICES for here in mounts(service).values()}
    assert mounted == {ROOT / config["file"] for config in COMPOSE["configs"].values()}
    assert [here for here in mounted if not here.is_file()] == []


def test_ports_are_bound_to_loopback_by_default() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items()} == {
        name: [f"${{BIND_ADDRESS:-127.0.0.1}}:{port}:{port}"] for name, port in PORTS.items()
    }
    assert EXPORTER["services"]["exporter"]["ports"] == SERVICES["exporter"]["ports"]


@pytest.mark.parametrize("service", [SERVICES["exporter"], EXPORTER["services"]["exporter"]], ids=["all", "alone"])
def test_every_variable_is_passed(service: dict[str, Any]) -> None:
    # A name without a value is passed only if it is set.
    assert sorted(service["environment"]) == sorted(ENVIRONMENT)


def test_exporter_alone_runs_as_in_compose_yaml() -> None:
    alone = EXPORTER["services"]["exporter"]
    assert alone == {key: SERVICES["exporter"][key] for key in alone}
    assert alone["image"] == IMAGE
    # It calls Tedee or fails, and has no bind mount of a file that a web editor lacks.
    assert not {"entrypoint", "command", "build"} & alone.keys()
    assert EXPORTER["volumes"] == {"state": None}


def test_exporter_can_be_reached_from_other_containers() -> None:
    assert SERVICES["exporter"]["command"] == [f"--web.listen-address=:{PORTS['exporter']}"]


def test_images_have_a_version() -> None:
    images = {service["image"] for service in SERVICES.values()} - {IMAGE}
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
    files = [here for there, here in mounts("grafana").items() if str(there.parent) == provider["options"]["path"]]
    home = PurePosixPath(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    dashboards = {path.name: json.loads(path.read_text("utf-8")) for path in files}
    assert set(files) == set((ROOT / "dashboards").glob("*.json"))
    assert str(home.parent) == provider["options"]["path"]
    assert home.name in dashboards
    assert len({dashboard["uid"] for dashboard in dashboards.values()}) == len(dashboards)


@pytest.mark.parametrize("password", ["", "secret"])
def test_grafana_requires_sign_in_only_with_a_password(tmp_path: Path, password: str) -> None:
    service = SERVICES["grafana"]
    assert service["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "${GRAFANA_PASSWORD:-}"
    run = tmp_path / "run.sh"
    run.write_text('#!/bin/sh\necho "$@"\nenv\n')
    run.chmod(0o755)
    entrypoint = [part.replace("$$", "$").replace("/run.sh", str(run)) for part in service["entrypoint"]]
    environment = service["environment"] | {"GF_SECURITY_ADMIN_PASSWORD": password, "PATH": os.environ["PATH"]}
    result = subprocess.run([*entrypoint, "one", "two"], env=environment, capture_output=True, text=True, check=True)
    arguments, *lines = result.stdout.splitlines()
    assert arguments == "one two"
    without_sign_in = {
        "GF_AUTH_ANONYMOUS_ENABLED=true",
        "GF_AUTH_DISABLE_LOGIN_FORM=true",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION=true",
    }
    assert without_sign_in & set(lines) == (set() if password else without_sign_in)
    assert f"GF_SECURITY_ADMIN_PASSWORD={password}" in lines


# The files of a release


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "files"
    run_checked(sys.executable, ROOT / "deploy" / "compose" / "standalone.py", "1.2.3", folder)
    return folder


def test_released_files_need_no_other_file(released: Path) -> None:
    assert {path.name for path in released.iterdir()} == {"compose.yaml", "exporter.yaml"}
    for path, original in ((released / "compose.yaml", COMPOSE), (released / "exporter.yaml", EXPORTER)):
        run_checked(sys.executable, "-m", "check_jsonschema", "--builtin-schema=vendor.compose-spec", path)
        text = path.read_text("utf-8")
        compose = yaml.safe_load(text)
        expected = {name: dict(service) for name, service in original["services"].items()}
        expected["exporter"].pop("build", None)
        expected["exporter"]["image"] = IMAGE.replace("latest", "1.2.3")
        assert compose["services"] == expected
        used = [volume.split(":")[0] for service in expected.values() for volume in service["volumes"]]
        assert set(used) == set(compose["volumes"])
        assert "--build" not in text


def test_released_file_contains_the_files(released: Path) -> None:
    configs = yaml.safe_load((released / "compose.yaml").read_text("utf-8"))["configs"]
    assert configs.keys() == COMPOSE["configs"].keys()
    for name, config in configs.items():
        assert config.keys() == {"content"}
        # Compose reads $$ as $, and anything else after $ as the name of a variable.
        assert "$" not in config["content"].replace("$$", "")
        path = ROOT / COMPOSE["configs"][name]["file"]
        load = json.loads if path.suffix == ".json" else yaml.safe_load
        assert load(config["content"].replace("$$", "$")) == load(path.read_text("utf-8"))


# compose.replicas.yaml


def test_replicas_differ_only_in_their_port() -> None:
    first, second = (dict(REPLICAS[name]) for name in ("exporter-1", "exporter-2"))
    ports = first.pop("ports") + second.pop("ports")
    assert ports == ["${BIND_ADDRESS:-127.0.0.1}:10333:10333", "${BIND_ADDRESS:-127.0.0.1}:10334:10333"]
    assert first == second
    assert first["image"] == IMAGE
    assert "ports" not in REPLICAS["postgres"]
    assert re.fullmatch(r"postgres:\d+\.\d+", REPLICAS["postgres"]["image"])


def test_replicas_use_the_database() -> None:
    created = REPLICAS["postgres"]["environment"]
    environment = REPLICAS["exporter-1"]["environment"]
    of_other_setups = {"TEDEE_PERSONAL_KEY_FILE", "TEDEE_ACCESS_TOKEN", "TEDEE_ACCESS_TOKEN_FILE"}
    of_other_setups |= {"TEDEE_STATE_FILE", "TEDEE_STATE_URL_FILE"}
    assert environment.keys() - {"PGPASSWORD"} == ENVIRONMENT.keys() - of_other_setups
    given = {name: value for name, value in environment.items() if value is not None}
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
