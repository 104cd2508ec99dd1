"""Finds trailing whitespace, and text that does not end with exactly one line feed, in FILES. Run by pre-commit."""

import sys
from pathlib import Path


def problems(text: bytes) -> list[str]:
    """Return a description of each problem, with its line number."""
    lines = text.split(b"\n")
    found = [f"{number}: trailing whitespace" for number, line in enumerate(lines, 1) if line != line.rstrip()]
    if text and (not text.endswith(b"\n") or text.endswith(b"\n\n")):
        found.append(f"{len(lines)}: the file does not end with exactly one line feed")
    return found


def main() -> int:
    """Check, and return the exit code: 1 if something was found."""
    findings = [f"{name}:{problem}" for name in sys.argv[1:] for problem in problems(Path(name).read_bytes())]
    print("\n".join(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
