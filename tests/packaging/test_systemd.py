"""The systemd unit is valid and has minimal permissions. test_containers.py starts it."""

import re
import shutil
import subprocess
from pathlib import Path

from testing.program import ROOT, TOOL_SECONDS
from tests.conftest import require_program

UNIT = ROOT / "packaging" / "systemd" / "tedee-exporter.service"
SOCKET = UNIT.with_suffix(".socket")
PROGRAM = "/opt/tedee-exporter/bin/tedee-exporter"


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [require_program("systemd-analyze"), "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    # This machine does not have the program at that path.
    unit.write_text(UNIT.read_text("utf-8").replace(f"ExecStart={PROGRAM}", f"ExecStart={shutil.which('true')}"))
    verified = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert verified.returncode == 0, verified.stderr
    assert UNIT.name not in verified.stderr


def test_systemd_accepts_the_socket(tmp_path: Path) -> None:
    service = tmp_path / UNIT.name
    service.write_text(UNIT.read_text("utf-8").replace(f"ExecStart={PROGRAM}", f"ExecStart={shutil.which('true')}"))
    unit = tmp_path / SOCKET.name
    unit.write_text(SOCKET.read_text("utf-8"))
    verified = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert verified.returncode == 0, verified.stderr
    assert UNIT.stem not in verified.stderr
    assert f"ExecStart={PROGRAM} --web.systemd-socket\n" in SOCKET.read_text("utf-8")


def test_systemd_rates_the_unit_as_safe() -> None:
    rated = analyze("security", "--offline=true", "--threshold=20", UNIT)
    found = re.search(r"Overall exposure level for .*: ([0-9.]+) OK", rated.stdout)
    assert rated.returncode == 0, rated.stdout
    assert found
    assert float(found[1]) < 2.0


def test_program_path_matches_its_comment() -> None:
    text = UNIT.read_text("utf-8")
    folder = PROGRAM.removesuffix("/bin/tedee-exporter")
    assert f"ExecStart={PROGRAM}\n" in text
    assert f"python3 -m venv {folder} && {folder}/bin/pip install tedee-exporter\n" in text
