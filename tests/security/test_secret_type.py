"""Secrets are not shown if they are printed, logged, dumped, misplaced or returned by a server."""

import base64
import copy
import dataclasses
import json
import pickle
import pprint
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import structlog
import yaml

from exporter import logs
from exporter.config.model import ConfigModel, InlineSecret
from exporter.config.source import Source
from exporter.console import OUTPUT
from exporter.secrets import HIDDEN, Secret, SecretDetector, hide_arguments, redact, safe_path
from exporter.tedee.credentials import Authorization, personal_key
from exporter.tedee.oauth.refresh_tokens import StoredToken
from exporter.tedee.oauth.token_endpoint import TokenResponse
from tests.cli.conftest import restore_logging

__all__ = ["restore_logging"]

VALUE = "PK-0pens/the+d00r=="
SECRET = Secret(VALUE)


class Model(ConfigModel, frozen=True):
    key: InlineSecret


@dataclasses.dataclass
class Holder:
    key: Secret


MODEL = Source({"key": VALUE}).validated(Model)

SHOWN: dict[str, Callable[[], object]] = {
    "str": lambda: str(SECRET),
    "repr": lambda: repr(SECRET),
    "ascii": lambda: ascii(SECRET),
    "f-string": lambda: f"{SECRET} {SECRET!r} {SECRET!s} {SECRET!a}",
    "format": lambda: "{} {!r}".format(SECRET, SECRET),  # noqa: UP032
    "percent": lambda: "%s %r" % (SECRET, SECRET),  # noqa: UP031
    "print of a container": lambda: pprint.pformat([{"key": SECRET}, (SECRET,), Holder(SECRET)]),
    "dataclass": lambda: repr(Holder(SECRET)),
    "model": lambda: f"{MODEL} {MODEL!r}",
    "asdict of a model": lambda: msgspec.structs.asdict(MODEL),
    "JSON with a default function": lambda: json.dumps(SECRET, default=str) + json.dumps(SECRET, default=repr),
    "credentials": lambda: [personal_key(SECRET), Authorization("Bearer", SECRET, "", "")],
    "tokens": lambda: [StoredToken(SECRET, SECRET), TokenResponse(SECRET, 1.0, SECRET, None)],
}

REFUSED: dict[str, Callable[[], object]] = {
    "vars": lambda: vars(SECRET),
    **{f"pickle {number}": partial(pickle.dumps, SECRET, number) for number in range(6)},
    "pickle of a container": lambda: pickle.dumps([Holder(SECRET)]),
    "copy": lambda: copy.copy(SECRET),
    "deepcopy": lambda: copy.deepcopy({"key": SECRET}),
    "reduce": SECRET.__reduce__,
    "reduce_ex": lambda: SECRET.__reduce_ex__(2),
    "asdict": lambda: dataclasses.asdict(Holder(SECRET)),
    "json": lambda: json.dumps({"key": SECRET}),
    "msgspec": lambda: msgspec.json.encode(SECRET),
    "msgspec of a model": lambda: msgspec.json.encode(MODEL),
    "builtins of a model": lambda: msgspec.to_builtins(MODEL),
    "yaml": lambda: yaml.dump({"key": SECRET}),
    "safe yaml": lambda: yaml.safe_dump({"key": SECRET}),
    "padding": lambda: f"{SECRET:>40}",
    "number": lambda: "%d" % SECRET,  # type: ignore[str-format]  # noqa: UP031
    "bytes": lambda: bytes(SECRET),  # type: ignore[call-overload]
    "joining": lambda: "".join([SECRET]),  # type: ignore[list-item]
    "adding": lambda: "key: " + SECRET,  # type: ignore[operator]
    "iterating": lambda: list(SECRET),  # type: ignore[call-overload]
}


def test_get_secret_value_returns_the_secret() -> None:
    assert SECRET.get_secret_value() == VALUE
    assert MODEL.key.get_secret_value() == VALUE


def test_equal_secrets_have_the_same_hash() -> None:
    assert {SECRET, Secret(VALUE)} == {MODEL.key}
    assert Secret("another") != SECRET


def test_conversion_error_does_not_repeat_the_secret() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(SECRET, int)
    assert VALUE not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_printed_secret_shows_asterisks(show: Callable[[], object]) -> None:
    shown = str(show())
    assert VALUE not in shown
    assert VALUE[:8] not in shown


@pytest.mark.parametrize("write", REFUSED.values(), ids=REFUSED)
def test_serialization_of_a_secret_is_refused(write: Callable[[], object]) -> None:
    with pytest.raises((TypeError, yaml.YAMLError)) as refused:
        write()
    assert VALUE not in "".join(traceback.format_exception(refused.value))


def fail() -> None:
    raise ValueError(SECRET)


@pytest.mark.parametrize("form", ["logfmt", "json"])
@pytest.mark.usefixtures("restore_logging")
def test_logged_secret_shows_asterisks(form: logs.Format, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", form)
    log = structlog.get_logger("exporter")
    log.debug("key", key=SECRET, within=[SECRET, {"key": SECRET}], holder=Holder(SECRET), model=MODEL)
    log.debug("key %s %r", SECRET, SECRET)
    try:
        fail()
    except ValueError:
        log.exception("unhandled exception while syncing", key=SECRET)
    OUTPUT.flush()
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 3
    assert VALUE not in err


# Secrets in other text, and misplaced secrets


@pytest.mark.parametrize(
    ("value", "redacted"),
    [
        (f"PersonalKey {VALUE}", "PersonalKey [secret]"),
        (
            [VALUE, {"a": [VALUE], VALUE: 1}, 1, None, 2.5, True],
            ["[secret]", {"a": ["[secret]"], "[secret]": 1}, 1, None, 2.5, True],
        ),
    ],
)
def test_secret_is_redacted_in_json(value: Any, redacted: Any) -> None:
    assert redact(value, VALUE) == redacted


def test_short_secret_is_not_searched_for() -> None:
    assert redact("text", "") == redact("text", "t") == "text"
    assert not SecretDetector(Secret("seven77")).finds_in("seven77")


TOKEN = "pak_Ab9/x+Zk=7Q~wE.rT-yU1iO2pA3sD4fG5hJ6"
LEAKS = {
    "plain": TOKEN,
    "the beginning": TOKEN[:8],
    "the middle": TOKEN[11:19],
    "the end": TOKEN[-8:],
    "upper case": TOKEN.upper(),
    "lower case": TOKEN.lower(),
    "percent-encoded": quote(TOKEN, safe=""),
    "percent-encoded twice": quote(quote(TOKEN, safe=""), safe=""),
    "all percent-encoded": "".join(f"%{ord(each):02x}" for each in TOKEN),
    "in JSON": "".join(f"\\u{ord(each):04x}" for each in TOKEN),
    "in HTML": "".join(f"&#{ord(each)};" for each in TOKEN),
    "quoted-printable": "".join(f"={ord(each):02X}" for each in TOKEN),
    "hexadecimal": TOKEN.encode().hex(),
    "a part in hexadecimal": TOKEN[5:13].encode().hex().upper(),
    "hexadecimal with colons": TOKEN.encode().hex(":"),
    "with spaces": " ".join(TOKEN),
    "in lines": "\n".join(TOKEN[at : at + 5] for at in range(0, len(TOKEN), 5)),
    **{
        f"base64 from {start} to {end}": base64.b64encode(TOKEN[start:end].encode()).decode()
        for start in range(4)
        for end in (17, 40)
    },
    **{
        f"URL-safe base64 after {before}": base64.urlsafe_b64encode(b"?" * before + TOKEN.encode()).decode()
        for before in range(4)
    },
}


@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS)
def test_part_of_secret_is_found_in_any_coding(text: str) -> None:
    assert SecretDetector(Secret(TOKEN)).finds_in(f"Not allowed: {text}, sorry")


@pytest.mark.parametrize(
    "text", ["", "Key expired", "The scope Device.Read is missing", TOKEN[:7], "0HN7:00000001", "%", "%zz &#xx; =4"]
)
def test_text_without_secret_is_not_reported(text: str) -> None:
    assert not SecretDetector(Secret(TOKEN)).finds_in(text)


MISPLACED = [
    "PK-5ecr3t-of-home",
    "a" * 16,
    "Zx$9!kd#7*pq(2)mn&4",
    "my secret key 123456",
    "abcd/efgh/ijkl/mnop",
    "it's \\ one of mine",
]


@pytest.mark.parametrize("word", MISPLACED)
@pytest.mark.parametrize("argument", ["{}", "-{}", "--log.level={}", "--personal-key-of-home={}"])
def test_long_argument_is_hidden(word: str, argument: str) -> None:
    message = hide_arguments(f"{word!r}: no {word}", [argument.format(word)], ["--log.level"])
    assert HIDDEN in message
    assert not SecretDetector(Secret(word)).finds_in(message.replace(HIDDEN, ""))


@pytest.mark.parametrize(
    "argument",
    [
        *("--web.listen-addres", "--WEB.listen-address", "--demo2", "localhost", "tedee-home2"),
        *("--web.max-connections=40", "--web.disable-exporter-metrics", "--config-file=/etc/x.yml"),
    ],
)
def test_short_or_misspelt_argument_is_repeated(argument: str) -> None:
    message = f"unrecognized arguments: {argument}"
    assert hide_arguments(message, [argument], ["--web.listen-address", "--demo"]) == message


@pytest.mark.parametrize("word", MISPLACED)
def test_path_of_an_existing_file_is_shown(tmp_path: Path, word: str) -> None:
    path = tmp_path / word
    assert safe_path(path) == f"{tmp_path}/{HIDDEN}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert safe_path(path) == str(path)


@pytest.mark.parametrize(
    "name",
    [
        *("tedee-exporter.yml", "secrets/tedee-home", "volume1/docker/tedee-exporter/key"),
        *("tedee-exporter/personal-key", "credentials/tedee-exporter.service/home", "exporter/certificates/cert.pem"),
    ],
)
def test_path_of_a_missing_file_with_a_usual_name_is_shown(tmp_path: Path, name: str) -> None:
    assert safe_path(tmp_path / name) == f"{tmp_path}/{name}"


def test_path_of_a_missing_file_shows_existing_folders(tmp_path: Path) -> None:
    assert safe_path(tmp_path / "sub" / "key") == f"{tmp_path}/sub/key"
    assert safe_path(tmp_path / "AbCdEfGh" / "IjKlMnOp") == f"{tmp_path}/{HIDDEN}"
    assert safe_path(tmp_path / ("A1" * 2_000)) == f"{tmp_path}/{HIDDEN}"
    assert safe_path(Path("PK-5ecr3t-of-home")) == HIDDEN


def test_path_of_a_broken_link_is_shown(tmp_path: Path) -> None:
    (tmp_path / MISPLACED[0]).symlink_to("nowhere")
    assert safe_path(tmp_path / MISPLACED[0]) == f"{tmp_path}/{MISPLACED[0]}"
