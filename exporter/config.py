"""Configuration: a YAML file, or the environment, to validated settings.

Whatever is wrong is told at once, each with its file, line and key, or with its variable.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
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
from exporter.tedee.credentials import CredentialsUnavailable, read_secret

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


def _not_empty[Items: tuple[object, ...]](items: Items) -> Items:
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


class Api(Section):
    """Where Tedee is, and how to speak to it."""

    url: Text = "https://api.tedee.com"
    version: Annotated[Text, Field(pattern=r"^v\d+(\.\d+)?$")] = "v37"
    timeout: Seconds = 10.0

    @field_validator("url")
    @classmethod
    def _carries_the_key_safely(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise _wrong(f"not a URL: {error}") from None
        if parts.scheme not in {"http", "https"} or not host:
            raise _wrong("not a URL of the form https://host")
        if parts.scheme == "http" and not is_loopback(host):
            raise _wrong(f"http:// would send the key to {host} unencrypted; use https://")
        if parts.username or parts.password or parts.query or parts.fragment or parts.path.strip("/"):
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

    @model_validator(mode="after")
    def _outlives_a_missed_sync(self) -> "Sync":
        if self.stale_after < 2 * self.interval:
            raise _wrong("stale_after must be at least twice the interval, or every late sync leaves a hole")
        return self


class ChosenLocks(Section):
    """The locks an account is limited to."""

    ids: Annotated[tuple[Annotated[Count, Field(ge=0)], ...], Field(min_length=1)] | None = None
    serial_numbers: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "ChosenLocks":
        if (self.ids is None) == (self.serial_numbers is None):
            raise _wrong("needs either ids or serial_numbers, and one of them alone")
        return self


class Account(Section):
    """One Tedee user: Tedee counts requests by user, so each user is one account here."""

    CREDENTIALS: ClassVar = ("personal_key", "personal_key_file", "access_token", "access_token_file")

    name: Text
    personal_key: Secret | None = None
    personal_key_file: Path | None = None
    access_token: Secret | None = None
    access_token_file: Path | None = None
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

    @model_validator(mode="after")
    def _one_credential(self) -> "Account":
        given = [key for key in self.CREDENTIALS if getattr(self, key) is not None]
        if len(given) != 1:
            listed = ", ".join(self.CREDENTIALS[:-1]) + " or " + self.CREDENTIALS[-1]
            have = f"has {' and '.join(given)}" if given else "has no credentials"
            raise _wrong(f"{have}; it needs one of {listed}")
        return self

    @property
    def credential(self) -> tuple[str, SecretStr | Path]:
        """The key that is set, and its value."""
        return next((key, value) for key in self.CREDENTIALS if (value := getattr(self, key)) is not None)


class Settings(Section):
    """All of the configuration."""

    api: Api = Api()
    sync: Annotated[Sync, Field(default_factory=lambda: Sync.model_validate({}))]
    accounts: Annotated[tuple[Account, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _accounts_are_distinct(self) -> "Settings":
        seen: dict[object, str] = {}
        for account in self.accounts:
            if account.name in seen:
                raise _wrong(f"two accounts are named {account.name!r}")
            seen[account.name] = account.name
        for account in self.accounts:
            _, secret = account.credential
            if secret in seen:
                raise _wrong(
                    f"{seen[secret]!r} and {account.name!r} use the same key; "
                    "Tedee counts calls by user, so a user may be one account only"
                )
            seen[secret] = account.name
        return self


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
    repeated: list[str] = field(default_factory=list)
    """Problems with keys that stand twice, of which YAML silently takes the last."""
    has_keys: bool = True
    """Whether to name the key beside the place; a variable says it already."""

    def settings(self, *, check_secrets: bool = False) -> Settings:
        """Validate.

        Raises:
            ConfigurationError: with every problem there is.
        """
        try:
            return Settings.model_validate(self.data, context={"check_secrets": check_secrets})
        except ValidationError as error:
            problems = [self._problem(each) for each in error.errors(include_url=False, include_input=False)]
            raise ConfigurationError(problems) from None

    def tell(self, path: Where, message: str) -> str:
        """One problem, with its place and key."""
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
        return ": ".join(filter(None, [self._place(path), key if self.has_keys else "", message]))

    def _place(self, path: Where) -> str:
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, "")

    def _problem(self, error: ErrorDetails) -> str:
        path: Where = tuple(error["loc"])
        match error["type"]:
            case "extra_forbidden":
                return self.tell(path, f"unknown key{_did_you_mean(path)}")
            case "missing":
                return self.tell(path, "is missing")
            case "too_short" | "string_too_short":
                return self.tell(path, "must not be empty")
            case "model_type" | "model_attributes_type":
                return self.tell(path, "must be a mapping of keys to values")
            case "string_pattern_mismatch":
                return self.tell(path, "must look like v37 or v1.36")
            case _:
                return self.tell(path, error["msg"][0].lower() + error["msg"][1:])


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
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ConfigurationError([f"{path}: anchors and aliases (&, *) are not supported here"])
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise ConfigurationError([f"{path}: is empty"])
        source = Source(loader.construct_document(node))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError([f"{path}:{line}: is not YAML: {error.problem or error.context}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigurationError([f"{path}: is not YAML: {str(error).splitlines()[0]}"]) from None
    _note_places(node, (), path, source)
    if source.repeated:
        raise ConfigurationError(source.repeated)
    return source


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
    return Source(data, places, has_keys=False)


def _note_places(node: yaml.Node, where: Where, file: Path, source: Source) -> None:
    """Note the line of every key and item below a node, and the keys that stand there twice."""
    source.places.setdefault(where, f"{file}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            below = (*where, str(key.value))
            source.places[below] = f"{file}:{key.start_mark.line + 1}"
            if str(key.value) in keys:
                source.repeated.append(source.tell(below, "stands here twice"))
            keys.add(str(key.value))
            _note_places(value, below, file, source)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_places(value, (*where, index), file, source)


def _did_you_mean(path: Where) -> str:
    known = list(_section_at(path[:-1]).model_fields)
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
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
