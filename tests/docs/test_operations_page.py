"""docs/operations.md: where several processes store their state."""

import re
from pathlib import Path

import pytest

from exporter import __version__, config
from testing.program import ROOT

from .pages import page, section

TEXT = page("operations.md")


def test_each_process_gets_its_own_state_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several = section(TEXT, "## Several processes")
    named = {word for word in ("state_file", "TEDEE_STATE_FILE", "STATE_DIRECTORY") if f"`{word}`" in several}
    assert named == {"state_file", "TEDEE_STATE_FILE", "STATE_DIRECTORY"}
    monkeypatch.setenv("TEDEE_STATE_FILE", "/one/for/all.db")
    path = tmp_path / "tedee-exporter.yml"
    path.write_text("accounts: [{name: home, personal_key_file: home}]\n")
    assert config.load(path).state_file is None
    files = [config.default_state_file({"STATE_DIRECTORY": f"/var/lib/tedee-{index}"}) for index in range(2)]
    assert files == [Path("/var/lib/tedee-0/state.db"), Path("/var/lib/tedee-1/state.db")]
    (volume,) = re.findall("STATE_DIRECTORY=(.+)", (ROOT / "Dockerfile").read_text("utf-8"))
    assert f"`{volume}`" in several


def test_default_state_files_are_in_their_order() -> None:
    listed = re.findall(r"(?m)^\d\. `([^`]+)`", section(TEXT, "## State file"))
    environ = {"HOME": "/home/user", "XDG_STATE_HOME": "/state", "STATE_DIRECTORY": "/var/lib/tedee-exporter"}
    for name, text in zip(("STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"), listed, strict=True):
        expected = text.replace(f"${name}", environ[name]).replace("~", environ["HOME"])
        assert config.default_state_file(environ) == Path(expected)
        del environ[name]


def test_upgrades_have_a_row_for_this_version() -> None:
    upgrades = section(TEXT, "## Upgrades")
    rows = re.findall(r"(?m)^\| (\d+\.\d+\.\d+) \| .+ \|$", upgrades)
    assert __version__ in rows, "see docs/contributing/releasing.md"
    released = re.findall(r"(?m)^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"))
    assert set(released) <= set(rows)
