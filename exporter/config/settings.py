"""Models of the configuration, with the type, range and default of each setting."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, cast
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    Field,
    Strict,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from exporter.secrets import Secret
from exporter.tedee.connections import is_loopback
from exporter.tedee.oauth.refresh_tokens import REFRESH_TOKEN
from exporter.tedee.oauth.token_endpoint import CLIENT_SECRET, SCOPE, TOKEN_URL
from exporter.tedee.oauth.token_file import storage_problem
from exporter.tedee.secret_source import CredentialsUnavailable, SecretSource, read_secret

from .model import (
    ConfigModel,
    Count,
    FileName,
    KeyPath,
    NotEmpty,
    Seconds,
    StateFileName,
    Text,
    base_folder,
    checks_secrets,
    config_error,
    exactly_one_error,
)


def _check_printable(name: str) -> str:
    if not name.isprintable():
        raise config_error("must not contain control characters")
    return name


def _check_no_quotes(name: str) -> str:
    # Grafana inserts the values of dashboard variables into queries without escaping them.
    if '"' in name:
        raise config_error('must not contain "')
    return name


def _check_serial_number(number: str) -> str:
    # Messages about missing locks repeat serial numbers. A key in the wrong place must not get there.
    if not re.fullmatch("[0-9A-Z-]{1,32}", number):
        raise config_error("must look like 12345678-123456")
    return number


def _check_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        # urllib3 makes the connection, and its parser differs from that of urllib.
        if (parse_url(url).host or "").strip("[]") != host:
            host = None
    except (ValueError, LocationParseError):
        host = None
    if not host or parts.scheme not in {"http", "https"} or not url.isprintable() or " " in url:
        raise config_error("is not a URL of the form https://host")
    try:
        host.encode("idna")
    except UnicodeError:
        raise config_error("has an invalid host name") from None
    if parts.scheme == "http" and not is_loopback(host):
        raise config_error("http:// would send the key unencrypted; use https://")
    return parts


def _check_readable(secret: SecretSource, info: ValidationInfo, what: str = "key") -> None:
    """Reject an invalid secret and, if secret files are to be checked, a file that cannot be read."""
    if isinstance(secret, Secret) or checks_secrets(info):
        try:
            read_secret(secret, what)
        except CredentialsUnavailable as error:
            raise config_error(str(error)) from None


InlineSecret = Annotated[Secret, Field(min_length=1)]


class Api(ConfigModel):
    """Address and version of the Tedee API, and the time-out of its calls."""

    url: Text = "https://api.tedee.com"
    version: Annotated[Text, Field(pattern=r"^v[0-9]+(\.[0-9]+)?$")] = "v37"
    timeout: Seconds = 10.0

    @field_validator("url")
    @classmethod
    def _check_api_url(cls, url: str) -> str:
        if set(url) & set("@?#") or _check_url(url).path.strip("/"):
            raise config_error("must have only a scheme, a host and a port")
        return url

    @field_validator("timeout")
    @classmethod
    def _check_timeout(cls, timeout: float) -> float:
        if not 0.1 <= timeout <= 300:  # noqa: PLR2004
            raise config_error("must be between 100ms and 5m")
        return timeout


class Sync(ConfigModel):
    """Sync interval, maximum age of data, and hourly limit of requests."""

    interval: Seconds = 20.0
    stale_after: Annotated[
        Seconds, Field(default_factory=lambda valid: max(300.0, 3 * float(valid.get("interval", 0))))
    ]
    requests_per_hour: Annotated[Count, Field(ge=10, le=700)] = 350

    @field_validator("interval")
    @classmethod
    def _check_interval(cls, interval: float) -> float:
        if interval < 20:  # noqa: PLR2004
            raise config_error("Tedee allows one sync in 20s; a shorter interval would lock the account out of the API")
        if interval > 86_400:  # noqa: PLR2004
            raise config_error("must be at most 24h")
        return interval

    @field_validator("stale_after")
    @classmethod
    def _check_stale_after(cls, stale_after: float, info: ValidationInfo) -> float:
        if stale_after < 2 * float(info.data.get("interval", 0)):
            raise config_error("must be at least twice the interval, or every late sync causes a gap")
        return stale_after

    @field_validator("requests_per_hour")
    @classmethod
    def _check_hourly_requests(cls, requests_per_hour: int, info: ValidationInfo) -> int:
        stale_after = float(info.data.get("stale_after", 3600))
        if requests_per_hour * stale_after < 2 * 3600:
            raise config_error(f"is too low to keep data younger than a stale_after of {stale_after:g}s")
        return requests_per_hour


class LockSelection(ConfigModel):
    """The locks of an account that are exported."""

    KEYS: ClassVar = ("ids", "serial_numbers")

    ids: Annotated[tuple[Annotated[Count, Field(ge=0, lt=2**53)], ...], NotEmpty] | None = None
    serial_numbers: Annotated[tuple[Annotated[Text, AfterValidator(_check_serial_number)], ...], NotEmpty] | None = None

    @classmethod
    def cross_field_errors(
        cls, given: Mapping[str, object], _info: ValidationInfo
    ) -> Iterator[tuple[KeyPath, PydanticCustomError]]:
        """Yield an error unless exactly one key is set."""
        problem = exactly_one_error(cls.KEYS, given)
        if problem:
            yield (), problem


class OAuth(ConfigModel):
    """OAuth client issued by Tedee, and the refresh token of a user who has signed in with it."""

    client_id: Annotated[Text, AfterValidator(_check_printable)]
    client_secret_file: FileName | None = None
    refresh_token_file: FileName
    token_url: Text = TOKEN_URL
    scope: Annotated[str, Strict(), Field(min_length=1, max_length=1000), AfterValidator(_check_printable)] = SCOPE

    @field_validator("client_secret_file", "refresh_token_file")
    @classmethod
    def _check_files(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if file is not None:
            _check_readable(file, info, REFRESH_TOKEN if info.field_name == "refresh_token_file" else CLIENT_SECRET)
        return file

    @field_validator("refresh_token_file")
    @classmethod
    def _check_writable(cls, file: Path, info: ValidationInfo) -> Path:
        if checks_secrets(info) and (problem := storage_problem(file)):
            raise config_error(problem)
        return file

    @field_validator("token_url")
    @classmethod
    def _check_token_url(cls, url: str) -> str:
        _check_url(url)
        if set(url) & set("@#"):
            raise config_error("must not contain a user name, a password or a fragment")
        return url


@dataclass(frozen=True)
class PersonalKey:
    """A personal access key, which the Tedee portal issues, or its file."""

    source: SecretSource


@dataclass(frozen=True)
class AccessToken:
    """An OAuth access token that another program refreshes, or its file."""

    source: SecretSource


class Account(ConfigModel):
    """One Tedee user. Tedee counts requests by user, so each user must be one account."""

    SECRETS: ClassVar = ("personal_key", "personal_key_file", "access_token", "access_token_file")
    CREDENTIALS: ClassVar = (*SECRETS, "oauth")

    name: Annotated[Text, AfterValidator(_check_printable), AfterValidator(_check_no_quotes)]
    personal_key: InlineSecret | None = None
    personal_key_file: FileName | None = None
    access_token: InlineSecret | None = None
    access_token_file: FileName | None = None
    oauth: OAuth | None = None
    locks: LockSelection | None = None

    @field_validator(*SECRETS)
    @classmethod
    def _check_secrets(cls, secret: Secret | Path | None, info: ValidationInfo) -> Secret | Path | None:
        if secret is not None:
            _check_readable(secret, info)
        return secret

    @classmethod
    def cross_field_errors(
        cls, given: Mapping[str, object], _info: ValidationInfo
    ) -> Iterator[tuple[KeyPath, PydanticCustomError]]:
        """Yield an error unless the account has exactly one credential."""
        problem = exactly_one_error(cls.CREDENTIALS, given)
        if problem:
            yield (), problem

    @property
    def credential(self) -> PersonalKey | AccessToken | OAuth:
        """The one credential of the account."""
        if self.oauth:
            return self.oauth
        if key := self.personal_key or self.personal_key_file:
            return PersonalKey(key)
        return AccessToken(cast("SecretSource", self.access_token or self.access_token_file))


class Settings(ConfigModel):
    """The whole configuration."""

    api: Api = Api()
    sync: Annotated[Sync, Field(default_factory=lambda: Sync.model_validate({}))]
    state_file: StateFileName | None = None
    """None for `default_state_file`."""
    accounts: Annotated[tuple[Account, ...], NotEmpty]

    @classmethod
    def cross_field_errors(
        cls, given: Mapping[str, object], info: ValidationInfo
    ) -> Iterator[tuple[KeyPath, PydanticCustomError]]:
        """Yield errors for accounts with the same name or key. Keys in files are compared if they are to be checked."""
        accounts = given.get("accounts")
        names: dict[str, int] = {}
        secrets: dict[SecretSource, int] = {}
        for index, account in enumerate(accounts if isinstance(accounts, list) else ()):
            if not isinstance(account, dict):
                continue
            name = account.get("name")
            if isinstance(name, str) and names.setdefault(name, index) != index:
                yield ("accounts", index, "name"), config_error(f"is also the name of accounts[{names[name]}]")
            for path, value in _secrets_of(account):
                secret = _secret_identity(path[-1], value, info)
                if secret and secrets.setdefault(secret, index) != index:
                    yield (
                        ("accounts", index, *path),
                        config_error(
                            f"is also the key of accounts[{secrets[secret]}]; "
                            "Tedee counts calls by user, so each user must be one account"
                        ),
                    )


def _secrets_of(account: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield the unvalidated values that identify the user of an account, each with its key path."""
    for key in Account.SECRETS:
        yield (key,), account.get(key)
    oauth = account.get("oauth")
    if isinstance(oauth, dict):
        # Accounts may share a client. The refresh token belongs to one user.
        yield ("oauth", "refresh_token_file"), oauth.get("refresh_token_file")


def _secret_identity(key: str, value: object, info: ValidationInfo) -> SecretSource | None:
    """Return the secret, or the path of its file if secret files are not to be checked or cannot be read.

    Secret files change while the exporter runs. If two contain the same key, this is detected when they are read for a
    call: then one account fails instead of all.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    source = base_folder(info) / value if key.endswith("_file") else Secret(value)
    if isinstance(source, Path) and not checks_secrets(info):
        return source
    try:
        return read_secret(source)
    except CredentialsUnavailable:
        return source
