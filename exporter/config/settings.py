"""Models of the configuration, with the type, range and default of each setting."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Meta
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from exporter.secrets import Secret
from exporter.state.rate_limits import RateLimitPolicy
from exporter.tedee.connections import is_loopback
from exporter.tedee.oauth import CLIENT_SECRET, REFRESH_TOKEN, SCOPE, TOKEN_URL
from exporter.tedee.secret_source import CredentialsUnavailable, SecretSource, read_secret

from .model import (
    ConfigModel,
    Context,
    DatabaseUrl,
    Date,
    Errors,
    FileName,
    InlineSecret,
    Seconds,
    StateFileName,
    Switch,
    Text,
    check_not_blank,
    exactly_one_error,
    is_file_name,
    read_database_url,
)


def _check_printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("must not contain control characters")
    return name


def _check_no_quotes(name: str) -> str:
    # Grafana inserts the values of dashboard variables into queries without escaping them.
    if '"' in name:
        raise ValueError('must not contain "')
    return name


def _check_serial_number(number: str) -> str:
    # Messages about missing locks repeat serial numbers. A key in the wrong place must not get there.
    if not re.fullmatch("[0-9A-Z-]{1,32}", number):
        raise ValueError("must look like 12345678-123456")
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
        raise ValueError("is not a URL of the form https://host")
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError("has an invalid host name") from None
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("http:// would send the key unencrypted; use https://")
    return parts


def _unreadable(secrets: Mapping[str, SecretSource | None], context: Context, what: str = "key") -> Errors:
    """Yield an error for each invalid secret and, if secret files are to be checked, each file that cannot be read."""
    for key, secret in secrets.items():
        if isinstance(secret, Secret) or (secret and context.check_secrets):
            try:
                read_secret(secret, what)
            except CredentialsUnavailable as error:
                yield (key,), ValueError(str(error))


def _check_api_url(url: str) -> str:
    if set(url) & set("@?#") or _check_url(url).path.strip("/"):
        raise ValueError("must have only a scheme, a host and a port")
    return url


def _check_version(version: str) -> str:
    if not re.fullmatch(r"v[0-9]+(\.[0-9]+)?", version):
        raise ValueError("must look like v37 or v1.36")
    return version


def _check_timeout(timeout: float) -> float:
    if not 0.1 <= timeout <= 300:  # noqa: PLR2004
        raise ValueError("must be between 100ms and 5m")
    return timeout


def _check_interval(interval: float) -> float:
    if interval < 20:  # noqa: PLR2004
        raise ValueError("Tedee allows one sync in 20s; a shorter interval would lock the account out of the API")
    if interval > 86_400:  # noqa: PLR2004
        raise ValueError("must be at most 24h")
    return interval


def _check_devices_interval(interval: float) -> float:
    if not 300 <= interval <= 86_400:  # noqa: PLR2004
        raise ValueError("must be between 5m and 24h")
    return interval


def _check_events_interval(interval: float) -> float:
    if not 20 <= interval <= 86_400:  # noqa: PLR2004
        raise ValueError("must be between 20s and 24h")
    return interval


def _check_token_url(url: str) -> str:
    _check_url(url)
    if set(url) & set("@#"):
        raise ValueError("must not contain a user name, a password or a fragment")
    return url


class Api(ConfigModel, frozen=True):
    """Address and version of the Tedee API, and the time-out of its calls."""

    url: Annotated[Text, _check_api_url] = "https://api.tedee.com"
    version: Annotated[Text, _check_version] = "v37"
    timeout: Annotated[Seconds, _check_timeout] = 10.0


class Sync(ConfigModel, frozen=True):
    """Sync interval, maximum age of data, and hourly limit of requests."""

    interval: Annotated[Seconds, _check_interval] = 20.0
    stale_after: Seconds = 0.0
    """By default 5 minutes, or three intervals if they are longer."""
    requests_per_hour: Annotated[int, Meta(ge=10, le=700)] = 350

    def __post_init__(self) -> None:
        if not self.stale_after:
            msgspec.structs.force_setattr(self, "stale_after", max(300.0, 3 * self.interval))

    @classmethod
    def cross_field_errors(cls, given: Mapping[str, object], valid: Mapping[str, Any], _context: Context) -> Errors:
        """Yield an error if the data would often be stale."""
        stale_after = valid.get("stale_after", 3600.0)
        if "stale_after" not in given and "interval" in valid:
            stale_after = cls(valid["interval"]).stale_after
        elif "stale_after" not in given:
            stale_after = 3600.0
        elif stale_after < 2 * valid.get("interval", 0.0):
            yield ("stale_after",), ValueError("must be at least twice the interval, or every late sync causes a gap")
            stale_after = 3600.0
        if given.keys() & valid.keys() & {"requests_per_hour"} and valid["requests_per_hour"] * stale_after < 2 * 3600:
            yield (
                ("requests_per_hour",),
                ValueError(f"is too low to keep data younger than a stale_after of {stale_after:g}s"),
            )


class Devices(ConfigModel, frozen=True):
    """Fetches of bridges, keypads, door sensors, gates, and the names of locks."""

    interval: Annotated[Seconds, _check_devices_interval] = 600.0


class Events(ConfigModel, frozen=True):
    """Fetches of the locks' activity logs."""

    enabled: Switch = False
    interval: Annotated[Seconds, _check_events_interval] = 60.0
    """Minimum time between two requests for the events of one lock."""


NotEmpty = Meta(min_length=1)


class LockSelection(ConfigModel, frozen=True):
    """The locks of an account that are exported."""

    ids: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**53 - 1)], ...], NotEmpty] | None = None
    serial_numbers: Annotated[tuple[Annotated[Text, _check_serial_number], ...], NotEmpty] | None = None

    @classmethod
    def cross_field_errors(cls, given: Mapping[str, object], _valid: Mapping[str, Any], _context: Context) -> Errors:
        """Yield an error unless exactly one key is set."""
        return exactly_one_error(cls.__struct_fields__, given)


class OAuth(ConfigModel, frozen=True, kw_only=True):
    """OAuth client issued by Tedee, and the refresh token of a user who has signed in with it."""

    client_id: Annotated[Text, _check_printable]
    client_secret_file: FileName | None = None
    refresh_token_file: FileName
    token_url: Annotated[Text, _check_token_url] = TOKEN_URL
    scope: Annotated[str, Meta(min_length=1, max_length=1000), check_not_blank, _check_printable] = SCOPE

    @classmethod
    def cross_field_errors(cls, _given: Mapping[str, object], valid: Mapping[str, Any], context: Context) -> Errors:
        """Yield an error for each file that is to be checked and cannot be used."""
        yield from _unreadable({"client_secret_file": valid.get("client_secret_file")}, context, CLIENT_SECRET)
        file = valid.get("refresh_token_file")
        problems = list(_unreadable({"refresh_token_file": file}, context, REFRESH_TOKEN))
        if file and context.check_secrets and not problems and (problem := _storage_problem(file)):
            problems.append((("refresh_token_file",), ValueError(problem)))
        yield from problems

    def storage_problem(self) -> str | None:
        """Return an error message if a new refresh token could not be stored; None if it could."""
        return _storage_problem(self.refresh_token_file)


def _storage_problem(file: Path) -> str | None:
    from exporter.tedee.oauth.token_file import storage_problem  # noqa: PLC0415  (only accounts with OAuth need this import)

    return storage_problem(file)


@dataclass(frozen=True)
class PersonalKey:
    """A personal access key, which the Tedee portal issues, or its file."""

    source: SecretSource
    expires: float | None = None
    """Unix seconds; None if unknown."""


@dataclass(frozen=True)
class AccessToken:
    """An OAuth access token that another program refreshes, or its file."""

    source: SecretSource


class Account(ConfigModel, frozen=True):
    """One Tedee user. Tedee counts requests by user, so each user must be one account."""

    SECRETS: ClassVar = ("personal_key", "personal_key_file", "access_token", "access_token_file")
    CREDENTIALS: ClassVar = (*SECRETS, "oauth")

    name: Annotated[Text, _check_printable, _check_no_quotes]
    personal_key: InlineSecret | None = None
    personal_key_file: FileName | None = None
    access_token: InlineSecret | None = None
    access_token_file: FileName | None = None
    oauth: OAuth | None = None
    expires: Date | None = None
    """Unix time at which the personal key expires."""
    locks: LockSelection | None = None

    @classmethod
    def cross_field_errors(cls, given: Mapping[str, object], valid: Mapping[str, Any], context: Context) -> Errors:
        """Yield an error for each secret that cannot be used, and unless the account has exactly one credential."""
        yield from _unreadable({key: valid.get(key) for key in cls.SECRETS}, context)
        yield from exactly_one_error(cls.CREDENTIALS, given)
        if "expires" in given and not given.keys() & {"personal_key", "personal_key_file"}:
            yield ("expires",), ValueError("is for personal keys; other credentials report their expiry themselves")

    def expiry_warning(self, now: float) -> str | None:
        """Return a warning if `expires` is in the past at `now`, in Unix seconds, otherwise None."""
        if self.expires is None or self.expires > now:
            return None
        return f"account {self.name!r}: expires: is in the past; set the date of the present personal key"

    @property
    def credential(self) -> PersonalKey | AccessToken | OAuth:
        """The one credential of the account."""
        if self.oauth:
            return self.oauth
        if key := self.personal_key or self.personal_key_file:
            return PersonalKey(key, self.expires)
        return AccessToken(cast("SecretSource", self.access_token or self.access_token_file))


class Settings(ConfigModel, frozen=True, kw_only=True):
    """The whole configuration."""

    api: Api = Api()
    sync: Sync = Sync()
    devices: Devices = Devices()
    events: Events = Events()
    state_file: StateFileName | None = None
    """None for `default_state_file`."""
    state_url: DatabaseUrl | None = None
    """URL of a PostgreSQL database, which is used instead of a state file."""
    state_url_file: FileName | None = None
    """A file with this URL."""
    accounts: Annotated[tuple[Account, ...], NotEmpty]

    @property
    def database_url(self) -> Callable[[], str] | None:
        """Returns the URL of the database that is used instead of a state file, which may be in a file that changes."""
        file, url = self.state_url_file, self.state_url
        if not (file or url):
            return None

        def read() -> str:
            try:
                return (read_database_url(file) if file else cast("Secret", url)).get_secret_value()
            except ValueError as error:
                raise OSError(f"state_url_file: {error}") from None

        return read

    @classmethod
    def cross_field_errors(cls, given: Mapping[str, object], valid: Mapping[str, Any], context: Context) -> Errors:
        """Yield errors for accounts with the same name or key, and if there are no requests for events.

        Keys in files are compared if they are to be checked.
        """
        yield from _events_errors(valid)
        first, *others = [key for key in ("state_file", "state_url", "state_url_file") if key in given] or [""]
        for key in others:
            yield (key,), ValueError(f"cannot be combined with {first}; remove one of them")
        if valid.get("state_url_file"):
            try:
                read_database_url(valid["state_url_file"])
            except ValueError as error:
                yield ("state_url_file",), error
        accounts = given.get("accounts")
        names: dict[str, int] = {}
        secrets: dict[SecretSource, int] = {}
        for index, account in enumerate(accounts if isinstance(accounts, list) else ()):
            if not isinstance(account, dict):
                continue
            name = account.get("name")
            if isinstance(name, str) and names.setdefault(name, index) != index:
                yield ("accounts", index, "name"), ValueError(f"is also the name of accounts[{names[name]}]")
            for path, value in _secrets_of(account):
                secret = _secret_identity(path[-1], value, context)
                if secret and secrets.setdefault(secret, index) != index:
                    yield (
                        ("accounts", index, *path),
                        ValueError(
                            f"is also the key of accounts[{secrets[secret]}]; "
                            "Tedee counts calls by user, so each user must be one account"
                        ),
                    )


def _events_errors(valid: Mapping[str, Any]) -> Errors:
    """Yield an error if syncs leave no requests for events."""
    events, sync = valid.get("events"), valid.get("sync")
    if events and sync and events.enabled:
        policy = RateLimitPolicy(interval=sync.interval, requests_per_hour=sync.requests_per_hour)
        if not policy.lowest_priority_limit:
            yield (
                ("sync", "requests_per_hour"),
                ValueError("leaves no requests for events; raise it or sync.interval, or set events.enabled to false"),
            )


def _secrets_of(account: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield the unvalidated values that identify the user of an account, each with its key path."""
    for key in Account.SECRETS:
        yield (key,), account.get(key)
    oauth = account.get("oauth")
    if isinstance(oauth, dict):
        # Accounts may share a client. The refresh token belongs to one user.
        yield ("oauth", "refresh_token_file"), oauth.get("refresh_token_file")


def _secret_identity(key: str, value: object, context: Context) -> SecretSource | None:
    """Return the secret, or the path of its file if secret files are not to be checked or cannot be read.

    Secret files change while the exporter runs. If two contain the same key, this is detected when they are read for a
    call: then one account fails instead of all.
    """
    if not is_file_name(value) or not value:
        return None
    source = context.folder / value if key.endswith("_file") else Secret(value)
    if isinstance(source, Path) and not context.check_secrets:
        return source
    try:
        return read_secret(source)
    except CredentialsUnavailable:
        return source
