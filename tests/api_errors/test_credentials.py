"""Lost if these fail: a key file that is none stops the program, or what a token says of its end is not told."""

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
from exporter.tedee.credentials import (
    MAX_SECRET_BYTES,
    CredentialInUse,
    CredentialOwners,
    CredentialsUnavailable,
    access_token,
    personal_key,
    read_secret,
)

KEY = "PK-0pens-the-d00r"


def problem_of(path: Path, what: str = "key") -> str:
    with pytest.raises(CredentialsUnavailable) as caught:
        read_secret(path, what)
    return str(caught.value)


def signed(signer: Any) -> PreparedRequest:
    return Request("GET", "https://tedee.test/", auth=signer).prepare()


def jwt(claims: object) -> Secret:
    return Secret(f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln")


def descriptors() -> list[Path]:
    return sorted(Path("/proc/self/fd").iterdir())


@pytest.fixture
def listening_socket(tmp_path: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        yield tmp_path / "socket"


def test_a_key_is_read_without_the_white_space_around_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"  {KEY}\r\n\n")
    assert read_secret(tmp_path / "key") == Secret(KEY)


def test_a_link_to_a_key_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "link").symlink_to(tmp_path / "key")
    assert read_secret(tmp_path / "link") == Secret(KEY)


def test_a_fifo_that_nobody_writes_into_does_not_hold_up_the_program(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert problem_of(tmp_path / "fifo") == f"key file {tmp_path}/fifo is not a regular file"


def test_a_fifo_is_no_key_file_even_if_somebody_writes_a_key_into_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    writer = os.open(tmp_path / "fifo", os.O_RDWR)
    os.write(writer, KEY.encode())
    assert problem_of(tmp_path / "fifo") == f"key file {tmp_path}/fifo is not a regular file"
    os.close(writer)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_key_file(device: str) -> None:
    assert problem_of(Path(device)) == f"key file {device} is not a regular file"


def test_a_socket_is_no_key_file(listening_socket: Path) -> None:
    assert problem_of(listening_socket) == f"key file {listening_socket} cannot be read: No such device or address"


def test_a_folder_is_told_as_one(tmp_path: Path) -> None:
    assert problem_of(tmp_path) == f"key file {tmp_path} cannot be read: Is a directory"


def test_the_largest_key_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * MAX_SECRET_BYTES)
    assert read_secret(tmp_path / "key") == Secret("k" * MAX_SECRET_BYTES)


@pytest.mark.parametrize("content", [b"k", b" ", b"\xff", b"\0"])
def test_a_file_that_is_too_large_is_no_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content * (MAX_SECRET_BYTES + 1))
    assert problem_of(tmp_path / "key") == f"key file {tmp_path}/key is too large to be a key"


def test_an_endless_file_is_read_no_further_than_a_key_may_be(tmp_path: Path) -> None:
    with (tmp_path / "key").open("wb") as file:
        file.truncate(2**40)
    assert problem_of(tmp_path / "key") == f"key file {tmp_path}/key is too large to be a key"


def test_a_file_of_the_kernel_that_says_it_has_no_bytes_is_read() -> None:
    assert read_secret(Path("/proc/sys/kernel/ostype")) == Secret("Linux")


MISTAKES = {
    f'"{KEY}"': "is in quotes; write the key without them",
    f"'{KEY}'": "is in quotes; write the key without them",
    f'" {KEY} "': "is in quotes; write the key without them",
    f"<{KEY}>": "is in angle brackets, as documentation writes a placeholder; write the key in place of all of it",
    "<your key>": "is in angle brackets, as documentation writes a placeholder; write the key in place of all of it",
    "${TEDEE_KEY}": "is the name of a variable that nothing replaced; write the key in place of it",
    "${TEDEE_KEY:-none}": "is the name of a variable that nothing replaced; write the key in place of it",
    "$TEDEE_KEY": "is the name of a variable that nothing replaced; write the key in place of it",
    "$(cat /run/key)": "is the name of a variable that nothing replaced; write the key in place of it",
    "%TEDEE_KEY%": "is the name of a variable that nothing replaced; write the key in place of it",
    "{{ .Values.key }}": "is the name of a variable that nothing replaced; write the key in place of it",
    "{{key}}": "is the name of a variable that nothing replaced; write the key in place of it",
    f"TEDEE_PERSONAL_KEY={KEY}": "is of the form NAME=value; write the value alone",
    f"export TEDEE_PERSONAL_KEY={KEY}": "is of the form NAME=value; write the value alone",
    f'token="{KEY}"': "is of the form NAME=value; write the value alone",
    f"personal_key: {KEY}": "is of the form NAME=value; write the value alone",
    "replace-with-the-key-of-the-office": "is the example's placeholder; write the key in place of it",
}


@pytest.mark.parametrize("content", MISTAKES)
def test_secret_that_cannot_be_right_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(f"{content}\n")
    told = problem_of(tmp_path / "key")
    assert told == f"key file {tmp_path}/key {MISTAKES[content]}"
    assert KEY not in told
    with pytest.raises(CredentialsUnavailable, match=f"the key {re.escape(MISTAKES[content])}"):
        read_secret(Secret(content))


@pytest.mark.parametrize("key", ["k+/aGVsbG8=", "a-key==", "MY_KEY", "$9xKey", "k<e>y", "token=", "simulated-key-home"])
def test_odd_secret_that_may_be_right_is_taken(key: str) -> None:
    assert read_secret(Secret(key)) == Secret(key)


@settings(max_examples=1000)
@given(st.binary(min_size=16, max_size=64), st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]))
def test_base64_is_never_refused(data: bytes, encode: Callable[[bytes], bytes]) -> None:
    key = Secret(encode(data).decode())
    assert read_secret(key) == key


def test_byte_order_mark_of_a_key_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbf" + f"{KEY}\r\n".encode())
    assert read_secret(tmp_path / "key") == Secret(KEY)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_key_file_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "key").write_bytes(f"\ufeff{KEY}\r\n".encode(encoding))
    told = problem_of(tmp_path / "key")
    assert told == f"key file {tmp_path}/key is UTF-16 text, as PowerShell writes it; save it as ASCII"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"k" * (MAX_SECRET_BYTES + 1))
    (tmp_path / "key").write_text(KEY)
    before = descriptors()
    for name in ("fifo", "large", ".", "missing"):
        problem_of(tmp_path / name)
    read_secret(tmp_path / "key")
    assert descriptors() == before


def test_messages_name_the_kind_of_secret(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert problem_of(path, "refresh token") == f"refresh token file {path} cannot be read: No such file or directory"
    path.write_text("two text")
    assert problem_of(path, "refresh token").startswith(f"refresh token file {path} contains characters")


# Preparing and signing


def test_a_key_that_cannot_be_read_is_noticed_when_preparing(tmp_path: Path) -> None:
    with pytest.raises(CredentialsUnavailable, match="cannot be read"):
        personal_key(tmp_path / "key").refresh()


def test_key_that_was_prepared_is_the_one_that_signs(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("old")
    credentials = personal_key(tmp_path / "key")
    prepared = credentials.refresh()
    # The limits of the old key's user have been checked, not those of the new one's.
    (tmp_path / "key").write_text("new")
    assert signed(prepared).headers["Authorization"] == "PersonalKey old"
    assert signed(credentials.refresh()).headers["Authorization"] == "PersonalKey new"


def test_refused_key_changes_nothing() -> None:
    credentials = personal_key(Secret(KEY))
    credentials.invalidate()
    assert signed(credentials.refresh()).headers["Authorization"] == f"PersonalKey {KEY}"


# Users


def test_user_of_a_token_is_the_one_that_it_names() -> None:
    tokens = [jwt({"iss": "tedee", "sub": "someone", "exp": expiry}) for expiry in (1, 2)]
    assert len({access_token(token).refresh().user for token in tokens}) == 1
    assert len({access_token(token).fingerprint() for token in tokens}) == 2
    other = jwt({"iss": "tedee", "sub": "someone else"})
    assert access_token(other).refresh().user != access_token(tokens[0]).refresh().user


@pytest.mark.parametrize("claims", [{}, {"sub": "a"}, {"iss": "a"}, {"iss": "a", "sub": ""}, {"iss": 1, "sub": 2}, []])
def test_user_of_a_token_that_names_none_is_the_token(claims: object) -> None:
    users = {access_token(jwt([claims, number])).user() for number in range(3)}
    users |= {access_token(jwt(claims)).user()}
    assert len(users) == 4


def test_fingerprint_says_when_another_try_may_help(tmp_path: Path) -> None:
    credentials = personal_key(tmp_path / "key")
    missing = credentials.fingerprint()
    (tmp_path / "key").write_text("one two")
    unusable = credentials.fingerprint()
    (tmp_path / "key").write_text("one")
    assert len({missing, unusable, credentials.fingerprint()}) == 3
    assert "one" not in credentials.fingerprint()


def test_key_of_another_account_is_refused_as_long_as_it_is(tmp_path: Path) -> None:
    owners = CredentialOwners()
    owners.set_accounts(["home", "hotel"])
    files = {name: tmp_path / name for name in ("home", "hotel")}
    home, hotel = (personal_key(file, name, owners) for name, file in files.items())
    for file in files.values():
        file.write_text(KEY)
    home.refresh()
    with pytest.raises(CredentialInUse, match=f"key file {files['hotel']} holds the key of account home"):
        hotel.refresh()
    assert hotel.user() is None
    home.refresh()
    refused = hotel.fingerprint()
    files["home"].write_text("another")
    assert hotel.fingerprint() != refused
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


# When a token expires


def test_a_token_says_when_it_expires(tmp_path: Path) -> None:
    token = jwt({"exp": 1_800_000_000, "aud": "tedee"})
    (tmp_path / "token").write_text(token.get_secret_value())
    assert access_token(token).expires_at() == 1_800_000_000.0
    assert access_token(tmp_path / "token").expires_at() == 1_800_000_000.0


@pytest.mark.parametrize("claims", [{}, {"exp": "soon"}, {"exp": None}, {"exp": True}, {"exp": []}, [], 5, None, "exp"])
def test_a_token_without_a_time_in_it_says_nothing(claims: object) -> None:
    assert access_token(jwt(claims)).expires_at() is None


@pytest.mark.parametrize(
    "claims", [b'{"exp": 1e999}', b'{"exp": NaN}', b'{"exp": 1' + b"0" * 400 + b"}", b"[" * 9_000, b"\xff", b"", b"{"]
)
def test_junk_in_a_token_says_nothing(claims: bytes) -> None:
    assert access_token(Secret(f"e30.{base64.urlsafe_b64encode(claims).decode()}.c2ln")).expires_at() is None


@pytest.mark.parametrize("token", ["simulated-token", "a.b", "a.b.c", "a.b.c.d.e", "..", "a.!!!!.c", "a.b=b.c"])
def test_a_token_that_is_no_jwt_says_nothing(token: str) -> None:
    assert access_token(Secret(token)).expires_at() is None


def test_a_token_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    assert access_token(tmp_path / "missing").expires_at() is None


def test_a_personal_key_says_nothing_even_if_it_looks_like_a_token() -> None:
    assert personal_key(jwt({"exp": 1_800_000_000})).expires_at() is None
