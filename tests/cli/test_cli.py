"""Flags, exit codes, and messages if the program cannot start."""

import platform
import re
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from itertools import takewhile
from pathlib import Path

import pytest
import requests

from exporter import __version__
from exporter.cli import HOW_TO_START, SOCKET_UNIT, main
from exporter.config.model import BEGINS_WITH_TILDE
from exporter.simulator import World
from testing.program import ROOT, TIMEOUT, environment, running

from .conftest import SECRET, TESTDATA, Program

FLAGS = {
    "--config.check": "",
    "--config.file": "tedee.yml",
    "--demo": "",
    "--help": "",
    "--log.format": "json",
    "--log.level": "info",
    "--shard": "0/2",
    "--sync.once": "",
    "--version": "",
    "--web.config.file": "web.yml",
    "--web.external-url": "https://example.org/tedee",
    "--web.listen-address": ":10333",
    "--web.route-prefix": "/tedee",
    "--web.systemd-socket": "",
    "--web.telemetry-path": "/metrics",
}
"""All flags, each with a value if it takes one."""


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the last line of the error about invalid flags."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()[-1]


def test_missing_configuration_prints_three_lines_of_help(program: Program) -> None:
    ended = program()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"{HOW_TO_START}\n"
    assert len(ended.stderr.splitlines()) == 3
    assert set(re.findall(r"TEDEE_\w+|--\w+(?:\.\w+)*", ended.stderr)) == {
        "TEDEE_PERSONAL_KEY",
        "TEDEE_PERSONAL_KEY_FILE",
        "--config.file",
        "--demo",
    }


def test_misspelt_key_variable_gets_a_suggestion(program: Program) -> None:
    ended = program(TEDEE_PERSONALKEY=SECRET, TEDEE_EXPORTER_SERVICE_HOST="10.0.0.7")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.removeprefix(f"{HOW_TO_START}\n") == (
        "environment: TEDEE_PERSONALKEY: unknown variable; did you mean TEDEE_PERSONAL_KEY?\n"
    )


@pytest.mark.parametrize("flag", ["--config.check", "--sync.once"])
def test_misspelt_variable_causes_a_warning(program: Program, flag: str) -> None:
    ended = program(flag, "--shard=0/3", TEDEE_PERSONAL_KEY=SECRET, TEDEE_SYNC_INTERVALL="5m")
    assert ended.returncode == 0
    assert "environment: TEDEE_SYNC_INTERVALL: unknown variable; did you mean TEDEE_SYNC_INTERVAL?" in ended.stderr
    assert SECRET not in ended.stderr


def test_demo_warns_about_unused_variables(program: Program) -> None:
    ended = program("--demo", "--sync.once", TEDEE_PERSONAL_KEY=SECRET)
    assert "environment: TEDEE_PERSONAL_KEY: has no effect with --demo" in ended.stderr
    # One account of the demo fails.
    assert ended.returncode == 1
    assert [line for line in ended.stderr.splitlines() if line.startswith("office: my/lock/sync: HTTP 401")]
    for table in ended.stdout.split("\n\n"):
        assert {row.split()[0] for row in table.splitlines()[2:]} == {"home", "hotel", "flats", "cabin"}


def demo_guide(address: str) -> list[str]:
    """Return the lines that the demo prints if it listens on an address."""
    command = [sys.executable, "-m", "exporter", "--demo", f"--web.listen-address={address}"]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        lines = list(takewhile(lambda line: "Press Ctrl+C" not in line, process.stdout))
        process.terminate()
        assert process.wait(TIMEOUT) == 0
    return lines


@pytest.mark.parametrize("address", ["0.0.0.0:0", ":0", "[::]:0", "[0::0]:0"])
def test_demo_prints_that_other_machines_can_open_it(address: str) -> None:
    lines = demo_guide(address)
    printed = "".join(lines)
    assert re.findall(r"http://localhost:[1-9]\d+(/\S*)", printed) == ["/", "/metrics", "/docs"]
    assert "The demo listens on all addresses." in printed
    assert max(map(len, lines)) <= 120


def test_demo_prints_urls_and_what_to_look_at() -> None:
    lines = demo_guide("127.0.0.1:0")
    printed = "".join(lines)
    assert re.findall(r"http://127\.0\.0\.1:[1-9]\d+(/\S*)", printed) == ["/", "/metrics", "/docs"]
    assert "all addresses" not in printed
    for account in World.demo().accounts:
        assert f"    {account.name} " in printed
        for text in account.highlights:
            assert text in printed
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(
    ("arguments", "address"), [(["--demo"], "127.0.0.1:10333"), ([], ":10333")], ids=["demo", "real"]
)
def test_default_listen_address(program: Program, arguments: list[str], address: str) -> None:
    with ExitStack() as stack:
        with suppress(OSError):  # another process has the port
            stack.enter_context(socket.create_server(("", 10333)))
        ended = program(*arguments, TEDEE_PERSONAL_KEY=SECRET)
    assert ended.returncode == 1
    assert f"tedee-exporter: cannot listen on {address}: Address already in use; " in ended.stderr


def test_invalid_file_prevents_the_start(program: Program) -> None:
    path = TESTDATA / "bad" / "misspelt-key.yml"
    ended = program(f"--config.file={path}", "--web.listen-address=127.0.0.1:0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"{path}:5: sync.intervall: unknown key; did you mean 'interval'?\n"


def test_version_flag_prints_the_package_version(program: Program) -> None:
    ended = program("--version")
    assert ended.returncode == 0
    assert ended.stdout == f"tedee-exporter, version {__version__} (python {platform.python_version()})\n"


def test_help_lists_every_flag_and_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert sorted(re.findall(r"^  (?:-h, )?(--[\w.-]+)", out, re.MULTILINE)) == list(FLAGS)
    assert set(re.findall(r"TEDEE_\w+", out)) == {
        "TEDEE_STATE_FILE",
        "TEDEE_STATE_URL",
        "TEDEE_STATE_URL_FILE",
        "TEDEE_ACCESS_TOKEN",
        "TEDEE_ACCESS_TOKEN_FILE",
        "TEDEE_ACCOUNT",
        "TEDEE_API_URL",
        "TEDEE_API_VERSION",
        "TEDEE_DEVICES_INTERVAL",
        "TEDEE_EVENTS",
        "TEDEE_PERSONAL_KEY",
        "TEDEE_PERSONAL_KEY_EXPIRES",
        "TEDEE_PERSONAL_KEY_FILE",
        "TEDEE_SYNC_INTERVAL",
    }


def test_each_unknown_flag_has_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    message = usage_error(capsys, "word", "--log.level2=debug", "--config.fil=x")
    assert message.endswith("; did you mean --log.level and --config.file?")


def test_value_of_a_switch_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert usage_error(capsys, "--demo=true").endswith("argument --demo: takes no value, but has 'true'")


def test_url_in_help_is_not_broken(program: Program) -> None:
    assert (
        "See\nhttps://github.com/tedee-exporter/tedee-exporter/blob/main/docs/configuration.md" in program("-h").stdout
    )


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--sync.often", "; did you mean --sync.once?"),
        ("--listen-address=:1", "; did you mean --web.listen-address?"),
        ("-config.file=x", "; did you mean --config.file?"),
        ("--log-level=debug", "; did you mean --log.level?"),
        # An abbreviation of one flag becomes ambiguous when a flag is added.
        ("--config.che", "; did you mean --config.check?"),
        ("--unlike-any", ""),
        ("--web.disable-exporter-metrics", ""),
        ("--web.config=web.yml", "; did you mean --web.config.file?"),
        ("word", ""),
    ],
)
def test_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str], flag: str, hint: str) -> None:
    message = usage_error(capsys, "--demo", flag)
    assert message == f"tedee-exporter: error: unrecognized arguments: {flag}{hint}"


@pytest.mark.parametrize(
    ("flag", "value"),
    [(flag, value) for flag, value in FLAGS.items() if flag not in {"--help", "--version", "--web.listen-address"}],
)
def test_repeated_flag_is_refused(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    given = f"{flag}={value}" if value else flag
    message = usage_error(capsys, given, given)
    assert message == f"tedee-exporter: error: argument {flag}: given 2 times; give it once"


def test_repeated_flag_is_refused_in_both_forms(capsys: pytest.CaptureFixture[str]) -> None:
    message = usage_error(capsys, "--log.level", "info", "--log.level=debug")
    assert message == "tedee-exporter: error: argument --log.level: given 2 times; give it once"


def test_check_and_sync_once_cannot_be_combined(capsys: pytest.CaptureFixture[str]) -> None:
    message = usage_error(capsys, "--config.check", "--sync.once")
    assert message == "tedee-exporter: error: --config.check and --sync.once cannot be combined"


@pytest.mark.parametrize("flag", ["--config.file", "--web.config.file"])
def test_tilde_in_a_file_flag_is_refused(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    message = usage_error(capsys, f"{flag}=~/tedee.yml")
    assert message == f"tedee-exporter: error: argument {flag}: {BEGINS_WITH_TILDE}"


@pytest.mark.parametrize("level", ["warning", "WARN", "Warning", "DEBUG", "error"])
def test_log_level_is_case_insensitive(program: Program, level: str) -> None:
    ended = program("--config.check", f"--log.level={level}", TEDEE_PERSONAL_KEY=SECRET)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(("flag", "value"), [("--log.level", "loud"), ("--log.format", "xml")])
def test_invalid_choice_is_refused(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    assert f"argument {flag}: invalid choice: '{value}'" in usage_error(capsys, flag, value)


@pytest.mark.parametrize(
    "address",
    ["", "10333", "localhost", ":", ":http", ":65536", ":-1", "::1:10333", "[::1]", "http://host:1", "a b:1"],
)
def test_invalid_listen_address_is_refused(capsys: pytest.CaptureFixture[str], address: str) -> None:
    assert usage_error(capsys, f"--web.listen-address={address}") == (
        f"tedee-exporter: error: argument --web.listen-address: {address!r} "
        "is not of the form :10333, 127.0.0.1:10333 or [::1]:10333"
    )


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//metrics",
        "metrics",
        "/metrics/",
        "/{name}",
        "/metrics?all",
        "/my metrics",
        "/%6Detrics",
        "/-/ready",
        "/-/metrics",
        "/docs",
    ],
)
def test_invalid_telemetry_path_is_refused(capsys: pytest.CaptureFixture[str], path: str) -> None:
    assert usage_error(capsys, f"--web.telemetry-path={path}") == (
        f"tedee-exporter: error: argument --web.telemetry-path: {path!r} cannot be the path of the metrics; "
        "choose one such as /metrics"
    )


def test_port_in_use_is_reported_in_one_sentence(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ended = program(f"--web.listen-address={address}", TEDEE_PERSONAL_KEY=SECRET)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"tedee-exporter: cannot listen on {address}: Address already in use; "
        "choose another address with --web.listen-address\n"
    )


def test_socket_activation_is_named_if_the_port_is_in_use() -> None:
    # systemd sets LISTEN_PID to the process id, which only the process itself knows.
    start = (
        "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); from exporter.cli import main; sys.exit(main())"
    )
    with socket.create_server(("127.0.0.1", 0)) as systemd:
        address = f"127.0.0.1:{systemd.getsockname()[1]}"
        ended = subprocess.run(
            [sys.executable, "-c", start, f"--web.listen-address={address}"],
            cwd=ROOT,
            env={"TEDEE_PERSONAL_KEY": SECRET, "LISTEN_FDS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
    assert ended.returncode == 1
    assert ended.stderr == (
        f"tedee-exporter: cannot listen on {address}: Address already in use; "
        f"choose another address with --web.listen-address; {SOCKET_UNIT}\n"
    )


ACTIVATE = """
import fcntl, os, sys
sockets = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 50) for number in sys.argv[1].split(",")]
for number, each in enumerate(sockets, 3):
    os.dup2(each, number)
os.environ.update(LISTEN_FDS=str(len(sockets)), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Passes file descriptors to a program as systemd does: as number 3 and the next ones."""


def activate(*numbers: int) -> list[str]:
    return [sys.executable, "-c", ACTIVATE, ",".join(map(str, numbers))]


def test_program_serves_on_the_sockets_of_systemd() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ipv4, ipv6_server() as ipv6:
        numbers = [ipv4.fileno(), ipv6.fileno()]
        urls = [f"http://127.0.0.1:{ipv4.getsockname()[1]}", f"http://[::1]:{ipv6.getsockname()[1]}"]
        with running("--demo", "--web.systemd-socket", prefix=activate(*numbers), pass_fds=numbers) as exporter:
            exporter.wait_until_ready()
            for url in urls:
                assert requests.get(f"{url}/-/healthy", timeout=TIMEOUT).ok
            assert exporter.stop() == 0
        # systemd keeps the sockets open, so that clients wait while the service restarts.
        with running("--demo", "--web.systemd-socket", prefix=activate(*numbers), pass_fds=numbers) as exporter:
            assert requests.get(f"{urls[0]}/-/healthy", timeout=TIMEOUT).ok
            assert exporter.stop() == 0
    logged = [re.search(r"msg=listening address=(\S+)", line) for line in exporter.log]
    assert ["http://" + each[1].strip('"') for each in logged if each] == urls
    assert not [line for line in exporter.log if "level=warn" in line or "Traceback" in line]


def ipv6_server() -> socket.socket:
    return socket.create_server(("::1", 0), family=socket.AF_INET6)


@pytest.mark.parametrize("number", ["", "0"])
def test_systemd_socket_flag_without_sockets_is_refused(program: Program, number: str) -> None:
    ended = program("--web.systemd-socket", TEDEE_PERSONAL_KEY=SECRET, LISTEN_FDS=number)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "--web.systemd-socket: systemd passed no sockets (LISTEN_FDS); start the exporter by its .socket unit\n"
    )


@pytest.mark.parametrize("kind", ["connected", "datagram", "Unix", "file"])
def test_unsuitable_socket_of_systemd_is_refused(kind: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        if kind == "connected":
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            number = stack.enter_context(socket.create_connection(server.getsockname())).fileno()
        elif kind == "datagram":
            number = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).fileno()
        elif kind == "Unix":
            unix = stack.enter_context(socket.socket(socket.AF_UNIX))
            unix.bind(str(tmp_path / "socket"))
            unix.listen()
            number = unix.fileno()
        else:
            number = stack.enter_context((tmp_path / "file").open("w")).fileno()
        ended = subprocess.run(
            [*activate(number), sys.executable, "-m", "exporter", "--demo", "--web.systemd-socket"],
            env=environment(),
            pass_fds=[number],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "--web.systemd-socket: socket 3 of systemd is not a listening TCP socket; the .socket unit needs "
    )


def test_systemd_socket_and_listen_address_cannot_be_combined(capsys: pytest.CaptureFixture[str]) -> None:
    message = usage_error(capsys, "--web.systemd-socket", "--web.listen-address=:10333")
    assert message == ("tedee-exporter: error: --web.systemd-socket and --web.listen-address cannot be combined")


def test_program_listens_on_each_address_and_logs_it() -> None:
    addresses = ["127.0.0.1:0", "[::1]:0"]
    with running("--demo", *(f"--web.listen-address={each}" for each in addresses)) as exporter:
        exporter.wait_until_ready()
        logged = [re.search(r"msg=listening address=(\S+) port=(\d+)", line) for line in exporter.log]
        listening = {each[1].strip('"'): int(each[2]) for each in logged if each}
        assert list(listening) == addresses
        for address, port in listening.items():
            url = f"http://{address.rpartition(':')[0]}:{port}/-/healthy"
            assert requests.get(url, timeout=TIMEOUT).ok
        assert exporter.stop() == 0
    (starting,) = [line for line in exporter.log if "msg=starting" in line]
    assert f" version={__version__} accounts=5 interval=20s api_version=v37 state=memory " in starting


def test_start_names_the_state_file(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    with running(TEDEE_PERSONAL_KEY=SECRET, TEDEE_API_URL="http://127.0.0.1:1", TEDEE_STATE_FILE=str(file)) as exporter:
        assert exporter.port
        assert exporter.stop() == 0
    (starting,) = [line for line in exporter.log if "msg=starting" in line]
    assert f" accounts=1 interval=20s api_version=v37 state={file} " in starting


def test_second_address_in_use_is_reported(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        ended = program("--web.listen-address=127.0.0.1:0", f"--web.listen-address={taken}", TEDEE_PERSONAL_KEY=SECRET)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"tedee-exporter: cannot listen on {taken}: Address already in use; ")


@pytest.mark.parametrize(
    ("address", "reason"),
    [("192.0.2.1:10333", "Cannot assign requested address"), ("a..b:10333", "not a host name")],
)
def test_foreign_address_is_reported_in_one_sentence(program: Program, address: str, reason: str) -> None:
    ended = program(f"--web.listen-address={address}", TEDEE_PERSONAL_KEY=SECRET)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"tedee-exporter: cannot listen on {address}: {reason}; choose another address with --web.listen-address\n"
    )


def test_sync_once_of_an_empty_shard_succeeds(program: Program) -> None:
    ended = program("--sync.once", "--shard=0/3", TEDEE_PERSONAL_KEY=SECRET)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == (
        "Nothing to sync: shard 0/3 has none of the configured accounts; "
        "--config.check lists the accounts of another --shard.\n"
    )
