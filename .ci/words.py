"""Checks spelling and wording of FILES, or of the whole repository and its last commit subjects (`make words`).

codespell finds misspellings, and the words of .codespell-words.txt. It matches only single words, so this script finds
the phrases in that file. Both ignore what a comment at the end of the line lists: `codespell:ignore WORD`.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DICTIONARY = ROOT / ".codespell-words.txt"
FOLDERS = (
    ".ci", ".github", "alerts", "bench", "dashboards", "deploy", "docs", "exporter", "helm", "packaging", "testing",
    "tests",
)  # fmt: skip
SKIPPED = ("__pycache__", "_build", "crds", "testdata")
"""Folders of generated files, of schemas of other projects, and of test input with deliberate mistakes."""
COMMITS = 20


def is_checked(path: Path) -> bool:
    """Returns True if a file of the repository is text of the project."""
    parts = path.relative_to(ROOT).parts
    if path.suffix == ".lock":
        return False
    if len(parts) == 1:
        return path.suffix != ".txt" and path.name not in {"LICENSE", ".coverage", ".env", ".git"}
    return parts[0] in FOLDERS and not set(parts) & set(SKIPPED)


def files() -> Iterator[Path]:
    """Yield all files to check."""
    for folder, pattern in ((ROOT, "*"), *((ROOT / name, "**/*") for name in FOLDERS)):
        yield from (path for path in folder.glob(pattern) if path.is_file() and is_checked(path))


@cache
def phrases() -> dict[re.Pattern[str], str]:
    """Return a pattern for each phrase of the dictionary, with the wording to use instead."""
    entries = (line.split("->") for line in DICTIONARY.read_text("utf-8").splitlines())
    # A phrase may continue on the next line of a comment.
    return {
        re.compile(r"\b" + old.replace(" ", r"[\s#]+") + r"\b", re.IGNORECASE): new.strip(", ")
        for old, new in entries
        if " " in old
    }


def check_phrases(name: str, text: str) -> Iterator[str]:
    """Yield a line for each phrase in a text."""
    lines = text.splitlines()
    for pattern, wording in phrases().items():
        for match in pattern.finditer(text):
            number = text.count("\n", 0, match.start())
            if "codespell:ignore" not in lines[number]:
                phrase = " ".join(match[0].replace("#", " ").split())
                yield f"{name}:{number + 1}: {phrase} ==> {wording}"


def subjects() -> str:
    """Return the subjects of the last commits, or as many as a shallow clone has; none outside of a clone."""
    # The files may belong to another user, as in a container of CI.
    command = ["git", "-c", f"safe.directory={ROOT}", "log", f"-{COMMITS}", "--format=%s"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        print("The subjects of commits are not checked: this is not a git clone.", file=sys.stderr)
        return ""


def check_words(*arguments: str, text: str | None = None) -> bool:
    """Run codespell, which prints its findings. Returns True if there are none."""
    command = [sys.executable, "-m", "codespell_lib", *arguments]
    return subprocess.run(command, cwd=ROOT, input=text, text=True, check=False).returncode == 0


def main() -> int:
    """Check, and return the exit code: 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--message", type=Path, metavar="FILE", help="check only the commit message in this file")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    options = parser.parse_args()
    message = options.message.read_text("utf-8") if options.message else ""
    paths = [path.resolve() for path in options.files]
    if not paths and not message:
        paths = list(files())
        message = subjects()
    texts = {str(path.relative_to(ROOT)): path.read_text("utf-8", "replace") for path in paths if is_checked(path)}
    passed = not texts or check_words(*sorted(texts))
    passed &= check_words("-", text=message)
    findings = [line for name, text in sorted(texts.items()) for line in check_phrases(name, text)]
    findings += check_phrases("commit message", message)
    print("\n".join(findings))
    return 0 if passed and not findings else 1


if __name__ == "__main__":
    sys.exit(main())
