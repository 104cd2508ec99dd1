"""Lost if these fail: the word that a key, or what the doors did, lies open for every user of the machine."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.config import load
from exporter.config.permissions import permission_warning, private_files
from exporter.simulator import TOKEN_PATH, Account, Cloud, PersonalKey, RefreshToken, World, serve
from tests.program import configuration, eventually, run, running

KEY = "simulated-key-home"


def written(path: Path, mode: int, content: str = KEY) -> Path:
    path.write_text(content)
    path.chmod(mode)
    return path


# One file


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700, 0o640, 0o440, 0o750, 0o000])
def test_a_file_for_its_owner_and_for_its_group_to_read_is_as_it_should_be(tmp_path: Path, mode: int) -> None:
    assert permission_warning(written(tmp_path / "key", mode)) is None


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o601, 0o602, 0o777, 0o666, 0o641])
def test_a_file_that_is_open_to_all_is_told_with_what_to_do(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "key", mode)
    assert permission_warning(path) == f"{path} is accessible to all users (mode {mode:04o}); run: chmod g-w,o= {path}"


@pytest.mark.parametrize("mode", [0o660, 0o620, 0o770])
def test_a_file_that_its_group_can_write_is_told(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "key", mode)
    assert permission_warning(path) == f"{path} is writable by its group (mode {mode:04o}); run: chmod g-w,o= {path}"


@pytest.mark.parametrize("name", ["key", "a key", "k'e'y", "-key", "$(key)"])
def test_what_it_says_to_do_helps(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, 0o666)
    told = permission_warning(path) or ""
    subprocess.run(told.partition("run: ")[2], shell=True, check=True)
    assert permission_warning(path) is None
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_is_as_open_as_what_it_leads_to(tmp_path: Path) -> None:
    # As Kubernetes mounts a secret: the folder is replaced whole, by moving one link.
    (tmp_path / "..2026").mkdir()
    key = written(tmp_path / "..2026" / "key", 0o440)
    (tmp_path / "..data").symlink_to("..2026")
    link = tmp_path / "key"
    link.symlink_to("..data/key")
    assert permission_warning(link) is None
    key.chmod(0o444)
    assert permission_warning(link) == f"{link} is accessible to all users (mode 0444); run: chmod g-w,o= {link}"


def test_what_is_no_file_is_told_elsewhere(tmp_path: Path) -> None:
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


# The files of a configuration


def test_the_files_of_all_kinds_of_credentials_and_of_the_state_are_looked_at_each_once(tmp_path: Path) -> None:
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
def test_a_configuration_file_with_a_key_in_it_is_looked_at_too(tmp_path: Path, key: str) -> None:
    accounts = [{"name": "home", key: KEY}, {"name": "office", key: f"{KEY}-2"}, {"name": "h", f"{key}_file": "h.key"}]
    path = configuration(tmp_path, "https://tedee.test", accounts)
    files = private_files(load(path), path, {"STATE_DIRECTORY": "/var/lib/tedee"})
    assert files[:3] == [path, tmp_path / "h.key", Path("/var/lib/tedee/state.db")]


def test_of_the_environment_there_is_no_file_but_what_it_names(tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path)}
    settings = load(None, {"TEDEE_PERSONAL_KEY": KEY})
    assert private_files(settings, None, state)[0] == tmp_path / "tedee-exporter" / "state.db"
    settings = load(None, {"TEDEE_PERSONAL_KEY_FILE": "/run/key"})
    assert private_files(settings, None, state)[0] == Path("/run/key")


# The program


def told(lines: str) -> list[str]:
    """The names of the files that are told, in order."""
    return re.findall(r"([\w.-]+) (?:is accessible to all users|is writable by its group) \(mode", lines)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A configuration each of whose files is open to others, and whose state file exists."""
    written(tmp_path / "hotel.key", 0o644, "simulated-key-hotel")
    written(tmp_path / "client", 0o664, "simulated-client-secret")
    written(tmp_path / "refresh", 0o604, "simulated-refresh")
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


def test_a_start_and_a_reload_tell_each_file_that_is_open_once(path: Path) -> None:
    written(path.with_name("state.db"), 0o644, "")
    with running(f"--config.file={path}") as exporter:
        assert exporter.get("/-/healthy").ok
        lines = [line for line in exporter.log if "chmod" in line]
        assert told("".join(lines)) == ["tedee-exporter.yml", "hotel.key", "client", "refresh", "state.db"]
        assert all("level=warning" in line for line in lines)
        for file in path.parent.iterdir():
            file.chmod(0o664 if file.name == "client" else 0o640)
        before = len(exporter.log)
        exporter.process.send_signal(signal.SIGHUP)
        eventually(lambda: "reloaded" in "".join(exporter.log[before:]), "the reload")
        assert told("".join(exporter.log[before:])) == ["client"]


def test_what_the_program_makes_itself_is_not_told(path: Path, tmp_path: Path) -> None:
    for file in tmp_path.iterdir():
        file.chmod(0o600)
    with running(f"--config.file={path}") as exporter:
        exporter.wait_until_ready()
        exporter.process.send_signal(signal.SIGHUP)
        eventually(lambda: "reloaded" in "".join(exporter.log), "the reload")
        files = ["tedee-exporter.yml", "hotel.key", "client", "refresh", "state.db"]
        assert {oct((tmp_path / file).stat().st_mode & 0o777) for file in files} == {"0o600"}
        # A journal is there during a transaction, with the mode of its database.
        assert {file.name for file in tmp_path.iterdir()} <= {*files, "state.db-journal"}
        assert "chmod" not in "".join(exporter.log)


def test_a_check_tells_it_on_standard_error_and_is_passed_all_the_same(path: Path) -> None:
    ended = run(f"--config.file={path}", "--config.check", "--log.level=error")
    assert (ended.returncode, ended.stdout) == (0, "The configuration is valid; accounts: home, hotel, guests\n")
    assert ended.stderr.splitlines()[0] == (f"{path} is accessible to all users (mode 0644); run: chmod g-w,o= {path}")
    assert told(ended.stderr) == ["tedee-exporter.yml", "hotel.key", "client", "refresh"]
    assert len(ended.stderr.splitlines()) == 4


def test_one_sync_tells_it_too(path: Path) -> None:
    ended = run(f"--config.file={path}", "--sync.once")
    assert ended.returncode == 0
    assert told(ended.stderr) == ["tedee-exporter.yml", "hotel.key", "client", "refresh"]
