"""Lost if these fail: a pod in which the exporter runs, keeps Tedee's limits, and can do nothing else."""

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from exporter.simulator import Cloud, World, serve
from tests.program import ROOT, eventually

from .kubelet import Pod, Secrets
from .release import CI, HOME, NAMES, Release, Values, release, values_of

each_ci_file = pytest.mark.parametrize("path", CI, ids=NAMES)
HASH = "$2y$04$Rl5CyEcaQkAcvs4VzGL7dOQBFwE1gsm5VpLXy8RgMIbBZpkFfpH8G"


@pytest.fixture(scope="module")
def secrets() -> Secrets:
    """What others put into the cluster."""
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


def for_the_house(url: str, **more: Any) -> Release:
    """A release that reads the house of the simulated cloud."""
    return release({"keys": {"home": "simulated-key-home"}, "config": {"api": {"url": url}}, **more})


# It runs

READ = {"config", "keys", "existingSecret", "webConfig", "extraArgs"}
"""The values that the exporter gets to read."""
CONFIGURATIONS = {str({key: value for key, value in values_of(path).items() if key in READ}): path for path in CI}
del CONFIGURATIONS["{}"]  # the demo has none


@pytest.mark.parametrize("path", CONFIGURATIONS.values(), ids=lambda path: path.name)
def test_the_exporter_finds_nothing_wrong_with_its_configuration(path: Path, tmp_path: Path, secrets: Secrets) -> None:
    pod = Pod(release(values_of(path)), tmp_path, secrets)
    pod.refresh()
    result = pod.check()
    assert result.returncode == 0, result.stderr
    # Nor with the modes of its files.
    assert result.stderr == ""


def test_the_pod_scrapes_the_account_of_a_key(tmp_path: Path, url: str) -> None:
    pod = Pod(for_the_house(url, persistence={"enabled": True}), tmp_path)
    with pod.running() as exporter:
        assert pod.probe("liveness", exporter) == 200
        eventually(lambda: pod.probe("readiness", exporter) == 200, "the pod to be ready")
        assert exporter.value("tedee_up", account="home") == 1
        assert exporter.value("tedee_exporter_state_file_usable") == 1
        assert [line for line in exporter.log if "level=warn" in line] == []


def test_the_demo_needs_nothing(tmp_path: Path) -> None:
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
def test_probes_and_monitors_speak_what_the_port_speaks(
    values: Values, scheme: str, tmp_path: Path, secrets: Secrets
) -> None:
    monitored = {"serviceMonitor": {"enabled": True}}
    pod = Pod(release({"demo": True, **values, **monitored}), tmp_path, secrets)
    with pod.running() as exporter:
        well = 0 if "client" in str(values) else 200
        assert pod.probe("liveness", exporter) == well
        eventually(lambda: pod.probe("readiness", exporter) == well, "the pod to be ready")
        assert f"tls={scheme == 'https'}".lower() in "".join(exporter.log).lower()
    (endpoint,) = pod.release.one("ServiceMonitor")["spec"]["endpoints"]
    assert (endpoint["scheme"], endpoint["path"]) == (scheme, "/metrics")
    with_pods = release({"demo": True, **values, "podMonitor": {"enabled": True}})
    assert with_pods.one("PodMonitor")["spec"]["podMetricsEndpoints"] == [endpoint]


# Tedee's limits


def test_a_pod_in_anothers_place_waits_before_it_calls(tmp_path: Path, url: str, cloud: Cloud) -> None:
    pod = Pod(for_the_house(url), tmp_path)
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


def test_a_container_in_anothers_place_makes_no_call_too_early(tmp_path: Path, url: str, cloud: Cloud) -> None:
    pod = Pod(for_the_house(url), tmp_path)
    assert_the_second_makes_no_call_too_early(iter([pod, pod]), cloud)


def test_with_a_claim_neither_does_a_pod_in_anothers_place(tmp_path: Path, url: str, cloud: Cloud) -> None:
    made = for_the_house(url, persistence={"enabled": True})
    assert_the_second_makes_no_call_too_early((Pod(made, tmp_path) for _ in range(2)), cloud)


def assert_the_second_makes_no_call_too_early(pods: Iterator[Pod], cloud: Cloud) -> None:
    with next(pods).running() as exporter:
        exporter.wait_until_ready()
        exporter.kill()
    made = len(cloud.calls)
    with next(pods).running() as exporter:
        # Ready at once, with the data of the one before.
        exporter.wait_until_ready()
        assert exporter.value("tedee_locks", account="home")
        assert len(cloud.calls) == made


def test_a_first_refresh_token_is_put_where_it_can_be_replaced_and_is_never_put_back(tmp_path: Path) -> None:
    pod = Pod(release(values_of(next(path for path in CI if "oauth" in path.name))), tmp_path)
    token = pod["/var/lib/tedee-exporter/guests.token"]
    pod.refresh()
    assert token.read_text() == "first-refresh-token-of-the-guests"
    assert token.stat().st_mode & 0o777 == 0o600
    token.write_text("a newer one")
    pod.refresh()
    assert token.read_text() == "a newer one"


@each_ci_file
def test_there_is_one_pod_and_the_old_one_ends_before_there_is_a_new_one(path: Path) -> None:
    spec = release(values_of(path)).one("Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


# What replaces the pod


def template(**values: Any) -> Any:
    return release({**HOME, **values}).pod


def test_a_change_of_the_configuration_replaces_the_pod() -> None:
    assert template(config={"sync": {"interval": "30s"}}) != template()
    assert template(keys={"home": "key-of-home", "hotel": "x"}) != template()


def test_what_the_exporter_takes_up_by_itself_does_not() -> None:
    assert template(keys={"home": "another-key"}) == template()
    users: dict[str, Any] = {"webConfig": {"config": {"basic_auth_users": {"prometheus": HASH}}}}
    others: dict[str, Any] = {"webConfig": {"config": {"basic_auth_users": {"grafana": HASH}}}}
    assert template(**users) == template(**others)


@pytest.mark.parametrize("name", ["keys", "tls", "web-config-secret"])
def test_the_files_of_secrets_are_whole_folders_which_alone_are_kept_up_to_date(name: str) -> None:
    pod = release(values_of(CI[NAMES.index(name)]))
    assert [mount for mount in pod.container["volumeMounts"] if "subPath" in mount] == []
    assert [volume for volume in pod.pod["spec"]["volumes"] if "items" in volume.get("secret", {})] == []


# Secrets


@each_ci_file
def test_a_secret_is_in_no_object_but_a_secret(path: Path) -> None:
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
def test_the_files_of_secrets_are_for_the_pod_alone(path: Path) -> None:
    for volume in release(values_of(path)).pod["spec"]["volumes"]:
        assert volume.get("secret", {}).get("defaultMode", 0) & 0o337 == 0


# What it may do


@pytest.mark.parametrize(
    "path", [path for path in CI if "hostNetwork" not in values_of(path)], ids=lambda path: path.name
)
def test_it_keeps_the_restricted_pod_security_standard(path: Path) -> None:
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/
    pod = release(values_of(path)).pod["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["securityContext"].get("runAsUser") != 0
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
    for container in release(values_of(path)).containers:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "runAsUser", "procMount", "seccompProfile"} & context.keys()
        assert not any("hostPort" in port for port in container.get("ports", ()))


def test_nothing_can_be_written_but_its_state() -> None:
    made = release(values_of(CI[NAMES.index("tls")]))
    assert all(container["securityContext"]["readOnlyRootFilesystem"] for container in made.containers)
    writable = {mount["mountPath"] for mount in made.container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/var/lib/tedee-exporter"}


def test_it_has_no_token_and_no_variables_of_others() -> None:
    made = release()
    assert made.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert made.pod["spec"]["automountServiceAccountToken"] is False
    assert made.pod["spec"]["enableServiceLinks"] is False


def test_user_and_group_are_those_of_the_image_and_a_claim_is_the_groups() -> None:
    (user, group) = re.findall(r"(?m)^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text("utf-8"))[-1]
    context = release().pod["spec"]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (int(user), int(group), int(group))


def test_a_user_whom_the_cluster_chooses_is_left_to_the_cluster() -> None:
    context = release(values_of(CI[NAMES.index("openshift")])).pod["spec"]["securityContext"]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & context.keys()


def test_a_claims_files_are_not_given_to_the_group_at_each_start() -> None:
    # The kubelet would make the state file one that the group may write, which the exporter warns of.
    assert release().pod["spec"]["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
