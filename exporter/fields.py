"""Converts JSON-like data to msgspec Structs, and reports each value that cannot be used separately."""

from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Struct, ValidationError

KeyPath = tuple[str | int, ...]
"""Names of fields and list indices that lead to a value, such as `("accounts", 0, "name")`."""

Report = Callable[[KeyPath, object, Exception], object]
"""Called with the path of a value, the value, and its error."""

DecodeHook = Callable[[type, Any], Any]
"""The `dec_hook` of msgspec, for types that it does not know."""


class Converter:
    """Converts values to one type.

    `msgspec.convert` raises the first error only. Here each field of a Struct and each item of a tuple is converted
    separately. The type may be annotated and optional.
    """

    def __init__(self, kind: Any, decode: DecodeHook | None = None) -> None:
        self._decode = decode
        self._struct: type[Struct] | None = None
        self._item: Converter | None = None
        # A Struct, since msgspec caches how it converts one.
        self._outer = msgspec.defstruct("Outer", [("value", self._outer_type(kind))])
        fields: list[msgspec.structs.FieldInfo] = list(msgspec.structs.fields(self._struct)) if self._struct else []
        self._fields = [(each, Converter(each.type, decode)) for each in fields]

    def _outer_type(self, kind: Any) -> Any:
        """Return a type that accepts the fields or items of a value as they are."""
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return Annotated[(self._outer_type(arguments[0]), *arguments[1:])]
        if origin in {Union, UnionType}:
            return self._outer_type(arguments[0]) | None
        if origin is tuple:
            self._item = Converter(arguments[0], self._decode)
            return list[Any]
        if isinstance(kind, type) and issubclass(kind, Struct):
            self._struct = kind
            return dict[str, Any]
        return kind

    def convert(self, value: object, report: Report, path: KeyPath = ()) -> Any:
        """Return a value as an instance of the type. Each part that cannot be used is reported, and None in the result.

        Args:
            value: Data as of `json.loads`.
            report: Called with each error.
            path: Key path of the value.

        Returns:
            The instance; None if it cannot be used, or has no usable value of a required field.
        """
        try:
            outer: Any = msgspec.convert({"value": value}, self._outer, dec_hook=self._decode)
        except (ValidationError, UnicodeError) as error:  # text may contain half a surrogate pair
            report(path, value, error)
            return None
        content = outer.value
        if content is not None and self._item:
            return tuple([self._item.convert(each, report, (*path, at)) for at, each in enumerate(content)])
        if content is None or not self._struct:
            return content
        values = {
            field.name: converter.convert(content[field.encode_name], report, (*path, field.name))
            for field, converter in self._fields
            if field.encode_name in content
        }
        if any(field.required and values.get(field.name) is None for field, _ in self._fields):
            return None
        return self._struct(**values)
