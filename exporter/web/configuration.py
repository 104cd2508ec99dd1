"""The file of `--web.config.file`: TLS, passwords, headers and a rate limit, in the format of exporter-toolkit.

The format: https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

import os
import re
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from exporter.config import ConfigurationError
from exporter.config.model import (
    ConfigModel,
    Count,
    Location,
    Text,
    config_error,
    exactly_one_error,
    parse_duration,
    resolve_path,
)
from exporter.config.permissions import permission_warning
from exporter.config.yaml_source import read_file
from exporter.secrets import Secret, read_regular_file, safe_path

from .tls import (
    BROKEN_VERSIONS,
    CIPHER_SUITES,
    CLIENT_AUTH,
    TLS13_SUITES,
    UNVERIFIED_CLIENT_AUTH,
    VERSIONS,
    Pem,
    UnusableTls,
    server_context,
)

log = structlog.get_logger(__name__)

MAX_PEM_BYTES = 2**20
"""Of a certificate, key or bundle of CAs; Mozilla's bundle of all public CAs has some 200 KiB."""

BCRYPT_HASH = r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}"

HEADERS: Mapping[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-SecurityPolicy": (),
}
"""The headers that may be set, with the values of those that have few, as exporter-toolkit has them."""


def _without_blanks(section: object) -> object:
    """A section without the keys that have nothing behind them: exporter-toolkit takes them for not there."""
    if isinstance(section, dict):
        return {key: value for key, value in section.items() if value is not None and value != ""}
    return section


def _nothing(section: object) -> object:
    return {} if section is None else section


def _none_if_empty(section: object) -> object:
    """An empty section means no TLS, as in exporter-toolkit. One with blank keys is refused, since it asks for TLS."""
    return None if section == {} else section


def _read(path: Path) -> Pem:
    try:
        content = read_regular_file(path, MAX_PEM_BYTES + 1)
    except OSError as error:
        raise config_error(f"{safe_path(path)} cannot be read: {error.strerror}") from None
    except ValueError:
        raise config_error("must be the name of a file") from None
    if content is None:
        raise config_error(f"{path} is not a regular file")
    if len(content) > MAX_PEM_BYTES:
        raise config_error(f"{path} is too large")
    return Pem(content, path)


def _inline(text: object) -> Pem:
    if not isinstance(text, str):
        raise config_error("must be text in PEM form")
    return Pem(text.encode(errors="replace"), None)


def _version(value: object) -> str:
    if not isinstance(value, str) or value not in (*VERSIONS, *BROKEN_VERSIONS):
        raise config_error(f"must be {_or(VERSIONS)}")
    return value


def _client_auth(value: object) -> str:
    if value in UNVERIFIED_CLIENT_AUTH:
        raise config_error(f"accepts unverified certificates, which is not supported; use {_or(CLIENT_AUTH)}")
    if not isinstance(value, str) or value not in CLIENT_AUTH:
        raise config_error(f"must be {_or(CLIENT_AUTH)}")
    return value


def _cipher_suite(value: object) -> str:
    if not isinstance(value, str) or value not in (*CIPHER_SUITES, *TLS13_SUITES):
        raise config_error(f"is not a cipher suite known here: {', '.join((*CIPHER_SUITES, *TLS13_SUITES))}")
    return value


def _refused(_value: object) -> None:
    raise config_error("cannot be chosen here, OpenSSL's own curves are used; leave it out")


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, content in value.items():
        if name not in HEADERS:
            raise config_error(f"only these can be set: {', '.join(HEADERS)}")
        if not content.isascii() or not content.isprintable():
            raise config_error(f"{name} must be one line of ASCII text")
        if HEADERS[name] and content not in HEADERS[name]:
            raise config_error(f"{name} must be {_or(HEADERS[name])}")
    return value


def _user_names(users: dict[str, Secret]) -> dict[str, Secret]:
    if any(not name or ":" in name or not name.isprintable() for name in users):
        raise config_error("a user name cannot be empty or have a colon or control characters")
    return users


def _bcrypt_hash(password: Secret) -> Secret:
    if not re.fullmatch(BCRYPT_HASH, password.get_secret_value()):
        raise config_error("is not a bcrypt hash; make one with: htpasswd -nBC 10 '' | tr -d ':\\n'")
    return password


def _interval(value: object) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else parse_duration(value)


def _or(text: Iterable[str]) -> str:
    *most, last = text
    return f"{', '.join(most)} or {last}" if most else last


PemFile = Annotated[Pem, BeforeValidator(_read), BeforeValidator(resolve_path)]
PemText = Annotated[Pem, BeforeValidator(_inline)]
Version = Annotated[str, BeforeValidator(_version)]


class TlsServer(ConfigModel):
    """`tls_server_config`."""

    cert: PemText | None = None
    cert_file: PemFile | None = None
    key: PemText | None = None
    key_file: PemFile | None = None
    client_auth_type: Annotated[str, BeforeValidator(_client_auth)] = "NoClientCert"
    client_ca: PemText | None = None
    client_ca_file: PemFile | None = None
    client_allowed_sans: tuple[Text, ...] = ()
    min_version: Version = "TLS12"
    max_version: Version = "TLS13"
    cipher_suites: tuple[Annotated[str, BeforeValidator(_cipher_suite)], ...] = ()
    prefer_server_cipher_suites: bool = True
    curve_preferences: Annotated[None, BeforeValidator(_refused)] = None

    @classmethod
    def cross_field_errors(
        cls, given: Mapping[str, object], _info: ValidationInfo
    ) -> Iterator[tuple[Location, PydanticCustomError]]:
        """A certificate without its key, CAs or names for certificates that nobody demands, no version left."""
        for name in ("cert", "key"):
            problem = exactly_one_error((name, f"{name}_file"), given)
            if problem:
                yield (), problem
        demanded = given.get("client_auth_type", "NoClientCert")
        authorities = [name for name in ("client_ca", "client_ca_file") if name in given]
        if authorities and demanded == "NoClientCert":
            yield (authorities[0],), config_error("has no use without client_auth_type: RequireAndVerifyClientCert")
        if len(authorities) > 1:
            yield (authorities[1],), config_error("client_ca is there already; give one of them")
        if given.get("client_allowed_sans") and demanded != "RequireAndVerifyClientCert":
            yield ("client_allowed_sans",), config_error("needs client_auth_type: RequireAndVerifyClientCert")
        least, greatest = given.get("min_version", "TLS12"), given.get("max_version", "TLS13")
        if greatest in BROKEN_VERSIONS:
            yield ("max_version",), config_error("is deprecated (RFC 8996); use TLS12 or TLS13")
        if (least, greatest) == ("TLS13", "TLS12"):
            yield ("max_version",), config_error("is less than min_version")

    def context(self) -> ssl.SSLContext:
        """The server's context.

        Raises:
            UnusableTls: certificate, key and so on do not make one.
        """
        certificate, key = self.cert or self.cert_file, self.key or self.key_file
        assert certificate is not None  # noqa: S101  (cross_field_errors() has seen to it)
        assert key is not None  # noqa: S101
        return server_context(
            certificate,
            key,
            client_auth=CLIENT_AUTH[self.client_auth_type],
            client_ca=self.client_ca or self.client_ca_file,
            versions=(VERSIONS.get(self.min_version, VERSIONS["TLS12"]), VERSIONS[self.max_version]),
            cipher_suites=self.cipher_suites,
            prefer_own_order=self.prefer_server_cipher_suites,
        )


class HttpServer(ConfigModel):
    """`http_server_config`."""

    http2: bool = True
    headers: Annotated[
        dict[str, str], AfterValidator(_headers), BeforeValidator(_without_blanks), BeforeValidator(_nothing)
    ] = Field(default_factory=dict)


class RateLimit(ConfigModel):
    """`rate_limit`: a bucket of `burst` requests that gains one each `interval`; none where that is 0."""

    interval: Annotated[float, BeforeValidator(_interval)] = 0.0
    burst: Annotated[Count, Field(ge=0)] = 0

    @classmethod
    def cross_field_errors(
        cls, given: Mapping[str, object], _info: ValidationInfo
    ) -> Iterator[tuple[Location, PydanticCustomError]]:
        """A bucket that nothing fits into."""
        with suppress(PydanticCustomError):  # a wrong interval is told as such
            if _interval(given.get("interval", 0)) and not given.get("burst"):
                yield ("burst",), config_error("must be at least 1, or no request is ever answered")


class WebSettings(ConfigModel):
    """The whole file."""

    tls_server_config: Annotated[
        TlsServer | None, BeforeValidator(_without_blanks), BeforeValidator(_none_if_empty)
    ] = None
    http_server_config: Annotated[HttpServer, BeforeValidator(_without_blanks), BeforeValidator(_nothing)] = (
        HttpServer()
    )
    basic_auth_users: Annotated[
        dict[str, Annotated[Secret, AfterValidator(_bcrypt_hash)]],
        AfterValidator(_user_names),
        BeforeValidator(_nothing),
    ] = Field(default_factory=dict)
    rate_limit: Annotated[RateLimit, BeforeValidator(_without_blanks), BeforeValidator(_nothing)] = RateLimit()


@dataclass(frozen=True, slots=True)
class SecurityPolicy:
    """What the web side demands of its clients, and tells them."""

    tls: ssl.SSLContext | None = None
    client_sans: frozenset[str] = frozenset()
    """Names of which a client's certificate must have one; empty for any certificate."""
    users: Mapping[str, Secret] = field(default_factory=dict)
    """Their bcrypt hashes; empty for no passwords."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """For every answer."""
    rate_limit: RateLimit = field(default_factory=RateLimit)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A web configuration as it was read."""

    policy: SecurityPolicy
    notes: tuple[str, ...]
    """What a person should know of it."""
    files: Mapping[Path, bytes]
    """What it was read from."""


def load(path: Path, *, again: bool = False) -> Loaded:
    """Read the file and those it names.

    Args:
        path: of the file.
        again: it was a regular file before. Reading another kind might never end.

    Raises:
        ConfigurationError: with everything that is wrong with them.
    """
    # A file that is being written is empty for a moment: that must not open the doors.
    source = read_file(path, may_be_empty=not again, is_reload=again)
    settings = source.validated(WebSettings)
    tls = settings.tls_server_config
    try:
        context = tls.context() if tls else None
    except UnusableTls as error:
        named = f"{error.key}_file" if getattr(tls, f"{error.key}_file", None) else error.key
        raise ConfigurationError([source.format_error(("tls_server_config", named), str(error))]) from None
    policy = SecurityPolicy(
        context,
        frozenset(tls.client_allowed_sans if tls else ()),
        settings.basic_auth_users,
        settings.http_server_config.headers,
        settings.rate_limit,
    )
    pems = [tls.cert_file, tls.key_file, tls.client_ca_file] if tls else []
    files = {path: source.content} | {pem.file: pem.content for pem in pems if pem and pem.file}
    # What is no regular file, a shell's <(…) say, can be read once: then nothing is read again.
    regular = os.path.isfile(path)  # noqa: PTH113  (never raises)
    return Loaded(policy, tuple(_notes(settings, path)), files if regular else {})


def _notes(settings: WebSettings, path: Path) -> Iterator[str]:
    """What is not as the file has it, or not as it should be."""
    tls, http = settings.tls_server_config, settings.http_server_config
    if "http2" in http.model_fields_set and http.http2:
        yield f"{path}: http_server_config.http2: HTTP/1.1 is spoken here, which every HTTP/2 client speaks, too"
    if tls and tls.min_version in BROKEN_VERSIONS:
        yield f"{path}: tls_server_config.min_version: {tls.min_version} is broken (RFC 8996); TLS12 is the least here"
    if settings.basic_auth_users and not tls:
        yield f"{path}: basic_auth_users without tls_server_config: the passwords travel unencrypted"
    secret = [tls.key_file.file] if tls and tls.key_file and tls.key_file.file else []
    yield from filter(
        None, map(permission_warning, [*secret, *([path] if settings.basic_auth_users or (tls and tls.key) else [])])
    )


class WebConfiguration:
    """The file, as it is now: it is read again when it, or a file that it names, changes."""

    def __init__(self, path: Path | None, warn: Callable[[str], object] | None = None) -> None:
        """Read the file for the first time.

        Args:
            path: of the file; None where there is none, and nothing is demanded.
            warn: takes what a person should know of the file; it is logged by default.

        Raises:
            ConfigurationError: it cannot be used.
        """
        self._path = path
        self._warn = warn or log.warning
        self._loaded = load(path) if path else Loaded(SecurityPolicy(), (), {})
        self._tell()
        self._problems: list[str] = []
        self._lock = threading.Lock()

    @property
    def policy(self) -> SecurityPolicy:
        """What holds now."""
        return self._loaded.policy

    def refresh(self) -> list[str]:
        """Read what has changed; the problems, none where it is good. A broken file changes nothing."""
        with self._lock:
            if self._path and (self._problems or self._changed()):
                self._load(self._path)
            return self._problems

    def _changed(self) -> bool:
        # Content, not time stamps: a copy may keep those, and a secret's mount may turn them back.
        try:
            return any(
                read_regular_file(file, len(content) + 1) != content for file, content in self._loaded.files.items()
            )
        except OSError:
            return True

    def _load(self, path: Path) -> None:
        before = self._loaded.policy
        try:
            self._loaded = load(path, again=path in self._loaded.files)
        except ConfigurationError as error:
            if error.problems != self._problems:
                for problem in error.problems:
                    log.error("web configuration not reloaded; the previous one stays in use", error=problem)
            self._problems = error.problems
        else:
            self._problems = []
            log.info("web configuration reloaded")
            if before.tls and not self.policy.tls:
                log.warning("TLS is off from now on: the web configuration has no tls_server_config any more")
            if before.users and not self.policy.users:
                log.warning("no password is asked for from now on: the web configuration has no users any more")
            self._tell()

    def _tell(self) -> None:
        for note in self._loaded.notes:
            self._warn(note)
