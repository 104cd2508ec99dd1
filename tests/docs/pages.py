"""The documents of the repository, and what the tests read from them."""

import re
from pathlib import Path

from testing.program import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md")),
    ROOT / "helm" / "tedee-exporter" / "README.md",
    *PAGES,
]


def name_of(path: Path) -> str:
    """Return the path from the root of the repository, as the name of a test's parameter."""
    return str(path.relative_to(ROOT))


def page(name: str) -> str:
    """Return the text of a page of `docs/`."""
    return (DOCS / name).read_text("utf-8")


def section(text: str, heading: str) -> str:
    """Return the text below a heading, up to the next heading of the same or a higher level."""
    _, found, below = text.partition(f"\n{heading}\n")
    assert found, heading
    level = len(heading) - len(heading.lstrip("#"))
    lines: list[str] = []
    in_code = False
    for line in below.splitlines(keepends=True):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        if not in_code and re.match(rf"#{{1,{level}}} ", line):
            break
        lines.append(line)
    return "".join(lines)


def blocks(text: str, language: str) -> list[str]:
    """Return the contents of the code blocks of a language, also of those in lists."""
    return [match[2] for match in re.finditer(rf"(?ms)^( *)```{language}\n(.*?)^\1```$", text)]


def prose(text: str) -> str:
    """Return the text without its code blocks."""
    return re.sub(r"(?ms)^( *)```.*?^\1```$", "", text)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings."""
    found: set[str] = set()
    for heading in re.findall(r"(?m)^#{1,6} (.*)$", prose(text)):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(anchor)
    return found


def links(text: str) -> list[str]:
    """Return the targets of links and images that are not on another site."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)) if not re.match(r"[a-z]+:", link)]
