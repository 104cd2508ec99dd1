"""Storing new refresh tokens: in place or by replacement, on full and failing disks, with several processes."""

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.secrets import Secret
from exporter.simulator import RefreshToken
from exporter.simulator.response import Response
from exporter.tedee.oauth import token_file
from exporter.tedee.oauth.credentials import OAuthCredentials
from exporter.tedee.oauth.errors import RefreshTokenNotStorable
from exporter.tedee.oauth.refresh_tokens import Closed, RefreshTokens
from exporter.tedee.oauth.token_file import PREALLOCATED_BYTES, SUFFIX, CannotStore, preallocate, storage_problem
from exporter.tedee.secret_source import read_secret
from testing.faults import Fault
from testing.program import eventually
from tests.api_errors.test_oauth import ACCESS_LIFETIME, FIRST, Tedee, edited, failure_of, tedee
from tests.cli.conftest import UNPRIVILEGED_UID, drop_privileges
from tests.conftest import require_program

__all__ = ["drop_privileges", "tedee"]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, or make files of other users")
NEXT = Secret("simulated-refresh-next")


@pytest.fixture
def file() -> Iterator[Path]:
    """A refresh token file in a folder that every user can enter. Both belong to the user that tests switch to."""
    folder = Path(tempfile.mkdtemp(prefix="tedee-exporter-token-"))
    path = folder / "token"
    path.write_text(f"{FIRST}\n")
    path.chmod(0o600)
    if os.geteuid() == 0:
        for each in (folder, path):
            os.chown(each, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
    yield path
    folder.chmod(0o700)
    shutil.rmtree(folder)


@pytest.fixture(params=["replaced", "in place"])
def stored(request: pytest.FixtureRequest, file: Path, tedee: Tedee, drop_privileges: Callable[[], None]) -> Path:
    """The refresh token file of the account, for each way of writing it."""
    tedee.file = file
    tedee.secret_file.chmod(0o644)
    shutil.copy(tedee.secret_file, file.parent / "client")
    (file.parent / "client").chmod(0o444)
    tedee.secret_file = file.parent / "client"
    if request.param == "in place":
        file.parent.chmod(0o555)
    drop_privileges()
    return file


@pytest.fixture
def in_place(file: Path, tedee: Tedee, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The refresh token file of the account, which appears to be a mount point."""
    tedee.file = file
    monkeypatch.setattr(token_file, "_is_mount_point", lambda path: path == file)
    return file


def during_exchange(tedee: Tedee, action: Callable[[], object]) -> None:
    """Perform an action after the simulator has replaced the token and before its response is sent."""

    def edit(response: Response) -> Response:
        action()
        return response

    tedee.inject(Fault(edit=edit))


def file_status(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_uid, status.st_gid, status.st_mode


# Storing


def test_new_token_is_stored(tedee: Tedee, stored: Path) -> None:
    credentials = tedee.credentials()
    for _ in range(3):
        credentials.refresh()
        assert stored.read_text() == f"{tedee.current()}\n"
        assert stat.S_IMODE(stored.stat().st_mode) == 0o600
        assert sorted(path.name for path in stored.parent.iterdir()) == ["client", "token"]
        tedee.clock.advance(ACCESS_LIFETIME)
    assert tedee.refreshes() == 3
    tedee.restarted().refresh()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o606])
def test_file_written_in_place_keeps_owner_and_mode(tedee: Tedee, in_place: Path, mode: int) -> None:
    in_place.chmod(mode)
    before = file_status(in_place)
    tedee.credentials().refresh()
    assert file_status(in_place) == before
    assert in_place.read_text() == f"{tedee.current()}\n"


@pytest.mark.parametrize("length", [1, 8, 4096, 5000, PREALLOCATED_BYTES - 1, PREALLOCATED_BYTES])
@pytest.mark.parametrize("before", [FIRST, "x", "y" * 6000])
def test_tokens_of_any_length_fit_in_place(in_place: Path, tedee: Tedee, length: int, before: str) -> None:
    in_place.write_text(before)
    tedee.account.refresh_tokens = [RefreshToken(before)]
    tedee.inject(edited(refresh_token="z" * length))
    tedee.credentials().refresh()
    assert in_place.read_text() == f"{'z' * length}\n"[:PREALLOCATED_BYTES]
    assert read_secret(in_place).get_secret_value() == "z" * length


def test_file_has_old_token_during_exchange(tedee: Tedee, stored: Path) -> None:
    seen = []
    during_exchange(tedee, lambda: seen.append((read_secret(stored), stat.S_IMODE(stored.stat().st_mode))))
    tedee.credentials().refresh()
    assert seen == [(Secret(FIRST), 0o600)]


@pytest.mark.parametrize("content", [FIRST, f"{FIRST}\n", f" {FIRST} \r\n\n"])
@pytest.mark.parametrize("fault", [Fault.error(503), edited(refresh_token=...), Fault.reset()])
def test_exchange_without_new_token_changes_nothing(tedee: Tedee, stored: Path, fault: Fault, content: str) -> None:
    stored.write_text(content)
    tedee.inject(fault)
    credentials = tedee.credentials()
    if fault.edit:
        credentials.refresh()
    else:
        failure_of(credentials)
    assert stored.read_bytes() == content.encode()
    assert sorted(path.name for path in stored.parent.iterdir()) == ["client", "token"]


def test_symlink_is_preserved_in_place(tedee: Tedee, in_place: Path, tmp_path: Path) -> None:
    tedee.file = tmp_path / "link"
    tedee.file.symlink_to(in_place)
    tedee.credentials().refresh()
    assert tedee.file.is_symlink()
    assert in_place.read_text() == f"{tedee.current()}\n"


@as_root
def test_file_in_sticky_folder_is_written_in_place(
    file: Path, tedee: Tedee, drop_privileges: Callable[[], None]
) -> None:
    tedee.file = file
    for path, mode in ((file, 0o666), (file.parent, 0o1777)):
        os.chown(path, 0, 0)
        path.chmod(mode)
    drop_privileges()
    before = file_status(file)
    credentials = tedee.credentials(client_secret=None)
    credentials.refresh()
    assert file_status(file) == before
    assert credentials.refresh_token_stored()
    assert tedee.on_file() == tedee.current()


# Tokens that cannot be stored


def assert_unused_until(credentials: OAuthCredentials, tedee: Tedee, why: str, repair: Callable[[], None]) -> None:
    """Assert that the token is not used, with a helpful message, until the problem is repaired."""
    before = tedee.file.read_bytes()
    for _ in range(2):
        error = failure_of(credentials)
        assert isinstance(error, RefreshTokenNotStorable)
        assert error.reason == "auth"
        assert f"refresh token file {tedee.file} can neither be replaced ({why}) nor be written in place" in str(error)
        assert "it has not been used: make the folder of the file writable" in str(error)
        assert not any(secret in str(error) for secret in tedee.secrets())
    assert tedee.refreshes() == 0
    assert tedee.file.read_bytes() == before
    assert list(tedee.file.parent.glob(f".*{SUFFIX}")) == []
    repair()
    credentials.refresh()
    assert tedee.on_file() == tedee.current() != FIRST


def test_token_in_read_only_folder_is_not_used(file: Path, tedee: Tedee, drop_privileges: Callable[[], None]) -> None:
    tedee.file = file
    credentials = tedee.credentials(client_secret=None)
    file.chmod(0o444)
    file.parent.chmod(0o555)
    drop_privileges()
    assert_unused_until(credentials, tedee, "Permission denied", lambda: file.parent.chmod(0o755))


def test_access_token_is_used_until_it_expires(file: Path, tedee: Tedee, drop_privileges: Callable[[], None]) -> None:
    tedee.file = file
    credentials = tedee.credentials(client_secret=None)
    drop_privileges()
    credentials.refresh()
    file.chmod(0o444)
    file.parent.chmod(0o555)
    tedee.clock.advance(ACCESS_LIFETIME - 1)
    credentials.refresh()
    assert tedee.sync(credentials).status_code == 200
    assert credentials.refresh_token_stored()
    tedee.clock.advance(1)
    assert isinstance(failure_of(credentials), RefreshTokenNotStorable)
    assert tedee.refreshes() == 1


class FullDisk:
    """A disk on which no file can grow while `is_full` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = True
        self._pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", self.pwrite)

    def pwrite(self, descriptor: int, content: bytes, offset: int) -> int:
        # Preallocated bytes can be overwritten.
        if self.is_full and offset + len(content) > os.fstat(descriptor).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._pwrite(descriptor, content, offset)


def test_token_on_full_disk_is_not_used(tedee: Tedee, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    why = "No space left on device" if os.access(stored.parent, os.W_OK, effective_ids=True) else "Permission denied"
    assert_unused_until(tedee.credentials(), tedee, why, lambda: setattr(disk, "is_full", False))


def test_new_token_is_stored_if_disk_fills_up(tedee: Tedee, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    disk.is_full = False
    during_exchange(tedee, lambda: setattr(disk, "is_full", True))
    credentials = tedee.credentials()
    credentials.refresh()
    assert disk.is_full
    assert credentials.refresh_token_stored()
    assert stored.read_text() == f"{tedee.current()}\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = [require_program("mount"), "-t", "tmpfs", "-o", "size=256k,mode=0777", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run([require_program("umount"), "--lazy", folder], check=True)


def fill(folder: Path) -> None:
    with (folder / "filling").open("wb", buffering=0) as filling, contextlib.suppress(OSError):
        while True:
            filling.write(b"x" * 4096)
    assert shutil.disk_usage(folder).free == 0


@as_root
@pytest.mark.parametrize("mounted", [False, True])
def test_real_full_disk_loses_no_token(
    tedee: Tedee, small_disk: Path, mounted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tedee.file = small_disk / "token"
    tedee.file.write_text(f"{FIRST}\n")
    monkeypatch.setattr(token_file, "_is_mount_point", lambda path: mounted)
    fill(small_disk)
    why = "the file is a mount point" if mounted else "No space left on device"
    credentials = tedee.credentials()
    assert_unused_until(credentials, tedee, why, (small_disk / "filling").unlink)
    tedee.clock.advance(ACCESS_LIFETIME)
    during_exchange(tedee, lambda: fill(small_disk))
    credentials.refresh()
    assert tedee.refreshes() == 2
    assert credentials.refresh_token_stored()
    assert tedee.file.read_text() == f"{tedee.current()}\n"


# Unexpected failure of the rename


def test_failed_rename_is_followed_by_writing_in_place(tedee: Tedee, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(Path, "replace", busy)
    before = file_status(tedee.file)
    credentials = tedee.credentials()
    credentials.refresh()
    assert credentials.refresh_token_stored()
    assert tedee.file.read_text() == f"{tedee.current()}\n"
    assert file_status(tedee.file) == before
    assert sorted(path.name for path in tedee.file.parent.iterdir()) == ["client-secret", "refresh-token"]


@pytest.mark.parametrize("name", ["token", "to ken", "to\\ken", "to\nken\t"])
@as_root
def test_mount_point_is_detected(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FIRST)
    assert not token_file._is_mount_point(path)
    if subprocess.run([require_program("mount"), "--bind", path, path], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        assert token_file._is_mount_point(path)
    finally:
        subprocess.run([require_program("umount"), path], check=True)


# Failing disks


@pytest.mark.parametrize("mounted", [False, True])
def test_unsynced_token_is_stored_again(tedee: Tedee, monkeypatch: pytest.MonkeyPatch, mounted: bool) -> None:
    monkeypatch.setattr(token_file, "_is_mount_point", lambda path: mounted)
    original, calls = os.fsync, []

    def fail_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fail_once)
    credentials = tedee.credentials()
    credentials.refresh()
    assert tedee.on_file() == tedee.current()
    assert not credentials.refresh_token_stored()
    credentials.refresh()
    assert credentials.refresh_token_stored()
    assert tedee.on_file() == tedee.current()


def test_partly_written_token_is_stored_again(tedee: Tedee, in_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, is_broken = os.pwrite, threading.Event()

    def write_a_part(descriptor: int, content: bytes, offset: int) -> int:
        if is_broken.is_set() and offset > 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(descriptor, content[:24] if is_broken.is_set() else content, offset)

    monkeypatch.setattr(os, "pwrite", write_a_part)
    during_exchange(tedee, is_broken.set)
    credentials = tedee.credentials()
    credentials.refresh()
    assert tedee.on_file() not in {FIRST, tedee.current()}
    assert not credentials.refresh_token_stored()
    is_broken.clear()
    credentials.refresh()
    assert credentials.refresh_token_stored()
    assert in_place.read_text() == f"{tedee.current()}\n"


# Changes by other processes and users


@pytest.mark.parametrize("content", ["x", "signed-in-again\n", "long" * 2000])
def test_sign_in_during_exchange_is_not_overwritten(tedee: Tedee, in_place: Path, content: str) -> None:
    during_exchange(tedee, lambda: in_place.write_text(content))
    credentials = tedee.credentials()
    credentials.refresh()
    assert in_place.read_text() == content
    assert credentials.refresh_token_stored()


def test_file_replaced_during_exchange_is_not_overwritten(tedee: Tedee, in_place: Path) -> None:
    def replace() -> None:
        (in_place.parent / "new").write_text("signed-in-again")
        (in_place.parent / "new").rename(in_place)

    during_exchange(tedee, replace)
    tedee.credentials().refresh()
    assert in_place.read_text() == "signed-in-again"


def test_file_replaced_by_its_copy_is_written(tedee: Tedee, in_place: Path) -> None:
    def replace() -> None:
        shutil.copy(in_place, in_place.parent / "new")
        (in_place.parent / "new").rename(in_place)

    during_exchange(tedee, replace)
    credentials = tedee.credentials()
    credentials.refresh()
    assert not credentials.refresh_token_stored()
    credentials.refresh()
    assert credentials.refresh_token_stored()
    assert tedee.on_file() == tedee.current()


def test_two_processes_share_file_in_place(tedee: Tedee, in_place: Path) -> None:
    credentials, other_process = tedee.credentials(), tedee.restarted()
    for each in (credentials, other_process, credentials, other_process):
        tedee.clock.advance(ACCESS_LIFETIME)
        each.refresh()
        assert in_place.read_text() == f"{tedee.current()}\n"
    assert tedee.refreshes() == 4


def test_two_preallocations_leave_file_unchanged(in_place: Path) -> None:
    before = in_place.read_bytes()
    for order in (1, -1):
        for each in [preallocate(in_place), preallocate(in_place)][::order]:
            each.release()
        assert in_place.read_bytes().strip() == before.strip()
        assert b"\0" not in in_place.read_bytes()


def test_release_keeps_token_of_another_process(in_place: Path) -> None:
    first, second = preallocate(in_place), preallocate(in_place)
    second.write(Secret("z" * 5000))
    first.release()
    second.release()
    assert in_place.read_text() == "z" * 5000 + "\n"


# Files of killed processes


def test_temporary_files_of_killed_processes_are_removed(tedee: Tedee) -> None:
    folder = tedee.file.parent
    names = [f".refresh-token.abc{SUFFIX}", f".refresh-token.def{SUFFIX}", f".other.abc{SUFFIX}", ".refresh-token.old"]
    for name in names:
        (folder / name).write_text("left")
        if "def" not in name:
            os.utime(folder / name, (0, 0))
    tedee.credentials().refresh()
    assert {path.name for path in folder.iterdir()} == {"client-secret", "refresh-token", *names[1:]}


def test_padded_file_is_readable(tedee: Tedee, stored: Path) -> None:
    stored.write_bytes(f"{FIRST}\n".encode().ljust(PREALLOCATED_BYTES, b"\n"))
    tedee.credentials().refresh()
    assert stored.read_text() == f"{tedee.current()}\n"


# Check of the configuration


@pytest.mark.parametrize("mounted", [False, True])
def test_check_does_not_change_the_file(file: Path, monkeypatch: pytest.MonkeyPatch, mounted: bool) -> None:
    monkeypatch.setattr(token_file, "_is_mount_point", lambda path: mounted)
    before = file.stat()
    assert storage_problem(file) is None
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)
    assert list(file.parent.iterdir()) == [file]


def test_check_returns_problem_and_advice(file: Path, drop_privileges: Callable[[], None]) -> None:
    file.chmod(0o444)
    file.parent.chmod(0o555)
    drop_privileges()
    assert storage_problem(file) == (
        f"refresh token file {file} can neither be replaced (Permission denied) nor be written in place "
        "(Permission denied): make the folder of the file writable for the exporter's user, or the file itself if it "
        "is mounted on its own, and free some disk space; a Kubernetes or Docker secret is read-only: copy its token "
        "to a volume and use that file"
    )


def test_check_ignores_missing_file(tmp_path: Path) -> None:
    assert storage_problem(tmp_path / "missing") is None
    assert storage_problem(tmp_path / "no" / "folder") is None


# Shutdown


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_close_waits_for_exchange(tedee: Tedee) -> None:
    begun, response = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert response.wait(60)

    during_exchange(tedee, hold)
    exchange = in_thread(tedee.credentials().refresh)
    assert begun.wait(60)
    results: list[bool] = []
    closing = in_thread(lambda: results.append(tedee.refresh_tokens.close(60)))
    eventually(lambda: tedee.refresh_tokens._closed, "the closing to begin")
    assert (closing.is_alive(), tedee.on_file()) == (True, FIRST)
    response.set()
    closing.join(60)
    exchange.join(60)
    assert results == [True]
    assert tedee.on_file() == tedee.current()


@pytest.fixture
def unstored(tedee: Tedee, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A token that is in memory only, on a disk that fails until the patch is undone."""

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with tedee.refresh_tokens.exchange(tedee.file) as exchange:
        monkeypatch.setattr(token_file, "_write_all", fail)
        with pytest.raises(CannotStore):
            exchange.store(NEXT)
    return monkeypatch


def test_close_stores_token_in_memory(tedee: Tedee, unstored: pytest.MonkeyPatch) -> None:
    assert not tedee.refresh_tokens.stored(tedee.file)
    unstored.undo()
    assert tedee.refresh_tokens.close(0)
    assert tedee.on_file() == NEXT.get_secret_value()


@pytest.mark.usefixtures("unstored")
def test_close_reports_lost_token(tedee: Tedee) -> None:
    with capture_logs() as logs:
        assert not tedee.refresh_tokens.close(0)
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("error", "refresh token is lost with this process; sign in to Tedee again")
    ]
    assert NEXT.get_secret_value() not in str(logs)


def test_close_does_not_exceed_timeout(tedee: Tedee) -> None:
    with tedee.refresh_tokens.exchange(tedee.file):
        assert tedee.refresh_tokens.close(0)


def test_no_exchange_starts_after_close(tedee: Tedee) -> None:
    tedee.refresh_tokens.close(0)
    with pytest.raises(Closed), tedee.refresh_tokens.exchange(tedee.file):
        pass
    assert failure_of(tedee.credentials()).reason == "connection"
    assert tedee.refreshes() == 0


# Concurrent exchanges


def test_exchanges_of_one_file_do_not_overlap(tedee: Tedee) -> None:
    tokens = RefreshTokens()
    with tokens.exchange(tedee.file) as exchange:
        seen: list[Secret] = []

        def second() -> None:
            with tokens.exchange(tedee.file) as other:
                seen.append(other.token)

        thread = in_thread(second)
        eventually(lambda: tokens._in_progress == 2, "the second exchange")
        assert seen == []
        exchange.store(NEXT)
    thread.join(60)
    assert seen == [NEXT]
