"""Converts JSON-like data to msgspec Structs, and reports each value that cannot be used separately."""

from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, UNSET, Struct, ValidationError

KeyPath = tuple[str | int, ...]
"""Names of fields and list indices that lead to a value, such as `("accounts", 0, "name")`."""

Report = Callable[[KeyPath, object, Exception], object]
"""Called with the path of a value, the value, and its error."""


@dataclass(frozen=True)
class Parse:
    """Annotation of a type: a function that parses a value, given the context of the conversion.

    The result is converted further if the type is a Struct, a tuple or a dict.
    """

    function: Callable[[Any, Any], Any]


class MissingField(ValueError):
    """A required field of a Struct is absent."""


class UnknownField(ValueError):
    """A Struct has no field of this name. The arguments are the names of its fields."""


class UnsuitableValue(ValueError):
    """msgspec cannot convert a value to the type."""

    def __init__(self, problem: str, expected: Any) -> None:
        super().__init__(problem)
        self._expected = expected

    def expected(self) -> "msgspec.inspect.Type":
        """Return the description of the type, with its constraints."""
        return msgspec.inspect.type_info(self._expected)


class Converter:
    """Converts values to one type.

    `msgspec.convert` raises the first error only. Here each field of a Struct, and each item of a tuple or a dict, is
    converted separately. The type may be optional. It may be annotated with constraints of msgspec, with one `Parse`,
    and with functions that check a converted value without errors: they return it, or raise ValueError.

    A Struct can have a class method `cross_field_errors`, which yields key paths with errors. Its arguments are the
    unconverted fields, the converted fields without those with an error, and the context.
    """

    def __init__(
        self, kind: Any, decode: Callable[[type, Any], Any] | None = None, *, null_is_absent: bool = True
    ) -> None:
        """Create a converter.

        Args:
            kind: The type.
            decode: Passed to msgspec as `dec_hook`.
            null_is_absent: Whether an optional type accepts None. Otherwise only a default can be None.
        """
        self._decode = decode
        self._null_is_absent = null_is_absent
        self._struct: type[Struct] | None = None
        self._item: Converter | None = None
        self._is_optional = False
        self._parse: Callable[[Any, Any], Any] | None = None
        self._checks: list[Callable[[Any], Any]] = []
        self._outer = self._outer_type(kind)
        fields: list[msgspec.structs.FieldInfo] = list(msgspec.structs.fields(self._struct)) if self._struct else []
        self._fields = {each.encode_name: (each, self._part(each.type)) for each in fields}
        self._cross_field_errors = getattr(self._struct, "cross_field_errors", None)

    def _part(self, kind: Any) -> "Converter":
        return Converter(kind, self._decode, null_is_absent=self._null_is_absent)

    def _outer_type(self, kind: Any) -> Any:
        """Return a type that accepts the fields or items of a value as they are."""
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            self._checks += [each for each in arguments[1:] if callable(each)]
            self._parse = next((each.function for each in arguments[1:] if isinstance(each, Parse)), self._parse)
            constraints = [each for each in arguments[1:] if isinstance(each, msgspec.Meta)]
            outer = self._outer_type(arguments[0])
            return Annotated[(outer, *constraints)] if constraints else outer
        if origin in {Union, UnionType}:
            self._is_optional = self._null_is_absent
            return self._outer_type(arguments[0])
        if origin is tuple:
            self._item = self._part(arguments[0])
            return list[Any]
        if origin is dict:
            self._item = self._part(arguments[1])
            return dict[str, Any]
        if isinstance(kind, type) and issubclass(kind, Struct):
            self._struct = kind
            return dict[str, Any]
        return Any if self._parse else kind

    def convert(self, value: Any, report: Report, context: Any = None, path: KeyPath = ()) -> Any:
        """Return a value as an instance of the type.

        Each part that cannot be used is reported. A field then has its default, and an item is None.

        Args:
            value: Data as of `json.loads`.
            report: Called with each error.
            context: Passed to the functions of `Parse` and to `cross_field_errors`.
            path: Key path of the value.

        Returns:
            The instance; UNSET if the value cannot be used, or has no usable value of a required field.
        """
        if value is None and self._is_optional:
            return None
        try:
            return self._convert(value, report, context, path)
        except ValueError as error:
            report(path, value, error)
            return UNSET

    def _convert(self, value: Any, report: Report, context: Any, path: KeyPath) -> Any:
        if self._parse:
            value = self._parse(value, context)
            if value is None and self._is_optional:
                return None
        elif isinstance(value, str):
            value.encode()  # half a surrogate pair raises UnicodeError, a ValueError
        try:
            content: Any = msgspec.convert(value, self._outer, dec_hook=self._decode)
        except ValidationError as error:
            raise UnsuitableValue(str(error), self._outer) from error
        if self._struct:
            content = self._convert_fields(self._struct, content, report, context, path)
        elif self._item:
            keys = content if isinstance(content, dict) else range(len(content))
            items = {key: self._item.convert(content[key], report, context, (*path, key)) for key in keys}
            usable = {key: None if each is UNSET else each for key, each in items.items()}
            content = usable if isinstance(content, dict) else tuple(usable.values())
            if UNSET in items.values():
                return content
        for check in self._checks:
            content = check(content)
        return content

    def _convert_fields(
        self, struct: type[Struct], given: dict[str, Any], report: Report, context: Any, path: KeyPath
    ) -> Any:
        valid = {}
        for key, (field, converter) in self._fields.items():
            if key in given:
                value = converter.convert(given[key], report, context, (*path, field.name))
                if value is not UNSET:
                    valid[field.name] = value
            elif not field.required:
                valid[field.name] = field.default_factory() if field.default is NODEFAULT else field.default
            else:
                report((*path, field.name), None, MissingField())
        if struct.__struct_config__.forbid_unknown_fields:
            for key in given.keys() - self._fields.keys():
                report((*path, key), given[key], UnknownField(*self._fields))
        if self._cross_field_errors:
            for below, error in self._cross_field_errors(given, valid, context):
                report((*path, *below), UNSET, error)
        if any(field.required and field.name not in valid for field, _ in self._fields.values()):
            return UNSET
        return struct(**valid)
