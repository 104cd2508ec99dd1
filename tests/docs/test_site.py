"""The site of the documentation: it builds without a warning, and a broken link fails."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import DOCS, PAGES

REPOSITORY = "https://github.com/tedee-exporter/tedee-exporter"


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as `make docs` does, without files between two builds."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-E", "--no-color", "-b", "dirhtml"]
    command += ["-d", str(target.with_name("doctrees")), str(source), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("docs") / "html"
    result = build(DOCS, target)
    assert (result.returncode, result.stderr) == (0, "")
    return target


def test_each_page_is_in_the_site(site: Path) -> None:
    for page in PAGES:
        name = page.relative_to(DOCS).with_suffix("")
        folder = name.parent if name.name == "index" else name
        assert (site / folder / "index.html").exists(), name


def test_links_out_of_docs_lead_to_github(site: Path) -> None:
    page = (site / "configuration" / "index.html").read_text("utf-8")
    assert f'href="{REPOSITORY}/blob/main/tedee-exporter.example.yml"' in page
    page = (site / "how-to" / "grafana-cloud-and-alloy" / "index.html").read_text("utf-8")
    assert f'href="{REPOSITORY}/tree/main/dashboards"' in page


@pytest.mark.parametrize("link", ["faq.md#none", "none.md", "#none"])
def test_broken_link_fails_the_build(link: str, tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    shutil.copy(DOCS / "conf.py", source)
    shutil.copytree(DOCS / "_static", source / "_static")
    (source / "index.md").write_text(f"# Index\n\n[link]({link})\n\n```{{toctree}}\nfaq\n```\n")
    (source / "faq.md").write_text("# FAQ\n")
    result = build(source, tmp_path / "html")
    assert result.returncode != 0
    assert re.findall(r"WARNING: .*\[(.*)\]$", result.stderr, re.MULTILINE) == ["myst.xref_missing"]
