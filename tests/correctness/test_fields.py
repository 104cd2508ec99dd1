"""Conversion field by field: all errors are reported, and usable parts are converted."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import pytest
from msgspec import UNSET, Meta, Struct
from msgspec.inspect import IntType, StrType

from exporter.fields import Converter, KeyPath, MissingField, Parse, UnknownField, UnsuitableValue


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


def parse_length(value: object, unit: float) -> float:
    if not isinstance(value, str):
        raise ValueError("must be a length")  # noqa: TRY004
    return float(value) * unit


def check_even(number: int) -> int:
    if number % 2:
        raise ValueError("must be even")
    return number


class Lamp(Struct, forbid_unknown_fields=True):
    colour: str
    height: Annotated[float, Parse(parse_length)] = 1.0
    bulbs: Annotated[int, Meta(ge=1), check_even] = 2
    doors: Annotated[tuple[Door, ...], Parse(lambda value, _: [value])] = ()

    @classmethod
    def cross_field_errors(
        cls, given: Mapping[str, object], valid: Mapping[str, Any], unit: float
    ) -> Iterator[tuple[KeyPath, Exception]]:
        if given.get("colour") == "red" and valid.get("height", 0.0) > 10 * unit:
            yield ("height",), ValueError("too high")


def convert_lamp(value: object) -> tuple[Any, dict[KeyPath, Exception]]:
    errors: dict[KeyPath, Exception] = {}
    lamp = Converter(Lamp).convert(value, lambda path, _, error: errors.update({path: error}), 0.5, ("lamp",))
    return lamp, errors


def test_value_is_parsed_with_the_context() -> None:
    assert convert_lamp({"colour": "red", "height": "4"}) == (Lamp("red", 2.0), {})


def test_parsed_value_is_converted_further() -> None:
    assert convert_lamp({"colour": "red", "doors": {"boltCount": 3}}) == (Lamp("red", doors=(Door(3),)), {})


@pytest.mark.parametrize(("field", "value", "error"), [("height", 4, "must be a length"), ("bulbs", 3, "must be even")])
def test_error_of_a_parse_or_a_check_is_reported(field: str, value: object, error: str) -> None:
    lamp, errors = convert_lamp({"colour": "red", field: value})
    assert lamp == Lamp("red")
    assert {path: str(each) for path, each in errors.items()} == {("lamp", field): error}


def test_value_of_another_type_is_reported_with_the_type() -> None:
    _, errors = convert_lamp({"colour": 5, "bulbs": 0})
    assert {path: each.expected() for path, each in errors.items() if isinstance(each, UnsuitableValue)} == {
        ("lamp", "colour"): StrType(),
        ("lamp", "bulbs"): IntType(ge=1),
    }


def test_errors_across_fields_get_valid_values_only() -> None:
    assert [str(each) for each in convert_lamp({"colour": "red", "height": "11"})[1].values()] == ["too high"]
    assert [str(each) for each in convert_lamp({"colour": "red", "height": 11})[1].values()] == ["must be a length"]


def test_missing_and_unknown_fields_are_reported() -> None:
    lamp, errors = convert_lamp({"color": "red"})
    assert lamp is UNSET
    assert {path: type(each) for path, each in errors.items()} == {
        ("lamp", "colour"): MissingField,
        ("lamp", "color"): UnknownField,
    }
    assert errors["lamp", "color"].args == ("colour", "height", "bulbs", "doors")
