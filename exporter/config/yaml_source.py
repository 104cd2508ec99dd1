"""Reads YAML files with the line of each key, and formats validation errors with these lines."""

import difflib
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from msgspec import ValidationError

from exporter.fields import Converter, KeyPath, MissingField, UnknownField
from exporter.secrets import MIN_HIDDEN_LENGTH, READ_BYTES, is_similar, read_regular_file, safe_path

from .model import ConfigModel, Context, NotExactlyOne


class ConfigurationError(Exception):
    """The configuration cannot be used. `problems` has one line for each error."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


M = TypeVar("M", bound=ConfigModel)

MAX_FILE_BYTES = 16 * 2**20
"""Maximum size of a configuration. 10,000 accounts take about 1 MiB."""


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

        validated: M = Converter(model).convert(self.data, report, Context(self.folder, check_secrets))
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

    def _message(self, path: KeyPath, value: object, error: Exception) -> str:
        match error:
            case UnknownField(args=known):
                return f"unknown key; {_suggestion(str(path[-1]), known)}"
            case MissingField():
                return "is missing"
            case NotExactlyOne(keys=keys, present=present):
                return self._format_choice(path, keys, present)
            case _ if value is None:
                return "has no value"
            case ValidationError() | UnicodeError():
                return _format_type_error(value, str(error))
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
        return f"needs one of {', '.join(names[:-1])} or {names[-1]}; it has {' and '.join(set_names) or 'none'}"


def _format_type_error(value: object, error: str) -> str:
    """Return the message for an error of msgspec."""
    for form, message in MESSAGES.items():
        if (found := re.match(f"Expected `{form}", error)) and not (form == "str" and isinstance(value, list | dict)):
            return found.expand(message)
    return "must be text"


MESSAGES = {
    "object": "must be a mapping of keys to values",
    "array` of length >= 1": "must not be empty",
    "array": "must be a list",
    "bool": "must be true or false",
    "int` >= (.+?) ": r"must be at least \1",
    "int` <= (.+?) ": r"must be at most \1",
    "int": "must be a whole number; write it as a decimal number without leading zeros and without quotes",
    "str` of length >= 1": "must not be empty",
    "str` of length <= ([0-9]+)": r"must be at most \1 characters long",
    "str` matching": "must look like v37 or v1.36",
    "str": "must be text; put it in quotes",
}
"""Messages by the begin of msgspec's message."""


class _NotAccepted(yaml.MarkedYAMLError):
    """Valid YAML that a configuration must not have."""


class _Loader(yaml.SafeLoader):
    """YAML loader that keeps keys, dates and integers that are not decimal as text, and rejects anchors and tags."""

    def _reject(self) -> NoReturn:
        raise _NotAccepted(
            problem="anchors, aliases and tags are not supported; put text that begins with &, * or ! in quotes",
            problem_mark=self.get_mark(),
        )

    fetch_anchor = fetch_alias = fetch_tag = _reject

    def scan_tag_directive_value(self, start_mark: yaml.Mark) -> NoReturn:  # noqa: ARG002
        self._reject()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _NotAccepted(problem="a list or a mapping cannot be a key", problem_mark=key.start_mark)
            key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag.rpartition(":")[2] in {"bool", "float", "null"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1 reads 0123 as 83, 1:30 as 90 and 1_000 as 1000. Such an id would select another lock.
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)\Z"), list("-+0123456789"))


def read_file(path: Path, *, may_be_empty: bool = False, is_reload: bool = False) -> Source:
    """Read a YAML file and the line of each key.

    Args:
        path: Path of the file.
        may_be_empty: Whether an empty file is an empty mapping instead of an error.
        is_reload: Whether this is a reload. The file may be a pipe, such as a shell's <(…), only at the start.

    Raises:
        ConfigurationError: The file cannot be read, or is not valid YAML.
    """
    content, text = _read_text(path, is_reload=is_reload)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None and may_be_empty:
            return Source({}, folder=path.parent, content=content)
        if node is None:
            raise ConfigurationError([f"{path}: is empty"])
        source = Source(loader.construct_document(node), folder=path.parent, content=content)
    except yaml.MarkedYAMLError as error:
        raise ConfigurationError([f"{path}{_format_yaml_error(error)}"]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigurationError([f"{path}:{line}: is not valid YAML: contains a control character"]) from None
    except ValueError:
        raise ConfigurationError([f"{path}: contains a number that cannot be read"]) from None
    except RecursionError:
        raise ConfigurationError([f"{path}: is nested too deeply"]) from None
    _record_locations(node, (), path, source)
    return source


def _read_text(path: Path, *, is_reload: bool) -> tuple[bytes, str]:
    """Return the content of a file as bytes and as text.

    Raises:
        ConfigurationError: The file cannot be read, or uses space characters that YAML does not treat as spaces.
    """
    try:
        content = read_regular_file(path, MAX_FILE_BYTES + 1) if is_reload else _read_any_file(path)
        if content is None:
            raise ConfigurationError([f"{path}: is not a regular file; other files can be read only at the start"])
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError([f"{safe_path(path)}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigurationError([f"{path}: is not UTF-8 text"]) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigurationError([f"{path}: is larger than {MAX_FILE_BYTES // 2**20} MiB"])
    if space := re.search(INVALID_SPACE, text):
        line = text.count("\n", 0, space.start(1)) + 1
        raise ConfigurationError(
            [f"{path}:{line}: is not valid YAML: U+{ord(space[1]):04X} is not a space; replace it with a normal space"]
        )
    return content, text


def _read_any_file(path: Path) -> bytes:
    with path.open("rb") as file:
        parts = iter(partial(file.read, READ_BYTES), b"")
        return b"".join(islice(parts, MAX_FILE_BYTES // READ_BYTES + 1))


INVALID_SPACE = r"(?m)^[ -]*+(?:[\w.-]++:)?+([^\S \t\n\r\f\v]|[\u200b-\u200d\u2060\ufeff])"
"""A character that looks like a space but is none in YAML, in an indentation or after a key. Web pages contain them."""


def _format_yaml_error(error: yaml.MarkedYAMLError) -> str:
    """Return position and text of an error, and where the construct with the error begins.

    The texts of other kinds of errors may repeat a value of the file, which may be a secret. Those of a scanner, parser
    or composer repeat only names of anchors and tags, which `_Loader` rejects, and single characters.
    """
    position = _format_mark(error.problem_mark, ":{}:{}: ")
    match error:
        case _NotAccepted():
            return f"{position}{error.problem}"
        case yaml.scanner.ScannerError() | yaml.parser.ParserError() | yaml.composer.ComposerError():
            begin = _format_mark(error.context_mark, " (line {}, column {})")
            context = f"{error.context}{begin}: " if error.context else ""
            return f"{position}is not valid YAML: {context}{error.problem}"
        case _:
            return f"{position}is not valid YAML"


def _format_mark(mark: yaml.Mark | None, form: str) -> str:
    return form.format(mark.line + 1, mark.column + 1) if mark else ""


def _record_locations(node: yaml.Node, path: KeyPath, file: Path, source: Source) -> None:
    """Record the line of every key and item below a node, and duplicate keys."""
    source.locations.setdefault(path, f"{file}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            below = (*path, key.value)
            if key.value in lines:
                source.duplicates.append((below, f"duplicate key, already in line {lines[key.value]}"))
                for replaced in [other for other in source.locations if other[: len(below)] == below]:
                    del source.locations[replaced]
            lines[key.value] = key.start_mark.line + 1
            source.locations[below] = f"{file}:{lines[key.value]}"
            _record_locations(value, below, file, source)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _record_locations(value, (*path, index), file, source)


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
    close = difflib.get_close_matches(unknown.lower().replace("-", "_"), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
