"""The paths and URLs of the endpoints."""

import re
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from .policy import SecurityPolicy

DEFAULT_TELEMETRY_PATH = "/metrics"

DEFAULT_HOST = "localhost:10333"
"""Host and port in the documentation if a request has no valid Host header."""

_PATH = re.compile(r"(/[\w.~-]+)+", re.ASCII)
_HOST = re.compile(r"([\w.-]{1,253}|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.ASCII)


class BadUrl(ValueError):
    """A URL or path that does not have the required form."""


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the endpoints are, as the flags set it."""

    telemetry_path: str = DEFAULT_TELEMETRY_PATH
    """Path of the metrics below the prefix."""
    prefix: str = ""
    """Path below which all endpoints are; empty, or begins with a slash and does not end with one."""
    external: str = ""
    """URL under which clients reach the status page, without a slash at the end; empty if unknown."""

    @classmethod
    def of(cls, telemetry_path: str, external_url: str, route_prefix: str) -> "Urls":
        """Return the URLs. Without a route prefix, it is the path of the external URL, as in Prometheus."""
        prefix = route_prefix.rstrip("/") if route_prefix else urlsplit(external_url).path
        return cls(telemetry_path, prefix, external_url)


DEFAULT_URLS = Urls()


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    """What a scrape configuration for this exporter contains."""

    scheme: str
    host: str
    """Host and port."""
    path: str
    needs_password: bool
    needs_client_certificate: bool

    @classmethod
    def of(cls, urls: Urls, policy: SecurityPolicy, host: str) -> "ScrapeTarget":
        """Return the target at the external URL. If there is none, it is at the Host header of a request."""
        scheme = "https" if policy.tls else "http"
        if not _HOST.fullmatch(host):
            host = DEFAULT_HOST
        path = urls.prefix
        if urls.external:
            external = urlsplit(urls.external)
            scheme, host, path = external.scheme, external.netloc, external.path
        needs_certificate = policy.tls is not None and policy.tls.verify_mode == ssl.CERT_REQUIRED
        return cls(scheme, host, path + urls.telemetry_path, bool(policy.users), needs_certificate)


def parse_external_url(text: str) -> str:
    """Return `https://example.org/tedee` without a slash at the end; an empty text unchanged.

    Raises:
        BadUrl: The text has another form. It may contain a password, so the message does not contain it.
    """
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadUrl("is not a URL such as https://example.org/tedee") from None
    if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(parts.netloc) or port == 0:
        raise BadUrl("is not a URL such as https://example.org/tedee, without a user name")
    if "?" in text or "#" in text:
        raise BadUrl("must not have a query or a fragment")
    return f"{parts.scheme}://{parts.netloc}{_parse_path(parts.path)}"


def parse_route_prefix(text: str) -> str:
    """Return a prefix such as `/tedee` or `/`; empty if the text is. `tedee` and `/tedee/` mean `/tedee`.

    Raises:
        BadUrl: The text cannot be the beginning of a path.
    """
    return (_parse_path(f"/{text.strip('/')}") or "/") if text else ""


def parse_telemetry_path(text: str) -> str:
    """Return the path of the metrics.

    Raises:
        BadUrl: The text is not a path, or that of another endpoint.
    """
    if not _is_path(text) or "-" in text.split("/") or text == "/docs":
        raise BadUrl(f"{text!r} cannot be the path of the metrics; choose one such as /metrics")
    return text


def _parse_path(path: str) -> str:
    path = path.rstrip("/")
    if path and not _is_path(path):
        raise BadUrl("must have a path of letters, digits, '.', '_', '~' and '-', without empty parts, '.' and '..'")
    return path


def _is_path(path: str) -> bool:
    return bool(_PATH.fullmatch(path)) and not {".", ".."} & set(path.split("/"))
