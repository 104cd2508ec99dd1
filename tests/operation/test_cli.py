"""Flags and exit codes, and what stands on the screen when it cannot start."""

import platform
import re
import socket

import pytest

from exporter import __version__
from exporter.cli import HOW_TO_START, main

from .conftest import SECRET, TESTDATA, Program

FLAGS = [
    "--config.check",
    "--config.file",
    "--demo",
    "--help",
    "--log.format",
    "--log.level",
    "--shard",
    "--sync.once",
    "--version",
    "--web.config.file",
    "--web.listen-address",
    "--web.telemetry-path",
]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The last line of what is told about flags that are refused."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()[-1]


def test_without_configuration_three_lines_say_what_to_do(program: Program) -> None:
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


def test_a_bad_file_keeps_it_from_starting(program: Program) -> None:
    path = TESTDATA / "bad" / "misspelt-key.yml"
    ended = program(f"--config.file={path}", "--web.listen-address=127.0.0.1:0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"{path}:5: sync.intervall: unknown key; did you mean 'interval'?\n"


def test_the_version_is_that_of_the_package(program: Program) -> None:
    ended = program("--version")
    assert ended.returncode == 0
    assert ended.stdout == f"tedee-exporter, version {__version__} (python {platform.python_version()})\n"


def test_help_names_every_flag_and_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert sorted(re.findall(r"^  (?:-h, )?(--[\w.-]+)", out, re.MULTILINE)) == FLAGS
    assert set(re.findall(r"TEDEE_\w+", out)) == {
        "TEDEE_STATE_FILE",
        "TEDEE_ACCESS_TOKEN",
        "TEDEE_ACCESS_TOKEN_FILE",
        "TEDEE_ACCOUNT",
        "TEDEE_API_URL",
        "TEDEE_API_VERSION",
        "TEDEE_PERSONAL_KEY",
        "TEDEE_PERSONAL_KEY_FILE",
        "TEDEE_SYNC_INTERVAL",
    }


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "--demo", "--sync.often") == "tedee-exporter: error: unrecognized arguments: --sync.often"


def test_a_flag_cannot_be_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    # What is short for one flag today may be short for two tomorrow.
    assert refused(capsys, "--config.che") == "tedee-exporter: error: unrecognized arguments: --config.che"


@pytest.mark.parametrize(("flag", "value"), [("--log.level", "loud"), ("--log.format", "xml")])
def test_a_value_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    assert f"argument {flag}: invalid choice: '{value}'" in refused(capsys, flag, value)


@pytest.mark.parametrize(
    "address",
    ["", "10333", "localhost", ":", ":http", ":65536", ":-1", "::1:10333", "[::1]", "http://host:1", "a b:1"],
)
def test_an_address_of_another_form_is_refused(capsys: pytest.CaptureFixture[str], address: str) -> None:
    assert refused(capsys, f"--web.listen-address={address}") == (
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
def test_a_path_that_cannot_be_that_of_the_metrics_is_refused(capsys: pytest.CaptureFixture[str], path: str) -> None:
    assert refused(capsys, f"--web.telemetry-path={path}") == (
        f"tedee-exporter: error: argument --web.telemetry-path: {path!r} is not a path of its own, such as /metrics"
    )


def test_a_port_in_use_is_told_in_a_sentence(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody_else:
        address = f"127.0.0.1:{somebody_else.getsockname()[1]}"
        ended = program(f"--web.listen-address={address}", TEDEE_PERSONAL_KEY=SECRET)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"tedee-exporter: cannot listen on {address}: Address already in use; "
        "choose another with --web.listen-address\n"
    )


@pytest.mark.parametrize(
    ("address", "why"),
    [("192.0.2.1:10333", "Cannot assign requested address"), ("a..b:10333", "not a host name")],
)
def test_an_address_that_is_not_of_this_machine_is_told_in_a_sentence(program: Program, address: str, why: str) -> None:
    ended = program(f"--web.listen-address={address}", TEDEE_PERSONAL_KEY=SECRET)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"tedee-exporter: cannot listen on {address}: {why}; choose another with --web.listen-address\n"
    )


def test_one_sync_of_a_shard_without_accounts_says_so_in_a_sentence_and_ends_with_0(program: Program) -> None:
    ended = program("--sync.once", "--shard=0/3", TEDEE_PERSONAL_KEY=SECRET)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == (
        "Nothing to sync: shard 0/3 holds none of the configured accounts; "
        "--config.check with another --shard says which that one holds.\n"
    )
