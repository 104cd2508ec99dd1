"""What can be set, and what each setting may be."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self
from urllib.parse import SplitResult, urlsplit

import durationpy
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
from exporter.tedee.oauth import CLIENT_SECRET, REFRESH_TOKEN, SCOPE, TOKEN_URL

Where = tuple[str | int, ...]
"""Where something stands in the configuration: `("accounts", 0, "name")`."""


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


def _file_name(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or "\0" in value:
        raise _wrong("must be the name of a file")
    if not value:
        raise _wrong("must not be empty")
    return _folder(info) / value


def _folder(info: ValidationInfo) -> Path:
    """What relative file names start from."""
    folder: Path = (info.context or {}).get("folder", Path())
    return folder


def _not_empty(items: tuple[object, ...]) -> tuple[object, ...]:
    # min_length would count only the items that are good.
    if not items:
        raise _wrong("must not be empty")
    return items


def _printable(name: str) -> str:
    if not name.isprintable():
        raise _wrong("must not have control characters")
    return name


def _check_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in {"http", "https"} or not url.isprintable() or " " in url:
        raise _wrong("not a URL of the form https://host")
    try:
        host.encode("idna")
    except UnicodeError:
        raise _wrong("has a host name that cannot be one") from None
    if parts.scheme == "http" and not is_loopback(host):
        raise _wrong("http:// would send the key unencrypted; use https://")
    return parts


def _check_readable(secret: SecretSource, info: ValidationInfo, what: str = "key") -> None:
    """Refuse a secret that cannot be read, where secrets are to be checked."""
    if (info.context or {}).get("check_secrets"):
        try:
            read_secret(secret, what)
        except CredentialsUnavailable as error:
            raise _wrong(str(error)) from None


Seconds = Annotated[float, BeforeValidator(_seconds)]
Text = Annotated[str, Strict(), Field(min_length=1, max_length=200)]
Count = Annotated[int, Strict()]
Secret = Annotated[SecretStr, Field(min_length=1)]
SecretFile = Annotated[Path, BeforeValidator(_file_name)]
"""A relative name is one beside the configuration file, as in Prometheus' own."""
NotEmpty = AfterValidator(_not_empty)


StateFile = Annotated[Path, BeforeValidator(_file_name)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def contradictions(cls, given: Mapping[str, object], _folder: Path) -> Iterator[tuple[Where, PydanticCustomError]]:  # noqa: ARG003
        """What is wrong between the keys of a section as it was given, each with its place below the section."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _all_at_once(cls, given: object, validate: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        # A validator that runs after the fields would run only when all of them are right.
        whole = cls.contradictions(given, _folder(info)) if isinstance(given, dict) else ()
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
        if set(url) & set("@?#") or _check_url(url).path.strip("/"):
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

    @field_validator("requests_per_hour")
    @classmethod
    def _suffices(cls, requests_per_hour: int, info: ValidationInfo) -> int:
        stale_after = float(info.data.get("stale_after", 3600))
        if requests_per_hour * stale_after < 2 * 3600:
            raise _wrong(f"is too little to keep data younger than a stale_after of {stale_after:g}s")
        return requests_per_hour


class ChosenLocks(Section):
    """The locks an account is limited to."""

    WAYS: ClassVar = ("ids", "serial_numbers")

    ids: Annotated[tuple[Annotated[Count, Field(ge=0, lt=2**53)], ...], NotEmpty] | None = None
    serial_numbers: Annotated[tuple[Text, ...], NotEmpty] | None = None

    @classmethod
    def contradictions(cls, given: Mapping[str, object], _folder: Path) -> Iterator[tuple[Where, PydanticCustomError]]:
        """Neither way of choosing, or both."""
        problem = _one_of(cls.WAYS, given)
        if problem:
            yield (), problem


class OAuth(Section):
    """An OAuth client of Tedee's, and a user who has signed in with it."""

    client_id: Annotated[Text, AfterValidator(_printable)]
    client_secret_file: SecretFile | None = None
    refresh_token_file: SecretFile
    token_url: Text = TOKEN_URL
    scope: Annotated[str, Strict(), Field(min_length=1, max_length=1000), AfterValidator(_printable)] = SCOPE

    @field_validator("client_secret_file", "refresh_token_file")
    @classmethod
    def _readable(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if file is not None:
            _check_readable(file, info, REFRESH_TOKEN if info.field_name == "refresh_token_file" else CLIENT_SECRET)
        return file

    @field_validator("token_url")
    @classmethod
    def _carries_secrets_safely(cls, url: str) -> str:
        _check_url(url)
        if set(url) & set("@#"):
            raise _wrong("a user name, a password or a fragment does not belong here")
        return url


class Account(Section):
    """One Tedee user: Tedee counts requests by user, so each user is one account here."""

    SECRETS: ClassVar = ("personal_key", "personal_key_file", "access_token", "access_token_file")
    CREDENTIALS: ClassVar = (*SECRETS, "oauth")

    name: Annotated[Text, AfterValidator(_printable)]
    personal_key: Secret | None = None
    personal_key_file: SecretFile | None = None
    access_token: Secret | None = None
    access_token_file: SecretFile | None = None
    oauth: OAuth | None = None
    locks: ChosenLocks | None = None

    @field_validator(*SECRETS)
    @classmethod
    def _readable(cls, secret: SecretStr | Path | None, info: ValidationInfo) -> SecretStr | Path | None:
        if secret is not None:
            _check_readable(secret, info)
        return secret

    @classmethod
    def contradictions(cls, given: Mapping[str, object], _folder: Path) -> Iterator[tuple[Where, PydanticCustomError]]:
        """No credentials, or several."""
        problem = _one_of(cls.CREDENTIALS, given)
        if problem:
            yield (), problem

    @property
    def credential(self) -> tuple[str, SecretStr | Path | OAuth]:
        """The key that is set, and its value."""
        return next((key, value) for key in self.CREDENTIALS if (value := getattr(self, key)) is not None)


class Settings(Section):
    """All of the configuration."""

    api: Api = Api()
    sync: Annotated[Sync, Field(default_factory=lambda: Sync.model_validate({}))]
    state_file: StateFile | None = None
    """None for the place that the operating system has for such files."""
    accounts: Annotated[tuple[Account, ...], NotEmpty]

    @classmethod
    def contradictions(cls, given: Mapping[str, object], folder: Path) -> Iterator[tuple[Where, PydanticCustomError]]:
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
            for place, value in _secrets_of(account):
                secret = _secret_itself(place[-1], value, folder)
                if secret and secrets.setdefault(secret, index) != index:
                    yield (
                        ("accounts", index, *place),
                        _wrong(
                            f"is the key of accounts[{secrets[secret]}] too; "
                            "Tedee counts calls by user, so a user may be one account only"
                        ),
                    )


def _secrets_of(account: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    """What an account as it was given says of who its user is, each with its place."""
    for key in Account.SECRETS:
        yield (key,), account.get(key)
    oauth = account.get("oauth")
    if isinstance(oauth, dict):
        # The client may well be the same: it is the refresh token that is a user's.
        yield ("oauth", "refresh_token_file"), oauth.get("refresh_token_file")


def _secret_itself(key: str, value: object, folder: Path) -> SecretSource | None:
    """What tells one user's secret from another's: the secret, or for want of it the file where it will be."""
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    source = folder / value if key.endswith("_file") else SecretStr(value)
    try:
        return read_secret(source)
    except CredentialsUnavailable:
        return source
