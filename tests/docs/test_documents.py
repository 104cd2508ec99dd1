"""Lost if these fail: a newcomer's first ten minutes, and a changelog that says what is in a release."""

import re
from pathlib import Path

import pytest

from exporter import __version__
from tests.program import ROOT

CONTRIBUTING, CHANGELOG = ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"
RELEASING, ARCHITECTURE = ROOT / "docs" / "contributing" / "releasing.md", ROOT / "docs" / "architecture.md"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
HEADINGS = re.findall(r"(?m)^## (.*)$", CHANGELOG.read_text("utf-8"))


@pytest.mark.parametrize("document", [CONTRIBUTING, RELEASING, *WORKFLOWS], ids=lambda path: path.name)
def test_what_it_says_to_make_can_be_made(document: Path) -> None:
    said = re.findall(r"(?m)(?:`|run: |^)make ([a-z ]+?)(?= ARGS=|`|  |$)", document.read_text("utf-8"))
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text("utf-8")))
    assert document in WORKFLOWS or said
    assert {target for text in said for target in text.split()} - targets == set()


@pytest.mark.parametrize("document", [CONTRIBUTING, RELEASING, ARCHITECTURE, CHANGELOG], ids=lambda path: path.name)
def test_every_file_it_links_to_exists(document: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text("utf-8")) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_changelog_begins_with_what_is_not_released() -> None:
    assert CHANGELOG.read_text("utf-8").startswith("# Changelog\n")
    assert HEADINGS[0] == "[Unreleased]"


def test_the_changelog_has_each_version_with_its_date_the_newest_first() -> None:
    released = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", heading) for heading in HEADINGS[1:]]
    assert None not in released
    versions = [tuple(map(int, found.groups())) for found in released if found]
    assert versions == sorted(set(versions), reverse=True)
    assert [".".join(map(str, version)) for version in versions[:1]] in ([], [__version__])


def test_the_changelog_sorts_changes_by_their_kind() -> None:
    kinds = set(re.findall(r"(?m)^### (.*)$", CHANGELOG.read_text("utf-8")))
    assert kinds
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
