"""docs/how-to/prometheus-operator.md: the chart accepts its values, and the operator its objects."""

import yaml

from tests.helm.release import HOME, release
from tests.helm.test_objects import VERSIONS, check

from .pages import blocks, page

EXAMPLES = [yaml.safe_load(block) for block in blocks(page("how-to/prometheus-operator.md"), "yaml")]


def test_chart_accepts_the_values() -> None:
    (values,) = [example for example in EXAMPLES if "serviceMonitor" in example]
    installed = release({**HOME, **values})
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert installed.one(kind)["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_operator_accepts_the_service_monitor() -> None:
    (monitor,) = [example for example in EXAMPLES if example.get("kind") == "ServiceMonitor"]
    check(monitor, VERSIONS[-1])


def test_service_monitor_selects_service_of_operations_page() -> None:
    (monitor,) = [example for example in EXAMPLES if example.get("kind") == "ServiceMonitor"]
    (manifest,) = [block for block in blocks(page("operations.md"), "yaml") if "StatefulSet" in block]
    (service,) = [thing for thing in yaml.safe_load_all(manifest) if thing["kind"] == "Service"]
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"].get("labels", {}).items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
