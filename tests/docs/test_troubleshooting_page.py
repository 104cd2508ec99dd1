"""docs/troubleshooting.md: every reason of a failed sync, and messages as the exporter words them."""

import errno
import os
import re
from http import HTTPStatus

import pytest

from exporter.tedee.errors import REASONS
from exporter.tedee.oauth import REFRESH_TOKEN
from testing.program import ROOT

from .pages import page, section

TEXT = page("troubleshooting.md")
MESSAGES = re.findall(r"`([^`]+)`", "\n".join(re.findall(r"(?m)^\| (`[^|]*) \|", TEXT.split("## No error")[0])))


@pytest.fixture(scope="module")
def wording() -> str:
    """The exporter's sources, with the parts of each text joined, and the texts of the system."""
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "exporter").rglob("*.py"))
    joined = re.sub(r'"\s+f?"', "", sources).replace("{REFRESH_TOKEN}", REFRESH_TOKEN)
    return "\n".join([joined, *(status.phrase for status in HTTPStatus), *map(os.strerror, errno.errorcode)])


def test_page_explains_every_reason() -> None:
    errors = section(TEXT, "## Errors of a sync")
    assert {reason for reason in REASONS if f"| `{reason}` |" in errors} == set(REASONS)


@pytest.mark.parametrize("message", MESSAGES)
def test_message_is_one_of_the_exporter(message: str, wording: str) -> None:
    fixed = re.split(r"…|\bHTTP\b|api\.tedee\.com|\(|\)|[v:]*\d+(?:, \d+)*|[:;,]", message)
    parts = [part.strip() for part in fixed if len(part.strip()) > 2]
    assert [part for part in parts if part not in wording] == []
    assert len(MESSAGES) > 25
