"""Programs that have to do well."""

import subprocess
from pathlib import Path

from tests.program import TOOL_SECONDS


def ran(*command: str | Path, folder: Path | None = None) -> str:
    """What a program says that ends well."""
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
