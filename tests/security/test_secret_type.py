"""Lost if these fail: a key that stays where it is, whatever somebody prints, logs or dumps beside it."""

import copy
import dataclasses
import json
import pickle
import pprint
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pydantic_core
import pytest
import structlog
import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from exporter import logs
from exporter.tedee.credentials import Authorization, personal_key
from exporter.tedee.oauth import Issued
from exporter.tedee.refresh_tokens import StoredToken
from exporter.tedee.secret import HIDDEN, Secret, disguised, file_named, without
from exporter.terminal import OUTPUT
from tests.operation.conftest import logging_put_back

__all__ = ["logging_put_back"]

VALUE = "PK-0pens/the+d00r=="
SECRET = Secret(VALUE)


class Model(BaseModel):
    key: Annotated[Secret, Field(min_length=1)]


@dataclasses.dataclass
class Holder:
    key: Secret


MODEL = Model.model_validate({"key": VALUE})

SHOWN: dict[str, Callable[[], object]] = {
    "str": lambda: str(SECRET),
    "repr": lambda: repr(SECRET),
    "ascii": lambda: ascii(SECRET),
    "f-string": lambda: f"{SECRET} {SECRET!r} {SECRET!s} {SECRET!a}",
    "format": lambda: "{} {!r}".format(SECRET, SECRET),  # noqa: UP032
    "percent": lambda: "%s %r" % (SECRET, SECRET),  # noqa: UP031
    "print of what holds it": lambda: pprint.pformat([{"key": SECRET}, (SECRET,), Holder(SECRET)]),
    "vars": lambda: vars(SECRET),
    "dict": lambda: SECRET.__dict__,
    "dataclass": lambda: repr(Holder(SECRET)),
    "model": lambda: f"{MODEL} {MODEL!r} {vars(MODEL)}",
    "model_dump": MODEL.model_dump,
    "model_dump as for JSON": lambda: MODEL.model_dump(mode="json"),
    "model_dump_json": MODEL.model_dump_json,
    "to_json": lambda: pydantic_core.to_json(SECRET),
    "to_jsonable_python": lambda: pydantic_core.to_jsonable_python({"key": SECRET}),
    "TypeAdapter": lambda: [TypeAdapter(kind).dump_json(SECRET) for kind in (Secret, object)],
    "JSON of whatever has no form": lambda: json.dumps(SECRET, default=str) + json.dumps(SECRET, default=repr),
    "credentials": lambda: [personal_key(SECRET), Authorization("Bearer", SECRET, "", "")],
    "tokens": lambda: [StoredToken(SECRET, SECRET), Issued(SECRET, 1.0, SECRET, None)],
}

REFUSED: dict[str, Callable[[], object]] = {
    **{f"pickle {number}": partial(pickle.dumps, SECRET, number) for number in range(6)},
    "pickle of what holds it": lambda: pickle.dumps([Holder(SECRET)]),
    "copy": lambda: copy.copy(SECRET),
    "deepcopy": lambda: copy.deepcopy({"key": SECRET}),
    "reduce": SECRET.__reduce__,
    "reduce_ex": lambda: SECRET.__reduce_ex__(2),
    "asdict": lambda: dataclasses.asdict(Holder(SECRET)),
    "json": lambda: json.dumps({"key": SECRET}),
    "json of a dumped model": lambda: json.dumps(MODEL.model_dump()),
    "yaml": lambda: yaml.dump({"key": SECRET}),
    "safe yaml": lambda: yaml.safe_dump({"key": SECRET}),
    "padding": lambda: f"{SECRET:>40}",
    "number": lambda: "%d" % SECRET,  # type: ignore[str-format]  # noqa: UP031
    "bytes": lambda: bytes(SECRET),  # type: ignore[call-overload]
    "joining": lambda: "".join([SECRET]),  # type: ignore[list-item]
    "adding": lambda: "key: " + SECRET,  # type: ignore[operator]
    "iterating": lambda: list(SECRET),  # type: ignore[call-overload]
}


def test_there_is_a_way_to_the_secret() -> None:
    assert SECRET.get_secret_value() == VALUE
    assert MODEL.key.get_secret_value() == VALUE


def test_two_of_the_same_are_one_for_a_set() -> None:
    assert {SECRET, Secret(VALUE)} == {MODEL.key}
    assert Secret("another") != SECRET


def test_an_error_of_pydantic_does_not_repeat_it() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python(SECRET)
    assert VALUE not in f"{caught.value} {caught.value!r} {caught.value.errors()}"


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_what_shows_it_shows_stars(show: Callable[[], object]) -> None:
    shown = str(show())
    assert VALUE not in shown
    assert VALUE[:8] not in shown


@pytest.mark.parametrize("write", REFUSED.values(), ids=REFUSED)
def test_what_would_write_it_down_is_refused(write: Callable[[], object]) -> None:
    with pytest.raises((TypeError, yaml.YAMLError)) as refused:
        write()
    assert VALUE not in "".join(traceback.format_exception(refused.value))


def fail() -> None:
    raise ValueError(SECRET)


@pytest.mark.parametrize("form", ["logfmt", "json"])
@pytest.mark.usefixtures("logging_put_back")
def test_a_log_line_has_stars_for_it(form: logs.Format, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", form)
    log = structlog.get_logger("exporter")
    log.debug("key", key=SECRET, within=[SECRET, {"key": SECRET}], holder=Holder(SECRET), model=MODEL)
    log.debug("key %s %r", SECRET, SECRET)
    try:
        fail()
    except ValueError:
        log.exception("a turn ended in a bug", key=SECRET)
    OUTPUT.flush()
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 3
    assert VALUE not in err


# A secret in somebody else's words, and one in a wrong place


@pytest.mark.parametrize(
    ("told", "left"),
    [
        (f"PersonalKey {VALUE}", "PersonalKey [secret]"),
        (
            [VALUE, {"a": [VALUE], VALUE: 1}, 1, None, 2.5, True],
            ["[secret]", {"a": ["[secret]"], "[secret]": 1}, 1, None, 2.5, True],
        ),
    ],
)
def test_a_secret_is_taken_out_of_what_somebody_says(told: Any, left: Any) -> None:
    assert without(VALUE, told) == left


def test_a_secret_that_is_hardly_one_is_not_looked_for() -> None:
    assert without("", "text") == without("t", "text") == "text"


@pytest.mark.parametrize(
    "word", ["PK-5ecr3t-of-home", "a" * 16 + "B", "/AbCdEfGh/IjKlMnOp", "eyJh.eyJzdWIi.c2lnbmF0dXJl"]
)
def test_a_word_that_may_be_a_secret_is_not_repeated(word: str) -> None:
    assert disguised(f"--flag='{word}' is no flag") == f"--flag='{HIDDEN}' is no flag"


@pytest.mark.parametrize("text", ["", "--web.listen-addres", "http://localhost:10333 or [::1]:10333", "tedee-home2"])
def test_an_ordinary_word_is_repeated(text: str) -> None:
    assert disguised(text) == text


def test_a_file_that_is_there_is_named_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "PK-5ecr3t-of-home"
    assert file_named(path) == f"{tmp_path}/{HIDDEN}"
    path.touch()
    assert file_named(path) == str(path)


def test_of_a_file_that_is_not_there_the_folders_that_are_there_are_named(tmp_path: Path) -> None:
    assert file_named(tmp_path / "sub" / "key") == f"{tmp_path}/sub/key"
    assert file_named(tmp_path / "AbCdEfGh" / "IjKlMnOp") == f"{tmp_path}/{HIDDEN}"
    assert file_named(tmp_path / ("A1" * 2_000)) == f"{tmp_path}/{HIDDEN}"
    assert file_named(Path("PK-5ecr3t-of-home")) == HIDDEN
