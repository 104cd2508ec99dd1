"""Links between documents, to files of the repository, and to anchors."""

from pathlib import Path

import pytest

from testing.program import ROOT

from .pages import DOCUMENTS, anchors, links, name_of


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_to_files_and_anchors(document: Path) -> None:
    broken = [link for link in links(document.read_text("utf-8")) if not _exists(document, link)]
    assert broken == []


def _exists(document: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (document.parent / name).resolve() if name else document
    if not target.exists() or not target.is_relative_to(ROOT.resolve()):
        return False
    return not anchor or anchor in anchors(target.read_text("utf-8"))


@pytest.mark.parametrize("link", ["README.md#none", "none.md", "#none", "../other"])
def test_broken_link_is_detected(link: str) -> None:
    assert not _exists(ROOT / "README.md", link)


def test_anchors_equal_those_of_github() -> None:
    text = "# One & two\n## `<api>`\n## Tedee's API: v37\n## Twice\n## Twice\n```sh\n# no heading\n```\n"
    assert anchors(text) == {"one--two", "api", "tedees-api-v37", "twice", "twice-1"}


def test_addresses_of_pages_on_github_exist() -> None:
    address = "https://github.com/tedee-exporter/tedee-exporter/blob/main/"
    files = [ROOT / "pyproject.toml", *(ROOT / "exporter").rglob("*.py"), *(ROOT / "exporter").rglob("*.html")]
    for path in files:
        for found in path.read_text("utf-8").split(address)[1:]:
            target = found.split('"')[0].split("#")[0].split()[0].rstrip(".,;)'`")
            assert (ROOT / target).exists(), (path, target)
