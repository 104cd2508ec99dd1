"""Error messages do not repeat a secret that was put in the wrong place."""

import traceback
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.config import ConfigurationError
from exporter.config.yaml_source import read_file
from exporter.secrets import Secret, SecretDetector
from exporter.tedee.secret_source import CredentialsUnavailable, read_secret
from testing.program import configuration, run
from tests.cli.conftest import restore_logging
from tests.security.secret_search import leaks, state_files
from tests.security.test_secrets import jwt, secret

__all__ = ["restore_logging"]

SECRETS = [
    secret("misplaced"),
    jwt("misplaced"),
    secret("misplaced")[3:40],
    "PK-5ecr3t-0f-home-and-hotel",
    "Zx$9!kd7*pq(2)mn&4%vW;5^tY",
    "correct horse battery staple",
    "abcdefghijklmnopqrstuvwxyz",
]
KINDS = ["key", "token", "plain", "name", "punctuation", "text", "letters"]
"""Secrets with and without punctuation, a long one, one similar to a file name, and secrets that a person or another
service could choose."""

KEY = "accounts:\n  - name: home\n    "
GOOD = f"{KEY}personal_key: another-key\n"

FILES = {
    "name of a key file": f"{KEY}personal_key_file: SECRET",
    "absolute name of a key file": f"{KEY}personal_key_file: /SECRET",
    "name of a token file": f"{KEY}access_token_file: sub/SECRET",
    "name of a client secret file": f"{KEY}oauth: {{client_id: c, refresh_token_file: r, client_secret_file: SECRET}}",
    "name of a refresh token file": f"{KEY}oauth: {{client_id: c, refresh_token_file: SECRET}}",
    "folder of a key file": f"{KEY}personal_key_file: SECRET/key",
    "list": f"{KEY}personal_key: [SECRET]",
    "mapping": f"{KEY}personal_key: {{SECRET: SECRET}}",
    "file name in a list": f"{KEY}personal_key_file: [SECRET]",
    "with white space": f"{KEY}personal_key: SECRET SECRET",
    "with an umlaut": f"{KEY}personal_key: SECRETü",
    "twice": f"{KEY}personal_key: SECRET\n    personal_key: SECRET",
    "two ways": f"{KEY}personal_key: SECRET\n    access_token: SECRET",
    "two accounts": f"{KEY}personal_key: SECRET\n  - name: office\n    personal_key: SECRET",
    "oauth": f"{KEY}oauth: SECRET",
    "a key of oauth": f"{KEY}oauth: {{client_id: c, refresh_token_file: r, refresh_token: SECRET}}",
    "token_url": f"{KEY}oauth: {{client_id: c, refresh_token_file: r, token_url: SECRET}}",
    "user of token_url": f"{KEY}oauth: {{client_id: c, refresh_token_file: r, token_url: 'https://SECRET@host'}}",
    "locks": f"{GOOD}    locks: SECRET",
    "list of locks": f"{GOOD}    locks: [SECRET]",
    "ids": f"{GOOD}    locks: {{ids: [SECRET]}}",
    "serial numbers": f"{GOOD}    locks: {{serial_numbers: [SECRET]}}",
    "serial number": f"{GOOD}    locks: {{serial_numbers: SECRET}}",
    "unknown key": f"{GOOD}    SECRET: 1",
    "unknown key without a value": f"{GOOD}    ? SECRET",
    "unknown section": f"{GOOD}SECRET: {{}}",
    "value of an unknown key": f"{GOOD}key: SECRET",
    "value of a misspelt key": f"{KEY}personal_keys: SECRET",
    "account": "accounts: [SECRET]",
    "accounts": "accounts: SECRET",
    "everything": "SECRET",
    "everything, as a list": "- SECRET",
    "url": f"{GOOD}api: {{url: SECRET}}",
    "host": f"{GOOD}api: {{url: 'https://SECRET:x'}}",
    "user": f"{GOOD}api: {{url: 'https://SECRET@host'}}",
    "path": f"{GOOD}api: {{url: 'https://host/SECRET'}}",
    "version": f"{GOOD}api: {{version: SECRET}}",
    "timeout": f"{GOOD}api: {{timeout: SECRET}}",
    "interval": f"{GOOD}sync: {{interval: SECRET}}",
    "number": f"{GOOD}sync: {{requests_per_hour: SECRET}}",
    "no colon": f"{KEY}SECRET\n    locks: {{}}",
    "no space": f"{KEY}personal_key:SECRET",
    "no space in braces": "accounts: [{name: home, personal_key:SECRET}]",
    "open quote": f'{KEY}personal_key: "SECRET',
    "quote within quotes": f"{KEY}personal_key: 'SECRET'SECRET'",
    "escape": f'{KEY}personal_key: "\\qSECRET"',
    "anchor": f"{KEY}personal_key: &SECRET x",
    "alias": f"{KEY}personal_key: *SECRET",
    "tag": f"{KEY}personal_key: !SECRET x",
    "tag handle": f"{KEY}personal_key: !SECRET!x y",
    "directive": f"%YAML SECRET\n---\n{GOOD}",
    "tag directive": f"%TAG !SECRET! x\n%TAG !SECRET! x\n---\n{GOOD}",
    "reserved character": f"{KEY}personal_key: @SECRET",
    "block": f"{KEY}personal_key: |SECRET",
    "tab": f"{KEY}personal_key:\tSECRET\n\tSECRET",
    "control character": f"{KEY}personal_key: SECRET\x01",
    "second document": f"{GOOD}---\nSECRET",
}


@pytest.mark.usefixtures("restore_logging")
@pytest.mark.parametrize("value", SECRETS, ids=KINDS)
@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_misplaced_secret_in_a_file_is_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, value: str
) -> None:
    path = tmp_path / "tedee.yml"
    path.write_text(content.replace("SECRET", value), "utf-8")
    code = main(["--config.check", f"--config.file={path}", "--log.level=debug"])
    output = "".join(capsys.readouterr())
    assert (code, bool(output)) == (2, True)
    assert leaks({"output": output.encode()}, {value}) == {}


@pytest.mark.parametrize("value", SECRETS, ids=KINDS)
@pytest.mark.parametrize(
    "inserted", [*"&*!%@`|>\"'[]{}?:,#-\t\n\0\\", "!!", "!<", "&a ", "\n%TAG ", "\n---\n", ": ", "- "]
)
def test_yaml_error_anywhere_does_not_repeat_secret(tmp_path: Path, inserted: str, value: str) -> None:
    path = tmp_path / "tedee.yml"
    content = f"{KEY}personal_key: {value}\n"
    errors = []
    for position in range(len(content) + 1):
        path.write_text(content[:position] + inserted + content[position:])
        try:
            read_file(path)
        except ConfigurationError as error:
            errors += error.problems
    # A backslash or a comma has no special meaning in plain text.
    assert errors or inserted in "\\,#-"
    detector = SecretDetector(Secret(value))
    assert [error for error in errors if detector.finds_in(error)] == []


@pytest.mark.usefixtures("restore_logging")
@pytest.mark.parametrize("value", SECRETS, ids=KINDS)
@pytest.mark.parametrize(
    "flags",
    [
        ["SECRET"],
        ["-SECRET"],
        ["--SECRET"],
        ["--personal-key=SECRET"],
        ["--personal-key", "SECRET"],
        ["--demo=SECRET"],
        ["--log.level=SECRET"],
        ["--log.format", "SECRET"],
        ["--web.listen-address=SECRET"],
        ["--web.telemetry-path=SECRET"],
        ["--config.check", "--config.file=SECRET"],
        ["--config.check", "--config.file", "/no/such/folder/SECRET"],
    ],
    ids=" ".join,
)
def test_misplaced_secret_in_a_flag_is_not_repeated(
    capsys: pytest.CaptureFixture[str], flags: list[str], value: str
) -> None:
    try:
        code: object = main([flag.replace("SECRET", value) for flag in flags])
    except SystemExit as ended:
        code = ended.code
    output = "".join(capsys.readouterr())
    assert (code, bool(output)) == (2, True)
    assert leaks({"output": output.encode()}, {value}) == {}


@pytest.mark.usefixtures("restore_logging")
@pytest.mark.parametrize("value", SECRETS, ids=KINDS)
@pytest.mark.parametrize(
    "variable",
    ["TEDEE_PERSONAL_KEY_FILE", "TEDEE_ACCESS_TOKEN_FILE", "TEDEE_API_URL", "TEDEE_API_VERSION", "TEDEE_SYNC_INTERVAL"],
)
def test_misplaced_secret_in_a_variable_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    if not variable.endswith("_FILE"):
        monkeypatch.setenv("TEDEE_PERSONAL_KEY", "another-key")
    monkeypatch.setenv(variable, value)
    assert main(["--config.check"]) == 2
    output = "".join(capsys.readouterr())
    assert leaks({"output": output.encode()}, {value}) == {}


def test_missing_file_that_looks_like_a_key_is_hidden(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, restore_logging: None
) -> None:
    monkeypatch.setenv("TEDEE_PERSONAL_KEY_FILE", f"{tmp_path}/{SECRETS[0]}")
    assert main(["--config.check"]) == 2
    assert capsys.readouterr().err == (
        f"environment: TEDEE_PERSONAL_KEY_FILE: key file {tmp_path}/[hidden: may be a secret] "
        "cannot be read: No such file or directory\n"
    )


def test_traceback_does_not_repeat_a_misplaced_secret(tmp_path: Path) -> None:
    with pytest.raises(CredentialsUnavailable) as caught:
        read_secret(tmp_path / SECRETS[0])
    output = "".join(traceback.format_exception(caught.value))
    assert leaks({"output": output.encode()}, {SECRETS[0]}) == {}


def test_sync_does_not_store_a_key_used_as_a_file_name(tmp_path: Path) -> None:
    value, state = SECRETS[0], tmp_path / "state.db"
    path = configuration(
        tmp_path, "http://127.0.0.1:1", [{"name": "home", "personal_key_file": value}], state_file=str(state)
    )
    ended = run(f"--config.file={path}", "--sync.once", "--log.level=debug")
    assert (ended.returncode, "cannot be read" in ended.stderr) == (1, True)
    assert leaks({"streams": (ended.stdout + ended.stderr).encode(), **dict(state_files(state))}, {value}) == {}
