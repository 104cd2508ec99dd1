"""Examples of configuration in all pages."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .checks import check_prometheus_configuration
from .pages import DOCUMENTS, blocks, name_of

EXAMPLES = {
    f"{name_of(document)}-{number}": block
    for document in DOCUMENTS
    for number, block in enumerate(blocks(document.read_text("utf-8"), "yaml"))
}
LOADED: dict[str, list[Any]] = {name: list(yaml.safe_load_all(block)) for name, block in EXAMPLES.items()}


def having(key: str) -> list[str]:
    return [name for name, (first, *_) in LOADED.items() if isinstance(first, dict) and key in first]


def test_examples_are_yaml() -> None:
    assert len(LOADED) > 10
    assert all(each is not None for documents in LOADED.values() for each in documents)


@pytest.mark.parametrize("name", having("services"))
def test_compose_files_match_schema(name: str, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(EXAMPLES[name])
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema=vendor.compose-spec", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", having("services"))
def test_compose_files_declare_their_volumes(name: str) -> None:
    (compose,) = LOADED[name]
    if "exporter" in compose["services"]:
        return  # an override of compose.yaml
    used = [volume.split(":")[0] for service in compose["services"].values() for volume in service["volumes"]]
    assert {volume for volume in used if not volume.startswith("/")} == set(compose["volumes"])


@pytest.mark.parametrize("name", having("scrape_configs"))
def test_prometheus_accepts_scrape_configurations(name: str, tmp_path: Path) -> None:
    check_prometheus_configuration(EXAMPLES[name], tmp_path)


def test_json_examples_are_json() -> None:
    for document in DOCUMENTS:
        for block in blocks(document.read_text("utf-8"), "json"):
            json.loads(block)
