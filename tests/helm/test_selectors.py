"""Services, monitors and policies select the pod of this release only. Names, ports and image are consistent."""

import re
from typing import Any

import pytest

from exporter import __version__

from .release import CI, HOME, NAMES, Object, Release, release, values_of

EVERYTHING: dict[str, Any] = {
    **HOME,
    "podDisruptionBudget": {"enabled": True},
    "networkPolicy": {"enabled": True},
}


def install(name: str, **values: Any) -> Release:
    return release({**EVERYTHING, **values}, name=name)


def selectors(made: Release) -> dict[str, Object]:
    """Return the labels that each selector requires, by the kind of its object."""
    return {
        "Service": made.one("Service")["spec"]["selector"],
        "Deployment": made.one("Deployment")["spec"]["selector"]["matchLabels"],
        "NetworkPolicy": made.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        "PodDisruptionBudget": made.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    } | {each["kind"]: each["spec"]["selector"]["matchLabels"] for each in made.all("PodMonitor")}


def has_labels(selected: Object, labels: Object) -> bool:
    return bool(selected["metadata"]["labels"].items() >= labels.items())


@pytest.mark.parametrize("labels", [{}, {"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/instance": "x"}])
def test_pod_selectors_match_only_this_release(labels: dict[str, str]) -> None:
    monitored = {"podMonitor": {"enabled": True}, "podLabels": labels, "commonLabels": labels}
    ours, theirs = install("ours", **monitored), install("theirs", **monitored)
    assert len(selectors(ours)) == 5
    for required in selectors(ours).values():
        assert has_labels(ours.pod, required)
        assert not has_labels(theirs.pod, required)
        assert not has_labels(ours.one("Pod"), required)


@pytest.mark.parametrize("labels", [{}, {"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/instance": "x"}])
def test_service_monitor_selects_service_of_this_release(labels: dict[str, str]) -> None:
    monitor: dict[str, Any] = {"serviceMonitor": {"enabled": True, "namespace": "monitoring"}}
    ours, theirs = (install(name, service={"labels": labels}, **monitor) for name in ("ours", "theirs"))
    spec = ours.one("ServiceMonitor")["spec"]
    assert spec["namespaceSelector"] == {"matchNames": [ours.one("Service")["metadata"]["namespace"]]}
    assert has_labels(ours.one("Service"), spec["selector"]["matchLabels"])
    assert not has_labels(theirs.one("Service"), spec["selector"]["matchLabels"])


def test_pod_monitor_selects_namespace_of_pod() -> None:
    made = install("ours", podMonitor={"enabled": True, "namespace": "monitoring"})
    assert made.one("PodMonitor")["spec"]["namespaceSelector"] == {"matchNames": ["locks"]}


@pytest.mark.parametrize("monitor", ["serviceMonitor", "podMonitor"])
def test_namespace_override_applies_to_all_objects(monitor: str) -> None:
    made = install("ours", namespaceOverride="house", **{monitor: {"enabled": True}})
    assert {each["metadata"]["namespace"] for each in made.objects} == {"house"}
    spec = made.one(f"{monitor[0].upper()}{monitor[1:]}")["spec"]
    assert spec["namespaceSelector"] == {"matchNames": ["house"]}
    commands = [line for line in re.sub(r" \\\n +", " ", made.notes).splitlines() if "--namespace" in line]
    # Helm stores the release in the namespace of the release.
    assert {(line.split()[0], line.split("--namespace ")[1].split()[0]) for line in commands} == {
        ("kubectl", "house"),
        ("helm", "locks"),
    }


def test_all_ports_are_the_port_of_the_exporter() -> None:
    made = install("ours", serviceMonitor={"enabled": True}, service={"port": 80})
    (port,) = made.container["ports"]
    assert port["containerPort"] == 10333
    (served,) = made.one("Service")["spec"]["ports"]
    assert (served["port"], served["targetPort"]) == (80, port["name"])
    (endpoint,) = made.one("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] == served["name"]
    (incoming,) = made.one("NetworkPolicy")["spec"]["ingress"]
    assert [each["port"] for each in incoming["ports"]] == [port["containerPort"]]


def test_upgrade_does_not_change_selectors() -> None:
    changed = install("ours", commonLabels={"a": "b"}, image={"tag": "2"}, podLabels={"c": "d"})
    assert selectors(changed) == selectors(install("ours"))
    assert [label for label in selectors(changed)["Deployment"] if "version" in label or "chart" in label] == []


def test_network_policy_allows_prometheus_dns_and_tedee() -> None:
    spec = install("ours").one("NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (incoming,) = spec["ingress"]
    prometheus = {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}
    prometheus_pods, test_pod = incoming["from"]
    assert prometheus_pods == {"namespaceSelector": {}, "podSelector": prometheus}
    assert has_labels(install("ours").one("Pod"), test_pod["podSelector"]["matchLabels"])
    assert not has_labels(install("theirs").one("Pod"), test_pod["podSelector"]["matchLabels"])
    outgoing = [(each["port"], each["protocol"]) for rule in spec["egress"] for each in rule["ports"]]
    assert outgoing == [(53, "UDP"), (53, "TCP"), (443, "TCP")]


def test_network_policy_has_peers_of_values() -> None:
    values = values_of(CI[NAMES.index("network-policy")])
    spec = release(values).one("NetworkPolicy")["spec"]
    assert spec["ingress"][0]["from"][:-1] == values["networkPolicy"]["from"]
    assert spec["egress"][-1] == values["networkPolicy"]["egress"][0]


def test_pod_uses_created_or_existing_service_account() -> None:
    made = install("ours")
    assert made.pod["spec"]["serviceAccountName"] == made.one("ServiceAccount")["metadata"]["name"]
    named = install("ours", serviceAccount={"create": False, "name": "other"})
    assert named.all("ServiceAccount") == []
    assert named.pod["spec"]["serviceAccountName"] == "other"
    assert install("ours", serviceAccount={"create": False}).pod["spec"]["serviceAccountName"] == "default"


def test_pod_uses_created_or_existing_claim() -> None:
    def claimed(made: Release) -> Any:
        return made.pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]

    made = install("ours", persistence={"enabled": True})
    assert claimed(made) == made.one("PersistentVolumeClaim")["metadata"]["name"]
    named = install("ours", persistence={"enabled": True, "existingClaim": "ours-already"})
    assert named.all("PersistentVolumeClaim") == []
    assert claimed(named) == "ours-already"


def test_ingress_routes_each_host_to_the_service() -> None:
    hosts = ["locks.example.com", "*.house.example.com"]
    made = install("ours", ingress={"enabled": True, "hosts": hosts})
    service = made.one("Service")
    rules = made.one("Ingress")["spec"]["rules"]
    assert [rule["host"] for rule in rules] == hosts
    for rule in rules:
        (path,) = rule["http"]["paths"]
        assert (path["path"], path["pathType"]) == ("/", "Prefix")
        assert path["backend"]["service"]["name"] == service["metadata"]["name"]
        assert path["backend"]["service"]["port"]["name"] == service["spec"]["ports"][0]["name"]
    assert "or http://locks.example.com/. " in made.notes
    # The network policy is enabled.
    assert "The Ingress works only if networkPolicy.from includes its controller" in made.notes


def test_ingress_without_hosts_accepts_any() -> None:
    (rule,) = install("ours", ingress={"enabled": True}).one("Ingress")["spec"]["rules"]
    assert list(rule) == ["http"]


def test_ingress_has_class_and_certificates_of_values() -> None:
    values = values_of(CI[NAMES.index("ingress")])
    made = release(values)
    spec = made.one("Ingress")["spec"]
    assert (spec["ingressClassName"], spec["tls"]) == (values["ingress"]["className"], values["ingress"]["tls"])
    assert "or https://locks.example.com/. " in made.notes


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, "ghcr.io/tedee-exporter/tedee-exporter:{version}"),
        ({"tag": "edge"}, "ghcr.io/tedee-exporter/tedee-exporter:edge"),
        ({"registry": "mirror.local:5000"}, "mirror.local:5000/tedee-exporter/tedee-exporter:{version}"),
        ({"registry": "mirror.local/proxy/"}, "mirror.local/proxy/tedee-exporter/tedee-exporter:{version}"),
        ({"registry": "mirror.local", "repository": "house/exporter"}, "mirror.local/house/exporter:{version}"),
        ({"registry": "mirror.local", "repository": "localhost/exporter"}, "mirror.local/exporter:{version}"),
        ({"registry": "mirror.local", "repository": "exporter"}, "mirror.local/exporter:{version}"),
        ({"repository": "exporter"}, "exporter:{version}"),
        ({"repository": "r/i", "tag": "edge", "digest": f"sha256:{'0' * 64}"}, f"r/i@sha256:{'0' * 64}"),
    ],
)
def test_image_defaults_to_version_of_chart(image: dict[str, str], expected: str) -> None:
    made = install("ours", image=image)
    assert {each["image"] for each in made.containers} == {expected.format(version=__version__)}


def test_global_registry_and_pull_secrets_are_used() -> None:
    made = release(values_of(CI[NAMES.index("global")]))
    image = f"registry.example.com:5000/tedee-exporter/tedee-exporter:{__version__}"
    assert {each["image"] for each in made.containers} == {image}
    assert made.pod["spec"]["imagePullSecrets"] == [{"name": "mirror"}, {"name": "registry"}]


def test_global_registry_overrides_registry_of_image() -> None:
    made = install("ours", image={"registry": "local"}, **{"global": {"imageRegistry": "everywhere"}})
    assert made.container["image"].startswith("everywhere/tedee-exporter/")


def test_ingress_supports_hosts_with_paths() -> None:
    made = release(values_of(CI[NAMES.index("ingress")]))
    first, second = made.one("Ingress")["spec"]["rules"]
    assert [(each["path"], each["pathType"]) for each in first["http"]["paths"]] == [("/", "Prefix")]
    assert second["host"] == "house.example.com"
    assert [(each["path"], each["pathType"]) for each in second["http"]["paths"]] == [
        ("/locks", "Exact"),
        ("/doors", "Prefix"),
        ("/", "ImplementationSpecific"),
    ]


@pytest.mark.parametrize("hosts", [["*"], [{"paths": ["/"]}], [{"host": "*"}]])
def test_ingress_host_without_name_accepts_any(hosts: list[Any]) -> None:
    made = install("ours", ingress={"enabled": True, "hosts": hosts})
    (rule,) = made.one("Ingress")["spec"]["rules"]
    assert list(rule) == ["http"]
    assert "open http://localhost:10333/. " in made.notes
