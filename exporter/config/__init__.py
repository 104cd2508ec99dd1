"""Loads validated settings from a YAML file or the environment.

All errors are reported at once, each with its file, line and key, or with its variable.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from .environment import ENVIRONMENT, NotConfigured, default_state_file, read_environment, unused_variables
from .permissions import permission_warning, private_files
from .settings import AccessToken, Account, Api, Devices, Events, LockSelection, OAuth, PersonalKey, Settings, Sync
from .shard import BadShard, Shard
from .source import ConfigurationError, Source

__all__ = [
    "ENVIRONMENT",
    "AccessToken",
    "Account",
    "Api",
    "BadShard",
    "ConfigurationError",
    "Devices",
    "Events",
    "LockSelection",
    "NotConfigured",
    "OAuth",
    "PersonalKey",
    "Settings",
    "Shard",
    "Source",
    "Sync",
    "default_state_file",
    "load",
    "unused_variables",
]

log = structlog.get_logger(__name__)


def load(
    config_file: Path | None,
    environ: Mapping[str, str] = os.environ,
    *,
    check_secrets: bool = False,
    warn: Callable[[str], object] | None = None,
    is_reload: bool = False,
) -> Settings:
    """Load the settings from a file, or from the environment if there is no file.

    Warn about variables without effect, secret files that other users can access, and files of refresh tokens that
    could not be replaced.

    Args:
        config_file: YAML file.
        environ: Environment variables, used if there is no file.
        check_secrets: Also report secret files that cannot be used now. A running exporter reads them at each call,
            so an unusable file fails the syncs of one account and does not prevent the start.
        warn: Called with each warning. By default it is logged.
        is_reload: Whether this is a reload, for which the file must be a regular file.

    Raises:
        ConfigurationError: The configuration cannot be used.
        NotConfigured: There is no file, and no key in the environment.
    """
    warn = warn or log.warning
    if config_file:
        from .yaml_source import read_file  # noqa: PLC0415  (PyYAML takes 0.9 MiB)

        source = read_file(config_file, is_reload=is_reload)
    else:
        source = read_environment(environ)
    for problem in unused_variables(environ, "--config.file" if config_file else ""):
        warn(problem)
    settings = source.validated(Settings, check_secrets=check_secrets)
    problems = [permission_warning(file) for file in private_files(settings, config_file, environ)]
    if settings.events.interval != Events().interval and not settings.events.enabled:
        problems.append("events.interval: has no effect unless events.enabled is true")
    problems += [account.expiry_warning(time.time()) for account in settings.accounts]
    if not check_secrets:
        problems += [account.oauth.storage_problem() for account in settings.accounts if account.oauth]
    for problem in filter(None, problems):
        warn(problem)
    return settings
