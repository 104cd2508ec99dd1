"""Base class, field types and validators of all configuration models."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple, TypeGuard

from msgspec import Meta, Struct

from exporter.fields import KeyPath, Parse
from exporter.secrets import Secret, read_regular_file, safe_path


class Context(NamedTuple):
    """What the validators of a configuration need in addition to the values."""

    folder: Path = Path()
    """Folder at which relative file names start."""
    check_secrets: bool = False
    """Whether secret files are to be checked as well."""


class NotExactlyOne(ValueError):
    """Several of the keys have a value, or none."""

    def __init__(self, keys: tuple[str, ...], present: list[str]) -> None:
        super().__init__()
        self.keys = keys
        self.present = present


UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
"""Seconds of each unit in a duration."""


# No message repeats text of the file: a misplaced value may be a secret.


def parse_duration(value: object, _context: object = None) -> float:
    """Return the seconds of a duration in the format of Prometheus: `20s`, `5m`, `1h30m`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number or (isinstance(value, str) and re.fullmatch(r"[0-9.]+", value)):
        raise ValueError("is not a duration; write it with its unit, as in 20s or 5m")
    if isinstance(value, str) and re.fullmatch(r"([0-9]+(\.[0-9]+)?(ms|[smhd]))+", value):
        parts = re.findall(r"([0-9.]+)(ms|[smhd])", value)
        with contextlib.suppress(OverflowError):
            return timedelta(seconds=sum(float(number) * UNITS[unit] for number, unit in parts)).total_seconds()
    raise ValueError("is not a duration; write it as in 20s, 5m or 1h30m")


def parse_date(value: object, _context: object = None) -> float:
    """Return the Unix time of a date, or of a date and time, in ISO 8601: `2027-11-30`. The default zone is UTC."""
    if isinstance(value, str) and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        with contextlib.suppress(ValueError, OverflowError):
            date = datetime.fromisoformat(value)
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    raise ValueError("is not a date; write it as in 2027-11-30")


def parse_switch(value: object, _context: object = None) -> bool:
    """Return the value of a switch, which may also be text, as in environment variables: the words of YAML 1.1."""
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    switch = words.get(str(value).lower()) if isinstance(value, bool | str) else None
    if switch is None:
        raise ValueError("must be true or false")
    return switch


def resolve_path(value: object, context: Context) -> Path:
    """Return the path of a file. A relative name starts at the folder of the configuration file, as in Prometheus."""
    if not is_file_name(value):
        raise ValueError("must be the name of a file")
    if not value:
        raise ValueError("must not be empty")
    if value.startswith("~"):
        raise ValueError(BEGINS_WITH_TILDE)
    return context.folder / value


def resolve_state_path(value: object, context: Context) -> Path:
    """Return the path of a state file. It must be a regular file or not exist."""
    path = resolve_path(value, context)
    if value == ":memory:" or str(value).startswith("file:"):
        raise ValueError("must be the name of a file; SQLite's :memory: and file: URIs are not supported")
    # os.path does not raise if a folder cannot be searched; pathlib does.
    if os.path.isdir(path) or str(value).endswith("/"):  # noqa: PTH112
        raise ValueError("is a folder; name a file in it, such as state.db")
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
        raise ValueError("is not a regular file")
    for parent in path.parents:
        if os.path.exists(parent):  # noqa: PTH110
            if not os.path.isdir(parent):  # noqa: PTH112
                raise ValueError(f"is below {safe_path(parent)}, which is not a folder")
            break
    return path


def parse_secret(value: object, _context: Context) -> Secret:
    """Return text as a secret."""
    if not isinstance(value, str):
        raise ValueError("must be text" if isinstance(value, list | dict) else "must be text; put it in quotes")  # noqa: TRY004  (errors are ValueErrors)
    if not value:
        raise ValueError("must not be empty")
    return Secret(value)


def parse_database_url(value: object, context: Context) -> Secret:
    """Return a connection string of libpq, or a URL such as `postgresql://user@host/database`, as a secret."""
    secret = parse_secret(value, context)
    url = secret.get_secret_value()
    if not re.match(r"postgres(ql)?://|\w+ ?=", url) or not url.isprintable():
        raise ValueError("is not a URL such as postgresql://user@host/database")
    try:
        from psycopg import ProgrammingError  # noqa: PLC0415  (an optional dependency)
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415
    except ImportError:
        raise ValueError("needs the PostgreSQL driver: pip install 'tedee-exporter[postgresql]'") from None
    try:
        given = conninfo_to_dict(url)
    except (ProgrammingError, UnicodeError):
        # The message of libpq may contain the password.
        raise ValueError(f"is not a valid connection string of PostgreSQL; in a URL, {ESCAPES}") from None
    ports = str(given.get("port") or "").split(",")
    if "@" in f"{given.get('host')}{given.get('dbname')}" or not all(re.fullmatch("[0-9]*", port) for port in ports):
        # Otherwise a part of the password would be used, and logged, as a host.
        raise ValueError(f"has special characters in its user or password; {ESCAPES}")
    return secret


def has_password(url: Secret) -> bool:
    """Return True if the URL of a database contains a password."""
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415  (an optional dependency)

    return "password" in conninfo_to_dict(url.get_secret_value())


def read_database_url(path: Path) -> Secret:
    """Return the URL of a database in a file.

    Raises:
        ValueError: The file cannot be read, or does not contain such a URL.
    """
    try:
        content = read_regular_file(path, MAX_URL_BYTES)
        text = None if content is None else content.decode().strip()
    except (OSError, UnicodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ValueError(f"{safe_path(path)} cannot be read: {problem}") from None
    if text is None:
        raise ValueError(f"{safe_path(path)} is not a regular file")
    return parse_database_url(text, Context())


def is_file_name(value: object) -> TypeGuard[str]:
    """Return True for a text that can be the name of a file. An empty one is accepted."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeError:  # half a surrogate pair
        return False


def check_not_blank(text: str) -> str:
    """Raise ValueError if a text consists of spaces."""
    if text.isspace():
        raise ValueError("must not be blank")
    return text


ESCAPES = "write @ as %40, : as %3A, / as %2F, % as %25"
"""How special characters are written in a URL."""
MAX_URL_BYTES = 10_000
"""Limit of the file with the URL of a database."""
BEGINS_WITH_TILDE = "begins with ~, which only a shell expands; write the full path, or ./~ if the name begins with ~"

Seconds = Annotated[float, Parse(parse_duration)]
Date = Annotated[float, Parse(parse_date)]
"""Unix seconds."""
Switch = Annotated[bool, Parse(parse_switch)]
Text = Annotated[str, Meta(min_length=1, max_length=200), check_not_blank]
FileName = Annotated[Path, Parse(resolve_path)]
StateFileName = Annotated[Path, Parse(resolve_state_path)]
InlineSecret = Annotated[Secret, Parse(parse_secret)]
DatabaseUrl = Annotated[Secret, Parse(parse_database_url)]

Errors = Iterator[tuple[KeyPath, ValueError]]
"""Errors, each with the key path relative to the model."""


class ConfigModel(Struct, frozen=True, forbid_unknown_fields=True):
    """Immutable part of the configuration. Unknown keys are errors."""

    NULL_IS_ABSENT: ClassVar[bool] = False
    """Whether a key without a value is treated as absent instead of an error. That of the whole model counts."""


def exactly_one_error(keys: tuple[str, ...], given: Mapping[str, object]) -> Errors:
    """Yield an error unless exactly one of the keys is present."""
    present = [key for key in keys if key in given]
    if len(present) != 1:
        yield (), NotExactlyOne(keys, present)
