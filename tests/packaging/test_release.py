"""Wheel and source archive contain the right files, run after installation, and have the right version."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from exporter import __version__
from testing.program import ROOT, Exporter, environment, eventually

from .command import run_checked

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROGRAM = {
    str(path.relative_to(ROOT))
    for path in (ROOT / "exporter").rglob("*")
    if path.is_file() and path.parent.name != "__pycache__"
}


def build(folder: Path, *options: str) -> list[Path]:
    """The released files, sorted: the source archive, then the wheel."""
    run_checked(sys.executable, "-m", "build", "--no-isolation", f"--outdir={folder}", *options, ROOT)
    return sorted(folder.iterdir(), key=lambda path: path.suffix)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The source archive, and the wheel built from it."""
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture
def archive(distributions: list[Path]) -> Path:
    return distributions[0]


@pytest.fixture
def wheel(distributions: list[Path]) -> Path:
    return distributions[1]


def test_twine_accepts_wheel_and_source_archive(archive: Path, wheel: Path) -> None:
    run_checked(sys.executable, "-m", "twine", "check", "--strict", archive, wheel)


def test_wheel_contains_only_the_program(wheel: Path) -> None:
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert files == PROGRAM


def test_source_archive_contains_only_needed_files(archive: Path) -> None:
    with tarfile.open(archive) as files:
        names = {member.name.partition("/")[2] for member in files.getmembers() if member.isfile()}
    others = {"CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "tedee-exporter.example.yml"}
    assert names - {".gitignore"} == PROGRAM | others


def test_source_archive_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    (other,) = build(tmp_path, "--wheel")
    assert other.read_bytes() == wheel.read_bytes()


def test_wheel_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    run_checked(sys.executable, "-m", "venv", "--without-pip", tmp_path)
    run_checked(sys.executable, "-m", "pip", f"--python={tmp_path / 'bin' / 'python'}", "install", "--quiet", wheel)
    program = tmp_path / "bin" / "tedee-exporter"
    assert run_checked(program, "--version").startswith(f"tedee-exporter, version {__version__} ")
    process = subprocess.Popen(
        [program, "--demo", "--web.listen-address=127.0.0.1:0"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=""),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    exporter = Exporter(process)
    try:
        exporter.wait_until_ready()
        assert exporter.value("tedee_up", account="home") == 1
        # Names are fetched after the first sync.
        eventually(lambda: "Front door" in exporter.get("/").text, "the names of the locks")
        assert "lock_battery_level" in exporter.get("/docs").text
        assert exporter.stop() == 0
    finally:
        exporter.kill()


def test_version_is_defined_once(wheel: Path) -> None:
    assert wheel.name.split("-")[1] == __version__
    assert PROJECT["project"]["dynamic"] == ["version"]


def test_build_requirements_are_locked() -> None:
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]
    locked = re.findall(r"(?m)^([\w-]+)==", (ROOT / "requirements-build.lock").read_text("utf-8"))
    assert "hatchling" in locked
