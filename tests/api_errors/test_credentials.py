"""Keys and access tokens: reading their files, error messages, users and expiry."""

import base64
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from requests import PreparedRequest, Request

from exporter.secrets import Secret
from exporter.tedee.credentials import CredentialInUse, CredentialOwners, access_token, personal_key
from exporter.tedee.secret_source import MAX_SECRET_BYTES, CredentialsUnavailable, read_secret

KEY = "PK-0pens-the-d00r"


def problem_of(path: Path, what: str = "key") -> str:
    with pytest.raises(CredentialsUnavailable) as caught:
        read_secret(path, what)
    return str(caught.value)


def signed(authorization: Any) -> PreparedRequest:
    return Request("GET", "https://tedee.test/", auth=authorization).prepare()


def jwt(claims: object) -> Secret:
    return Secret(f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln")


def descriptors() -> list[Path]:
    return sorted(Path("/proc/self/fd").iterdir())


@pytest.fixture
def listening_socket(tmp_path: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        yield tmp_path / "socket"


def test_white_space_around_key_is_stripped(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"  {KEY}\r\n\n")
    assert read_secret(tmp_path / "key") == Secret(KEY)


def test_symlink_to_key_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "link").symlink_to(tmp_path / "key")
    assert read_secret(tmp_path / "link") == Secret(KEY)


def test_fifo_without_writer_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert problem_of(tmp_path / "fifo") == f"key file {tmp_path}/fifo is not a regular file"


def test_fifo_with_key_is_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    writer = os.open(tmp_path / "fifo", os.O_RDWR)
    os.write(writer, KEY.encode())
    assert problem_of(tmp_path / "fifo") == f"key file {tmp_path}/fifo is not a regular file"
    os.close(writer)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_device_is_rejected(device: str) -> None:
    assert problem_of(Path(device)) == f"key file {device} is not a regular file"


def test_socket_is_rejected(listening_socket: Path) -> None:
    assert problem_of(listening_socket) == f"key file {listening_socket} cannot be read: No such device or address"


def test_folder_is_named_as_directory(tmp_path: Path) -> None:
    assert problem_of(tmp_path) == f"key file {tmp_path} cannot be read: Is a directory"


def test_key_file_of_maximum_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * MAX_SECRET_BYTES)
    assert read_secret(tmp_path / "key") == Secret("k" * MAX_SECRET_BYTES)


@pytest.mark.parametrize("content", [b"k", b" ", b"\xff", b"\0"])
def test_too_large_key_file_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content * (MAX_SECRET_BYTES + 1))
    assert problem_of(tmp_path / "key") == f"key file {tmp_path}/key is too large to be a key"


def test_huge_key_file_is_not_read_completely(tmp_path: Path) -> None:
    with (tmp_path / "key").open("wb") as file:
        file.truncate(2**40)
    assert problem_of(tmp_path / "key") == f"key file {tmp_path}/key is too large to be a key"


def test_proc_file_of_size_zero_is_read() -> None:
    assert read_secret(Path("/proc/sys/kernel/ostype")) == Secret("Linux")


MISTAKES = {
    f'"{KEY}"': "is in quotes; write the key without them",
    f"'{KEY}'": "is in quotes; write the key without them",
    f'" {KEY} "': "is in quotes; write the key without them",
    f"<{KEY}>": "is a placeholder in angle brackets; replace it and the brackets by the key",
    "<your key>": "is a placeholder in angle brackets; replace it and the brackets by the key",
    "${TEDEE_KEY}": "is a variable that was not expanded; write the key instead",
    "${TEDEE_KEY:-none}": "is a variable that was not expanded; write the key instead",
    "$TEDEE_KEY": "is a variable that was not expanded; write the key instead",
    "$(cat /run/key)": "is a variable that was not expanded; write the key instead",
    "%TEDEE_KEY%": "is a variable that was not expanded; write the key instead",
    "{{ .Values.key }}": "is a variable that was not expanded; write the key instead",
    "{{key}}": "is a variable that was not expanded; write the key instead",
    f"TEDEE_PERSONAL_KEY={KEY}": "is of the form NAME=value; write the value alone",
    f"export TEDEE_PERSONAL_KEY={KEY}": "is of the form NAME=value; write the value alone",
    f'token="{KEY}"': "is of the form NAME=value; write the value alone",
    f"personal_key: {KEY}": "is of the form NAME=value; write the value alone",
    f"Bearer {KEY}": "begins with a word of a header; write the key alone",
    f"PersonalKey {KEY}": "begins with a word of a header; write the key alone",
    f"Authorization: PersonalKey {KEY}": "begins with a word of a header; write the key alone",
    f'"{KEY}': "begins or ends with a quote or a bracket; write the key without it",
    f"{KEY}'": "begins or ends with a quote or a bracket; write the key without it",
    f"`{KEY}`": "begins or ends with a quote or a bracket; write the key without it",
    f"<{KEY}": "begins or ends with a quote or a bracket; write the key without it",
    "/run/secrets/tedee-key": (
        "is the path of a file; write its content, or set the variable or setting that ends with file"
    ),
    "replace-with-the-key-of-the-office": "is a placeholder; write the key instead",
    "paste-the-key-here": "is a placeholder; write the key instead",
    "YOUR_KEY": "is a placeholder; write the key instead",
}


@pytest.mark.parametrize("content", ["AbC+/d/ef=", "/aBc/dEf", "a<b>c", "a'b", "BearerOfKeys"])
def test_unusual_key_is_accepted(content: str) -> None:
    assert read_secret(Secret(content)) == Secret(content)


@pytest.mark.parametrize("content", ["'abc", "abc>", "/abc/def"])
def test_unusual_client_secret_is_accepted(content: str) -> None:
    assert read_secret(Secret(content), "client secret") == Secret(content)


@pytest.mark.parametrize("content", MISTAKES)
def test_placeholder_and_other_mistakes_are_rejected(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(f"{content}\n")
    problem = problem_of(tmp_path / "key")
    assert problem == f"key file {tmp_path}/key {MISTAKES[content]}"
    assert KEY not in problem
    with pytest.raises(CredentialsUnavailable, match=f"the key {re.escape(MISTAKES[content])}"):
        read_secret(Secret(content))


@pytest.mark.parametrize("key", ["k+/aGVsbG8=", "a-key==", "MY_KEY", "$9xKey", "k<e>y", "token=", "simulated-key-home"])
def test_unusual_secret_is_accepted(key: str) -> None:
    assert read_secret(Secret(key)) == Secret(key)


@settings(max_examples=1000)
@given(st.binary(min_size=16, max_size=64), st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]))
def test_base64_secret_is_always_accepted(data: bytes, encode: Callable[[bytes], bytes]) -> None:
    key = Secret(encode(data).decode())
    assert read_secret(key) == key


def test_byte_order_mark_of_key_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbf" + f"{KEY}\r\n".encode())
    assert read_secret(tmp_path / "key") == Secret(KEY)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_key_file_is_rejected(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "key").write_bytes(f"\ufeff{KEY}\r\n".encode(encoding))
    problem = problem_of(tmp_path / "key")
    assert problem == f"key file {tmp_path}/key is UTF-16 text, as PowerShell writes it; save it as ASCII"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"k" * (MAX_SECRET_BYTES + 1))
    (tmp_path / "key").write_text(KEY)
    before = descriptors()
    for name in ("fifo", "large", ".", "missing"):
        problem_of(tmp_path / name)
    read_secret(tmp_path / "key")
    assert descriptors() == before


def test_error_messages_name_kind_of_secret(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert problem_of(path, "refresh token") == f"refresh token file {path} cannot be read: No such file or directory"
    path.write_text("two text")
    assert problem_of(path, "refresh token").startswith(f"refresh token file {path} contains invalid characters")


# Authorizations


def test_refresh_raises_if_key_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CredentialsUnavailable, match="cannot be read"):
        personal_key(tmp_path / "key").refresh()


def test_authorization_uses_key_read_at_refresh(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("old")
    credentials = personal_key(tmp_path / "key")
    authorization = credentials.refresh()
    # The rate limits of the old key's user have been checked, not those of the new key's user.
    (tmp_path / "key").write_text("new")
    assert signed(authorization).headers["Authorization"] == "PersonalKey old"
    assert signed(credentials.refresh()).headers["Authorization"] == "PersonalKey new"


def test_invalidating_key_has_no_effect() -> None:
    credentials = personal_key(Secret(KEY))
    credentials.invalidate()
    assert signed(credentials.refresh()).headers["Authorization"] == f"PersonalKey {KEY}"


# Users


def test_user_is_subject_of_token() -> None:
    tokens = [jwt({"iss": "tedee", "sub": "someone", "exp": expiry}) for expiry in (1, 2)]
    assert len({access_token(token).refresh().user for token in tokens}) == 1
    assert len({access_token(token).fingerprint() for token in tokens}) == 2
    other = jwt({"iss": "tedee", "sub": "someone else"})
    assert access_token(other).refresh().user != access_token(tokens[0]).refresh().user


@pytest.mark.parametrize("claims", [{}, {"sub": "a"}, {"iss": "a"}, {"iss": "a", "sub": ""}, {"iss": 1, "sub": 2}, []])
def test_token_without_subject_is_its_own_user(claims: object) -> None:
    users = {access_token(jwt([claims, number])).user() for number in range(3)}
    users |= {access_token(jwt(claims)).user()}
    assert len(users) == 4


def test_fingerprint_changes_with_key_file(tmp_path: Path) -> None:
    credentials = personal_key(tmp_path / "key")
    missing = credentials.fingerprint()
    (tmp_path / "key").write_text("one two")
    unusable = credentials.fingerprint()
    (tmp_path / "key").write_text("one")
    assert len({missing, unusable, credentials.fingerprint()}) == 3
    assert "one" not in credentials.fingerprint()


def test_key_of_another_account_is_rejected_until_changed(tmp_path: Path) -> None:
    owners = CredentialOwners()
    owners.set_accounts(["home", "hotel"])
    files = {name: tmp_path / name for name in ("home", "hotel")}
    home, hotel = (personal_key(file, name, owners) for name, file in files.items())
    for file in files.values():
        file.write_text(KEY)
    home.refresh()
    with pytest.raises(CredentialInUse, match=f"key file {files['hotel']} contains the key of account home"):
        hotel.refresh()
    assert hotel.user() is None
    home.refresh()
    fingerprint = hotel.fingerprint()
    files["home"].write_text("another")
    assert hotel.fingerprint() != fingerprint
    hotel.refresh()


def test_removed_account_gets_no_authorization() -> None:
    owners = CredentialOwners()
    owners.set_accounts(["home"])
    credentials = personal_key(Secret(KEY), "home", owners)
    credentials.refresh()
    owners.set_accounts(["house"])
    with pytest.raises(CredentialsUnavailable, match="no longer configured"):
        credentials.refresh()
    personal_key(Secret(KEY), "house", owners).refresh()


# Expiry


def test_expiry_is_read_from_token(tmp_path: Path) -> None:
    token = jwt({"exp": 1_800_000_000, "aud": "tedee"})
    (tmp_path / "token").write_text(token.get_secret_value())
    assert access_token(token).expires_at() == 1_800_000_000.0
    assert access_token(tmp_path / "token").expires_at() == 1_800_000_000.0


@pytest.mark.parametrize("claims", [{}, {"exp": "soon"}, {"exp": None}, {"exp": True}, {"exp": []}, [], 5, None, "exp"])
def test_token_without_expiry_has_none(claims: object) -> None:
    assert access_token(jwt(claims)).expires_at() is None


@pytest.mark.parametrize(
    "claims", [b'{"exp": 1e999}', b'{"exp": NaN}', b'{"exp": 1' + b"0" * 400 + b"}", b"[" * 9_000, b"\xff", b"", b"{"]
)
def test_invalid_claims_have_no_expiry(claims: bytes) -> None:
    assert access_token(Secret(f"e30.{base64.urlsafe_b64encode(claims).decode()}.c2ln")).expires_at() is None


@pytest.mark.parametrize("token", ["simulated-token", "a.b", "a.b.c", "a.b.c.d.e", "..", "a.!!!!.c", "a.b=b.c"])
def test_token_that_is_not_jwt_has_no_expiry(token: str) -> None:
    assert access_token(Secret(token)).expires_at() is None


def test_unreadable_token_has_no_expiry(tmp_path: Path) -> None:
    assert access_token(tmp_path / "missing").expires_at() is None


def test_personal_key_has_no_expiry() -> None:
    assert personal_key(jwt({"exp": 1_800_000_000})).expires_at() is None


def test_personal_key_expires_at_the_configured_time(tmp_path: Path) -> None:
    assert personal_key(Secret(KEY), expiry=1_827_532_800.0).expires_at() == 1_827_532_800.0
    assert personal_key(tmp_path / "missing", expiry=1_827_532_800.0).expires_at() == 1_827_532_800.0
