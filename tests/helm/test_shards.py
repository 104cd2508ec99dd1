"""Several sharded exporters in Kubernetes, as in the example of docs/operations.md."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter import __version__
from testing.program import ROOT, configuration, run

from .release import Object
from .test_objects import VERSIONS, check

TEXT = (ROOT / "docs" / "operations.md").read_text("utf-8")


@pytest.fixture(scope="module")
def manifest() -> dict[str, Object]:
    (block,) = [each for each in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "StatefulSet" in each]
    return {each["kind"]: each for each in yaml.safe_load_all(block)}


def test_cluster_accepts_the_chart(manifest: dict[str, Object]) -> None:
    for thing in manifest.values():
        check(thing, VERSIONS[-1])


def test_referenced_objects_exist(manifest: dict[str, Object]) -> None:
    service, pods = manifest["Service"]["spec"], manifest["StatefulSet"]["spec"]
    template = pods["template"]
    assert service["selector"] == pods["selector"]["matchLabels"] == template["metadata"]["labels"]
    assert pods["serviceName"] == manifest["Service"]["metadata"]["name"]
    (container,) = template["spec"]["containers"]
    volumes = {each["name"] for each in template["spec"]["volumes"]}
    claims = {each["metadata"]["name"] for each in pods["volumeClaimTemplates"]}
    assert {each["name"] for each in container["volumeMounts"]} == volumes | claims
    assert container["image"].endswith(f":{__version__}")


def test_each_account_belongs_to_one_pod(manifest: dict[str, Object], tmp_path: Path) -> None:
    names = [f"hotel-{number}" for number in range(30)]
    accounts: list[dict[str, Any]] = [{"name": name, "personal_key": f"key-of-{name}"} for name in names]
    config = configuration(tmp_path, "https://tedee.test", accounts)
    pods = manifest["StatefulSet"]["spec"]
    (container,) = pods["template"]["spec"]["containers"]
    (variable,) = container["env"]
    found = []
    for index in range(pods["replicas"]):
        flags = [flag.replace(f"$({variable['name']})", str(index)) for flag in container["args"]]
        here = [flag.replace("/etc/tedee-exporter/tedee-exporter.yml", str(config)) for flag in flags]
        checked = run(*here, "--config.check")
        assert checked.returncode == 0, checked.stderr
        found += re.findall(r"hotel-\d+", checked.stdout.partition("accounts:")[2])
    assert sorted(found) == sorted(names)
