"""Write the Compose files of a release, which need no checkout: python3 deploy/compose/standalone.py VERSION FOLDER

In compose.yaml, the contents of its `configs` replace the names of their files, because a web editor, such as that of
Portainer, has no other files. Needs only Python's standard library.
"""

import json
import re
import sys
from pathlib import Path
from textwrap import indent

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (ROOT / "compose.yaml", ROOT / "deploy" / "compose" / "exporter.yaml")


def standalone(text: str, version: str) -> str:
    """Return a Compose file with the contents of its files and a version of the image, and without a build."""
    text = text.replace("${TAG:-latest}", f"${{TAG:-{version}}}")
    text = re.sub(r"(?m)^    build: .*\n", "", text)
    text = re.sub(r"(?m)^# (Add --build|deploy/compose/standalone\.py) .*\n", "", text)
    return re.sub(r"(?m)^    file: (.*)$", lambda found: f"    content: |\n{_content(ROOT / found[1])}", text)


def _content(path: Path) -> str:
    """Return the content of a file as a block of YAML in which Compose replaces no variables."""
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        text = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    return indent(text.replace("$", "$$").strip(), " " * 6)


def main(version: str, folder: str) -> None:
    """Write all files into a folder, and create it if it is missing."""
    Path(folder).mkdir(exist_ok=True)
    for source in SOURCES:
        Path(folder, source.name).write_text(standalone(source.read_text("utf-8"), version), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
