"""The web configuration, which is read again when a file changes."""

import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from exporter.config import ConfigurationError
from exporter.secrets import read_regular_file

from .policy import LoadedPolicy, SecurityPolicy

log = structlog.get_logger(__name__)


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
        self._loaded = _load(path) if path else LoadedPolicy(SecurityPolicy(), (), {})
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
            self._loaded = _load(path, is_reload=path in self._loaded.files)
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


def _load(path: Path, *, is_reload: bool = False) -> LoadedPolicy:
    # Processes without this file do not need this import.
    from .configuration_file import load_web_configuration  # noqa: PLC0415

    return load_web_configuration(path, is_reload=is_reload)
