"""Reads YAML files with the line of each key."""

import re
from collections.abc import Hashable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import yaml

from exporter.fields import KeyPath
from exporter.secrets import READ_BYTES, read_regular_file, safe_path

from .source import ConfigurationError, Source

MAX_FILE_BYTES = 16 * 2**20
"""Maximum size of a configuration. 10,000 accounts take about 1 MiB."""


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

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        # JSON escapes a character such as an emoji as two halves, which PyYAML does not join.
        return super().construct_scalar(node).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError:
            raise _NotAccepted(problem="the number cannot be read", problem_mark=node.start_mark) from None


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
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigurationError([f"{path}:{line}: is not UTF-8 text; save the file with this encoding"]) from None
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


_ADVICE = {
    "mapping values are not allowed here": "; check this line and the one above: a space is missing after ':' or '-', "
    "the indentation differs, or text that contains ': ' needs quotes"
}
"""What to do, by texts of errors that do not say it."""


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
            return f"{position}is not valid YAML: {context}{error.problem}{_ADVICE.get(error.problem or '', '')}"
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
