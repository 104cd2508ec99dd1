"""Configuration: a YAML file, or the environment, to validated settings.

Whatever is wrong is told at once, each with its file, line and key, or with its variable.
"""

import difflib
import os
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, get_args
from urllib.parse import urlsplit

import durationpy
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    Strict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from exporter.tedee.client import is_loopback
from exporter.tedee.credentials import CredentialsUnavailable, SecretSource, read_secret

Where = tuple[str | int, ...]
"""Where something stands in the configuration: `("accounts", 0, "name")`."""


class ConfigurationError(Exception):
    """The configuration cannot be used. `problems` has one line for each thing that is wrong with it."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class NotConfigured(Exception):
    """There is neither a file nor a key in the environment."""


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("wrong", "{message}", {"message": message})


# None of the messages repeats text of the file: what stands in the wrong place may be a secret.


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise _wrong(f"{value} is not a duration; write it with its unit, as in 20s or 5m")
    try:
        if isinstance(value, str) and re.fullmatch(r"([0-9]+(\.[0-9]+)?(ms|[smhd]))+", value):
            return float(durationpy.from_str(value).total_seconds())
    except ValueError:
        pass
    raise _wrong("is not a duration; write it as in 20s, 5m or 1h30m")


def _file_name(value: object) -> Path:
    if not isinstance(value, str) or "\0" in value:
        raise _wrong("must be the name of a file")
    if not value:
        raise _wrong("must not be empty")
    return Path(value)


def _not_empty(items: tuple[object, ...]) -> tuple[object, ...]:
    # min_length would count only the items that are good.
    if not items:
        raise _wrong("must not be empty")
    return items


Seconds = Annotated[float, BeforeValidator(_seconds)]
Text = Annotated[str, Strict(), Field(min_length=1, max_length=200)]
Count = Annotated[int, Strict()]
Secret = Annotated[SecretStr, Field(min_length=1)]
SecretFile = Annotated[Path, BeforeValidator(_file_name)]
NotEmpty = AfterValidator(_not_empty)


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def contradictions(cls, given: Mapping[str, object]) -> Iterator[tuple[Where, PydanticCustomError]]:  # noqa: ARG003
        """What is wrong between the keys of a section as it was given, each with its place below the section."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _all_at_once(cls, given: object, validate: ModelWrapValidatorHandler[Self]) -> Self:
        # A validator that runs after the fields would run only when all of them are right.
        whole = cls.contradictions(given) if isinstance(given, dict) else ()
        problems = [InitErrorDetails(type=kind, loc=place, input=None) for place, kind in whole]
        try:
            section = validate(given)
        except ValidationError as error:
            problems = [_again(each) for each in error.errors(include_url=False, include_input=False)] + problems
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems, hide_input=True)
        return section


def _again(error: ErrorDetails) -> InitErrorDetails:
    kind = PydanticCustomError(error["type"], "{message}", {**error.get("ctx", {}), "message": error["msg"]})
    return InitErrorDetails(type=kind, loc=error["loc"], input=None)


def _one_of(keys: tuple[str, ...], given: Mapping[str, object]) -> PydanticCustomError | None:
    """The problem with a section that has none or several of the keys of which it needs one."""
    have = [key for key in keys if given.get(key) is not None]
    return None if len(have) == 1 else PydanticCustomError("one_of", "", {"keys": keys, "have": have})


class Api(Section):
    """Where Tedee is, and how to speak to it."""

    url: Text = "https://api.tedee.com"
    version: Annotated[Text, Field(pattern=r"^v[0-9]+(\.[0-9]+)?$")] = "v37"
    timeout: Seconds = 10.0

    @field_validator("url")
    @classmethod
    def _carries_the_key_safely(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in {"http", "https"} or not url.isprintable() or " " in url:
            raise _wrong("not a URL of the form https://host")
        if parts.scheme == "http" and not is_loopback(host):
            raise _wrong("http:// would send the key unencrypted; use https://")
        if set(url) & set("@?#") or parts.path.strip("/"):
            raise _wrong("only scheme, host and port belong here")
        return url

    @field_validator("timeout")
    @classmethod
    def _reasonable(cls, timeout: float) -> float:
        if not 0.1 <= timeout <= 300:  # noqa: PLR2004
            raise _wrong("must be between 100ms and 5m")
        return timeout


class Sync(Section):
    """How often to ask, and how long an answer is good."""

    interval: Seconds = 20.0
    stale_after: Annotated[
        Seconds, Field(default_factory=lambda valid: max(300.0, 3 * float(valid.get("interval", 0))))
    ]
    requests_per_hour: Annotated[Count, Field(ge=10, le=700)] = 350

    @field_validator("interval")
    @classmethod
    def _within_the_contract(cls, interval: float) -> float:
        if interval < 20:  # noqa: PLR2004
            raise _wrong("Tedee allows one sync in 20s; a shorter interval would lock the account out of the API")
        if interval > 86_400:  # noqa: PLR2004
            raise _wrong("must be at most 24h")
        return interval

    @field_validator("stale_after")
    @classmethod
    def _outlives_a_missed_sync(cls, stale_after: float, info: ValidationInfo) -> float:
        if stale_after < 2 * float(info.data.get("interval", 0)):
            raise _wrong("must be at least twice the interval, or every late sync leaves a hole")
        return stale_after


class ChosenLocks(Section):
    """The locks an account is limited to."""

    WAYS: ClassVar = ("ids", "serial_numbers")

    ids: Annotated[tuple[Annotated[Count, Field(ge=0)], ...], NotEmpty] | None = None
    serial_numbers: Annotated[tuple[Text, ...], NotEmpty] | None = None

    @classmethod
    def contradictions(cls, given: Mapping[str, object]) -> Iterator[tuple[Where, PydanticCustomError]]:
        """Neither way of choosing, or both."""
        problem = _one_of(cls.WAYS, given)
        if problem:
            yield (), problem


class Account(Section):
    """One Tedee user: Tedee counts requests by user, so each user is one account here."""

    CREDENTIALS: ClassVar = ("personal_key", "personal_key_file", "access_token", "access_token_file")

    name: Text
    personal_key: Secret | None = None
    personal_key_file: SecretFile | None = None
    access_token: Secret | None = None
    access_token_file: SecretFile | None = None
    locks: ChosenLocks | None = None

    @field_validator(*CREDENTIALS)
    @classmethod
    def _readable(cls, secret: SecretStr | Path | None, info: ValidationInfo) -> SecretStr | Path | None:
        if secret is not None and (info.context or {}).get("check_secrets"):
            try:
                read_secret(secret)
            except CredentialsUnavailable as error:
                raise _wrong(str(error)) from None
        return secret

    @classmethod
    def contradictions(cls, given: Mapping[str, object]) -> Iterator[tuple[Where, PydanticCustomError]]:
        """No credentials, or several."""
        problem = _one_of(cls.CREDENTIALS, given)
        if problem:
            yield (), problem

    @property
    def credential(self) -> tuple[str, SecretStr | Path]:
        """The key that is set, and its value."""
        return next((key, value) for key in self.CREDENTIALS if (value := getattr(self, key)) is not None)


class Settings(Section):
    """All of the configuration."""

    api: Api = Api()
    sync: Annotated[Sync, Field(default_factory=lambda: Sync.model_validate({}))]
    accounts: Annotated[tuple[Account, ...], NotEmpty]

    @classmethod
    def contradictions(cls, given: Mapping[str, object]) -> Iterator[tuple[Where, PydanticCustomError]]:
        """Accounts that share a name or a key."""
        accounts = given.get("accounts")
        names: dict[str, int] = {}
        secrets: dict[SecretSource, int] = {}
        for index, account in enumerate(accounts if isinstance(accounts, list) else ()):
            if not isinstance(account, dict):
                continue
            name = account.get("name")
            if isinstance(name, str) and names.setdefault(name, index) != index:
                yield ("accounts", index, "name"), _wrong(f"is the name of accounts[{names[name]}] too")
            for key in Account.CREDENTIALS:
                secret = _secret_itself(key, account.get(key))
                if secret and secrets.setdefault(secret, index) != index:
                    yield (
                        ("accounts", index, key),
                        _wrong(
                            f"is the key of accounts[{secrets[secret]}] too; "
                            "Tedee counts calls by user, so a user may be one account only"
                        ),
                    )


def _secret_itself(key: str, value: object) -> SecretSource | None:
    """What tells one user's secret from another's: the secret, or for want of it the file where it will be."""
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    source = Path(value) if key.endswith("_file") else SecretStr(value)
    try:
        return read_secret(source)
    except CredentialsUnavailable:
        return source


ENVIRONMENT: dict[str, Where] = {
    "TEDEE_PERSONAL_KEY": ("accounts", 0, "personal_key"),
    "TEDEE_PERSONAL_KEY_FILE": ("accounts", 0, "personal_key_file"),
    "TEDEE_ACCESS_TOKEN": ("accounts", 0, "access_token"),
    "TEDEE_ACCESS_TOKEN_FILE": ("accounts", 0, "access_token_file"),
    "TEDEE_ACCOUNT": ("accounts", 0, "name"),
    "TEDEE_API_URL": ("api", "url"),
    "TEDEE_API_VERSION": ("api", "version"),
    "TEDEE_SYNC_INTERVAL": ("sync", "interval"),
}
"""The variables that make up one account's configuration where there is no file."""
DEFAULT_ACCOUNT = "default"


def load(config_file: Path | None, environ: Mapping[str, str] = os.environ, *, check_secrets: bool = False) -> Settings:
    """Read the file, or without one the environment.

    Args:
        config_file: YAML.
        environ: used where there is no file.
        check_secrets: also say which files of secrets cannot be used now. A running exporter reads them at each
            call, so that for it this is one account's failed sync and no reason not to start.

    Raises:
        ConfigurationError: it cannot be used.
        NotConfigured: there is no file and no key in the environment.
    """
    source = read_file(config_file) if config_file else read_environment(environ)
    return source.settings(check_secrets=check_secrets)


@dataclass
class Source:
    """Unvalidated configuration, and where each of its parts stands."""

    data: object
    places: dict[Where, str] = field(default_factory=dict)
    """Path to a line (`tedee.yml:7`) or a variable (`TEDEE_SYNC_INTERVAL`)."""
    repeated: list[tuple[Where, str]] = field(default_factory=list)
    """Problems with keys that stand twice, of which YAML silently takes the last."""
    variables: Mapping[Where, str] = field(default_factory=dict)
    """Names for the paths, where they are set by variables and not by keys."""

    def settings(self, *, check_secrets: bool = False) -> Settings:
        """Validate.

        Raises:
            ConfigurationError: with every problem there is, in the order of the file.
        """
        problems = list(self.repeated)
        try:
            settings = Settings.model_validate(self.data, context={"check_secrets": check_secrets})
        except ValidationError as error:
            problems += [
                (tuple(each["loc"]), self._message(each))
                for each in error.errors(include_url=False, include_input=False)
                # A default that waits for a value which is a problem already.
                if each["type"] != "default_factory_not_called"
            ]
        if problems:
            order = {place: position for position, place in enumerate(self.places)}
            problems.sort(key=lambda problem: order.get(self._known(problem[0]), -1))
            raise ConfigurationError([self.tell(*problem) for problem in problems])
        return settings

    def tell(self, path: Where, message: str) -> str:
        """One problem, with its place and key."""
        key = "" if self.variables else _key(path)
        return ": ".join(filter(None, [self.places.get(self._known(path), ""), key, message]))

    def _known(self, path: Where) -> Where:
        """The path, or the nearest above it, that stands in the configuration."""
        while path and path not in self.places:
            path = path[:-1]
        return path

    def _value(self, path: Where) -> object:
        value: Any = self.data
        for part in path:
            value = value[part]
        return value

    def _message(self, error: ErrorDetails) -> str:
        path: Where = tuple(error["loc"])
        if path in self.places and self._value(path) is None and error["type"] != "extra_forbidden":
            return "has no value"
        match error["type"]:
            case "extra_forbidden":
                return f"unknown key{_did_you_mean(path)}"
            case "one_of":
                keys, have = (
                    [self.variables.get((*path, key), key) for key in error["ctx"][which]] for which in ("keys", "have")
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
    "int_type": "must be a whole number, without quotes",
    "string_type": "must be text; put it in quotes",
    "string_unicode": "must be text",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters long",
    "string_pattern_mismatch": "must look like v37 or v1.36",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}
"""What people are told, by pydantic's type of error."""


class _Loader(yaml.SafeLoader):
    """Plain YAML: keys are text, and so are dates."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag.rpartition(":")[2] in {"bool", "int", "float", "null"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_file(path: Path) -> Source:
    """Read a YAML file, keeping the line of each key.

    Raises:
        ConfigurationError: it cannot be read, or is not YAML.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigurationError([f"{path}: is not UTF-8 text"]) from None
    try:
        for event in yaml.parse(text, _Loader):
            if any(getattr(event, mark, None) for mark in ("anchor", "tag")):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ConfigurationError([f"{path}:{line}: {NOT_SUPPORTED}"])
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise ConfigurationError([f"{path}: is empty"])
        source = Source(loader.construct_document(node))
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
    "unhashable key": "is not YAML: a list or a mapping stands where a key belongs",
    "another document": "a second document begins here; a file holds one",
    "tag handle": NOT_SUPPORTED,
}
"""What people are told, by what PyYAML says."""


def _not_yaml(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    known = (words for pattern, words in YAML_PROBLEMS.items() if re.search(pattern, problem))
    return next(known, f"is not YAML: {problem}")


def read_environment(environ: Mapping[str, str]) -> Source:
    """Read the variables of ENVIRONMENT. An empty one counts as not set.

    Raises:
        NotConfigured: none of them holds or names a credential.
    """
    given = {variable: path for variable, path in ENVIRONMENT.items() if environ.get(variable)}
    if not any(path[-1] in Account.CREDENTIALS for path in given.values()):
        raise NotConfigured
    account: dict[str, str] = {"name": DEFAULT_ACCOUNT}
    data: dict[str, Any] = {"api": {}, "sync": {}, "accounts": [account]}
    places: dict[Where, str] = {("accounts", 0): "environment"}
    for variable, path in given.items():
        section = account if path[0] == "accounts" else data[str(path[0])]
        section[str(path[-1])] = environ[variable]
        places[path] = f"environment: {variable}"
    return Source(data, places, variables={path: variable for variable, path in ENVIRONMENT.items()})


def _note_places(node: yaml.Node, where: Where, file: Path, source: Source) -> None:
    """Note the line of every key and item below a node, and the keys that stand there twice."""
    source.places.setdefault(where, f"{file}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            below = (*where, key.value)
            if key.value in lines:
                source.repeated.append((below, f"stands in line {lines[key.value]} already"))
                for place in [place for place in source.places if place[: len(below)] == below]:
                    del source.places[place]
            lines[key.value] = key.start_mark.line + 1
            source.places[below] = f"{file}:{lines[key.value]}"
            _note_places(value, below, file, source)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_places(value, (*where, index), file, source)


def _key(path: Where) -> str:
    """`accounts[0].name`; it ends before an unknown key that looks like none, and may be a secret without its colon."""
    shown = ""
    for part in path:
        if isinstance(part, str) and not re.fullmatch(r"[A-Za-z_-]{1,30}", part):
            break
        shown += f"[{part}]" if isinstance(part, int) else f".{part}"
    return shown.removeprefix(".")


def _did_you_mean(path: Where) -> str:
    unknown, known = str(path[-1]), list(_section_at(path[:-1]).model_fields)
    if ":" in unknown:
        return "; a colon needs a space behind it"
    close = difflib.get_close_matches(unknown.lower().replace("-", "_"), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}"


def _section_at(path: Where) -> type[Section]:
    """The section that stands at a path."""
    section: type[Section] = Settings
    for part in path:
        if isinstance(part, str):
            section = _section_in(section.model_fields[part].annotation) or section
    return section


def _section_in(annotation: object) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)
