"""The settings in the file of `--web.config.file`: TLS, passwords, headers and a rate limit.

It has the format of exporter-toolkit: https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

import re
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from exporter.config.model import (
    ConfigModel,
    Context,
    Errors,
    InlineSecret,
    Text,
    exactly_one_error,
    parse_duration,
    resolve_path,
)
from exporter.fields import Parse
from exporter.secrets import Secret, read_regular_file, safe_path

from .tls import (
    CIPHER_SUITES,
    CLIENT_AUTH,
    DEPRECATED_VERSIONS,
    TLS13_SUITES,
    UNVERIFIED_CLIENT_AUTH,
    VERSIONS,
    Pem,
    server_context,
)

MAX_PEM_BYTES = 2**20
"""Maximum size of a PEM file. Mozilla's bundle of all public CAs has about 200 KiB."""

BCRYPT_HASH = r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}"

ALLOWED_HEADERS: Mapping[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
"""The headers that may be set, with their allowed values, as in exporter-toolkit. () allows any value."""


def _without_empty_keys(mapping: object, _context: Context) -> object:
    """Remove keys without a value, which exporter-toolkit ignores. A section without a value is empty."""
    if isinstance(mapping, dict):
        return {key: value for key, value in mapping.items() if value is not None and value != ""}
    return {} if mapping is None else mapping


def _tls_section(mapping: object, context: Context) -> object:
    """Return None for an empty mapping, which means no TLS, as in exporter-toolkit."""
    return None if mapping == {} else _without_empty_keys(mapping, context)


def _read_pem(name: object, context: Context) -> Pem:
    path = resolve_path(name, context)
    try:
        content = read_regular_file(path, MAX_PEM_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{safe_path(path)} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError("must be the name of a file") from None
    if content is None:
        raise ValueError(f"{path} is not a regular file")
    if len(content) > MAX_PEM_BYTES:
        raise ValueError(f"{path} is too large")
    return Pem(content, path)


def _parse_pem(text: object, _context: Context) -> Pem:
    if not isinstance(text, str):
        raise ValueError("must be text in PEM format")  # noqa: TRY004  (errors are ValueErrors)
    return Pem(text.encode(errors="replace"), None)


def _check_tls_version(value: object, _context: Context) -> str:
    if not isinstance(value, str) or value not in (*VERSIONS, *DEPRECATED_VERSIONS):
        raise ValueError(f"must be {_either(VERSIONS)}")
    return value


def _check_client_auth(value: object, _context: Context) -> str:
    if value in UNVERIFIED_CLIENT_AUTH:
        raise ValueError(f"accepts unverified certificates, which is not supported; use {_either(CLIENT_AUTH)}")
    if not isinstance(value, str) or value not in CLIENT_AUTH:
        raise ValueError(f"must be {_either(CLIENT_AUTH)}")
    return value


def _check_cipher_suite(value: object, _context: Context) -> str:
    if not isinstance(value, str) or value not in (*CIPHER_SUITES, *TLS13_SUITES):
        raise ValueError(f"is not a known cipher suite; known: {', '.join((*CIPHER_SUITES, *TLS13_SUITES))}")
    return value


def _reject_curves(_value: object, _context: Context) -> None:
    raise ValueError("is not supported: OpenSSL's default curves are used; remove it")


def _check_user_names(users: dict[str, Secret]) -> dict[str, Secret]:
    if any(not name or ":" in name or not name.isprintable() for name in users):
        raise ValueError("a user name cannot be empty or contain a colon or control characters")
    return users


def _check_bcrypt_hash(password: Secret) -> Secret:
    if not re.fullmatch(BCRYPT_HASH, password.get_secret_value()):
        raise ValueError("is not a bcrypt hash; make one with: htpasswd -nBC 10 '' | tr -d ':\\n'")
    return password


def _parse_interval(value: object, _context: object = None) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else parse_duration(value)


def _either(values: Iterable[str]) -> str:
    *first, last = values
    return f"{', '.join(first)} or {last}" if first else last


WITHOUT_EMPTY_KEYS = Parse(_without_empty_keys)
PemFile = Annotated[Pem, Parse(_read_pem)]
PemText = Annotated[Pem, Parse(_parse_pem)]
TlsVersion = Annotated[str, Parse(_check_tls_version)]


class TlsServer(ConfigModel, frozen=True):
    """The settings in `tls_server_config`."""

    cert: PemText | None = None
    cert_file: PemFile | None = None
    key: PemText | None = None
    key_file: PemFile | None = None
    client_auth_type: Annotated[str, Parse(_check_client_auth)] = "NoClientCert"
    client_ca: PemText | None = None
    client_ca_file: PemFile | None = None
    client_allowed_sans: tuple[Text, ...] = ()
    min_version: TlsVersion = "TLS12"
    max_version: TlsVersion = "TLS13"
    cipher_suites: tuple[Annotated[str, Parse(_check_cipher_suite)], ...] = ()
    prefer_server_cipher_suites: bool = True
    curve_preferences: Annotated[object, Parse(_reject_curves)] = None

    @classmethod
    def cross_field_errors(cls, given: Mapping[str, Any], _valid: Mapping[str, Any], _context: Context) -> Errors:
        """Yield an error if certificate and key, the options for client certificates, or the versions do not match."""
        for name in ("cert", "key"):
            yield from exactly_one_error((name, f"{name}_file"), given)
        client_auth = given.get("client_auth_type", "NoClientCert")
        authorities = [name for name in ("client_ca", "client_ca_file") if name in given]
        if authorities and client_auth == "NoClientCert":
            yield (authorities[0],), ValueError("has no effect without client_auth_type: RequireAndVerifyClientCert")
        if len(authorities) > 1:
            yield (authorities[1],), ValueError("conflicts with client_ca; set only one of them")
        if given.get("client_allowed_sans") and client_auth != "RequireAndVerifyClientCert":
            yield ("client_allowed_sans",), ValueError("needs client_auth_type: RequireAndVerifyClientCert")
        minimum, maximum = given.get("min_version", "TLS12"), given.get("max_version", "TLS13")
        if maximum in DEPRECATED_VERSIONS:
            yield ("max_version",), ValueError("is deprecated (RFC 8996); use TLS12 or TLS13")
        if (minimum, maximum) == ("TLS13", "TLS12"):
            yield ("max_version",), ValueError("is lower than min_version")

    def context(self) -> ssl.SSLContext:
        """Return the server's TLS context.

        Raises:
            UnusableTls: The certificate, the key or another setting cannot be used.
        """
        certificate, key = self.cert or self.cert_file, self.key or self.key_file
        assert certificate is not None  # noqa: S101  (cross_field_errors() ensures it)
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


class HttpServer(ConfigModel, frozen=True):
    """The settings in `http_server_config`."""

    http2: bool = False
    headers: Annotated[dict[str, str], WITHOUT_EMPTY_KEYS] = msgspec.field(default_factory=dict)

    @classmethod
    def cross_field_errors(cls, _given: Mapping[str, Any], valid: Mapping[str, Any], _context: Context) -> Errors:
        """Yield an error for each header that cannot be set, or not to its value."""
        for name, content in valid.get("headers", {}).items():
            if name not in ALLOWED_HEADERS:
                error = f"is not a header that can be set; known: {', '.join(ALLOWED_HEADERS)}"
            elif content is None:  # this has its own error
                continue
            elif not content.isascii() or not content.isprintable():
                error = f"{name} must be one line of ASCII text"
            elif ALLOWED_HEADERS[name] and content not in ALLOWED_HEADERS[name]:
                error = f"{name} must be {_either(ALLOWED_HEADERS[name])}"
            else:
                continue
            yield ("headers", name), ValueError(error)


class RateLimit(ConfigModel, frozen=True):
    """`rate_limit`: a bucket of `burst` requests that gains one each `interval`. An interval of 0 disables it."""

    interval: Annotated[float, Parse(_parse_interval)] = 0.0
    burst: Annotated[int, Meta(ge=0)] = 0

    @classmethod
    def cross_field_errors(cls, given: Mapping[str, Any], _valid: Mapping[str, Any], _context: Context) -> Errors:
        """Yield an error if every request would be rejected."""
        with suppress(ValueError):  # an invalid interval has its own error
            if _parse_interval(given.get("interval", 0)) and not given.get("burst"):
                yield ("burst",), ValueError("must be at least 1, otherwise all requests are rejected")


class WebSettings(ConfigModel, frozen=True):
    """The settings in the file of `--web.config.file`."""

    NULL_IS_ABSENT: ClassVar[bool] = True
    """As in exporter-toolkit."""

    tls_server_config: Annotated[TlsServer, Parse(_tls_section)] | None = None
    http_server_config: Annotated[HttpServer, WITHOUT_EMPTY_KEYS] = HttpServer()
    basic_auth_users: Annotated[dict[str, Annotated[InlineSecret, _check_bcrypt_hash]], _check_user_names] | None = None
    rate_limit: Annotated[RateLimit, WITHOUT_EMPTY_KEYS] = RateLimit()
