"""Starts, checks and ends of the program if a refresh token cannot be stored."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.simulator import TOKEN_PATH, Account, Lock, PersonalKey, RefreshToken, World, serve
from exporter.simulator.response import Response
from testing.faults import Fault, FaultyCloud
from testing.program import TIMEOUT, Exporter, configuration, environment, eventually
from tests.security.test_process import UID, as_other_user

FIRST = "simulated-refresh"


class Site:
    """Simulated cloud, and a configuration with an account whose refresh token is in its own folder."""

    def __init__(self, folder: Path, url: str, cloud: FaultyCloud) -> None:
        self.cloud = cloud
        self.token = folder / "secret" / "token"
        self.token.parent.mkdir()
        self.token.write_text(f"{FIRST}\n")
        (folder / "key").write_text("simulated-key")
        (folder / "key").chmod(0o600)
        oauth = {"client_id": "c", "refresh_token_file": "secret/token", "token_url": url + TOKEN_PATH}
        accounts: list[dict[str, Any]] = [
            {"name": "guests", "oauth": oauth},
            {"name": "home", "personal_key_file": "key"},
        ]
        self.path = configuration(folder, url, accounts, state_file=str(folder / "state" / "state.db"))
        (folder / "state").mkdir()
        self.modes(0o600, 0o700)
        if os.geteuid() == 0:
            for each in (*folder.rglob("*"), folder):
                os.chown(each, UID, UID)

    def modes(self, file: int, folder: int) -> None:
        self.token.chmod(file)
        self.token.parent.chmod(folder)

    def forget_state(self) -> None:
        """Remove the state files, so that the next start syncs immediately."""
        for path in (self.path.parent / "state").iterdir():
            path.unlink()

    def start(self, *flags: str, preamble: str = "", wrapper: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        """Start the program as a user to whom file permissions apply."""
        start: dict[str, Any] = as_other_user() if os.geteuid() == 0 and not wrapper else {"args": [sys.executable]}
        code = f"import os, signal, sys\n{preamble}\nfrom exporter.__main__ import main\nsys.exit(main())"
        return subprocess.Popen(
            [*wrapper, *start.pop("args"), "-c", code, f"--config.file={self.path}", *flags],
            cwd="/",
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **start,
        )

    def run(self, *flags: str, preamble: str = "", wrapper: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run the program and return its exit code and standard error."""
        process = self.start(*flags, preamble=preamble, wrapper=wrapper)
        _, errors = process.communicate(timeout=TIMEOUT)
        return process.returncode, errors

    def exchanges(self) -> int:
        return sum(call.endpoint == "token" for call in self.cloud.calls)

    def current(self) -> str:
        """Return the only valid refresh token."""
        tokens = self.cloud.world.account("guests").refresh_tokens
        (current,) = [token.value for token in tokens if not token.revoked]
        return current

    def hold_response(self) -> tuple[threading.Event, threading.Event]:
        """Delay the response of the token endpoint.

        Returns:
            An event that is set after the token is replaced, and an event to set to send the response.
        """
        replaced, release = threading.Event(), threading.Event()

        def edit(response: Response) -> Response:
            replaced.set()
            assert release.wait(TIMEOUT)
            return response

        self.cloud.faults.script(Fault(edit=edit), endpoint="token")
        return replaced, release


@pytest.fixture
def site() -> Iterator[Site]:
    accounts = [
        Account("guests", [Lock(2, "Back door")], refresh_tokens=[RefreshToken(FIRST)]),
        Account("home", [Lock(1, "Front door")], keys=[PersonalKey("simulated-key")]),
    ]
    cloud = FaultyCloud(World(accounts))
    folder = Path(tempfile.mkdtemp(prefix="tedee-exporter-site-"))
    folder.chmod(0o755)
    with serve(cloud) as address:
        site = Site(folder, address.url, cloud)
        yield site
    site.modes(0o600, 0o700)
    shutil.rmtree(folder)


def listening(site: Site, preamble: str = "") -> Exporter:
    process = site.start("--web.listen-address=127.0.0.1:0", preamble=preamble)
    assert process.stdout
    process.stdout.close()
    return Exporter(process)


NEITHER = "can neither be replaced (Permission denied) nor be written in place (Permission denied)"


# Read-only folder with a read-only file, as in Kubernetes and Docker secrets


def test_check_refuses_a_token_that_cannot_be_replaced(site: Site) -> None:
    site.modes(0o400, 0o500)
    code, errors = site.run("--config.check")
    assert code == 2
    (line,) = errors.splitlines()
    number = next(n for n, text in enumerate(site.path.read_text().splitlines(), 1) if "refresh_token_file" in text)
    prefix = f"{site.path}:{number}: accounts[0].oauth.refresh_token_file: refresh token file {site.token} {NEITHER}: "
    assert line.startswith(f"{prefix}make the folder of the file writable for the exporter's user, or the file itself")
    assert site.cloud.calls == []


@pytest.mark.parametrize("modes", [(0o600, 0o700), (0o400, 0o700), (0o600, 0o500)])
def test_check_accepts_a_writable_folder_or_file(site: Site, modes: tuple[int, int]) -> None:
    site.modes(*modes)
    assert site.run("--config.check") == (0, "")
    assert [path.name for path in site.token.parent.iterdir()] == ["token"]


def test_sync_once_never_uses_an_unreplaceable_token(site: Site) -> None:
    site.modes(0o400, 0o500)
    for _ in range(2):
        site.forget_state()
        code, errors = site.run("--sync.once")
        assert code == 1
        assert f"guests: oauth2/token: refresh token file {site.token} {NEITHER}; it has not been used: " in errors
    assert site.exchanges() == 0
    site.modes(0o600, 0o500)
    site.forget_state()
    assert site.run("--sync.once")[0] == 0
    assert site.token.read_text().strip() == site.current() != FIRST


def test_start_warns_and_other_accounts_are_synced(site: Site) -> None:
    site.modes(0o400, 0o500)
    exporter = listening(site)
    try:
        exporter.wait_until_ready()
        assert exporter.value("tedee_up", account="home") == 1
        assert exporter.value("tedee_up", account="guests") == 0
        assert exporter.value("tedee_sync_failing", account="guests", reason="auth") == 1
        assert exporter.value("tedee_refresh_token_stored", account="guests") == 1
        assert exporter.value("tedee_refresh_token_stored", account="home") is None
        before = exporter.log[: next(n for n, line in enumerate(exporter.log) if "msg=listening" in line)]
        (warning,) = [line for line in before if NEITHER in line and "sync failed" not in line]
        assert "level=warn" in warning
        assert exporter.stop() == 0
    finally:
        exporter.kill()
    assert site.exchanges() == 0


# Mounted file


def mounted(site: Site, options: str) -> tuple[str, ...]:
    """Return a command that runs another one in a mount namespace where the token file is a mount point."""
    unshare = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--map-root-user")
    if subprocess.run([*unshare, sys.executable, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip("mount namespaces are unavailable, or this Python cannot run in one")
    mount = f"mount --bind {site.token} {site.token} && mount -o remount,bind,{options} {site.token}"
    return (*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh")


def test_mounted_file_is_written_in_place(site: Site) -> None:
    wrapper = mounted(site, "rw")
    before = site.token.stat()
    code, errors = site.run("--config.check", wrapper=wrapper)
    assert code == 0, errors
    code, errors = site.run("--sync.once", wrapper=wrapper)
    assert code == 0, errors
    after = site.token.stat()
    assert site.token.read_text() == f"{site.current()}\n"
    assert site.exchanges() == 1
    assert (after.st_ino, after.st_uid, after.st_mode) == (before.st_ino, before.st_uid, before.st_mode)
    assert [path.name for path in site.token.parent.iterdir()] == ["token"]


def test_file_mounted_read_only_is_not_used(site: Site) -> None:
    wrapper = mounted(site, "ro")
    neither = "can neither be replaced (the file is a mount point) nor be written in place (Read-only file system)"
    for flag, expected in (("--config.check", 2), ("--sync.once", 1)):
        code, errors = site.run(flag, wrapper=wrapper)
        assert code == expected
        assert neither in errors
    assert site.exchanges() == 0
    assert site.token.read_text() == f"{FIRST}\n"


# End of the process


def test_sigterm_during_an_exchange_keeps_the_token(site: Site) -> None:
    replaced, release = site.hold_response()
    exporter = listening(site)
    try:
        assert replaced.wait(TIMEOUT)
        exporter.process.send_signal(signal.SIGTERM)
        eventually(lambda: "waiting for exchanges of refresh tokens to end" in "".join(exporter.log), "the end")
        assert site.token.read_text().strip() == FIRST
        release.set()
        assert exporter.process.wait(TIMEOUT) == 0
    finally:
        exporter.kill()
    assert site.token.read_text() == f"{site.current()}\n"
    assert [path.name for path in site.token.parent.iterdir()] == ["token"]


def test_interrupted_sync_once_keeps_the_token(site: Site) -> None:
    replaced, release = site.hold_response()
    process = site.start("--sync.once")
    assert replaced.wait(TIMEOUT)
    process.send_signal(signal.SIGINT)
    assert process.stderr
    assert any("waiting for exchanges of refresh tokens" in line for line in process.stderr)
    release.set()
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert site.token.read_text() == f"{site.current()}\n"


FAILING_DISK = """
from exporter.tedee.oauth import token_file
write = token_file._Replacement.write
def write_or_fail(self, token):
    if os.path.exists({flag!r}):
        raise OSError(5, "Input/output error")
    write(self, token)
token_file._Replacement.write = write_or_fail
"""


def test_sigterm_stores_a_token_that_is_in_memory_only(site: Site) -> None:
    broken = site.path.parent / "broken"
    broken.touch()
    exporter = listening(site, FAILING_DISK.format(flag=str(broken)))
    try:
        exporter.wait_until_ready()
        assert exporter.value("tedee_refresh_token_stored", account="guests") == 0
        assert exporter.value("tedee_up", account="guests") == 1
        assert site.token.read_text().strip() == FIRST
        broken.unlink()
        assert exporter.stop() == 0
    finally:
        exporter.kill()
    assert site.token.read_text() == f"{site.current()}\n"


DIE = "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
SECOND_SYNC = """
def sync(descriptor, calls=[], really=os.fsync):
    calls.append(descriptor)
    die() if len(calls) == 2 else really(descriptor)
os.fsync = sync
"""
KILLS = {
    "while reserving": ("os.fsync = die", True),
    "with the response in memory": (
        "from exporter.tedee.oauth.refresh_tokens import RefreshTokens\nRefreshTokens._store_new = die",
        False,
    ),
    "before the sync to the disk": (SECOND_SYNC, True),
    "before the truncation": ("from exporter.tedee.oauth import token_file\ntoken_file._truncate_padding = die", True),
}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("kill", "survives"), KILLS.values(), ids=KILLS)
def test_killed_process_leaves_a_readable_token(site: Site, kill: str, survives: bool, in_place: bool) -> None:
    site.modes(0o600, 0o500 if in_place else 0o700)
    assert site.run("--sync.once", preamble=DIE + kill)[0] == -signal.SIGKILL
    assert site.token.read_text().strip() in {FIRST, site.current()}
    assert stat.S_IMODE(site.token.stat().st_mode) == 0o600
    site.forget_state()
    code, errors = site.run("--sync.once")
    if survives:
        assert (code, site.token.read_text()) == (0, f"{site.current()}\n"), errors
    else:
        # The new token existed only at Tedee and in the memory of the process.
        assert "sign in to Tedee again" in errors
        assert site.token.read_text().strip() == FIRST
