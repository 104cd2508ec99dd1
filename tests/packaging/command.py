"""Runs programs that must succeed."""

import subprocess
from pathlib import Path

from testing.program import TOOL_SECONDS


def run_checked(*command: str | Path, folder: Path | None = None) -> str:
    """Run a program that must succeed, and return its output."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
