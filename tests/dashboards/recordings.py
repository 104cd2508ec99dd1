"""Recordings in Prometheus' storage, which are made once for all test processes."""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from testing.program import ROOT
from tests.conftest import require_program

from .rig import BUILD

NO_TARGET = "127.0.0.1:9"
"""Target of a Prometheus that has all its data already: nothing listens on the discard port."""
MODULES = ("rare_cases", "recordings", "scenarios", "scripted_day")

Record = Callable[[Path], Path]
"""Writes a recording to a folder, and returns its path."""


def copy_recording(name: str, record: Record | None, data: Path) -> None:
    """Copy a recording to the storage of a Prometheus, which changes it.

    It is recorded if it is not stored yet, or if the code has changed since. Another process waits for it meanwhile.

    Args:
        name: Name of the recording.
        record: Makes the recording; None if it is empty.
        data: Folder that is created.
    """
    storage = BUILD / "recordings" / f"{name}-{_digest_of_code()}"
    storage.parent.mkdir(parents=True, exist_ok=True)
    with (storage.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not storage.exists():
            with tempfile.TemporaryDirectory(dir=storage.parent) as work:
                unfinished = Path(work) / "data"
                unfinished.mkdir()
                if record:
                    backfill(record(Path(work)), unfinished)
                # An interrupted recording is not stored.
                unfinished.rename(storage)
    shutil.copytree(storage, data)


def backfill(recording: Path, folder: Path) -> None:
    """Write a recording to Prometheus' storage, in as few blocks as possible."""
    arguments = ["tsdb", "create-blocks-from", "--max-block-duration=168h", "openmetrics", str(recording), str(folder)]
    subprocess.run([require_program("promtool"), *arguments], check=True, capture_output=True)


def _digest_of_code() -> str:
    """Return a digest of the code that a recording depends on."""
    digest = hashlib.sha256()
    files = [Path(__file__).with_name(f"{name}.py") for name in MODULES]
    for path in sorted([*files, *ROOT.glob("exporter/**/*.py"), *ROOT.glob("testing/**/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
