"""docs/security.md and docs/failure-modes.md: the tests that they name exist."""

import re

import pytest

from testing.program import ROOT

from .pages import page


@pytest.mark.parametrize(("document", "min_rows"), [("failure-modes.md", 40), ("security.md", 50)])
def test_rows_name_tests_that_exist(document: str, min_rows: int) -> None:
    rows = [line for line in page(document).splitlines() if "| `" in line]
    named = set(re.findall(r"`((?:test_|Test)\w+)`", "\n".join(rows)))
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    existing = set(re.findall(r"(?:def (test_\w+)|^(Test\w+)|class (Test\w+))", sources, re.MULTILINE))
    assert len(rows) >= min_rows
    assert named - {name for names in existing for name in names} == set()
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", "\n".join(rows)))
    assert [file for file in files if not (ROOT / file).exists()] == []
