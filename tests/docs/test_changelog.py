"""CHANGELOG.md: its versions and sections."""

import re

from exporter import __version__
from testing.program import ROOT

CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
HEADINGS = re.findall(r"(?m)^## (.*)$", CHANGELOG)


def test_changelog_begins_with_unreleased_changes() -> None:
    assert CHANGELOG.startswith("# Changelog\n")
    assert HEADINGS[0] == "[Unreleased]"


def test_versions_have_dates_and_are_sorted() -> None:
    released = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", heading) for heading in HEADINGS[1:]]
    assert None not in released
    versions = [tuple(map(int, found.groups())) for found in released if found]
    assert versions == sorted(set(versions), reverse=True)
    assert [".".join(map(str, version)) for version in versions[:1]] in ([], [__version__])


def test_changes_are_grouped_by_kind() -> None:
    kinds = set(re.findall(r"(?m)^### (.*)$", CHANGELOG))
    assert kinds
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
