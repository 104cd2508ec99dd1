"""README.md: its length, and that its commands and examples work."""

import re
from pathlib import Path

import pytest
import yaml

from exporter import config

from .checks import check_prometheus_configuration
from .pages import PAGES, README, blocks, links, name_of, section

TEXT = README.read_text("utf-8")


def test_readme_is_short() -> None:
    assert len(TEXT.splitlines()) <= 150
    assert len(TEXT.split()) <= 1300


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "index.md"], ids=name_of)
def test_readme_or_its_indexes_link_to_each_page(page: Path) -> None:
    direct = {(README.parent / link).resolve() for link in links(TEXT)}
    of_folder = {"contributing": README.parent / "CONTRIBUTING.md", "adr": page.parent / "index.md"}
    index = of_folder.get(page.parent.name)
    indirect = {(index.parent / link).resolve() for link in links(index.read_text("utf-8"))} if index else set()
    assert page in direct | indirect


def test_quick_start_has_demo_and_tests() -> None:
    quick_start = section(TEXT, "## Quick start")
    assert re.findall(r"(?m)^make \w+", quick_start) == ["make demo", "make test"]
    assert "http://localhost:10333/" in quick_start


def test_minimal_configuration_is_valid(tmp_path: Path) -> None:
    (text,) = blocks(section(TEXT, "## Minimal configuration"), "yaml")
    path = tmp_path / "tedee-exporter.yml"
    path.write_text(text)
    assert [account.name for account in config.load(path).accounts] == ["home", "hotel"]


def test_scrape_configuration_is_valid(tmp_path: Path) -> None:
    (text,) = blocks(section(TEXT, "## Scrape it"), "yaml")
    assert yaml.safe_load(text)["scrape_configs"][0]["static_configs"][0]["targets"] == ["localhost:10333"]
    check_prometheus_configuration(text, tmp_path)
