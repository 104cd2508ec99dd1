"""Unvalidated configurations: their validation, and errors with the line or variable of each value."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from exporter.fields import Converter, KeyPath, MissingField, UnknownField, UnsuitableValue
from exporter.secrets import MIN_HIDDEN_LENGTH, is_similar
from exporter.typos import close_match

from .model import ConfigModel, Context, NotExactlyOne


class ConfigurationError(Exception):
    """The configuration cannot be used. `problems` has one line for each error."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


M = TypeVar("M", bound=ConfigModel)


@dataclass
class Source:
    """Unvalidated configuration, with the line or variable of each value."""

    data: object = field(repr=False)
    locations: dict[KeyPath, str] = field(default_factory=dict)
    """Line (`tedee.yml:7`) or variable (`environment: TEDEE_SYNC_INTERVAL`) by key path."""
    folder: Path = Path()
    """Folder at which relative file names start."""
    content: bytes = field(default=b"", repr=False)
    """Content of the file."""
    duplicates: list[tuple[KeyPath, str]] = field(default_factory=list)
    """Errors about duplicate keys. YAML would silently use the last one."""
    variables: Mapping[KeyPath, str] = field(default_factory=dict)
    """Variable by the key path of the value that it sets. Empty for a file."""

    def validated(self, model: type[M], *, check_secrets: bool = False) -> M:
        """Return the data as an instance of a model.

        Args:
            model: The model of the whole configuration.
            check_secrets: Whether secret files are to be checked as well.

        Raises:
            ConfigurationError: All errors, in the order of the file.
        """
        problems = list(self.duplicates)

        def report(path: KeyPath, value: object, error: Exception) -> None:
            problems.append((path, self._message(path, value, error)))

        converter = Converter(model, null_is_absent=model.NULL_IS_ABSENT)
        validated: M = converter.convert(self.data, report, Context(self.folder, check_secrets))
        if problems:
            order = {path: position for position, path in enumerate(self.locations)}
            problems.sort(key=lambda problem: order.get(self._nearest_path(problem[0]), -1))
            raise ConfigurationError([self.format_error(*problem) for problem in problems])
        return validated

    def format_error(self, path: KeyPath, message: str) -> str:
        """Return an error message with its line and key, or with its variable."""
        key = "" if self.variables else _format_key(path)
        return ": ".join(filter(None, [self.locations.get(self._nearest_path(path), ""), key, message]))

    def _nearest_path(self, path: KeyPath) -> KeyPath:
        """Return the longest prefix of a key path that is in the configuration."""
        while path and path not in self.locations:
            path = path[:-1]
        return path

    def _message(self, path: KeyPath, value: object, error: Exception) -> str:  # noqa: PLR0911  (one for each error)
        match error:
            case UnknownField(args=known):
                return f"unknown key; {_suggestion(str(path[-1]), known)}"
            case MissingField():
                return "is missing"
            case NotExactlyOne(keys=keys, present=present):
                return self._format_choice(path, keys, present)
            case _ if value is None:
                return "has no value"
            case UnsuitableValue():
                from .type_errors import format_type_error  # noqa: PLC0415  (only errors need this import)

                return format_type_error(value, error.expected())
            case UnicodeError():
                return "is not valid UTF-8" if self.variables else "contains half of a surrogate pair"
        return str(error)

    def _format_choice(self, path: KeyPath, keys: Sequence[str], present: Sequence[str]) -> str:
        """Return the error for keys of which exactly one must be set. An environment has no variables for some keys."""
        names, set_names = (
            [
                self.variables.get((*path, key), key)
                for key in part
                if not self.variables or (*path, key) in self.variables
            ]
            for part in (keys, present)
        )
        how_many = "exactly one" if set_names else "one"
        return f"needs {how_many} of {', '.join(names[:-1])} or {names[-1]}; it has {' and '.join(set_names) or 'none'}"


def _format_key(path: KeyPath) -> str:
    """Return `accounts[0].name`. The text ends before a key that may be a secret: unknown, long and not a typo."""
    shown = ""
    known = {key for model in ConfigModel.__subclasses__() for key in model.__struct_fields__}
    for part in path:
        if isinstance(part, str) and not (
            re.fullmatch(r"[A-Za-z_-]{1,30}[0-9]?", part)
            and (len(part) < MIN_HIDDEN_LENGTH or is_similar(part.lower().replace("-", "_"), known))
        ):
            break
        shown += f"[{part}]" if isinstance(part, int) else f".{part}"
    return shown.removeprefix(".")


def _suggestion(unknown: str, known: Sequence[str]) -> str:
    if ":" in unknown:
        return "add a space after the colon"
    close = close_match(unknown.lower().replace("-", "_"), known)
    return f"did you mean {close!r}?" if close else f"known keys: {', '.join(known)}"
