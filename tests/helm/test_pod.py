"""The pod runs the exporter, observes Tedee's rate limits, and has minimal permissions."""

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from exporter.simulator import Cloud, World, serve
from testing.program import ROOT, eventually, free_port

from .kubelet import Pod, Secrets
from .release import CI, HOME, NAMES, Release, Values, release, values_of

each_ci_file = pytest.mark.parametrize("path", CI, ids=NAMES)
HASH = "$2y$04$Rl5CyEcaQkAcvs4VzGL7dOQBFwE1gsm5VpLXy8RgMIbBZpkFfpH8G"


@pytest.fixture(scope="module")
def secrets() -> Secrets:
    """Objects that other tools create in the cluster."""
    ca = trustme.CA()
    pair = ca.issue_cert("tedee-exporter.monitoring.svc", "127.0.0.1")
    (certificate,) = pair.cert_chain_pems
    tls = {"tls.crt": certificate.bytes(), "tls.key": pair.private_key_pem.bytes(), "ca.crt": ca.cert_pem.bytes()}
    web = "tls_server_config: {cert_file: tls.crt, key_file: tls.key%s}\n"
    return {
        "tedee-keys": {"home": "key-of-home", "hotel": "key-of-the-hotel"},
        "tedee-exporter-tls": tls,
        "tedee-exporter-web": {"web-config.yml": web % "", **tls},
        "demanding-web": {
            "web-config.yml": web % ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt",
            **tls,
        },
    }


@pytest.fixture
def cloud() -> Cloud:
    return Cloud(World.demo(), strict=True)


@pytest.fixture
def url(cloud: Cloud) -> Iterator[str]:
    with serve(cloud) as address:
        yield address.url


def has_database(path: Path) -> bool:
    return "state_url" in values_of(path).get("config", {})


def release_of_home(url: str, **more: Any) -> Release:
    """Return a release that polls the account "home" of the simulated cloud."""
    return release({"keys": {"home": "simulated-key-home"}, "config": {"api": {"url": url}}, **more})


# The exporter starts

READ = {"config", "keys", "existingSecret", "web", "webConfig", "extraArgs"}
"""The values that are part of the exporter's configuration."""
CONFIGURATIONS = {
    str({key: value for key, value in values_of(path).items() if key in READ}): path
    for path in CI
    # test_replicas.py has a database.
    if not has_database(path)
}
del CONFIGURATIONS["{}"]  # the demo has none


@pytest.mark.parametrize("path", CONFIGURATIONS.values(), ids=lambda path: path.name)
def test_exporter_accepts_its_configuration(path: Path, tmp_path: Path, secrets: Secrets) -> None:
    pod = Pod(release(values_of(path)), tmp_path, secrets)
    pod.refresh()
    result = pod.check()
    assert result.returncode == 0, result.stderr
    # The modes of the files are accepted as well.
    assert result.stderr == ""


def test_pod_serves_account_of_key(tmp_path: Path, url: str) -> None:
    pod = Pod(release_of_home(url, persistence={"enabled": True}), tmp_path)
    with pod.running() as exporter:
        assert pod.probe("liveness", exporter) == 200
        eventually(lambda: pod.probe("readiness", exporter) == 200, "the pod to be ready")
        assert exporter.value("tedee_up", account="home") == 1
        assert exporter.value("tedee_exporter_state_file_usable") == 1
        assert [line for line in exporter.log if "level=warn" in line] == []


def test_demo_needs_no_values(tmp_path: Path) -> None:
    pod = Pod(release({"demo": True}), tmp_path)
    pod.refresh()
    with pod.running() as exporter:
        eventually(lambda: pod.probe("readiness", exporter) == 200, "the pod to be ready")
        assert exporter.value("tedee_up", account="hotel") == 1


CERTIFICATE = {"webConfig": {"tlsSecret": "tedee-exporter-tls"}}
DEMANDED = {
    "tls_server_config": {
        "client_auth_type": "RequireAndVerifyClientCert",
        "client_ca_file": "/etc/tedee-exporter/tls/ca.crt",
    }
}


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ({}, "http"),
        ({"webConfig": {"config": {"basic_auth_users": {"prometheus": HASH}}}}, "http"),
        (CERTIFICATE, "https"),
        ({"webConfig": {**CERTIFICATE["webConfig"], "config": {"basic_auth_users": {"prometheus": HASH}}}}, "https"),
        ({"webConfig": {"existingSecret": "tedee-exporter-web", "tls": True}}, "https"),
        ({"webConfig": {"existingSecret": "tedee-exporter-web", **CERTIFICATE["webConfig"]}}, "https"),
        ({"webConfig": {**CERTIFICATE["webConfig"], "config": DEMANDED}}, "https"),
        ({"webConfig": {"existingSecret": "demanding-web", "clientCertificates": True}}, "https"),
    ],
    ids=[
        "plain",
        "passwords",
        "tls",
        "tls-passwords",
        "own-tls",
        "own-tls-secret",
        "client-certificates",
        "own-client-certificates",
    ],
)
def test_probes_and_monitors_use_scheme_of_port(values: Values, scheme: str, tmp_path: Path, secrets: Secrets) -> None:
    monitored = {"serviceMonitor": {"enabled": True}}
    pod = Pod(release({"demo": True, **values, **monitored}), tmp_path, secrets)
    with pod.running() as exporter:
        well = 0 if "client" in str(values) else 200
        assert pod.probe("liveness", exporter) == well
        eventually(lambda: pod.probe("readiness", exporter) == well, "the pod to be ready")
        assert f"tls={scheme == 'https'}".lower() in "".join(exporter.log).lower()
        tested = pod.helm_test(exporter.port)
        assert tested.returncode == 0, tested.stderr
    (endpoint,) = pod.release.one("ServiceMonitor")["spec"]["endpoints"]
    assert (endpoint["scheme"], endpoint["path"]) == (scheme, "/metrics")
    with_pods = release({"demo": True, **values, "podMonitor": {"enabled": True}})
    assert with_pods.one("PodMonitor")["spec"]["podMetricsEndpoints"] == [endpoint]


@pytest.mark.parametrize(
    ("web", "prefix"),
    [
        ({"externalUrl": "https://example.org/locks/"}, "/locks"),
        ({"externalUrl": "https://example.org/locks", "routePrefix": "/"}, ""),
        ({"externalUrl": "https://example.org"}, ""),
        ({"routePrefix": "/of/the/hotel"}, "/of/the/hotel"),
        ({"routePrefix": "locks/"}, "/locks"),
    ],
)
def test_probes_and_monitors_use_route_prefix(web: Values, prefix: str, tmp_path: Path) -> None:
    pod = Pod(release({"demo": True, "web": web, "serviceMonitor": {"enabled": True}}), tmp_path)
    with pod.running() as exporter:
        assert pod.probe("liveness", exporter) == 200
        eventually(lambda: pod.probe("readiness", exporter) == 200, "the pod to be ready")
        tested = pod.helm_test(exporter.port)
        assert tested.returncode == 0, tested.stderr
        (endpoint,) = pod.release.one("ServiceMonitor")["spec"]["endpoints"]
        assert exporter.get(endpoint["path"]).status_code == 200
    assert endpoint["path"] == f"{prefix}/metrics"
    with_pods = release({"demo": True, "web": web, "podMonitor": {"enabled": True}})
    assert with_pods.one("PodMonitor")["spec"]["podMetricsEndpoints"] == [endpoint]
    assert f"open http://localhost:10333{prefix}/" in pod.release.notes


def test_helm_test_fails_if_exporter_is_not_ready(tmp_path: Path, url: str) -> None:
    pod = Pod(release_of_home(url), tmp_path)
    pod.refresh()
    with pod.running() as exporter:
        eventually(lambda: pod.probe("liveness", exporter) == 200, "the pod to be alive")
        tested = pod.helm_test(exporter.port)
    assert (tested.returncode, "503" in tested.stderr) == (1, True)
    tested = pod.helm_test(free_port())
    assert (tested.returncode, "refused" in tested.stderr) == (1, True)


def test_helm_test_of_headless_service_uses_port_of_pod() -> None:
    made = release({**HOME, "service": {"clusterIP": "None", "port": 80}})
    assert made.one("Pod")["spec"]["containers"][0]["command"][-3] == str(made.container["ports"][0]["containerPort"])


# Rate limits


def test_replacement_pod_waits_before_first_call(tmp_path: Path, url: str, cloud: Cloud) -> None:
    pod = Pod(release_of_home(url), tmp_path)
    pod.refresh()
    with pod.running() as exporter:
        eventually(lambda: pod.probe("liveness", exporter) == 200, "the pod to be alive")
        assert pod.probe("readiness", exporter) == 503
        next_sync = exporter.value("tedee_next_sync_timestamp_seconds", account="home")
        assert next_sync is not None
        assert 20 < next_sync - time.time() <= 31
        assert exporter.value("tedee_exporter_state_file_usable") == 1
        assert [line for line in exporter.log if "level=warn" in line] == []
        assert cloud.calls == []


def test_restarted_container_keeps_rate_limits(tmp_path: Path, url: str, cloud: Cloud) -> None:
    pod = Pod(release_of_home(url), tmp_path)
    assert_second_exporter_makes_no_early_call(iter([pod, pod]), cloud)


def test_replacement_pod_with_claim_keeps_rate_limits(tmp_path: Path, url: str, cloud: Cloud) -> None:
    made = release_of_home(url, persistence={"enabled": True})
    assert_second_exporter_makes_no_early_call((Pod(made, tmp_path) for _ in range(2)), cloud)


def assert_second_exporter_makes_no_early_call(pods: Iterator[Pod], cloud: Cloud) -> None:
    with next(pods).running() as exporter:
        exporter.wait_until_ready()
        exporter.kill()
    made = len(cloud.calls)
    with next(pods).running() as exporter:
        # Ready immediately, with the data of the previous pod.
        exporter.wait_until_ready()
        assert exporter.value("tedee_locks", account="home")
        assert len(cloud.calls) == made


def test_initial_refresh_token_is_copied_only_once(tmp_path: Path) -> None:
    pod = Pod(release(values_of(next(path for path in CI if "oauth" in path.name))), tmp_path)
    token = pod["/var/lib/tedee-exporter/guests.token"]
    pod.refresh()
    assert token.read_text() == "first-refresh-token-of-the-guests"
    assert token.stat().st_mode & 0o777 == 0o600
    token.write_text("a newer one")
    pod.refresh()
    assert token.read_text() == "a newer one"


@pytest.mark.parametrize("path", [path for path in CI if not has_database(path)], ids=lambda path: path.name)
def test_old_pod_stops_before_new_pod_starts(path: Path) -> None:
    spec = release(values_of(path)).one("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


# Changes that replace the pod


def template(**values: Any) -> Any:
    return release({**HOME, **values}).pod


def test_change_of_configuration_replaces_pod() -> None:
    assert template(config={"sync": {"interval": "30s"}}) != template()
    assert template(keys={"home": "key-of-home", "hotel": "x"}) != template()


def test_change_that_exporter_reloads_keeps_pod() -> None:
    assert template(keys={"home": "another-key"}) == template()
    users: dict[str, Any] = {"webConfig": {"config": {"basic_auth_users": {"prometheus": HASH}}}}
    others: dict[str, Any] = {"webConfig": {"config": {"basic_auth_users": {"grafana": HASH}}}}
    assert template(**users) == template(**others)


@pytest.mark.parametrize("name", ["keys", "tls", "web-config-secret"])
def test_secrets_are_mounted_as_directories(name: str) -> None:
    pod = release(values_of(CI[NAMES.index(name)]))
    assert [mount for mount in pod.container["volumeMounts"] if "subPath" in mount] == []
    assert [volume for volume in pod.pod["spec"]["volumes"] if "items" in volume.get("secret", {})] == []


# Secrets


@each_ci_file
def test_secrets_are_only_in_secret_objects(path: Path) -> None:
    values = values_of(path)
    hidden = [*values.get("keys", {}).values()]
    hidden += values.get("webConfig", {}).get("config", {}).get("basic_auth_users", {}).values()
    made = release(values)
    seen = made.notes + str([each for each in made.objects if each["kind"] != "Secret"])
    for secret in hidden:
        assert secret not in seen
        assert base64.b64encode(secret.encode()).decode() not in seen
    in_secrets = [base64.b64decode(each).decode() for secret in made.all("Secret") for each in secret["data"].values()]
    assert [secret for secret in hidden if secret not in "".join(in_secrets)] == []


@each_ci_file
def test_files_of_secrets_are_private_to_the_pod(path: Path) -> None:
    for volume in release(values_of(path)).pod["spec"]["volumes"]:
        assert volume.get("secret", {}).get("defaultMode", 0) & 0o337 == 0


# Permissions


@pytest.mark.parametrize(
    "path", [path for path in CI if "hostNetwork" not in values_of(path)], ids=lambda path: path.name
)
def test_pod_meets_restricted_security_standard(path: Path) -> None:
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/
    made = release(values_of(path))
    pod, test_pod = made.pod["spec"], made.one("Pod")["spec"]
    for spec in (pod, test_pod):
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"].get("runAsUser") != 0
    assert "volumes" not in test_pod
    assert test_pod["automountServiceAccountToken"] is False
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert all(volume.keys() <= {"name", *allowed} for volume in pod["volumes"])
    for container in [*made.containers, *test_pod["containers"]]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "runAsUser", "procMount", "seccompProfile"} & context.keys()
        assert not any("hostPort" in port for port in container.get("ports", ()))


def test_only_state_is_writable() -> None:
    made = release(values_of(CI[NAMES.index("tls")]))
    assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in made.containers)
    writable = {mount["mountPath"] for mount in made.container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/var/lib/tedee-exporter"}


def test_pod_has_no_service_account_token_or_links() -> None:
    made = release()
    assert made.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert made.pod["spec"]["automountServiceAccountToken"] is False
    assert made.pod["spec"]["enableServiceLinks"] is False


def test_user_and_group_are_those_of_the_image() -> None:
    (user, group) = re.findall(r"(?m)^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text("utf-8"))[-1]
    context = release().pod["spec"]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (int(user), int(group), int(group))


def test_user_can_be_left_to_the_cluster() -> None:
    context = release(values_of(CI[NAMES.index("openshift")])).pod["spec"]["securityContext"]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & context.keys()


def test_claim_ownership_changes_only_if_needed() -> None:
    # The kubelet would make the state file writable by the group, and the exporter would log a warning.
    assert release().pod["spec"]["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
