"""Warnings about files with secrets or lock states that other users can access."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exporter.config import load
from exporter.config.permissions import permission_warning, private_files
from exporter.simulator import TOKEN_PATH, Account, Cloud, PersonalKey, RefreshToken, World, serve
from testing.program import configuration, eventually, run, running

KEY = "simulated-key-home"


def write_file(path: Path, mode: int, content: str = KEY) -> Path:
    path.write_text(content)
    path.chmod(mode)
    return path


# Single files


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700, 0o640, 0o440, 0o750, 0o000])
def test_file_for_owner_and_reading_group_is_accepted(tmp_path: Path, mode: int) -> None:
    assert permission_warning(write_file(tmp_path / "key", mode)) is None


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o601, 0o602, 0o777, 0o666, 0o641])
def test_file_accessible_to_all_is_reported_with_a_remedy(tmp_path: Path, mode: int) -> None:
    path = write_file(tmp_path / "key", mode)
    assert permission_warning(path) == f"{path} is accessible to all users (mode {mode:04o}); run: chmod g-w,o= {path}"


@pytest.mark.parametrize("mode", [0o660, 0o620, 0o770])
def test_group_writable_file_is_reported(tmp_path: Path, mode: int) -> None:
    path = write_file(tmp_path / "key", mode)
    assert permission_warning(path) == f"{path} is writable by its group (mode {mode:04o}); run: chmod g-w,o= {path}"


def test_file_on_read_only_mount_has_another_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path / "key", 0o444)
    read_only = SimpleNamespace(f_flag=os.statvfs(path).f_flag | os.ST_RDONLY)
    monkeypatch.setattr(os, "statvfs", lambda _path: read_only)
    remedy = "its mount is read-only, so change the mode of its source"
    assert permission_warning(path) == f"{path} is accessible to all users (mode 0444); {remedy}"


@pytest.mark.parametrize("name", ["key", "a key", "k'e'y", "-key", "$(key)"])
def test_suggested_chmod_fixes_the_mode(tmp_path: Path, name: str) -> None:
    path = write_file(tmp_path / name, 0o666)
    warning = permission_warning(path) or ""
    subprocess.run(warning.partition("run: ")[2], shell=True, check=True)
    assert permission_warning(path) is None
    assert path.stat().st_mode & 0o777 == 0o640


def test_mode_of_a_link_target_is_checked(tmp_path: Path) -> None:
    # Kubernetes mounts secrets like this, and replaces the whole folder by moving one link.
    (tmp_path / "..2026").mkdir()
    key = write_file(tmp_path / "..2026" / "key", 0o440)
    (tmp_path / "..data").symlink_to("..2026")
    link = tmp_path / "key"
    link.symlink_to("..data/key")
    assert permission_warning(link) is None
    key.chmod(0o444)
    assert permission_warning(link) == f"{link} is accessible to all users (mode 0444); run: chmod g-w,o= {link}"


def test_path_that_is_no_regular_file_is_ignored(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o666)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (
        tmp_path / "missing",
        tmp_path,
        tmp_path / "fifo",
        tmp_path / "loop",
        Path("/dev/null"),
        Path("k" * 300),
    ):
        assert permission_warning(path) is None


# Files of a configuration


def test_credential_and_state_files_are_checked_once(tmp_path: Path) -> None:
    accounts: list[dict[str, Any]] = [
        {"name": "home", "personal_key_file": "home.key"},
        {"name": "hotel", "access_token_file": str(tmp_path / "hotel.token")},
        {"name": "one", "oauth": {"client_id": "c", "client_secret_file": "client", "refresh_token_file": "one.token"}},
        {"name": "two", "oauth": {"client_id": "c", "client_secret_file": "client", "refresh_token_file": "two.token"}},
    ]
    path = configuration(tmp_path, "https://tedee.test", accounts, state_file="state.db")
    names = ["home.key", "hotel.token", "client", "one.token", "two.token", "state.db", "state.db-journal"]
    assert private_files(load(path), path, {}) == [tmp_path / name for name in names]


@pytest.mark.parametrize("key", ["personal_key", "access_token"])
def test_configuration_file_with_a_key_is_checked(tmp_path: Path, key: str) -> None:
    accounts = [{"name": "home", key: KEY}, {"name": "office", key: f"{KEY}-2"}, {"name": "h", f"{key}_file": "h.key"}]
    path = configuration(tmp_path, "https://tedee.test", accounts)
    files = private_files(load(path), path, {"STATE_DIRECTORY": "/var/lib/tedee"})
    assert files[:3] == [path, tmp_path / "h.key", Path("/var/lib/tedee/state.db")]


def test_environment_has_no_private_configuration_file(tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path)}
    settings = load(None, {"TEDEE_PERSONAL_KEY": KEY})
    assert private_files(settings, None, state)[0] == tmp_path / "tedee-exporter" / "state.db"
    settings = load(None, {"TEDEE_PERSONAL_KEY_FILE": "/run/key"})
    assert private_files(settings, None, state)[0] == Path("/run/key")


# Program


def reported(lines: str) -> list[str]:
    """Return the names of the reported files, in order."""
    return re.findall(r"([\w.-]+) (?:is accessible to all users|is writable by its group) \(mode", lines)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Configuration with files that other users can access."""
    write_file(tmp_path / "hotel.key", 0o644, "simulated-key-hotel")
    write_file(tmp_path / "client", 0o664, "simulated-client-secret")
    write_file(tmp_path / "refresh", 0o604, "simulated-refresh")
    own = {"client_id": "c", "client_secret_file": "client", "refresh_token_file": "refresh"}
    world = World(
        [
            Account("home", keys=[PersonalKey(KEY)]),
            Account("hotel", keys=[PersonalKey("simulated-key-hotel")]),
            Account("guests", refresh_tokens=[RefreshToken("simulated-refresh")]),
        ]
    )
    with serve(Cloud(world)) as address:
        accounts: list[dict[str, Any]] = [
            {"name": "home", "personal_key": KEY},
            {"name": "hotel", "personal_key_file": "hotel.key"},
            {"name": "guests", "oauth": {**own, "token_url": address.url + TOKEN_PATH}},
        ]
        path = configuration(tmp_path, address.url, accounts, state_file="state.db")
        path.chmod(0o644)
        yield path


def test_start_and_reload_log_each_open_file_once(path: Path) -> None:
    write_file(path.with_name("state.db"), 0o644, "")
    with running(f"--config.file={path}") as exporter:
        assert exporter.get("/-/healthy").ok
        lines = [line for line in exporter.log if "chmod" in line]
        assert reported("".join(lines)) == ["tedee-exporter.yml", "hotel.key", "client", "refresh", "state.db"]
        assert all("level=warn" in line for line in lines)
        for file in path.parent.iterdir():
            file.chmod(0o664 if file.name == "client" else 0o640)
        before = len(exporter.log)
        exporter.process.send_signal(signal.SIGHUP)
        eventually(lambda: "reloaded" in "".join(exporter.log[before:]), "the reload")
        assert reported("".join(exporter.log[before:])) == ["client"]


def test_files_created_by_the_program_are_private(path: Path, tmp_path: Path) -> None:
    for file in tmp_path.iterdir():
        file.chmod(0o600)
    with running(f"--config.file={path}") as exporter:
        exporter.wait_until_ready()
        exporter.process.send_signal(signal.SIGHUP)
        eventually(lambda: "reloaded" in "".join(exporter.log), "the reload")
        files = ["tedee-exporter.yml", "hotel.key", "client", "refresh", "state.db"]
        assert {oct((tmp_path / file).stat().st_mode & 0o777) for file in files} == {"0o600"}
        # SQLite creates a journal during a transaction, with the mode of the database.
        assert {file.name for file in tmp_path.iterdir()} <= {*files, "state.db-journal"}
        assert "chmod" not in "".join(exporter.log)


def test_check_reports_open_files_and_succeeds(path: Path) -> None:
    ended = run(f"--config.file={path}", "--config.check", "--log.level=error")
    assert (ended.returncode, ended.stdout) == (0, "The configuration is valid; accounts: home, hotel, guests\n")
    assert ended.stderr.splitlines()[0] == (f"{path} is accessible to all users (mode 0644); run: chmod g-w,o= {path}")
    assert reported(ended.stderr) == ["tedee-exporter.yml", "hotel.key", "client", "refresh"]
    assert len(ended.stderr.splitlines()) == 4


def test_sync_once_reports_open_files(path: Path) -> None:
    ended = run(f"--config.file={path}", "--sync.once")
    assert ended.returncode == 0
    assert reported(ended.stderr) == ["tedee-exporter.yml", "hotel.key", "client", "refresh"]
