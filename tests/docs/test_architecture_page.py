"""docs/architecture.md: reasons for dependencies, and names that exist in the code."""

import json
import re
import tomllib
from typing import Any

import pytest

from testing.program import ROOT

from .pages import page, section

TEXT = page("architecture.md")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
GROUPS: dict[str, list[str]] = {
    "dependencies": PROJECT["dependencies"],
    "dev": PROJECT["optional-dependencies"]["dev"],
}


def names(group: str) -> set[str]:
    return {re.split(r"[>=<\[;]", each)[0] for each in GROUPS[group]}


@pytest.mark.parametrize("group", GROUPS)
def test_every_dependency_has_a_reason(group: str) -> None:
    reasons = section(TEXT, "## Dependencies")
    assert {name for name in names(group) if not re.search(rf"\b{re.escape(name)}\b", reasons)} == set()


def test_every_npm_package_has_a_reason() -> None:
    files = list((ROOT / "dashboards" / "rig").glob("*.package"))
    packages = {name for path in files for name in json.loads(path.read_text("utf-8"))["dependencies"]}
    reasons = section(TEXT, "### npm packages")
    assert len(packages) > 10
    assert {name for name in packages if not re.search(rf"(?<!\S){re.escape(name)}(?=,? )", reasons)} == set()


@pytest.mark.parametrize(
    ("lock", "groups"), [("requirements.lock", ["dependencies"]), ("requirements-dev.lock", ["dependencies", "dev"])]
)
def test_every_dependency_is_locked(lock: str, groups: list[str]) -> None:
    locked = {line.split("==")[0].lower() for line in (ROOT / lock).read_text().splitlines() if "==" in line}
    assert {name.lower() for group in groups for name in names(group)} <= locked


def test_layers_name_modules_that_exist() -> None:
    files = re.findall(r"`(exporter/[\w/.]+)`", TEXT)
    assert len(files) > 10
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_glossary_names_classes_and_modules_that_exist() -> None:
    glossary = section(TEXT, "## Glossary")
    sources = {path: path.read_text("utf-8") for path in (ROOT / "exporter").rglob("*.py")}
    classes = set(re.findall(r"(?m)^class (\w+)", "\n".join(sources.values())))
    assert set(re.findall(r"`([A-Z]\w+)`", glossary)) <= classes
    modules = re.findall(r"`([\w/]+\.py)`", glossary)
    assert [module for module in modules if not (ROOT / "exporter" / module).exists()] == []


def test_glossary_is_sorted() -> None:
    terms = re.findall(r"(?m)^\| ([a-z][^|]*?) \|", section(TEXT, "## Glossary"))[1:]
    assert len(terms) > 30
    assert terms == sorted(terms, key=str.lower)
