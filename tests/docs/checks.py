"""Checks that several pages need."""

import subprocess
from pathlib import Path

from tests.conftest import require_program


def check_prometheus_configuration(text: str, folder: Path) -> None:
    """Check a configuration of Prometheus with promtool."""
    path = folder / "prometheus.yml"
    path.write_text(text)
    result = subprocess.run(
        [require_program("promtool"), "check", "config", "--syntax-only", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
