"""The envelope of a response: the lists of its result, also if one value of the body is not JSON."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.tedee.envelope import MAX_ROWS, Envelope, TooManyValues, open_envelope

SECRET = "the-key-that-opens-doors"
INVALID = b'{"id": 9, "x": \xff}'
"""A row because of which msgspec rejects the whole body."""


def opened(result: bytes) -> Envelope:
    envelope = open_envelope(b'{"success": true, "result": %s, "statusCode": 200}' % result, SECRET)
    assert envelope
    assert (envelope.success, envelope.status_code) == (True, 200)
    return envelope


def lists_of(result: bytes) -> dict[str, list[bytes]] | None:
    lists = opened(result).lists
    return None if lists is None else {name: [bytes(row).strip() for row in rows] for name, rows in lists.items()}


def test_rows_of_a_list_have_no_name() -> None:
    assert lists_of(b'[{"id": 1}, 2]') == {"": [b'{"id": 1}', b"2"]}


@pytest.mark.parametrize("space", [b"", b" ", b"\n  "])
def test_each_list_of_an_object_has_its_rows(space: bytes) -> None:
    members = [
        b'"page": 1',
        b'"locks": [{"id": 1},{"id": 2}]',
        b'"keypads": []',
        b'"other": {"locks": [3]}',
        b'"x": null',
    ]
    result = b"{" + (b"," + space).join(members) + space + b"}"
    assert lists_of(result) == {"locks": [b'{"id": 1}', b'{"id": 2}'], "keypads": []}


@pytest.mark.parametrize("position", range(3))
def test_invalid_row_of_a_list_does_not_affect_others(position: int) -> None:
    lists = {name: [b'{"id": 1}', b'{"id": "],\\"}{"}'] for name in ("bridges", "locks", "keypads")}
    [*lists.values()][position].insert(1, INVALID)
    found = lists_of(
        b"{%s}" % b", ".join(b'"%s": [%s]' % (name.encode(), b", ".join(rows)) for name, rows in lists.items())
    )
    assert found == {name: [b"" if row == INVALID else row for row in rows] for name, rows in lists.items()}


@pytest.mark.parametrize(
    "member", [b'"page": \xff', b'"other": {"x": \xff, "locks": [3]}', b'"new": [[\xff, [1], {}]]']
)
def test_invalid_other_member_does_not_affect_lists(member: bytes) -> None:
    found = lists_of(b'{"locks": [{"id": 1}], %s, "keypads": [{"id": 2}]}' % member)
    assert found
    assert found.pop("new", [b""]) == [b""]
    assert found == {"locks": [b'{"id": 1}'], "keypads": [b'{"id": 2}']}


@pytest.mark.parametrize("result", [b"5", b"null", b'"text"', b"true"])
def test_other_result_has_no_lists(result: bytes) -> None:
    assert opened(result).lists is None


def test_object_without_lists_has_none() -> None:
    assert opened(b"{}").lists == {}
    assert opened(b'{"locks": {"id": 1}, "keypads": "[]"}').lists == {}


@pytest.mark.parametrize("result", [b'{"locks": [1}', b'{"locks": [1]', b'{"locks": [1]]}', b"{[1]}", b'{"locks" [1]}'])
def test_result_with_wrong_brackets_is_not_json(result: bytes) -> None:
    assert open_envelope(b'{"success": true, "result": %s}' % result, SECRET) is None


@pytest.mark.parametrize("row", [b"0", b"0\xff"])
def test_rows_of_all_lists_are_limited(row: bytes) -> None:
    half = b",".join([b"0"] * (MAX_ROWS // 2))
    assert opened(b'{"locks": [%s], "keypads": [%s]}' % (half, half)).lists
    with pytest.raises(TooManyValues, match="over 100,000 rows"):
        opened(b'{"locks": [%s], "keypads": [%s, %s]}' % (half, half, row))


@pytest.mark.parametrize("row", [b"0", INVALID])
@pytest.mark.parametrize(
    "text",
    [SECRET, f"Bearer {SECRET}!", "".join(f"\\u{ord(char):04x}" for char in SECRET), SECRET.replace("k", "\\u006b")],
)
def test_secret_in_any_list_is_redacted(row: bytes, text: str) -> None:
    keypad = b'{"id": 2, "name": "%s", "%s": 1}' % (text.encode(), text.encode())
    found = lists_of(b'{"locks": [%s, {"id": 1}], "keypads": [%s], "other": "%s"}' % (row, keypad, text.encode()))
    assert found
    assert found["locks"][1] == b'{"id": 1}'
    (shown,) = found["keypads"]
    assert json.loads(shown)["id"] == 2
    assert "[secret]" in json.loads(shown)["name"]
    assert SECRET not in json.dumps(json.loads(shown))


ROWS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.text(max_size=5)
    | st.sampled_from(["]", "}", '",', "\\", "[{"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\'), min_size=1, max_size=6)


@given(st.dictionaries(NAMES, st.lists(ROWS, max_size=4) | ROWS, max_size=5), st.booleans(), st.sampled_from([None, 1]))
def test_rows_are_the_same_if_another_value_is_invalid(
    result: dict[str, Any], escape: bool, indent: int | None
) -> None:
    """The body is then split without parsing its values."""
    text = json.dumps(result, ensure_ascii=escape, indent=indent).encode()
    expected = {name: rows for name, rows in result.items() if isinstance(rows, list)}
    invalid = re.sub(rb"^\{", b'{"invalid one": \xff' + (b"," if result else b""), text)
    for body in (text, invalid):
        found = lists_of(body)
        assert found is not None
        assert {name: [json.loads(row) for row in rows] for name, rows in found.items()} == expected
