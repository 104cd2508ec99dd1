"""Lost if these fail: an exporter that runs in the smallest cage there is, and leaves nothing lying about in it."""

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
from exporter.simulator import TOKEN_PATH, Account, Address, Cloud, Fault, Lock, PersonalKey, RefreshToken, World, serve
from tests.cli.conftest import stop_being_root
from tests.clock import FakeClock
from tests.program import ROOT, TIMEOUT, Exporter, configuration, environment, eventually, running
from tests.stores import open_store

__all__ = ["stop_being_root"]

UID = 54_000 + os.getpid() % 1_000
"""A user that nobody has heard of, and no other test process uses."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as somebody else")


@pytest.fixture
def cloud() -> Cloud:
    accounts = [
        Account("home", [Lock(1, "Front door")], keys=[PersonalKey("simulated-key")]),
        Account("guests", [Lock(2, "Back door")], refresh_tokens=[RefreshToken("simulated-refresh")]),
    ]
    return Cloud(World(accounts))


@pytest.fixture
def address(cloud: Cloud) -> Iterator[Address]:
    with serve(cloud) as address:
        yield address


# The program as another user


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, as the one of a test is not; in it one that is UID's own."""
    folder = Path(tempfile.mkdtemp(prefix="tedee-exporter-process-"))
    folder.chmod(0o755)
    (folder / "own").mkdir(mode=0o700)
    os.chown(folder / "own", UID, UID)
    yield folder
    shutil.rmtree(folder)


def as_somebody() -> dict[str, Any]:
    """How to start a process as UID. Skips the test where that is not possible."""
    somebody: dict[str, Any] = {"user": UID, "group": UID, "extra_groups": []}
    with contextlib.suppress(PermissionError):
        imported = subprocess.run(
            [sys.executable, "-c", "import exporter"], cwd="/", env=ENVIRONMENT, check=False, **somebody
        )
        if imported.returncode == 0:
            return {"args": [sys.executable], **somebody}
    if not shutil.which("setpriv"):
        pytest.skip("this Python, or this checkout, is in a folder that no other user may enter")
    # Here it may read whatever it likes, since even Python lies in root's own folder; but write no more than others.
    capability = "+dac_read_search"
    flags = [f"--reuid={UID}", f"--regid={UID}", "--clear-groups", f"--inh-caps={capability}"]
    return {"args": ["setpriv", *flags, f"--ambient-caps={capability}", sys.executable]}


ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": "/no/such/folder"}
"""Without a home."""


@contextlib.contextmanager
def running_as_somebody(
    path: Path, umask: int = 0o022, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Exporter]:
    start = as_somebody()
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


def configured(place: Path, address: Address, **sections: Any) -> Path:
    """For root to write and for UID to read, but the refresh token, which is replaced at each use."""
    for name, content in {
        "key": "simulated-key",
        "client": "simulated-client",
        "own/refresh": "simulated-refresh",
    }.items():
        (place / name).write_text(content)
        (place / name).chmod(0o640)
        os.chown(place / name, 0, UID)
    oauth = {
        "client_id": "c",
        "client_secret_file": "client",
        "refresh_token_file": "own/refresh",
        "token_url": address.url + TOKEN_PATH,
    }
    accounts: list[dict[str, Any]] = [{"name": "home", "personal_key_file": "key"}, {"name": "guests", "oauth": oauth}]
    path = configuration(place, address.url, accounts, **sections)
    os.chown(path, 0, UID)
    path.chmod(0o640)
    return path


def theirs() -> dict[str, str]:
    """Files and folders of UID wherever everybody may make some, with their modes; and in the checkout."""
    places = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/var/lock", ROOT / "exporter"]
    # Without what is mounted there: another test builds an image in /tmp, which has a /proc of its own.
    command = ["find", *map(str, places), "-xdev", "-ignore_readdir_race", "-uid", str(UID), "-printf", "%p %m\n"]
    # It complains of places that are not there, and of files that go while it looks.
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    return dict(sorted(line.rsplit(" ", 1) for line in found.splitlines()))


@as_root
@pytest.mark.parametrize("umask", [0o022, 0o000, 0o777, 0o277], ids=oct)
def test_it_runs_as_any_user_with_any_umask_and_without_a_home_and_writes_its_state_alone(
    place: Path, address: Address, umask: int
) -> None:
    path = configured(place, address, state_file="own/deep/er/state.db")
    with running_as_somebody(path, umask) as exporter:
        exporter.wait_until_ready()
        eventually(lambda: "Front door" in exporter.get("/metrics").text, "names")
        eventually(lambda: "Back door" in exporter.get("/").text, "names")
        assert exporter.value("tedee_exporter_state_file_usable") == 1.0
        assert user_of(exporter) == {UID}
        folders = {f"{place}/own": "700", f"{place}/own/deep": "700", f"{place}/own/deep/er": "700"}
        files = {f"{place}/own/deep/er/state.db": "600"}
        refresh = {f"{place}/own/refresh": "600"}
        assert theirs() == folders | files | refresh
        assert written_by(exporter) <= files.keys()
        assert exporter.stop() == 0
    assert theirs() == folders | {f"{place}/own/deep/er/state.db": "600"} | refresh
    assert not [line for line in exporter.log if "level=warning" in line or "Traceback" in line]


@as_root
@pytest.mark.parametrize(
    "variables", [{}, {"HOME": "/no/such/home"}, {"XDG_STATE_HOME": "/"}, {"STATE_DIRECTORY": "/proc/self"}], ids=str
)
def test_without_a_place_for_its_state_it_says_so_and_runs_on(
    place: Path, address: Address, variables: dict[str, str]
) -> None:
    with running_as_somebody(configured(place, address), variables=variables) as exporter:
        exporter.wait_until_ready()
        assert exporter.value("tedee_up", account="home") == 1.0
        assert exporter.value("tedee_exporter_state_file_usable") == 0.0
        assert [line for line in exporter.log if "the state file cannot be used" in line]
        assert exporter.stop() == 0
    assert theirs().keys() == {f"{place}/own", f"{place}/own/refresh"}


def test_a_state_file_that_it_may_not_even_look_for_is_told(
    tmp_path: Path, stop_being_root: Callable[[], None], clock: FakeClock
) -> None:
    # As where systemd's ProtectHome has closed the folder.
    tmp_path.chmod(0)
    stop_being_root()
    for path in (tmp_path / "folder" / "state.db", tmp_path / ("name" * 100)):
        assert not open_store(path, clock).is_usable()


def test_without_a_variable_that_says_so_the_home_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    known = pwd.getpwuid(os.getuid()).pw_dir
    assert default_state_file({}) == Path(known, ".local", "state", "tedee-exporter", "state.db")
    monkeypatch.setattr(os, "getuid", lambda: UID)
    assert default_state_file({}) == Path("/nonexistent/.local/state/tedee-exporter/state.db")


def user_of(exporter: Exporter) -> set[int]:
    """Every user id of the process: real, effective, saved, and of the file system."""
    status = Path(f"/proc/{exporter.process.pid}/status").read_text()
    return {int(number) for line in status.splitlines() if line.startswith("Uid:") for number in line.split()[1:]}


# What it has open


def written_by(exporter: Exporter) -> set[str]:
    """The files that the process has open for writing."""
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
    """Those by which the process can be reached, or reaches others."""
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
                found.add(Socket(kind, address_of(local), address_of(remote), state == "0A"))
    return found


def address_of(written: str) -> tuple[str, int]:
    """As the kernel writes it: text of four bytes in the order of the processor, and a port."""
    host, port = written.split(":")
    text = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    packed = struct.pack(f"={len(text)}I", *text)
    return socket.inet_ntop(socket.AF_INET if len(text) == 1 else socket.AF_INET6, packed), int(port, 16)


def test_it_is_connected_to_tedee_and_to_whoever_asks_it_and_to_nobody_else(
    cloud: Cloud, address: Address, tmp_path: Path
) -> None:
    # The connection of a call is closed after it: so that it is seen, the response takes a second.
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


# What it leaves behind


def test_it_dumps_no_core(address: Address, tmp_path: Path) -> None:
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
