"""Lost if these fail: a sign-in, with each start of the program where a refresh token cannot be stored."""

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

from exporter.simulator import TOKEN_PATH, Account, Cloud, Fault, Lock, PersonalKey, RefreshToken, World, serve
from exporter.simulator.response import Response
from tests.program import PATIENCE, Exporter, configuration, environment, eventually
from tests.security.test_process import UID, as_somebody

FIRST = "simulated-refresh"


class House:
    """A simulated cloud, and a configuration with an account that has a refresh token in a folder of its own."""

    def __init__(self, folder: Path, url: str, cloud: Cloud) -> None:
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
        """Let the next start sync at once."""
        for path in (self.path.parent / "state").iterdir():
            path.unlink()

    def start(self, *flags: str, preamble: str = "", wrapper: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        """The program, as a user whom modes concern."""
        start: dict[str, Any] = as_somebody() if os.geteuid() == 0 and not wrapper else {"args": [sys.executable]}
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
        """The exit code of the program, and what it writes to standard error."""
        process = self.start(*flags, preamble=preamble, wrapper=wrapper)
        _, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, errors

    def exchanges(self) -> int:
        return sum(call.endpoint == "token" for call in self.cloud.calls)

    def current(self) -> str:
        """The one refresh token that Tedee takes."""
        tokens = self.cloud.world.account("guests").refresh_tokens
        (current,) = [token.value for token in tokens if not token.revoked]
        return current

    def hold_the_response(self) -> tuple[threading.Event, threading.Event]:
        """Hold the response of the token endpoint: set as soon as the token is replaced; to be set to let it go."""
        replaced, response = threading.Event(), threading.Event()

        def edit(answer: Response) -> Response:
            replaced.set()
            assert response.wait(PATIENCE)
            return answer

        self.cloud.faults.script(Fault(edit=edit), endpoint="token")
        return replaced, response


@pytest.fixture
def house() -> Iterator[House]:
    accounts = [
        Account("guests", [Lock(2, "Back door")], refresh_tokens=[RefreshToken(FIRST)]),
        Account("home", [Lock(1, "Front door")], keys=[PersonalKey("simulated-key")]),
    ]
    cloud = Cloud(World(accounts))
    folder = Path(tempfile.mkdtemp(prefix="tedee-exporter-house-"))
    folder.chmod(0o755)
    with serve(cloud) as address:
        made = House(folder, address.url, cloud)
        yield made
    made.modes(0o600, 0o700)
    shutil.rmtree(folder)


def listening(house: House, preamble: str = "") -> Exporter:
    process = house.start("--web.listen-address=127.0.0.1:0", preamble=preamble)
    assert process.stdout
    process.stdout.close()
    return Exporter(process)


NEITHER = "can neither be replaced (Permission denied) nor be written in place (Permission denied)"


# A read-only folder with a read-only file, as those of Kubernetes and Docker secrets


def test_check_refuses_a_token_that_cannot_be_replaced(house: House) -> None:
    house.modes(0o400, 0o500)
    code, errors = house.run("--config.check")
    assert code == 2
    (line,) = errors.splitlines()
    number = next(n for n, text in enumerate(house.path.read_text().splitlines(), 1) if "refresh_token_file" in text)
    told = f"{house.path}:{number}: accounts[0].oauth.refresh_token_file: refresh token file {house.token} {NEITHER}: "
    assert line.startswith(f"{told}let the exporter's user write the folder of the file, or the file itself")
    assert house.cloud.calls == []


@pytest.mark.parametrize("modes", [(0o600, 0o700), (0o400, 0o700), (0o600, 0o500)])
def test_check_accepts_a_writable_folder_or_file(house: House, modes: tuple[int, int]) -> None:
    house.modes(*modes)
    assert house.run("--config.check") == (0, "")
    assert [path.name for path in house.token.parent.iterdir()] == ["token"]


def test_sync_once_never_uses_an_unreplaceable_token(house: House) -> None:
    house.modes(0o400, 0o500)
    for _ in range(2):
        house.forget_state()
        code, errors = house.run("--sync.once")
        assert code == 1
        assert f"guests: oauth2/token: refresh token file {house.token} {NEITHER}; it has not been used: " in errors
    assert house.exchanges() == 0
    house.modes(0o600, 0o500)
    house.forget_state()
    assert house.run("--sync.once")[0] == 0
    assert house.token.read_text().strip() == house.current() != FIRST


def test_start_warns_and_the_other_accounts_run(house: House) -> None:
    house.modes(0o400, 0o500)
    exporter = listening(house)
    try:
        exporter.wait_until_ready()
        assert exporter.value("tedee_up", account="home") == 1
        assert exporter.value("tedee_up", account="guests") == 0
        assert exporter.value("tedee_sync_failing", account="guests", reason="auth") == 1
        assert exporter.value("tedee_refresh_token_stored", account="guests") == 1
        assert exporter.value("tedee_refresh_token_stored", account="home") is None
        before = exporter.log[: next(n for n, line in enumerate(exporter.log) if "msg=listening" in line)]
        (warning,) = [line for line in before if NEITHER in line and "sync failed" not in line]
        assert "level=warning" in warning
        assert exporter.stop() == 0
    finally:
        exporter.kill()
    assert house.exchanges() == 0


# A file that is mounted on its own


def mounted(house: House, options: str) -> tuple[str, ...]:
    """What runs the program in a mount namespace in which the token's file is a mount point."""
    unshare = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--map-root-user")
    if subprocess.run([*unshare, sys.executable, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip("there are no mount namespaces here, or this Python cannot be run in one")
    mount = f"mount --bind {house.token} {house.token} && mount -o remount,bind,{options} {house.token}"
    return (*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh")


def test_mounted_file_is_written_in_place(house: House) -> None:
    wrapper = mounted(house, "rw")
    before = house.token.stat()
    code, errors = house.run("--config.check", wrapper=wrapper)
    assert code == 0, errors
    code, errors = house.run("--sync.once", wrapper=wrapper)
    assert code == 0, errors
    after = house.token.stat()
    assert house.token.read_text() == f"{house.current()}\n"
    assert house.exchanges() == 1
    assert (after.st_ino, after.st_uid, after.st_mode) == (before.st_ino, before.st_uid, before.st_mode)
    assert [path.name for path in house.token.parent.iterdir()] == ["token"]


def test_file_mounted_read_only_is_not_used(house: House) -> None:
    wrapper = mounted(house, "ro")
    neither = "can neither be replaced (the file is a mount point) nor be written in place (Read-only file system)"
    for flag, expected in (("--config.check", 2), ("--sync.once", 1)):
        code, errors = house.run(flag, wrapper=wrapper)
        assert code == expected
        assert neither in errors
    assert house.exchanges() == 0
    assert house.token.read_text() == f"{FIRST}\n"


# The end of the process


def test_sigterm_during_an_exchange_keeps_the_token(house: House) -> None:
    replaced, response = house.hold_the_response()
    exporter = listening(house)
    try:
        assert replaced.wait(PATIENCE)
        exporter.process.send_signal(signal.SIGTERM)
        eventually(lambda: "waiting for refresh tokens that are being exchanged" in "".join(exporter.log), "the end")
        assert house.token.read_text().strip() == FIRST
        response.set()
        assert exporter.process.wait(PATIENCE) == 0
    finally:
        exporter.kill()
    assert house.token.read_text() == f"{house.current()}\n"
    assert [path.name for path in house.token.parent.iterdir()] == ["token"]


def test_interrupted_sync_once_keeps_the_token(house: House) -> None:
    replaced, response = house.hold_the_response()
    process = house.start("--sync.once")
    assert replaced.wait(PATIENCE)
    process.send_signal(signal.SIGINT)
    assert process.stderr
    assert any("waiting for refresh tokens" in line for line in process.stderr)
    response.set()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert house.token.read_text() == f"{house.current()}\n"


FAILING_DISK = """
from exporter.tedee import token_file
write = token_file._Replacement.write
def write_or_fail(self, token):
    if os.path.exists({flag!r}):
        raise OSError(5, "Input/output error")
    write(self, token)
token_file._Replacement.write = write_or_fail
"""


def test_sigterm_stores_a_token_that_is_in_memory_only(house: House) -> None:
    broken = house.path.parent / "broken"
    broken.touch()
    exporter = listening(house, FAILING_DISK.format(flag=str(broken)))
    try:
        exporter.wait_until_ready()
        assert exporter.value("tedee_refresh_token_stored", account="guests") == 0
        assert exporter.value("tedee_up", account="guests") == 1
        assert house.token.read_text().strip() == FIRST
        broken.unlink()
        assert exporter.stop() == 0
    finally:
        exporter.kill()
    assert house.token.read_text() == f"{house.current()}\n"


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
        "from exporter.tedee.refresh_tokens import RefreshTokens\nRefreshTokens._keep = die",
        False,
    ),
    "before the sync to the disk": (SECOND_SYNC, True),
    "before the truncation": ("from exporter.tedee import token_file\ntoken_file._shrink = die", True),
}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("kill", "survives"), KILLS.values(), ids=KILLS)
def test_killed_process_leaves_a_readable_token(house: House, kill: str, survives: bool, in_place: bool) -> None:
    house.modes(0o600, 0o500 if in_place else 0o700)
    assert house.run("--sync.once", preamble=DIE + kill)[0] == -signal.SIGKILL
    assert house.token.read_text().strip() in {FIRST, house.current()}
    assert stat.S_IMODE(house.token.stat().st_mode) == 0o600
    house.forget_state()
    code, errors = house.run("--sync.once")
    if survives:
        assert (code, house.token.read_text()) == (0, f"{house.current()}\n"), errors
    else:
        # The successor existed at Tedee and in the memory of the process alone.
        assert "sign in to Tedee again" in errors
        assert house.token.read_text().strip() == FIRST
