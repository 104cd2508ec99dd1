"""Output and exit codes of `--config.check`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.cli import main
from exporter.secrets import safe_path

from .conftest import EXAMPLE, SECRET, TESTDATA, Program

INVALID_CHARACTERS = "contains invalid characters, such as spaces or line breaks"
NOT_A_NUMBER = "must be a whole number; write it as a decimal number without leading zeros and without quotes"
TOO_OFTEN = "Tedee allows one sync in 20s; a shorter interval would lock the account out of the API"


def test_check_lists_the_accounts_of_a_valid_file(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "tedee.yml"
    path.write_text((TESTDATA / "good" / "minimal.yml").read_text())
    path.chmod(0o600)
    ended = program("--config.check", "--config.file", path)
    assert ended.stdout == "The configuration is valid; accounts: home\n"
    assert (ended.returncode, ended.stderr) == (0, "")


def test_check_lists_the_account_of_the_environment(program: Program) -> None:
    ended = program("--config.check", TEDEE_PERSONAL_KEY=SECRET, TEDEE_ACCOUNT="home")
    assert ended.stdout == "The configuration is valid; accounts: home\n"
    assert (ended.returncode, ended.stderr) == (0, "")


def test_check_accepts_a_shard_without_accounts(program: Program) -> None:
    ended = program("--config.check", "--shard=0/3", TEDEE_PERSONAL_KEY=SECRET)
    assert ended.stdout == "The configuration is valid; shard 0/3 has none of its accounts\n"
    assert (ended.returncode, ended.stderr) == (0, "")


def test_check_reports_all_errors_of_a_file(program: Program) -> None:
    path = TESTDATA / "bad" / "everything.yml"
    ended = program("--config.check", f"--config.file={path}")
    lines = ended.stderr.splitlines()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(lines) == 15
    assert lines[0] == f"{path}:2: api.url: http:// would send the key unencrypted; use https://"
    assert lines[-1] == f"{path}:19: accounts[2].locks.ids[0]: {NOT_A_NUMBER}"
    assert SECRET not in ended.stderr


def test_check_reports_all_errors_of_the_environment(program: Program) -> None:
    ended = program(
        "--config.check",
        TEDEE_PERSONAL_KEY=f"{SECRET} {SECRET}",
        TEDEE_SYNC_INTERVAL="1s",
        TEDEE_API_URL=f"https://{SECRET}@api.tedee.com",
    )
    assert ended.stderr.splitlines() == [
        f"environment: TEDEE_PERSONAL_KEY: the key {INVALID_CHARACTERS}",
        "environment: TEDEE_API_URL: must have only a scheme, a host and a port",
        f"environment: TEDEE_SYNC_INTERVAL: {TOO_OFTEN}",
    ]
    assert (ended.returncode, ended.stdout) == (2, "")


def test_invalid_yaml_is_reported_without_a_traceback(program: Program) -> None:
    path = TESTDATA / "bad" / "key-is-a-tagged-number.yml"
    ended = program("--config.check", f"--config.file={path}")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "Traceback" not in ended.stderr
    assert SECRET not in ended.stderr


def test_check_reports_unusable_key_files_with_line_and_key(program: Program, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "lines").write_text(f"{SECRET}\n{SECRET}\n")
    (tmp_path / "bytes").write_bytes(SECRET.encode() + b"\xff")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    path = tmp_path / "tedee.yml"
    names = ("missing", "empty", "lines", "bytes", "folder", "loop")
    accounts = "".join(f"  - name: {name}\n    access_token_file: {tmp_path}/{name}\n" for name in names)
    path.write_text(f"accounts:\n{accounts}")

    ended = program("--config.check", f"--config.file={path}")

    def problem(index: int, name: str, reason: str) -> str:
        return f"{path}:{2 * index + 3}: accounts[{index}].access_token_file: key file {tmp_path}/{name} {reason}"

    assert ended.stderr.splitlines() == [
        problem(0, "missing", "cannot be read: No such file or directory"),
        problem(1, "empty", "is empty"),
        problem(2, "lines", INVALID_CHARACTERS),
        problem(3, "bytes", "contains bytes that are not ASCII"),
        problem(4, "folder", "cannot be read: Is a directory"),
        problem(5, "loop", "cannot be read: Too many levels of symbolic links"),
    ]
    assert (ended.returncode, ended.stdout) == (2, "")


def test_check_reports_a_key_file_without_read_permission(
    tmp_path: Path,
    drop_privileges: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    restore_logging: None,
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(SECRET)
    key_file.chmod(0)
    monkeypatch.setenv("TEDEE_PERSONAL_KEY_FILE", str(key_file))
    drop_privileges()
    code = main(["--config.check"])
    assert capsys.readouterr().err == (
        f"environment: TEDEE_PERSONAL_KEY_FILE: key file {safe_path(key_file)} cannot be read: Permission denied\n"
    )
    assert code == 2


def test_example_is_valid_except_for_keys(program: Program) -> None:
    ended = program("--config.check", f"--config.file={EXAMPLE}")
    assert [line.split(": ")[1] for line in ended.stderr.splitlines()] == [
        "accounts[0].personal_key_file",
        "accounts[1].personal_key",
        "accounts[2].access_token_file",
        "accounts[3].access_token",
        "accounts[4].oauth.client_secret_file",
        "accounts[4].oauth.refresh_token_file",
    ]


@pytest.mark.parametrize(
    ("variable", "name", "problem"),
    [
        ("SSL_CERT_FILE", "missing.pem", "No such file or directory"),
        ("SSL_CERT_FILE", "empty.pem", "it contains no certificate in PEM format, or an invalid one"),
        ("REQUESTS_CA_BUNDLE", "missing.pem", "No such file or directory"),
    ],
)
def test_check_reports_unusable_certificates(
    program: Program, tmp_path: Path, variable: str, name: str, problem: str
) -> None:
    (tmp_path / "empty.pem").touch()
    path = tmp_path / name
    ended = program("--config.check", TEDEE_PERSONAL_KEY=SECRET, **{variable: str(path)})
    assert ended.returncode == 2
    message = f"TLS failed: the CA certificates in {path}, from {variable}, cannot be read: {problem}\n"
    assert (ended.stdout, ended.stderr) == ("", message)


def test_check_reports_an_invalid_flag(program: Program) -> None:
    ended = program("--config.check", "--web.listen-address=10333", TEDEE_PERSONAL_KEY=SECRET)
    assert ended.returncode == 2
    assert "argument --web.listen-address: '10333' is not of the form" in ended.stderr


def test_account_name_with_control_characters_is_refused(program: Program) -> None:
    ended = program("--config.check", TEDEE_PERSONAL_KEY=SECRET, TEDEE_ACCOUNT="home\x1b[2J\nall is well")
    assert ended.returncode == 2
    assert ended.stderr == "environment: TEDEE_ACCOUNT: must not contain control characters\n"


def test_account_name_with_a_double_quote_is_refused(program: Program) -> None:
    ended = program("--config.check", TEDEE_PERSONAL_KEY=SECRET, TEDEE_ACCOUNT='the "old" house')
    assert ended.returncode == 2
    assert ended.stderr == 'environment: TEDEE_ACCOUNT: must not contain "\n'
