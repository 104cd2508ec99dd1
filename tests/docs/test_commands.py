"""Commands of documents and workflows."""

import re
from pathlib import Path

import pytest

from testing.program import ROOT

from .pages import DOCUMENTS, name_of

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MUST_HAVE = {"README.md", "CONTRIBUTING.md", "docs/contributing/releasing.md", "docs/contributing/add-a-metric.md"}
TARGETS = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8")))


@pytest.mark.parametrize("document", [*DOCUMENTS, *WORKFLOWS], ids=name_of)
def test_targets_of_make_exist(document: Path) -> None:
    commands = re.findall(r"(?m)(?:`|run: |^)make ([a-z -]+?)(?= ARGS=|`|  |$)", document.read_text("utf-8"))
    assert commands or name_of(document) not in MUST_HAVE
    assert {target for command in commands for target in command.split()} - TARGETS == set()


def test_demo_in_a_container_can_be_reached() -> None:
    texts = [path.read_text("utf-8").replace("\\\n", " ") for path in [*DOCUMENTS, *WORKFLOWS, ROOT / "Dockerfile"]]
    commands = [line for text in texts for line in text.splitlines() if "docker run" in line and "--demo" in line]
    assert len(commands) >= 3
    assert [command for command in commands if "--web.listen-address=:10333" not in command] == []
