"""The objects of the chart are valid in all supported versions of Kubernetes, for all example values."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from kubernetes_validate.utils import all_versions  # type: ignore[import-untyped]

from helm.refresh import CHART

from .release import CI, HOME, NAMES, Object, chart, release, values_of

CUSTOM = {"monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1"}
"""The API versions of the Prometheus operator and of the Gateway API."""
VERSIONS = [all_versions()[0], all_versions()[-1]]
"""The oldest and the newest version of Kubernetes whose schemas are installed."""

each_ci_file = pytest.mark.parametrize("path", CI, ids=NAMES)


def check(thing: Object, version: str) -> None:
    """Validate an object with its schema, without unknown fields.

    Raises:
        jsonschema.ValidationError: the object is invalid.
    """
    _check(json.dumps(thing), version)


@cache
def _check(text: str, version: str) -> None:
    # Most objects do not depend on the values.
    thing = json.loads(text)
    if thing["apiVersion"] in CUSTOM:
        jsonschema.Draft202012Validator(_strict(_schema(thing["kind"]))).validate(thing)
        # The schema does not restrict these fields.
        thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": thing["metadata"]}
    try:
        kubernetes_validate.validate(thing, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise jsonschema.ValidationError(error.message) from None


def _schema(kind: str) -> Any:
    return json.loads((Path(__file__).parent / "crds" / f"{kind.lower()}.json").read_text("utf-8"))


def _strict(schema: Any) -> Any:
    """Return a schema that rejects unknown fields, which the API server would drop or reject."""
    if isinstance(schema, dict):
        schema = {key: _strict(value) for key, value in schema.items()}
        if isinstance(schema.get("properties"), dict) and "type" in schema:
            schema.setdefault("additionalProperties", False)
    elif isinstance(schema, list):
        schema = [_strict(each) for each in schema]
    return schema


@each_ci_file
def test_helm_lint_has_no_findings(path: Path) -> None:
    report = helm_python.lint(CHART, values_of(path), strict=True, namespace="locks")
    # The only finding is the missing icon.
    assert [each["error"] for each in report["messages"]] == ["icon is recommended"]
    assert report["errors"] == []


@pytest.mark.parametrize("version", VERSIONS)
@each_ci_file
def test_all_objects_match_schemas(path: Path, version: str) -> None:
    for thing in release(values_of(path)).objects:
        check(thing, version)


def test_oldest_kubernetes_is_that_of_the_chart() -> None:
    oldest = ".".join(VERSIONS[0].split(".")[:2])
    assert chart().metadata["kubeVersion"] == f">={oldest}.0-0"
    assert f"Kubernetes {oldest} or newer" in (CHART / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("Deployment", ["spec"]),
        ("Deployment", ["spec", "template", "spec", "containers", 0, "livenessProbe"]),
        ("ServiceMonitor", ["metadata"]),
        ("ServiceMonitor", ["spec", "endpoints", 0]),
        ("PrometheusRule", ["spec", "groups", 0, "rules", 0]),
        ("HTTPRoute", ["spec", "rules", 0]),
    ],
)
def test_misspelt_field_of_object_is_detected(kind: str, place: list[str | int]) -> None:
    values = {
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]},
    }
    thing: Any = release({**HOME, **values}).one(kind)
    check(thing, VERSIONS[0])
    part = thing
    for step in place:
        part = part[step]
    part["misspelt"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="misspelt"):
        check(thing, VERSIONS[0])


@each_ci_file
def test_names_of_objects_are_valid_and_unique(path: Path) -> None:
    objects = release(values_of(path), name="a-release-with-a-name-that-is-as-long-as-helm-allows").objects
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert len(set(names)) == len(names)
    for kind, _, name in names:
        assert is_name(kind, name), name


def is_name(kind: str, name: str) -> bool:
    """Returns True if a name is valid: a DNS label of RFC 1035 for a Service, a host name for other objects."""
    dots, longest = ("", 63) if kind == "Service" else (".", 253)
    return len(name) <= longest and bool(re.fullmatch(rf"[a-z]([a-z0-9{dots}-]*[a-z0-9])?", name))


AT_THE_LIMIT = "a" * 48


@pytest.mark.parametrize(
    ("name", "override", "expected"),
    [
        ("my.release", "", "my-release-tedee-exporter"),
        ("my.tedee-exporter", "", "my-tedee-exporter"),
        (f"{AT_THE_LIMIT}.tee", "locks-at-the-house", f"{AT_THE_LIMIT}-tee-locks-at-t"),
        (f"{AT_THE_LIMIT}.tee", "locks-at--t", f"{AT_THE_LIMIT}-tee-locks-at"),
    ],
)
def test_name_is_valid_for_a_service(name: str, override: str, expected: str) -> None:
    for made in release({**HOME, "nameOverride": override}, name=name).objects:
        own = f"{expected[:58].rstrip('-')}-test" if made["kind"] == "Pod" else expected
        assert made["metadata"]["name"] == own
        assert is_name("Service", own)


@pytest.mark.parametrize("name", ["123abc", "1.tedee-exporter"])
def test_release_name_invalid_for_a_service_is_refused(name: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=r"is not a valid name of a Service.*set fullnameOverride"):
        release(name=name)
    assert release({**HOME, "fullnameOverride": "locks"}, name=name).objects


@pytest.mark.parametrize("which", ["nameOverride", "fullnameOverride"])
@pytest.mark.parametrize("name", ["x.y", "MyTedee", "locks-", "1locks", "a" * 64])
def test_override_invalid_for_a_service_is_refused(which: str, name: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=which):
        release({**HOME, which: name})


@each_ci_file
def test_objects_have_labels_and_namespace(path: Path) -> None:
    values = values_of(path)
    for thing in release({**values, "extraObjects": []}).objects:
        metadata = thing["metadata"]
        assert metadata["labels"]["app.kubernetes.io/instance"] == "tedee-exporter"
        assert metadata["labels"]["helm.sh/chart"] == f"tedee-exporter-{chart().version}"
        assert metadata["labels"].items() >= values.get("commonLabels", {}).items()
        assert metadata["namespace"] in {values.get("namespaceOverride", "locks"), "monitoring"}
    assert {each["metadata"]["namespace"] for each in release().objects} == {"locks"}
