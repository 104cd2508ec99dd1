"""Configuration: a YAML file, or the environment, to validated settings.

Whatever is wrong is told at once, each with its file, line and key, or with its variable.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from exporter.tedee.token_file import problem_with

from .environment import ENVIRONMENT, NotConfigured, default_state_file, read_environment, unused_variables
from .permissions import private_files, too_open
from .settings import Account, Api, ChosenLocks, OAuth, Settings, Sync
from .shard import BadShard, Shard
from .yaml_source import ConfigurationError, read_file

__all__ = [
    "ENVIRONMENT",
    "Account",
    "Api",
    "BadShard",
    "ChosenLocks",
    "ConfigurationError",
    "NotConfigured",
    "OAuth",
    "Settings",
    "Shard",
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
    again: bool = False,
) -> Settings:
    """Read the file, or without one the environment.

    Warn about variables without effect, files of secrets that are open to others, and files of refresh tokens that
    could not be replaced.

    Args:
        config_file: YAML.
        environ: used where there is no file.
        check_secrets: also say which files of secrets cannot be used now. A running exporter reads them at each
            call, so that for it this is one account's failed sync and no reason not to start.
        warn: takes what is not as it should be, but no reason not to start; it is logged by default.
        again: whether this is a reload, at which the file has to be a regular one.

    Raises:
        ConfigurationError: it cannot be used.
        NotConfigured: there is no file and no key in the environment.
    """
    warn = warn or log.warning
    source = read_file(config_file, again=again) if config_file else read_environment(environ)
    for problem in unused_variables(environ, "--config.file" if config_file else ""):
        warn(problem)
    settings = source.validated(Settings, check_secrets=check_secrets)
    problems = [too_open(file) for file in private_files(settings, config_file, environ)]
    if not check_secrets:
        problems += [problem_with(account.oauth.refresh_token_file) for account in settings.accounts if account.oauth]
    for problem in filter(None, problems):
        warn(problem)
    return settings
