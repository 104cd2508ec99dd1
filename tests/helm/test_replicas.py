"""Several pods share a database, whose password is in a Secret. They are replaced without a gap."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import psycopg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from helm.refresh import CHART
from testing.postgresql import PostgreSQL, running_server
from testing.program import eventually

from .kubelet import Pod
from .release import CI, HOME, NAMES, Object, Release, Values, release, values_of
from .test_selectors import has_labels

URL = "postgresql://tedee@db.example.com/tedee"
PASSWORD = "a-password-of-the-database"
DATABASES = [path for path in CI if "state_url" in values_of(path).get("config", {})]
each_database = pytest.mark.parametrize("path", DATABASES, ids=lambda path: path.name)


def install(url: str = URL, /, **more: Any) -> Release:
    return release({**HOME, "config": {"state_url": url}, **more})


# A shared store


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """A server with the role `app`, which needs a password and may create tables."""
    with running_server() as server:
        server.execute(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
        server.execute("GRANT CREATE ON DATABASE tedee TO app")
        rules = server.folder / "pg_hba.conf"
        rules.write_text(f"host all app 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        server.execute("SELECT pg_reload_conf()")
        eventually(lambda: not can_connect(server), "the server to require a password")
        yield server


def can_connect(server: PostgreSQL) -> bool:
    try:
        psycopg.connect(url_of(server)).close()
    except psycopg.OperationalError:
        return False
    return True


def url_of(server: PostgreSQL) -> str:
    return server.url.replace("tedee@", "app@")


@pytest.mark.parametrize(("password", "is_usable"), [(PASSWORD, True), ("another-password", False)])
def test_pod_connects_with_password_of_secret(
    password: str, is_usable: bool, tmp_path: Path, server: PostgreSQL
) -> None:
    made = install(url_of(server), replicas=2, database={"existingSecret": "tedee-db-app"})
    pod = Pod(made, tmp_path, {"tedee-db-app": {"password": password, "uri": "unused"}})
    with pod.running() as exporter:
        assert pod.probe("liveness", exporter) == 200
        if is_usable:
            eventually(lambda: exporter.value("tedee_exporter_state_file_usable") == 1, "the database to be usable")
        else:
            eventually(lambda: "password authentication failed" in "".join(exporter.log), "the error to be logged")
            assert exporter.value("tedee_exporter_state_file_usable") == 0
        # The file of the configuration is private to the pod.
        assert "chmod" not in "".join(exporter.log)
        assert password not in "".join(exporter.log)


@each_database
def test_exporter_accepts_its_configuration(path: Path, tmp_path: Path, server: PostgreSQL) -> None:
    values = values_of(path)
    given = values["config"]["state_url"]
    values["config"]["state_url"] = url_of(server)
    key = values.get("database", {}).get("passwordKey", "password")
    secret = values.setdefault("database", {}).setdefault("existingSecret", "any")
    keys = {"home": "key-of-home", "hotel": "key-of-the-hotel"}
    pod = Pod(release(values), tmp_path, {secret: {key: PASSWORD}, "tedee-keys": keys})
    result = pod.check()
    assert (result.returncode, result.stderr) == (0, "")
    # libpq accepts the URL that was replaced.
    assert conninfo_to_dict(given)["user"]


@each_database
def test_state_is_only_in_the_database(path: Path) -> None:
    made = release(values_of(path))
    config = yaml.safe_load(made.config)
    assert config["state_url"] == values_of(path)["config"]["state_url"]
    assert "state_file" not in config
    assert "initContainers" not in made.pod["spec"]
    mounts = made.container["volumeMounts"]
    assert {volume["name"] for volume in made.pod["spec"]["volumes"]} == {mount["name"] for mount in mounts}
    assert [mount for mount in mounts if not mount.get("readOnly")] == []


def test_state_url_is_absent_by_default() -> None:
    assert "state_url" not in yaml.safe_load(release().config)


@pytest.mark.parametrize("scheme", ["mysql", "file", "http"])
def test_state_url_of_another_database_is_refused(scheme: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match="state_url"):
        install(f"{scheme}://db/tedee")


def test_claim_is_for_refresh_tokens_if_there_is_a_database() -> None:
    oauth = {"client_id": "c", "refresh_token_file": "/var/lib/tedee-exporter/token"}
    config = {"state_url": URL, "accounts": [{"name": "guests", "oauth": oauth}]}
    made = release({"config": config, "persistence": {"enabled": True}})
    assert "state_file" not in made.config
    assert made.pod["spec"]["volumes"][0]["persistentVolumeClaim"]
    # Two pods must not use the same refresh token.
    assert made.one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    config["accounts"][0]["oauth"]["refresh_token_file"] = "/tokens/guests"  # type: ignore[index]
    assert release({"config": config}).one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("running", ["", URL])
@pytest.mark.parametrize("new", ["", URL, "postgresql://tedee@another.example.com/tedee"])
@pytest.mark.parametrize("replicas", [0, 1])
def test_store_changes_only_if_no_pod_runs(running: str, new: str, replicas: int, tmp_path: Path) -> None:
    def upgrade() -> Release:
        before = install(running)
        objects = before.one("ConfigMap"), {"status": {"replicas": replicas}} if replicas else {"status": {}}
        path = chart_in_cluster(tmp_path, *objects)
        return release({**HOME, "config": {"state_url": new}}, path=path)

    if replicas and new != running:
        with pytest.raises(helm_python.HelmRenderError) as refused:
            upgrade()
        (problem,) = str(refused.value).strip().splitlines()[1:]
        assert problem.endswith(
            "stop them first: kubectl --namespace locks scale deployment/tedee-exporter --replicas=0"
        )
    else:
        assert upgrade().objects == install(new).objects


def chart_in_cluster(folder: Path, config: Object, deployment: Object) -> Path:
    """Copy the chart, with objects instead of the calls that read them from the cluster."""
    path = folder / "tedee-exporter"
    shutil.copytree(CHART, path)
    check = path / "templates" / "_check.tpl"
    text = check.read_text("utf-8")
    for kind, found in {'"v1" "ConfigMap"': config, '"apps/v1" "Deployment"': deployment}.items():
        call = f"lookup {kind} $namespace $name"
        assert text.count(call) == 1
        text = text.replace(call, f"fromJson {json.dumps(json.dumps(found))}")
    check.write_text(text, "utf-8")
    return path


# The password


@each_database
def test_password_is_passed_from_a_secret(path: Path) -> None:
    values = values_of(path).get("database")
    found = [each for each in release(values_of(path)).container.get("env", ()) if each["name"] == "PGPASSWORD"]
    if values is None:
        assert found == []
    else:
        reference = {"name": values["existingSecret"], "key": values.get("passwordKey", "password")}
        assert found == [{"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": reference}}]


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://tedee:{PASSWORD}@db/tedee",
        f"postgresql://:{PASSWORD}@/tedee",
        f"postgres://tedee:{PASSWORD}@db-1:5432,db-2:5432/tedee",
        f"postgresql://tedee@db/tedee?password={PASSWORD}",
        f"postgresql://tedee@db/tedee?sslmode=require&password={PASSWORD}",
    ],
)
def test_url_with_a_password_is_refused(url: str) -> None:
    assert conninfo_to_dict(url)["password"] == PASSWORD
    with pytest.raises(helm_python.HelmRenderError, match="readable in a ConfigMap") as refused:
        install(url)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db:5432/tedee",
        "postgresql://tedee@[2001:db8::1]:5432/tedee",
        "postgresql:///tedee?host=db&passfile=/etc/db/pgpass",
        "postgresql://tedee@db/tedee?application_name=a:b@c",
    ],
)
def test_url_without_a_password_is_accepted(url: str) -> None:
    assert "password" not in conninfo_to_dict(url)
    assert yaml.safe_load(install(url).config)["state_url"] == url


def test_extra_variables_follow_the_password() -> None:
    made = install(database={"existingSecret": "db"}, extraEnv=[{"name": "PGSSLMODE", "value": "require"}])
    assert [each["name"] for each in made.container["env"]] == ["PGPASSWORD", "PGSSLMODE"]


# Availability


@each_database
def test_new_pod_starts_before_old_pod_stops(path: Path) -> None:
    spec = release(values_of(path)).one("Deployment")["spec"]
    assert spec["replicas"] == values_of(path).get("replicas", 1)
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_replicas_can_be_stopped() -> None:
    assert release({**HOME, "replicas": 0}).one("Deployment")["spec"]["replicas"] == 0


def test_replicas_prefer_different_nodes() -> None:
    (constraint,) = install(replicas=2).pod["spec"]["topologySpreadConstraints"]
    assert (constraint["topologyKey"], constraint["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert has_labels(install(replicas=2).pod, constraint["labelSelector"]["matchLabels"])
    assert "topologySpreadConstraints" not in install().pod["spec"]


def test_spread_of_values_replaces_the_default() -> None:
    spread = values_of(CI[NAMES.index("pod")])["topologySpreadConstraints"]
    assert install(replicas=2, topologySpreadConstraints=spread).pod["spec"]["topologySpreadConstraints"] == spread


@pytest.mark.parametrize(
    ("replicas", "values", "expected"),
    [
        (1, {}, None),
        (2, {}, {"maxUnavailable": 1}),
        (2, {"enabled": False}, None),
        (2, {"maxUnavailable": None, "minAvailable": "50%"}, {"minAvailable": "50%"}),
        (1, {"enabled": True}, {"maxUnavailable": 1}),
    ],
)
def test_several_replicas_have_a_disruption_budget(
    replicas: int, values: Values, expected: dict[str, Any] | None
) -> None:
    made = install(replicas=replicas, podDisruptionBudget=values)
    specs = [each["spec"] for each in made.all("PodDisruptionBudget")]
    assert [{key: value for key, value in spec.items() if key != "selector"} for spec in specs] == (
        [expected] if expected else []
    )


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        (URL, [5432]),
        ("postgresql://tedee@db-1:5433,db-2:6432,db-3:5433/tedee", [5433, 6432]),
        ("postgresql://tedee@db-1:5433,db-2/tedee", [5433, 5432]),
        ("postgresql://[2001:db8::1]/tedee", [5432]),
        ("postgresql://tedee@[2001:db8::1]:6432?sslmode=require", [6432]),
    ],
)
def test_network_policy_allows_ports_of_database(url: str, ports: list[int]) -> None:
    policy = install(url, networkPolicy={"enabled": True}).one("NetworkPolicy")
    assert policy["spec"]["egress"][-1] == {"ports": [{"port": port, "protocol": "TCP"} for port in ports]}


# Notes and examples


@pytest.mark.parametrize("monitor", ["serviceMonitor", "podMonitor"])
def test_notes_explain_that_each_pod_is_scraped(monitor: str) -> None:
    several = install(replicas=3, **{monitor: {"enabled": True}}).notes
    assert "Prometheus scrapes each of the 3 pods, and each exports all locks" in several
    assert "Check that Prometheus lists the targets. If not" in several
    assert "each of the" not in install(**{monitor: {"enabled": True}}).notes


def test_notes_show_log_of_each_pod() -> None:
    made = install(replicas=2)
    (command,) = [line for line in made.notes.splitlines() if " logs " in line]
    labels = dict(label.split("=") for label in command.partition("--selector ")[2].split(","))
    assert has_labels(made.pod, labels)
    assert labels == made.one("Deployment")["spec"]["selector"]["matchLabels"]


def test_notes_name_no_single_target_for_several_pods() -> None:
    several, one = install(replicas=3).notes, install().notes
    assert ".svc:10333/metrics" in one
    assert ".svc:10333/metrics" not in several
    assert "discover the 3 pods with kubernetes_sd_configs" in " ".join(several.split())


def test_example_uses_objects_of_the_operator() -> None:
    readme = (CHART / "README.md").read_text("utf-8")
    manifest = yaml.safe_load(readme.partition("<<EOF\n")[2].partition("EOF\n")[0])
    name = manifest["metadata"]["name"]
    values = values_of(CI[NAMES.index("cloudnativepg")])
    assert conninfo_to_dict(values["config"]["state_url"])["host"] == f"{name}-rw"
    assert values["database"]["existingSecret"] == f"{name}-app"
    for text in (f"state_url: {values['config']['state_url']}", f"existingSecret: {name}-app"):
        assert text in readme
