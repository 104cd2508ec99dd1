"""A new virtual environment with the exporter, as users install it."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .machine import ROOT


@contextlib.contextmanager
def users_environment() -> Iterator[Path]:
    """Install the exporter and its locked dependencies with pip, which compiles them, and return the `bin` folder.

    Other packages would change the start and the memory: some libraries import them if they are installed.

    Raises:
        subprocess.CalledProcessError: the package index cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="tedee-exporter-bench-") as name:
        environment, wheels = Path(name, "environment"), Path(name, "wheels")
        python = environment / "bin" / "python"
        _run(sys.executable, "-m", "venv", environment)
        _pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={wheels}", ROOT)
        _pip(python, "install", "--require-hashes", f"--requirement={ROOT / 'requirements.lock'}")
        _pip(python, "install", "--no-deps", *wheels.iterdir())
        yield python.parent


def _pip(python: str | Path, command: str, *arguments: str | Path) -> None:
    _run(python, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *arguments)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)
