"""Reads the web configuration, and reads it again when a file changes."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from exporter.config import ConfigurationError
from exporter.config.permissions import permission_warning
from exporter.secrets import read_regular_file

from .settings import SecurityPolicy, WebSettings
from .tls import DEPRECATED_VERSIONS, UnusableTls

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """The result of reading a web configuration."""

    security_policy: SecurityPolicy
    warnings: tuple[str, ...]
    """Settings that are insecure or have no effect."""
    files: Mapping[Path, bytes]
    """Content of the files that were read, to detect changes."""


def load_web_configuration(path: Path, *, is_reload: bool = False) -> LoadedFile:
    """Read the file and the files that it names.

    Args:
        path: Path of the file.
        is_reload: True if the file was read before and was regular. Reading another kind of file might never end.

    Raises:
        ConfigurationError: With all errors in the files.
    """
    from exporter.config.yaml_source import read_file  # noqa: PLC0415  (PyYAML takes 0.9 MiB)

    # A file that is being written is empty for a moment. It must not disable TLS and passwords.
    source = read_file(path, may_be_empty=not is_reload, is_reload=is_reload)
    settings = source.validated(WebSettings)
    tls = settings.tls_server_config
    try:
        context = tls.context() if tls else None
    except UnusableTls as error:
        key = f"{error.key}_file" if getattr(tls, f"{error.key}_file", None) else error.key
        raise ConfigurationError([source.format_error(("tls_server_config", key), str(error))]) from None
    policy = SecurityPolicy(
        context,
        frozenset(tls.client_allowed_sans if tls else ()),
        settings.basic_auth_users or {},
        settings.http_server_config.headers,
        settings.rate_limit,
    )
    pems = [tls.cert_file, tls.key_file, tls.client_ca_file] if tls else []
    files = {path: source.content} | {pem.file: pem.content for pem in pems if pem and pem.file}
    # A file that is not regular, such as <(…) of a shell, can be read only once. Its changes are not detected.
    regular = os.path.isfile(path)  # noqa: PTH113  (never raises)
    return LoadedFile(policy, tuple(_warnings(settings, path)), files if regular else {})


def _warnings(settings: WebSettings, path: Path) -> Iterator[str]:
    """Yield a warning for each setting that is insecure or has no effect."""
    tls, http = settings.tls_server_config, settings.http_server_config
    if http.http2:
        yield f"{path}: http_server_config.http2: HTTP/2 is not supported; clients use HTTP/1.1 instead"
    if tls and tls.min_version in DEPRECATED_VERSIONS:
        key = f"{path}: tls_server_config.min_version"
        yield f"{key}: {tls.min_version} is deprecated (RFC 8996); TLS12 is used instead"
    if settings.basic_auth_users and not tls:
        yield f"{path}: basic_auth_users without tls_server_config: passwords are sent unencrypted"
    secret_files = [tls.key_file.file] if tls and tls.key_file and tls.key_file.file else []
    if settings.basic_auth_users or (tls and tls.key):
        secret_files.append(path)
    yield from filter(None, map(permission_warning, secret_files))


class WebConfiguration:
    """The web configuration. It is reloaded if the file, or a file that it names, changes."""

    def __init__(self, path: Path | None, warn: Callable[[str], object] | None = None) -> None:
        """Read the file.

        Args:
            path: Path of the file, or None for no TLS and no passwords.
            warn: Receives the warnings about the file; they are logged by default.

        Raises:
            ConfigurationError: With all errors in the file.
        """
        self._path = path
        self._warn = warn or log.warning
        self._loaded = load_web_configuration(path) if path else LoadedFile(SecurityPolicy(), (), {})
        self._report_warnings()
        self._problems: list[str] = []
        self._lock = threading.Lock()

    @property
    def security_policy(self) -> SecurityPolicy:
        """The current security policy."""
        return self._loaded.security_policy

    def reload_if_changed(self) -> list[str]:
        """Reload the configuration if a file has changed. Returns the errors; if there are any, nothing changes."""
        with self._lock:
            if self._path and (self._problems or self._changed()):
                self._load(self._path)
            return self._problems

    def _changed(self) -> bool:
        # Modification times are not reliable: a copy may preserve them, and a Kubernetes Secret may set them back.
        try:
            return any(
                read_regular_file(file, len(content) + 1) != content for file, content in self._loaded.files.items()
            )
        except OSError:
            return True

    def _load(self, path: Path) -> None:
        before = self._loaded.security_policy
        try:
            self._loaded = load_web_configuration(path, is_reload=path in self._loaded.files)
        except ConfigurationError as error:
            if error.problems != self._problems:
                for problem in error.problems:
                    log.error("web configuration not reloaded; the previous one stays in use", error=problem)
            self._problems = error.problems
        else:
            self._problems = []
            log.info("web configuration reloaded")
            if before.tls and not self.security_policy.tls:
                log.warning("TLS is now disabled: the web configuration no longer has tls_server_config")
            if before.users and not self.security_policy.users:
                log.warning("passwords are now disabled: the web configuration no longer has basic_auth_users")
            self._report_warnings()

    def _report_warnings(self) -> None:
        for warning in self._loaded.warnings:
            self._warn(warning)
