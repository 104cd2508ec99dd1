"""What was given, where each part of it stands, and how a person is told what is wrong there."""

import difflib
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from exporter.secrets import LONG, READ_BYTES, is_near, read_regular_file, safe_path

from .model import ConfigModel, Location


class ConfigurationError(Exception):
    """The configuration cannot be used. `problems` has one line for each thing that is wrong with it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


M = TypeVar("M", bound=ConfigModel)

MAX_FILE_BYTES = 16 * 2**20
"""Of a configuration; ten thousand accounts have about one MiB."""


@dataclass
class Source:
    """Unvalidated configuration, and where each of its parts stands."""

    data: object = field(repr=False)
    locations: dict[Location, str] = field(default_factory=dict)
    """Path to a line (`tedee.yml:7`) or a variable (`TEDEE_SYNC_INTERVAL`)."""
    folder: Path = Path()
    """What relative file names start from."""
    content: bytes = field(default=b"", repr=False)
    """Of the file."""
    repeated: list[tuple[Location, str]] = field(default_factory=list)
    """Problems with keys that stand twice, of which YAML silently takes the last."""
    variables: Mapping[Location, str] = field(default_factory=dict)
    """Names for the paths, where they are set by variables and not by keys."""

    def validated(self, model: type[M], **context: object) -> M:
        """The data as what it is to be.

        Args:
            model: the outermost section.
            context: for the sections' validators, beside the `folder` that relative file names start from.

        Raises:
            ConfigurationError: with every problem there is, in the order of the file.
        """
        problems = list(self.repeated)
        try:
            section = model.model_validate(self.data, context={"folder": self.folder, **context})
        except ValidationError as error:
            problems += [
                (tuple(each["loc"]), self._message(each, model))
                for each in error.errors(include_url=False, include_input=False)
                # A default that waits for a value which is a problem already.
                if each["type"] != "default_factory_not_called"
            ]
        if problems:
            order = {place: position for position, place in enumerate(self.locations)}
            problems.sort(key=lambda problem: order.get(self._known(problem[0]), -1))
            raise ConfigurationError([self.format_error(*problem) for problem in problems])
        return section

    def format_error(self, path: Location, message: str) -> str:
        """One problem, with its place and key."""
        key = "" if self.variables else _key(path)
        return ": ".join(filter(None, [self.locations.get(self._known(path), ""), key, message]))

    def _known(self, path: Location) -> Location:
        """The path, or the nearest above it, that stands in the configuration."""
        while path and path not in self.locations:
            path = path[:-1]
        return path

    def _value(self, path: Location) -> object:
        value: Any = self.data
        for part in path:
            value = value[part]
        return value

    def _message(self, error: ErrorDetails, model: type[ConfigModel]) -> str:
        path: Location = tuple(error["loc"])
        if path in self.locations and self._value(path) is None and error["type"] != "extra_forbidden":
            return "has no value"
        match error["type"]:
            case "extra_forbidden":
                return f"unknown key{_did_you_mean(path, _section_at(model, path[:-1]))}"
            case "one_of":
                keys, have = (
                    [
                        self.variables.get((*path, key), key)
                        for key in error["ctx"][which]
                        if not self.variables or (*path, key) in self.variables
                    ]
                    for which in ("keys", "have")
                )
                return f"needs one of {', '.join(keys[:-1])} or {keys[-1]}; it has {' and '.join(have) or 'none'}"
            case "string_type" if isinstance(self._value(path), list | dict):
                return "must be text"
            case kind if kind in MESSAGES:
                return MESSAGES[kind].format(**error.get("ctx", {}))
            case _:
                return error["msg"]


MESSAGES = {
    "missing": "is missing",
    "model_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number; write it as a decimal number without leading zeros and without quotes",
    "string_type": "must be text; put it in quotes",
    "string_unicode": "must be text",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters long",
    "string_pattern_mismatch": "must look like v37 or v1.36",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
}
"""What people are told, by pydantic's type of error."""


class _Loader(yaml.SafeLoader):
    """Plain YAML: keys are text, and so are dates and integers that are not decimal."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag.rpartition(":")[2] in {"bool", "float", "null"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1 reads 0123 as 83, 1:30 as 90 and 1_000 as 1000: another lock than the one that was written.
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)\Z"), list("-+0123456789"))


def read_file(path: Path, *, may_be_empty: bool = False, again: bool = False) -> Source:
    """Read a YAML file, keeping the line of each key.

    Args:
        path: of the file.
        may_be_empty: whether an empty file is an empty mapping, and not an error.
        again: whether this is a reload. Only the first time it may be a pipe, such as a shell's <(…).

    Raises:
        ConfigurationError: it cannot be read, or is not YAML.
    """
    content, text = _read_text(path, again=again)
    try:
        for event in yaml.parse(text, _Loader):
            if any(getattr(event, mark, None) for mark in ("anchor", "tag")):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ConfigurationError([f"{path}:{line}: {NOT_SUPPORTED}"])
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None and may_be_empty:
            return Source({}, folder=path.parent, content=content)
        if node is None:
            raise ConfigurationError([f"{path}: is empty"])
        source = Source(loader.construct_document(node), folder=path.parent, content=content)
    except yaml.MarkedYAMLError as error:
        raise ConfigurationError([f"{path}:{_line(error)}: {_not_yaml(error)}"]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigurationError([f"{path}:{line}: is not YAML: holds a control character"]) from None
    except ValueError:
        raise ConfigurationError([f"{path}: holds a number that cannot be read"]) from None
    except RecursionError:
        raise ConfigurationError([f"{path}: is nested too deeply"]) from None
    _note_places(node, (), path, source)
    return source


def _read_text(path: Path, *, again: bool) -> tuple[bytes, str]:
    """Return the bytes of a file, and its text.

    Raises:
        ConfigurationError: It cannot be read, or has spaces that are none for YAML.
    """
    try:
        content = read_regular_file(path, MAX_FILE_BYTES + 1) if again else _read_any_file(path)
        if content is None:
            raise ConfigurationError([f"{path}: is not a regular file; any other is read at the start alone"])
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError([f"{safe_path(path)}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigurationError([f"{path}: is not UTF-8 text"]) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigurationError([f"{path}: is too large to be a configuration"])
    if odd := re.search(ODD_SPACE, text):
        line = text.count("\n", 0, odd.start(1)) + 1
        raise ConfigurationError(
            [f"{path}:{line}: is not YAML: U+{ord(odd[1]):04X} stands where only a space may; type the space again"]
        )
    return content, text


def _read_any_file(path: Path) -> bytes:
    with path.open("rb") as file:
        parts = iter(partial(file.read, READ_BYTES), b"")
        return b"".join(islice(parts, MAX_FILE_BYTES // READ_BYTES + 1))


ODD_SPACE = r"(?m)^[ -]*+(?:[\w.-]++:)?+([^\S \t\n\r\f\v]|[\u200b-\u200d\u2060\ufeff])"
"""A space that is none for YAML, such as the no-break spaces of web pages, in an indentation or after a key."""
NOT_SUPPORTED = "anchors, aliases and tags (&, *, !) are not supported here; text that begins so needs quotes"


def _line(error: yaml.MarkedYAMLError) -> int:
    """The line to look at: for what does not end where it should, the one where it begins."""
    within = (error.context or "").startswith("while scanning") or _unfinished(error)
    mark = (error.context_mark if within else None) or error.problem_mark
    return mark.line + 1 if mark else 1


def _unfinished(error: yaml.MarkedYAMLError) -> bool:
    return bool(re.search(UNFINISHED, error.problem or ""))


UNFINISHED = "stream end|end of stream"
YAML_PROBLEMS = {
    UNFINISHED: "is not YAML: a quote or bracket that opens here is not closed",
    "could not find expected ':'": "is not YAML: a key without a colon, or a colon without the space behind it",
    r"'\\t'": "is not YAML: a tab stands where only spaces may",
    "expected <block end>": "is not YAML: something does not belong here; is it indented as the lines above?",
    "mapping values are not allowed": (
        "is not YAML: a colon where none may stand; put text that has one into quotes, "
        "or a space behind the colon of the line above"
    ),
    "unhashable key": "is not YAML: a list or a mapping stands where a key belongs",
    "another document": "a second document begins here; a file holds one",
    "tag handle": NOT_SUPPORTED,
}
"""What people are told, by what PyYAML says."""


def _not_yaml(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    known = (text for pattern, text in YAML_PROBLEMS.items() if re.search(pattern, problem))
    return next(known, f"is not YAML: {problem}")


def _note_places(node: yaml.Node, where: Location, file: Path, source: Source) -> None:
    """Note the line of every key and item below a node, and the keys that stand there twice."""
    source.locations.setdefault(where, f"{file}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            below = (*where, key.value)
            if key.value in lines:
                source.repeated.append((below, f"stands in line {lines[key.value]} already"))
                for place in [place for place in source.locations if place[: len(below)] == below]:
                    del source.locations[place]
            lines[key.value] = key.start_mark.line + 1
            source.locations[below] = f"{file}:{lines[key.value]}"
            _note_places(value, below, file, source)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_places(value, (*where, index), file, source)


def _key(path: Location) -> str:
    """Return `accounts[0].name`. It ends before a key that may be a secret: unknown, and not short or misspelt."""
    shown = ""
    known = {key for section in ConfigModel.__subclasses__() for key in section.model_fields}
    for part in path:
        if isinstance(part, str) and not (
            re.fullmatch(r"[A-Za-z_-]{1,30}[0-9]?", part)
            and (len(part) < LONG or is_near(part.lower().replace("-", "_"), known))
        ):
            break
        shown += f"[{part}]" if isinstance(part, int) else f".{part}"
    return shown.removeprefix(".")


def _did_you_mean(path: Location, section: type[ConfigModel]) -> str:
    unknown, known = str(path[-1]), list(section.model_fields)
    if ":" in unknown:
        return "; a colon needs a space behind it"
    close = difflib.get_close_matches(unknown.lower().replace("-", "_"), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}"


def _section_at(section: type[ConfigModel], path: Location) -> type[ConfigModel]:
    """The section that stands at a path below another."""
    for part in path:
        if isinstance(part, str):
            section = _section_in(section.model_fields[part].annotation) or section
    return section


def _section_in(annotation: object) -> type[ConfigModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, ConfigModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)
