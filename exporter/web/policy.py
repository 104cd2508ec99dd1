"""What the web configuration demands of requests and responses."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from exporter.secrets import Secret


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket of `burst` requests that gains one each `interval` in seconds. An interval of 0 disables it."""

    interval: float = 0.0
    burst: int = 0


@dataclass(frozen=True, slots=True)
class SecurityPolicy:
    """TLS, passwords, headers and rate limit of the web server."""

    tls: ssl.SSLContext | None = None
    client_sans: frozenset[str] = frozenset()
    """A client's certificate must have one of these names; any certificate is accepted if it is empty."""
    users: Mapping[str, Secret] = field(default_factory=dict)
    """User name to bcrypt hash; no password is required if it is empty."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of every response."""
    rate_limit: RateLimit = RateLimit()


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """The policy of a web configuration that was read."""

    security_policy: SecurityPolicy
    warnings: tuple[str, ...]
    """Settings that are insecure or have no effect."""
    files: Mapping[Path, bytes]
    """Content of the files that were read, to detect changes."""
