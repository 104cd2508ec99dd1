"""Configuration: a YAML file, or the environment, to validated settings.

Whatever is wrong is told at once, each with its file, line and key, or with its variable.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from .environment import ENVIRONMENT, NotConfigured, read_environment
from .settings import Account, Api, ChosenLocks, OAuth, Settings, Sync
from .source import ConfigurationError, read_file

__all__ = [
    "ENVIRONMENT",
    "Account",
    "Api",
    "ChosenLocks",
    "ConfigurationError",
    "NotConfigured",
    "OAuth",
    "Settings",
    "Sync",
    "load",
]


def load(config_file: Path | None, environ: Mapping[str, str] = os.environ, *, check_secrets: bool = False) -> Settings:
    """Read the file, or without one the environment.

    Args:
        config_file: YAML.
        environ: used where there is no file.
        check_secrets: also say which files of secrets cannot be used now. A running exporter reads them at each
            call, so that for it this is one account's failed sync and no reason not to start.

    Raises:
        ConfigurationError: it cannot be used.
        NotConfigured: there is no file and no key in the environment.
    """
    source = read_file(config_file) if config_file else read_environment(environ)
    return source.validated(Settings, check_secrets=check_secrets)
