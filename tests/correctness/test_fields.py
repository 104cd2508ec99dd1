"""Conversion field by field: all errors are reported, and usable parts are converted."""

from typing import Annotated, Any

import pytest
from msgspec import UNSET, Meta, Struct

from exporter.fields import Converter, KeyPath


class Door(Struct, rename="camel"):
    bolt_count: Annotated[int, Meta(ge=1)]
    is_open: bool | None = None


class House(Struct):
    doors: Annotated[tuple[Door | None, ...], Meta(max_length=2)] | None = None
    front: Door | None = None


def convert(value: object) -> tuple[Any, dict[KeyPath, object]]:
    errors: dict[KeyPath, object] = {}
    converted = Converter(House).convert(value, lambda path, part, _error: errors.update({path: part}))
    return converted, errors


def test_valid_value_is_converted() -> None:
    data = {"doors": [{"boltCount": 1, "isOpen": True}, None], "front": {"boltCount": 2}}
    assert convert(data) == (House((Door(1, True), None), Door(2)), {})


def test_all_errors_are_reported() -> None:
    data = {"doors": [{"boltCount": 1, "isOpen": 5}, "x"], "front": {"boltCount": 0, "isOpen": True}}
    house, errors = convert(data)
    assert house == House((Door(1, None), None), None)
    assert errors == {("doors", 0, "is_open"): 5, ("doors", 1): "x", ("front", "bolt_count"): 0}


def test_items_of_too_long_list_are_not_converted() -> None:
    assert convert({"doors": ["x"] * 3}) == (House(), {("doors",): ["x"] * 3})


@pytest.mark.parametrize("data", [None, 5, "\ud83d", []])
def test_value_that_is_no_object_is_reported(data: object) -> None:
    assert convert(data) == (UNSET, {(): data})


def test_missing_required_field_makes_value_unusable() -> None:
    assert convert({"front": {"isOpen": True}})[0] == House(front=None)
