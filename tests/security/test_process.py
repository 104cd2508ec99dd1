"""Least privilege of the process: any user, few files and connections, no core dumps."""

import contextlib
import os
import pwd
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from exporter.config import default_state_file
from exporter.simulator import TOKEN_PATH, Account, Address, Lock, PersonalKey, RefreshToken, World, serve
from testing.clock import FakeClock
from testing.faults import Fault, FaultyCloud
from testing.program import ROOT, TIMEOUT, Exporter, configuration, environment, eventually, running
from testing.stores import open_store
from tests.cli.conftest import drop_privileges

__all__ = ["drop_privileges"]

UID = 54_000 + os.getpid() % 1_000
"""User id that is unknown to the system and not used by other test processes."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")


@pytest.fixture
def cloud() -> FaultyCloud:
    accounts = [
        Account("home", [Lock(1, "Front door")], keys=[PersonalKey("simulated-key")]),
        Account("guests", [Lock(2, "Back door")], refresh_tokens=[RefreshToken("simulated-refresh")]),
    ]
    return FaultyCloud(World(accounts))


@pytest.fixture
def address(cloud: FaultyCloud) -> Iterator[Address]:
    with serve(cloud) as address:
        yield address


# Program as another user


@pytest.fixture
def shared() -> Iterator[Path]:
    """Folder that all users can enter, unlike `tmp_path`. Its folder `own` belongs to UID."""
    folder = Path(tempfile.mkdtemp(prefix="tedee-exporter-process-"))
    folder.chmod(0o755)
    (folder / "own").mkdir(mode=0o700)
    os.chown(folder / "own", UID, UID)
    yield folder
    shutil.rmtree(folder)


def as_other_user() -> dict[str, Any]:
    """Return the arguments of Popen for a process of UID. Skip the test if that is impossible."""
    other: dict[str, Any] = {"user": UID, "group": UID, "extra_groups": []}
    with contextlib.suppress(PermissionError):
        imported = subprocess.run(
            [sys.executable, "-c", "import exporter"], cwd="/", env=ENVIRONMENT, check=False, **other
        )
        if imported.returncode == 0:
            return {"args": [sys.executable], **other}
    if not shutil.which("setpriv"):
        pytest.skip("this Python, or this checkout, is in a folder that other users cannot enter")
    # Python may be in a folder of root, so allow the process to read everything. Writing is not affected.
    capability = "+dac_read_search"
    flags = [f"--reuid={UID}", f"--regid={UID}", "--clear-groups", f"--inh-caps={capability}"]
    return {"args": ["setpriv", *flags, f"--ambient-caps={capability}", sys.executable]}


ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": "/no/such/folder"}
"""Environment without HOME."""


@contextlib.contextmanager
def running_as_other_user(
    path: Path, umask: int = 0o022, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Exporter]:
    start = as_other_user()
    process = subprocess.Popen(
        [*start.pop("args"), "-m", "exporter", "--web.listen-address=127.0.0.1:0", f"--config.file={path}"],
        cwd="/",
        env={**ENVIRONMENT, **variables},
        umask=umask,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **start,
    )
    exporter = Exporter(process)
    try:
        yield exporter
    finally:
        exporter.kill()


def write_configuration(shared: Path, address: Address, *, with_oauth: bool = True, **sections: Any) -> Path:
    """Write a configuration that only root can change and UID can read. UID can replace the refresh token."""
    for name, content in {
        "key": "simulated-key",
        "client": "simulated-client",
        "own/refresh": "simulated-refresh",
    }.items():
        (shared / name).write_text(content)
        (shared / name).chmod(0o640)
        os.chown(shared / name, 0, UID)
    oauth = {
        "client_id": "c",
        "client_secret_file": "client",
        "refresh_token_file": "own/refresh",
        "token_url": address.url + TOKEN_PATH,
    }
    accounts: list[dict[str, Any]] = [{"name": "home", "personal_key_file": "key"}]
    if with_oauth:
        accounts.append({"name": "guests", "oauth": oauth})
    path = configuration(shared, address.url, accounts, **sections)
    os.chown(path, 0, UID)
    path.chmod(0o640)
    return path


def files_of_user() -> dict[str, str]:
    """Return files and folders of UID, with modes, in the checkout and in all folders that any user can write."""
    folders = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/var/lock", ROOT / "exporter"]
    # -xdev: another test builds an image in /tmp, with a mounted /proc.
    command = ["find", *map(str, folders), "-xdev", "-ignore_readdir_race", "-uid", str(UID), "-printf", "%p %m\n"]
    # find prints errors about missing folders, and about files that are removed meanwhile.
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    return dict(sorted(line.rsplit(" ", 1) for line in found.splitlines()))


@as_root
@pytest.mark.parametrize("umask", [0o022, 0o000, 0o777, 0o277], ids=oct)
def test_any_user_and_umask_without_home_writes_only_state(shared: Path, address: Address, umask: int) -> None:
    path = write_configuration(shared, address, state_file="own/deep/er/state.db")
    with running_as_other_user(path, umask) as exporter:
        exporter.wait_until_ready()
        eventually(lambda: "Front door" in exporter.get("/metrics").text, "names")
        eventually(lambda: "Back door" in exporter.get("/").text, "names")
        assert exporter.value("tedee_exporter_state_file_usable") == 1.0
        assert user_ids_of(exporter) == {UID}
        folders = {f"{shared}/own": "700", f"{shared}/own/deep": "700", f"{shared}/own/deep/er": "700"}
        files = {f"{shared}/own/deep/er/state.db": "600"}
        refresh = {f"{shared}/own/refresh": "600"}
        assert files_of_user() == folders | files | refresh
        assert files_open_for_writing(exporter) <= files.keys()
        assert exporter.stop() == 0
    assert files_of_user() == folders | {f"{shared}/own/deep/er/state.db": "600"} | refresh
    assert not [line for line in exporter.log if "level=warn" in line or "Traceback" in line]


@as_root
@pytest.mark.parametrize(
    "variables", [{}, {"HOME": "/no/such/home"}, {"XDG_STATE_HOME": "/"}, {"STATE_DIRECTORY": "/proc/self"}], ids=str
)
def test_unusable_state_folder_is_logged_and_syncs_continue(
    shared: Path, address: Address, variables: dict[str, str]
) -> None:
    path = write_configuration(shared, address, with_oauth=False)
    with running_as_other_user(path, variables=variables) as exporter:
        exporter.wait_until_ready()
        assert exporter.value("tedee_up", account="home") == 1.0
        assert exporter.value("tedee_exporter_state_file_usable") == 0.0
        assert [line for line in exporter.log if "the state file cannot be used" in line]
        assert exporter.stop() == 0
    assert files_of_user().keys() == {f"{shared}/own"}


def test_state_file_in_a_closed_folder_is_unusable(
    tmp_path: Path, drop_privileges: Callable[[], None], clock: FakeClock
) -> None:
    # systemd's ProtectHome closes folders like this.
    tmp_path.chmod(0)
    drop_privileges()
    for path in (tmp_path / "folder" / "state.db", tmp_path / ("name" * 100)):
        assert not open_store(path, clock).states.is_usable()


def test_home_without_variables_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    known = pwd.getpwuid(os.getuid()).pw_dir
    assert default_state_file({}) == Path(known, ".local", "state", "tedee-exporter", "state.db")
    monkeypatch.setattr(os, "getuid", lambda: UID)
    assert default_state_file({}) == Path("/nonexistent/.local/state/tedee-exporter/state.db")


def user_ids_of(exporter: Exporter) -> set[int]:
    """Return the real, effective, saved and file system user ids of the process."""
    status = Path(f"/proc/{exporter.process.pid}/status").read_text()
    return {int(number) for line in status.splitlines() if line.startswith("Uid:") for number in line.split()[1:]}


# Open files and sockets


def files_open_for_writing(exporter: Exporter) -> set[str]:
    """Return the files that the process has open for writing."""
    folder = Path(f"/proc/{exporter.process.pid}")
    files = set()
    for link in (folder / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            flags = int((folder / "fdinfo" / link.name).read_text().split("flags:")[1].split()[0], 8)
            target = str(link.readlink())
            if flags & os.O_ACCMODE and target.startswith("/") and link.is_file():
                files.add(target)
    return files


class Socket(NamedTuple):
    kind: str
    local: tuple[str, int]
    remote: tuple[str, int]
    listens: bool


def sockets_of(exporter: Exporter) -> set[Socket]:
    """Return the network sockets of the process."""
    folder = Path(f"/proc/{exporter.process.pid}")
    own = set()
    for link in (folder / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            own.add(str(link.readlink()))
    found = set()
    for kind in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "icmp6"):
        table = folder / "net" / kind
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            _, local, remote, state, *_, inode = line.split()[:10]
            if f"socket:[{inode}]" in own:
                found.add(Socket(kind, parse_address(local), parse_address(remote), state == "0A"))
    return found


def parse_address(written: str) -> tuple[str, int]:
    """Parse an address of /proc/net: 32-bit words in native byte order, as hexadecimal digits, and a port."""
    host, port = written.split(":")
    text = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    packed = struct.pack(f"={len(text)}I", *text)
    return socket.inet_ntop(socket.AF_INET if len(text) == 1 else socket.AF_INET6, packed), int(port, 16)


def test_connections_are_only_to_tedee_and_clients(cloud: FaultyCloud, address: Address, tmp_path: Path) -> None:
    # Connections are closed after each call. The delay keeps them open long enough to be observed.
    cloud.faults.script(Fault.delayed(1.0), endpoint="sync", forever=True)
    accounts = [{"name": "home", "personal_key": "simulated-key"}]
    path = configuration(tmp_path, address.url, accounts, state_file=str(tmp_path / "state.db"))
    seen: set[Socket] = set()

    def is_ready() -> bool:
        seen.update(sockets_of(exporter))
        return exporter.get("/-/ready").ok

    with running(f"--config.file={path}") as exporter:
        own = ("127.0.0.1", exporter.port)
        eventually(is_ready, "the exporter to be ready")
        for _ in range(20):
            exporter.get("/metrics")
            seen |= sockets_of(exporter)
    assert {each.local for each in seen if each.listens} == {own}
    tedee = (address.host, address.port)
    assert {each.remote for each in seen if not each.listens and each.local != own} == {tedee}
    assert {each.kind for each in seen} == {"tcp"}


# Core dumps


def test_crash_leaves_no_core_dump(address: Address, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "exporter", "--web.listen-address=127.0.0.1:0"],
            cwd=tmp_path,
            env=environment(TEDEE_PERSONAL_KEY="simulated-key", TEDEE_API_URL=address.url),
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    exporter = Exporter(process)
    try:
        exporter.wait_until_ready()
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        (core,) = [line.split() for line in limits.splitlines() if line.startswith("Max core file size")]
        assert core[4] == "0"
        process.send_signal(signal.SIGSEGV)
        assert process.wait(TIMEOUT) == -signal.SIGSEGV
    finally:
        exporter.kill()
    assert list(tmp_path.iterdir()) == []
