"""One account's configuration in environment variables, for those who need no file."""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .section import Where
from .settings import Account
from .source import Source


class NotConfigured(Exception):
    """There is neither a file nor a key in the environment."""


ENVIRONMENT: dict[str, Where] = {
    "TEDEE_PERSONAL_KEY": ("accounts", 0, "personal_key"),
    "TEDEE_PERSONAL_KEY_FILE": ("accounts", 0, "personal_key_file"),
    "TEDEE_ACCESS_TOKEN": ("accounts", 0, "access_token"),
    "TEDEE_ACCESS_TOKEN_FILE": ("accounts", 0, "access_token_file"),
    "TEDEE_ACCOUNT": ("accounts", 0, "name"),
    "TEDEE_API_URL": ("api", "url"),
    "TEDEE_API_VERSION": ("api", "version"),
    "TEDEE_SYNC_INTERVAL": ("sync", "interval"),
    "TEDEE_STATE_FILE": ("state_file",),
}
"""The variables that make up one account's configuration where there is no file."""
DEFAULT_ACCOUNT = "default"


def read_environment(environ: Mapping[str, str]) -> Source:
    """Read the variables of ENVIRONMENT. An empty one counts as not set.

    Raises:
        NotConfigured: none of them holds or names a credential.
    """
    given = {variable: path for variable, path in ENVIRONMENT.items() if environ.get(variable)}
    if not any(path[-1] in Account.SECRETS for path in given.values()):
        raise NotConfigured
    account: dict[str, str] = {"name": DEFAULT_ACCOUNT}
    data: dict[str, Any] = {"api": {}, "sync": {}, "accounts": [account]}
    places: dict[Where, str] = {("accounts", 0): "environment"}
    for variable, path in given.items():
        section = account if path[0] == "accounts" else data.get(str(path[0]), data)
        section[str(path[-1])] = environ[variable]
        places[path] = f"environment: {variable}"
    return Source(data, places, variables={path: variable for variable, path in ENVIRONMENT.items()})


def default_state_file(environ: Mapping[str, str]) -> Path:
    """Where the operating system wants such a file: in systemd's StateDirectory, or in the XDG state directory."""
    if folder := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(folder) / "state.db"
    home = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or _home(), ".local", "state")
    return Path(home, "tedee-exporter", "state.db")


def _home() -> str:
    """Of the user of this process, who may be one that the system does not know."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/nonexistent"
