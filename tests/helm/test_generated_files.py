"""The generated files of the chart match the repository: alerts, dashboards, version and README."""

import base64
import gzip
import json
import math
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from exporter import __version__
from helm import refresh
from helm.refresh import CHART
from testing.program import ROOT
from tests.conftest import require_program

from .release import HOME, Values, chart, release, values_of

MIB = 2**20
README = (CHART / "README.md").read_text("utf-8")


@pytest.mark.parametrize("path", refresh.generate(), ids=lambda path: path.name)
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert path.read_text("utf-8") == refresh.generate()[path], "run: make chart"


def test_refresh_removes_obsolete_files() -> None:
    assert {path for path in refresh.COPIES.rglob("*") if path.is_file()} <= refresh.generate().keys(), (
        "run: make chart"
    )


def test_chart_contains_no_symbolic_links() -> None:
    assert [path for path in CHART.rglob("*") if path.is_symlink()] == []


def test_alerts_equal_those_of_the_repository() -> None:
    rule = release({**HOME, "prometheusRule": {"enabled": True}}).one("PrometheusRule")
    assert rule["spec"] == yaml.safe_load((ROOT / "alerts" / "tedee.rules.yml").read_text("utf-8"))
    names = [group["name"] for group in rule["spec"]["groups"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("values", [{"prometheusRule": {"enabled": True}}, values_of(CHART / "ci/alerts-values.yaml")])
def test_prometheus_accepts_the_rules(values: Values, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump(release({**HOME, **values}).one("PrometheusRule")["spec"]))
    result = subprocess.run(
        [require_program("promtool"), "check", "rules", rules], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_readme_states_required_retention() -> None:
    rules = (ROOT / "alerts" / "tedee.rules.yml").read_text("utf-8")
    assert max(int(days) for days in re.findall(r"\[(\d+)d\b", rules)) == 3
    assert "Prometheus must keep data for three days or more" in " ".join(README.split())


@pytest.mark.parametrize("document", ["README.md", "docs/installation.md"])
def test_required_memory_is_the_measured_one_rounded_up(document: str) -> None:
    (required,) = re.findall(r"[Aa]bout (\d+) MiB", (ROOT / document).read_text("utf-8"))
    few, _ = refresh.measured_memory()
    assert int(required) == 10 * math.ceil(few / 10)


def test_requests_and_limits_fit_the_measured_memory() -> None:
    few, many = refresh.measured_memory()
    assert f"It uses about {few} MiB with 10 locks and {many} MiB with 10,000 |" in README
    resources = release().container["resources"]
    request, limit = (int(resources[kind]["memory"].removesuffix("Mi")) for kind in ("requests", "limits"))
    assert few < many < request < 2 * many
    assert limit >= 2 * many


def test_dashboards_equal_repository_and_have_sidecar_label() -> None:
    maps = release({**HOME, "dashboards": {"enabled": True}}).all("ConfigMap")
    found = [each for each in maps if each["metadata"]["labels"].get("grafana_dashboard") == "1"]
    files = {name: text for each in found for name, text in each["data"].items()}
    sources = {f"tedee-{path.name}": path for path in (ROOT / "dashboards").glob("*.json")}
    assert len(sources) >= 4
    assert files.keys() == sources.keys()
    for name, path in sources.items():
        assert files[name].rstrip("\n") == path.read_text("utf-8").rstrip("\n")
        json.loads(files[name])


def test_objects_fit_size_limits_of_kubernetes() -> None:
    values = {name: {"enabled": True} for name in ("dashboards", "prometheusRule")}
    rendered = release({**HOME, **values})
    assert max(len(json.dumps(each)) for each in rendered.objects) < 0.9 * MIB
    # Helm stores a release in a Secret: chart and objects as JSON, compressed and encoded.
    files = [each["data"] for each in chart().files + chart().templates]
    stored = base64.b64encode(gzip.compress(json.dumps([files, rendered.objects]).encode()))
    assert len(stored) < 0.7 * MIB


def test_package_contains_all_files_of_the_chart(tmp_path: Path) -> None:
    archive = Path(chart().save(tmp_path))
    everything = {name: {"enabled": True} for name in ("dashboards", "prometheusRule", "networkPolicy")}
    assert release({**HOME, **everything}, path=archive) == release({**HOME, **everything})


def test_every_example_of_readme_installs() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        values = yaml.safe_load(block)
        least = {} if {"keys", "existingSecret"} & values.keys() else HOME
        assert release({**least, **values}).objects


def test_readme_has_upgrade_note_of_this_version() -> None:
    assert re.search(rf"(?m)^\| {re.escape(__version__)} \| .+ \|$", README), "see docs/contributing/releasing.md"


def test_links_of_readme_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("https://")]
    assert [link for link in links if not (CHART / link).exists()] == []
