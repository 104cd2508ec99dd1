"""Lost if these fail: a README that is true."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter import config
from exporter.cli import _parser
from exporter.metrics.catalogue import markdown
from exporter.tedee.errors import REASONS
from tests.conftest import require_program
from tests.program import ROOT

README = (ROOT / "README.md").read_text("utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_its_table_of_metrics_is_the_catalogues() -> None:
    table = re.search(r"<!-- made by: .*? -->\n(.*?)<!-- metrics: end -->", README, re.DOTALL)
    assert table
    assert table[1] == markdown()


def test_it_names_every_flag_and_no_other() -> None:
    known = {flag for action in _parser()._actions for flag in action.option_strings if flag.startswith("--")}
    described = set(re.findall(r"`(--[a-z.-]+)", README))
    assert described == known


def test_it_names_every_variable_and_no_other() -> None:
    assert set(re.findall(r"\bTEDEE_[A-Z_]+", README)) == set(config.ENVIRONMENT)


def test_it_explains_every_reason_of_a_failed_sync() -> None:
    troubleshooting = README.split("## Troubleshooting")[1]
    assert {reason for reason in REASONS if f"| `{reason}` |" in troubleshooting} == set(REASONS)


@pytest.mark.parametrize("group", ["dependencies", "dev"])
def test_architecture_gives_the_reason_for_every_dependency(group: str) -> None:
    listed = PROJECT["dependencies"] if group == "dependencies" else PROJECT["optional-dependencies"]["dev"]
    names = {re.split(r"[>=<\[;]", each)[0] for each in listed}
    section = (ROOT / "docs" / "architecture.md").read_text("utf-8").split("## Dependencies")[1]
    assert {name for name in names if not re.search(rf"\b{re.escape(name)}\b", section)} == set()


def test_its_configuration_is_good(tmp_path: Path) -> None:
    (text,) = [block for block in blocks("yaml") if block.startswith("accounts:")]
    path = tmp_path / "tedee-exporter.yml"
    path.write_text(text)
    assert [account.name for account in config.load(path).accounts] == ["home", "hotel"]


def test_what_it_says_gives_each_of_several_processes_a_state_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = README.split("### Several processes")[1].split("\n### ")[0]
    told = {word for word in ("state_file", "TEDEE_STATE_FILE", "STATE_DIRECTORY") if f"`{word}`" in several}
    assert told == {"state_file", "TEDEE_STATE_FILE", "STATE_DIRECTORY"}
    monkeypatch.setenv("TEDEE_STATE_FILE", "/one/for/all.db")
    path = tmp_path / "tedee-exporter.yml"
    path.write_text("accounts: [{name: home, personal_key_file: home}]\n")
    assert config.load(path).state_file is None
    files = [config.default_state_file({"STATE_DIRECTORY": f"/var/lib/tedee-{index}"}) for index in range(2)]
    assert files == [Path("/var/lib/tedee-0/state.db"), Path("/var/lib/tedee-1/state.db")]
    (volume,) = re.findall("STATE_DIRECTORY=(.+)", (ROOT / "Dockerfile").read_text("utf-8"))
    assert f"`{volume}`" in several


def test_prometheus_accepts_its_scrape_configuration(tmp_path: Path) -> None:
    (text,) = [block for block in blocks("yaml") if block.startswith("scrape_configs:")]
    assert yaml.safe_load(text)["scrape_configs"][0]["static_configs"][0]["targets"] == ["localhost:10333"]
    path = tmp_path / "prometheus.yml"
    path.write_text(text)
    result = subprocess.run(
        [require_program("promtool"), "check", "config", path], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_every_file_it_links_to_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("https://")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_dependency_is_in_the_lock_that_is_installed() -> None:
    for lock, groups in {
        "requirements.lock": [PROJECT["dependencies"]],
        "requirements-dev.lock": [PROJECT["dependencies"], PROJECT["optional-dependencies"]["dev"]],
    }.items():
        locked = {line.split("==")[0].lower() for line in (ROOT / lock).read_text().splitlines() if "==" in line}
        for group in groups:
            names = {re.split(r"[>=<\[;]", each)[0].lower() for each in group}
            assert names <= locked, lock


@pytest.mark.parametrize(("document", "least"), [("RELIABILITY.md", 40), ("SECURITY.md", 50)])
def test_every_row_of_the_documents_names_tests_that_exist(document: str, least: int) -> None:
    rows = [line for line in (ROOT / "docs" / document).read_text("utf-8").splitlines() if "| `" in line]
    named = set(re.findall(r"`((?:test_|Test)\w+)`", "\n".join(rows)))
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    existing = set(re.findall(r"(?:def (test_\w+)|^(Test\w+)|class (Test\w+))", sources, re.MULTILINE))
    assert len(rows) >= least
    assert named - {name for names in existing for name in names} == set()
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", "\n".join(rows)))
    assert [file for file in files if not (ROOT / file).exists()] == []
