"""Messages about values that do not suit the type of their setting."""

from typing import TypeGuard

from msgspec.inspect import BoolType, DictType, IntType, ListType, StrType, Type


def format_type_error(value: object, expected: Type) -> str:  # noqa: PLR0911  (one for each type)
    """Return the message for a value that does not suit a type with its constraints."""
    match expected:
        case DictType():
            hint = "; write a space after each colon" if isinstance(value, str) and ":" in value else ""
            return f"must be a mapping of keys to values{hint}"
        case ListType():
            if isinstance(value, dict):
                return "must be a list; write a dash and a space before each entry"
            return "must not be empty" if value == [] else "must be a list"
        case BoolType():
            return "must be true or false"
        case IntType(ge=int(lowest)) if _is_whole(value) and value < lowest:
            return f"must be at least {lowest}"
        case IntType(le=int(highest)) if _is_whole(value):
            return f"must be at most {highest}"
        case IntType():
            return "must be a whole number; write it as a decimal number without leading zeros and without quotes"
        case StrType(max_length=longest) if isinstance(value, str):
            return f"must be at most {longest} characters long" if value else "must not be empty"
    return "must be text" if isinstance(value, list | dict) else "must be text; put it in quotes"


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
