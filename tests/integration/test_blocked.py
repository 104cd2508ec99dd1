"""Blocked outputs, hanging files, limited encodings and low limits do not prevent the program from ending."""

import contextlib
import ctypes
import fcntl
import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from exporter.simulator import Address, Cloud
from testing.program import ROOT, TIMEOUT, configuration, environment, eventually, free_port, running
from tests.integration.conftest import HOME
from tests.security.web_files import PAIR, WebFiles

SIGNALS = [signal.SIGTERM, signal.SIGINT]
COMMANDS = ["--sync.once", "--config.check"]
INTERRUPTED = 130

WRONG: list[dict[str, Any]] = [{"name": f"wrong-{n}", "personal_key": f"no-such-key-{n}"} for n in range(40)]
"""Accounts whose syncs fail. Their log lines fill a pipe."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount file systems")


class Process:
    """The program, with outputs that the test chooses."""

    def __init__(self, popen: "subprocess.Popen[bytes]", port: int) -> None:
        self.popen = popen
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> requests.Response | None:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(self.url + path, timeout=TIMEOUT)
        return None

    def wait_until_ready(self) -> None:
        eventually(lambda: (response := self.get("/-/ready")) is not None and response.ok, "the exporter to be ready")

    def writes_to_a_pipe(self) -> bool:
        """Return True if the program has ended, or one of its threads waits for the reader of a pipe."""
        tasks = Path(f"/proc/{self.popen.pid}/task").glob("*/wchan")
        return self.popen.poll() is not None or any("pipe_write" in task.read_text() for task in tasks)

    def stop(self, number: int) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(TIMEOUT)


@contextlib.contextmanager
def started(*arguments: str, stdout: Any = None, stderr: Any = None, **variables: str) -> Iterator[Process]:
    port = free_port()
    popen = subprocess.Popen(
        [sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}", *arguments],
        env=environment(**variables),
        stdout=subprocess.DEVNULL if stdout is None else stdout,
        stderr=subprocess.DEVNULL if stderr is None else stderr,
    )
    try:
        yield Process(popen, port)
    finally:
        popen.kill()
        popen.wait()


class Pipe:
    """A full pipe without a reader."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writing, b"\n")
        os.set_blocking(self.writing, True)
        self.text = ""
        self._reader = threading.Thread(target=self._read)

    def read(self) -> None:
        """Start reading. Call it after the start of the program."""
        os.close(self.writing)
        self._reader.start()

    def rest(self) -> list[str]:
        """Return all lines after the end of the program."""
        self._reader.join(TIMEOUT)
        return self.text.split("\n")[4096:-1]

    def close(self) -> None:
        for descriptor in (self._reading, self.writing):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _read(self) -> None:
        while part := os.read(self._reading, 2**16):
            self.text += part.decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def stopped_terminal() -> Iterator[int]:
    """A terminal whose output was stopped with Ctrl+S."""
    master, slave = pty.openpty()
    termios.tcflow(slave, termios.TCOOFF)
    yield slave
    os.close(slave)
    os.close(master)


# Outputs without a reader


@pytest.mark.parametrize("number", SIGNALS)
def test_full_pipe_blocks_no_syncs_and_signals(address: Address, tmp_path: Path, pipe: Pipe, number: int) -> None:
    path = configuration(tmp_path, address.url, [*WRONG, HOME])
    with started(f"--config.file={path}", stdout=pipe.writing, stderr=pipe.writing) as process:
        process.wait_until_ready()
        metrics = process.get("/metrics")
        assert metrics
        assert 'tedee_up{account="home"} 1.0' in metrics.text
        assert metrics.text.count('tedee_up{account="wrong-') == len(WRONG)
        assert process.writes_to_a_pipe()
        assert process.stop(number) == 0


def test_dropped_log_lines_are_counted(address: Address, tmp_path: Path, pipe: Pipe) -> None:
    path = configuration(tmp_path, address.url, [*WRONG, HOME])
    port = free_port()
    # A queue of two or three lines, instead of about 5,000.
    program = (
        "from exporter.console import OUTPUT; OUTPUT._max_pending = 1_000; from exporter.__main__ import main; main()"
    )
    arguments = [f"--config.file={path}", f"--web.listen-address=127.0.0.1:{port}"]
    popen = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, env=environment(), stderr=pipe.writing
    )
    try:
        process = Process(popen, port)
        process.wait_until_ready()

        def dropped() -> bool:
            metrics = process.get("/metrics")
            found = metrics and re.search(r"^tedee_exporter_log_lines_dropped_total (\S+)", metrics.text, re.MULTILINE)
            return isinstance(found, re.Match) and float(found[1]) >= len(WRONG) - 3

        eventually(dropped, "the number of dropped lines")
        assert 'tedee_up{account="home"} 1.0' in requests.get(f"{process.url}/metrics", timeout=TIMEOUT).text
        pipe.read()
        assert process.stop(signal.SIGTERM) == 0
    finally:
        popen.kill()
        popen.wait()
    assert any("log lines were dropped because standard error was blocked" in line for line in pipe.rest())


@pytest.mark.parametrize("number", SIGNALS)
def test_stopped_terminal_blocks_no_syncs_and_signals(stopped_terminal: int, number: int) -> None:
    with started("--demo", stdout=stopped_terminal, stderr=stopped_terminal) as process:
        process.wait_until_ready()
        assert process.stop(number) == 0


def test_log_lines_arrive_once_the_pipe_is_read(address: Address, tmp_path: Path, pipe: Pipe) -> None:
    path = configuration(tmp_path, address.url, [*WRONG, HOME])
    with started(f"--config.file={path}", "--log.format=json", stderr=pipe.writing) as process:
        process.wait_until_ready()
        pipe.read()
        assert process.stop(signal.SIGTERM) == 0
        lines = [json.loads(line) for line in pipe.rest()]
    assert [line["ts"] for line in lines] == sorted(line["ts"] for line in lines)
    assert {line["account"] for line in lines if line["msg"] == "sync failed"} == {each["name"] for each in WRONG}
    assert lines[-1]["msg"] == "stopped"


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", COMMANDS)
def test_signal_interrupts_command_with_blocked_output(
    address: Address, tmp_path: Path, pipe: Pipe, command: str, number: int
) -> None:
    path = configuration(tmp_path, address.url, [HOME])
    with started(f"--config.file={path}", command, stdout=pipe.writing) as process:
        eventually(process.writes_to_a_pipe, "the output to be blocked")
        assert process.stop(number) == INTERRUPTED


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", COMMANDS)
def test_signal_interrupts_command_with_blocked_errors(
    address: Address, tmp_path: Path, pipe: Pipe, command: str, number: int
) -> None:
    path = configuration(tmp_path, address.url, WRONG[:1])
    path.chmod(0o644)  # a warning of both commands
    with started(f"--config.file={path}", command, stderr=pipe.writing) as process:
        eventually(process.writes_to_a_pipe, "the output to be blocked")
        assert process.stop(number) == INTERRUPTED


@pytest.mark.parametrize(("command", "code"), [("--sync.once", 1), ("--config.check", 0)])
def test_command_waits_for_a_slow_reader(address: Address, tmp_path: Path, pipe: Pipe, command: str, code: int) -> None:
    path = configuration(tmp_path, address.url, [*WRONG, HOME])
    path.chmod(0o644)
    with started(f"--config.file={path}", command, stdout=pipe.writing, stderr=pipe.writing) as process:
        eventually(process.writes_to_a_pipe, "the output to be blocked")
        pipe.read()
        assert process.popen.wait(TIMEOUT) == code
        lines = pipe.rest()
    assert f"{path} is accessible to all users" in lines[0]
    if command == "--config.check":
        assert lines[1:] == [f"The configuration is valid; accounts: {', '.join(a['name'] for a in [*WRONG, HOME])}"]
    else:
        # The errors are not logged as well.
        assert [line.partition(":")[0] for line in lines[1 : len(WRONG) + 1]] == [each["name"] for each in WRONG]
        assert [line.split()[0] for line in lines[-6:]] == ["home"] * 6


def test_traceback_of_a_crash_comes_after_the_log(address: Address, tmp_path: Path, pipe: Pipe) -> None:
    path = configuration(tmp_path, address.url, [HOME])
    program = f"""
import sys
from exporter import cli, logs
from exporter.__main__ import main

def crash(*_):
    for number in range(100):
        cli.log.info("before", number=number)
    raise RuntimeError("a bug")

cli._load_configuration = crash
sys.argv = ["tedee-exporter", "--config.file={path}", "--sync.once"]
main()
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment(), stderr=pipe.writing)
    pipe.read()
    assert process.wait(TIMEOUT) == 1
    *before, last = pipe.rest()
    assert last == "RuntimeError: a bug"
    assert [line for line in before if "msg=before" in line] == before[:100]
    assert before[100] == "Traceback (most recent call last):"


# Files that block


def open_for_writing(fifo: Path) -> int | None:
    """Return the writing end of a FIFO; None while no other process opens the reading end."""
    with contextlib.suppress(OSError):
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    return None


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("arguments", "code"), [([], 0), *[([command], INTERRUPTED) for command in COMMANDS]])
def test_signal_ends_the_wait_for_a_pipe(tmp_path: Path, arguments: Sequence[str], code: int, number: int) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with started(f"--config.file={fifo}", *arguments) as process:
        descriptor = eventually(lambda: open_for_writing(fifo), "the program to open the pipe")
        assert process.stop(number) == code
        os.close(descriptor)


def test_configuration_may_be_a_pipe_at_the_start(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"accounts: [{name: home, personal_key: simulated-key-home}]\n")
    os.close(writing)
    ended = subprocess.run(
        [sys.executable, "-m", "exporter", "--config.check", f"--config.file=/dev/fd/{reading}"],
        env=environment(),
        pass_fds=[reading],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    os.close(reading)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "The configuration is valid; accounts: home\n", "")


def test_reload_rejects_a_pipe(address: Address, tmp_path: Path) -> None:
    path = configuration(tmp_path, address.url, [HOME])
    with running(f"--config.file={path}") as exporter:
        exporter.wait_until_ready()
        path.unlink()
        os.mkfifo(path)
        exporter.process.send_signal(signal.SIGHUP)
        eventually(lambda: exporter.value("tedee_exporter_config_last_reload_successful") == 0, "the failed reload")
        with ThreadPoolExecutor(50) as clients:
            reload = partial(requests.post, f"{exporter.url}/-/reload", timeout=TIMEOUT)
            responses = [each.result() for each in [clients.submit(reload) for _ in range(50)]]
        refusal = f"not reloaded: {path}: is not a regular file; other files can be read only at the start\n"
        assert {(response.status_code, response.text) for response in responses} == {(500, refusal)}
        assert exporter.get("/").ok
        assert exporter.value("tedee_up", account="home") == 1
        assert exporter.stop() == 0
        assert not [line for line in exporter.log if "Traceback" in line]


@pytest.fixture
def hanging() -> Iterator[Path]:
    """A file on a file system that never responds, like that of a server that is down."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        pytest.skip("there is no /dev/fuse")
    folder = tempfile.mkdtemp(prefix="tedee-exporter-tests-")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    if libc.mount(b"none", folder.encode(), b"fuse", 0, options.encode()):
        pytest.skip(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    yield Path(folder, "file")
    libc.umount2(folder.encode(), 2)
    os.close(device)
    Path(folder).rmdir()


def hangs(process: "subprocess.Popen[Any]") -> bool:
    """Return True if a thread waits for the file system that never responds.

    Its state would not be enough: a program that starts also waits for the disk.
    """
    tasks = Path(f"/proc/{process.pid}/task").glob("*/wchan")
    return any("fuse" in name or name.startswith("request_wait") for name in (task.read_text() for task in tasks))


@as_root
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("arguments", "code"), [([], 0), *[([command], INTERRUPTED) for command in COMMANDS]])
def test_signal_ends_the_wait_for_a_hanging_file(
    hanging: Path, arguments: Sequence[str], code: int, number: int
) -> None:
    with started(f"--config.file={hanging}", *arguments) as process:
        eventually(lambda: hangs(process.popen), "the program to hang")
        assert process.stop(number) == code


@as_root
def test_signal_ends_the_wait_for_a_hanging_state_file(hanging: Path, address: Address) -> None:
    variables = {"TEDEE_PERSONAL_KEY": HOME["personal_key"], "TEDEE_API_URL": address.url}
    with started(TEDEE_STATE_FILE=str(hanging), **variables) as process:
        eventually(lambda: hangs(process.popen), "the program to hang")
        assert process.stop(signal.SIGTERM) == 0


@as_root
def test_hanging_reload_does_not_stop_the_exporter(hanging: Path, address: Address, tmp_path: Path) -> None:
    path = configuration(tmp_path, address.url, [HOME])
    with running(f"--config.file={path}") as exporter:
        exporter.wait_until_ready()
        path.unlink()
        path.symlink_to(hanging)
        exporter.process.send_signal(signal.SIGHUP)
        with ThreadPoolExecutor(50) as clients:
            waiting = [clients.submit(requests.post, f"{exporter.url}/-/reload", timeout=TIMEOUT) for _ in range(50)]
            eventually(lambda: hangs(exporter.process), "the reload to hang")
            assert exporter.get("/").ok
            assert exporter.value("tedee_up", account="home") == 1
            assert {each.result().status_code for each in waiting} == {503}
        eventually(lambda: exporter.value("tedee_exporter_config_last_reload_successful") == 0, "the metric")
        eventually(lambda: [line for line in exporter.log if "reload is stuck" in line], "the log")
        assert exporter.stop() == 0


# Encodings


POSIX = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, r"K\xfcche \U0001f511"),
        ({"PYTHONIOENCODING": "latin-1:strict"}, "Küche \\U0001f511"),
        (POSIX, r"K\xfcche \U0001f511"),
    ],
    ids=["ascii", "latin-1", "POSIX"],
)
def test_characters_outside_the_encoding_are_escaped(
    cloud: Cloud, address: Address, tmp_path: Path, variables: dict[str, str], shown: str
) -> None:
    cloud.world.account("home").lock(1002).rename("Küche 🔑")
    wrong = {"name": "Küche 🔑", "personal_key": "no-such-key"}
    for accounts, arguments, code in (
        ([HOME], ["--sync.once"], 0),
        ([wrong], ["--sync.once", "--log.format=json"], 1),
        ([wrong], ["--config.check"], 0),
    ):
        path = configuration(tmp_path, address.url, accounts)
        ended = subprocess.run(
            [sys.executable, "-m", "exporter", f"--config.file={path}", *arguments],
            env=environment(**variables),
            capture_output=True,
            encoding="latin-1",
            timeout=TIMEOUT,
            check=False,
        )
        output = ended.stdout + ended.stderr
        assert ended.returncode == code, output
        assert shown in output
        assert "Traceback" not in output
        for line in ended.stderr.splitlines():
            if line.startswith("{"):
                assert json.loads(line)["account"] == "Küche 🔑"


# A machine without /proc


@as_root
def test_tls_works_without_proc(tmp_path: Path) -> None:
    web = WebFiles(tmp_path)
    file = web.write(tls_server_config=PAIR)
    without_proc = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    with running("--demo", f"--web.config.file={file}", prefix=without_proc) as exporter:
        url = f"https://localhost:{exporter.port}/-/healthy"

        def is_trusted(authority: str) -> bool:
            with contextlib.suppress(requests.exceptions.SSLError):
                return requests.get(url, verify=str(web.folder / authority), timeout=TIMEOUT).ok
            return False

        assert is_trusted("ca.pem")
        other = trustme.CA()
        web.put("other.pem", other.cert_pem.bytes())
        web.issue(other)
        eventually(lambda: is_trusted("other.pem"), "the new certificate")
        assert exporter.stop() == 0
    assert not [line for line in exporter.log if "Traceback" in line]


# Few files


def at_most(files: int, kind: str = "") -> list[str]:
    """Return a command that runs another one with a limit of open files."""
    return ["sh", "-c", f'ulimit {kind} -n {files} && exec "$@"', "sh"]


@pytest.mark.parametrize("limit", [12, 14, 16, 18, 31])
@pytest.mark.parametrize("arguments", [["--demo"], ["--demo", "--sync.once"], ["--config.check"]], ids=str)
def test_too_low_file_limit_is_an_error(limit: int, arguments: Sequence[str]) -> None:
    ended = subprocess.run(
        [*at_most(limit), sys.executable, "-m", "exporter", *arguments],
        env=environment(TEDEE_PERSONAL_KEY="" if "--demo" in arguments else "a-key-that-is-good"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    message = (
        f"tedee-exporter: the limit of open files is {limit}, but at least 32 are needed; "
        "raise it (ulimit -n, or LimitNOFILE= in a systemd unit)\n"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", message)


def test_soft_file_limit_is_raised() -> None:
    with running("--demo", prefix=at_most(16, "-S")) as exporter:
        exporter.wait_until_ready()
        assert resource.prlimit(exporter.process.pid, resource.RLIMIT_NOFILE)[0] == 32
        assert exporter.stop() == 0


def test_lowest_file_limit_is_enough(address: Address, tmp_path: Path) -> None:
    web = WebFiles(tmp_path)
    path, file = configuration(tmp_path, address.url, [HOME]), web.write(tls_server_config=PAIR)
    with (
        running(f"--config.file={path}", f"--web.config.file={file}", prefix=at_most(32)) as exporter,
        contextlib.ExitStack() as idle,
    ):
        url, trusted = f"https://localhost:{exporter.port}", str(web.folder / "ca.pem")
        for _ in range(100):
            session = idle.enter_context(requests.Session())
            assert session.get(f"{url}/metrics", verify=trusted, timeout=TIMEOUT).ok
        for method, page in (("GET", "/"), ("GET", "/docs"), ("POST", "/-/reload")):
            assert requests.request(method, url + page, verify=trusted, timeout=TIMEOUT).ok
        assert exporter.stop() == 0
        assert not [line for line in exporter.log if "level=error" in line or "level=warn" in line]


def test_exhausted_file_limit_does_not_stop_the_exporter(address: Address, tmp_path: Path) -> None:
    path = configuration(tmp_path, address.url, [HOME], state_file=str(tmp_path / "state.db"))
    with running(f"--config.file={path}") as exporter, requests.Session() as scraper:
        exporter.wait_until_ready()
        url, process = exporter.url, exporter.process.pid
        assert scraper.get(f"{url}/metrics", timeout=TIMEOUT).ok
        limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
        resource.prlimit(process, resource.RLIMIT_NOFILE, (3, limits[1]))
        assert scraper.get(f"{url}/metrics", timeout=TIMEOUT).ok
        for page in ("/", "/docs"):
            response = scraper.get(url + page, timeout=TIMEOUT)
            assert (response.status_code, response.text) == (503, "temporarily unavailable: Too many open files\n")
        response = scraper.post(f"{url}/-/reload", timeout=TIMEOUT)
        assert (response.status_code, response.text) == (
            500,
            f"not reloaded: {path}: cannot be read: Too many open files\n",
        )
        resource.prlimit(process, resource.RLIMIT_NOFILE, limits)
        for page in ("/", "/docs", "/metrics", "/-/healthy"):
            assert exporter.get(page).ok
        assert requests.post(f"{url}/-/reload", timeout=TIMEOUT).ok
        assert exporter.stop() == 0
    assert not [line for line in exporter.log if "Traceback" in line]


def test_closed_standard_output_is_a_failure(address: Address) -> None:
    # As after `exec 1>&-`.
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "exporter", "--sync.once"],
        env=environment(TEDEE_PERSONAL_KEY=HOME["personal_key"], TEDEE_API_URL=address.url),
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (1, "")


def test_full_standard_output_is_a_failure(address: Address) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "exporter", "--sync.once"],
            env=environment(TEDEE_PERSONAL_KEY=HOME["personal_key"], TEDEE_API_URL=address.url),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (1, "")
