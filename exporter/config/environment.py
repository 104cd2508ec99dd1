"""Configuration of one account by environment variables, without a file."""

import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import fields

from exporter.fields import KeyPath
from exporter.typos import close_match

from .model import ConfigModel
from .settings import Account, Settings
from .source import Source


class NotConfigured(Exception):
    """There is neither a file nor a key in the environment. The arguments are messages about similar variables."""


ENVIRONMENT: dict[str, KeyPath] = {
    "TEDEE_PERSONAL_KEY": ("accounts", 0, "personal_key"),
    "TEDEE_PERSONAL_KEY_FILE": ("accounts", 0, "personal_key_file"),
    "TEDEE_ACCESS_TOKEN": ("accounts", 0, "access_token"),
    "TEDEE_ACCESS_TOKEN_FILE": ("accounts", 0, "access_token_file"),
    "TEDEE_ACCOUNT": ("accounts", 0, "name"),
    "TEDEE_API_URL": ("api", "url"),
    "TEDEE_API_VERSION": ("api", "version"),
    "TEDEE_PERSONAL_KEY_EXPIRES": ("accounts", 0, "expires"),
    "TEDEE_SYNC_INTERVAL": ("sync", "interval"),
    "TEDEE_DEVICES_INTERVAL": ("devices", "interval"),
    "TEDEE_EVENTS": ("events", "enabled"),
    "TEDEE_STATE_FILE": ("state_file",),
    "TEDEE_STATE_URL": ("state_url",),
    "TEDEE_STATE_URL_FILE": ("state_url_file",),
}
"""The variables that configure one account, each with the key path of its value."""
DEFAULT_ACCOUNT = "default"


def read_environment(environ: Mapping[str, str]) -> Source:
    """Read the variables of ENVIRONMENT. An empty variable counts as not set.

    Raises:
        NotConfigured: No variable has a credential or the name of its file.
    """
    given = {variable: path for variable, path in ENVIRONMENT.items() if environ.get(variable)}
    if not any(path[-1] in Account.SECRETS for path in given.values()):
        raise NotConfigured(*unused_variables(environ))
    account: dict[str, str] = {"name": DEFAULT_ACCOUNT}
    data: dict[str, Any] = {"api": {}, "sync": {}, "devices": {}, "events": {}, "accounts": [account]}
    locations: dict[KeyPath, str] = {("accounts", 0): "environment"}
    for variable, path in given.items():
        parent = account if path[0] == "accounts" else data.get(str(path[0]), data)
        parent[str(path[-1])] = environ[variable]
        locations[path] = f"environment: {variable}"
    return Source(data, locations, variables={path: variable for variable, path in ENVIRONMENT.items()})


def unused_variables(environ: Mapping[str, str], flag: str = "") -> list[str]:
    """Return a message about each TEDEE_* variable that has no effect, without its value.

    Args:
        environ: Environment variables. An empty variable counts as not set.
        flag: The flag that replaces the environment as the configuration. Empty if there is none.
    """
    messages = []
    for name, value in environ.items():
        if not value or not re.fullmatch(r"(?i)TEDEE_[\w.-]+", name, re.ASCII):
            continue
        if name not in ENVIRONMENT:
            if not _is_service_link(name, value):
                messages.append(f"environment: {name}: unknown variable; {_variable_suggestion(name)}")
        elif flag:
            messages.append(f"environment: {name}: has no effect with {flag}")
    return messages


def _is_service_link(name: str, value: str) -> bool:
    """Return True if Kubernetes or Docker sets this variable for a Service or container named tedee or tedee-…."""
    return bool(
        re.fullmatch(r"TEDEE(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?|ENV_\w+)", name)
        or (name.endswith("_PORT") and "://" in value)
        or (name.endswith("_NAME") and value.startswith("/"))
    )


def _variable_suggestion(name: str) -> str:
    section, _, key = name.lower().removeprefix("tedee_").partition("_")
    model = next((each.default for each in fields(Settings) if each.name == section), None)
    if isinstance(model, ConfigModel) and key in model.__struct_fields__:
        return f"a configuration file has this option: {key} below {section}"
    name = name.upper()
    if credential := re.search("(KEY|TOKEN)_?(FILE)?$", name):
        kind = {"KEY": "TEDEE_PERSONAL_KEY", "TOKEN": "TEDEE_ACCESS_TOKEN"}[credential[1]]
        return f"did you mean {kind}{'_FILE' if credential[2] else ''}?"
    suffix = name.removeprefix("TEDEE")
    ending = next((known for known in ENVIRONMENT if known.endswith(suffix)), None)
    close = ending or close_match(name, ENVIRONMENT, cutoff=0.7)
    return f"did you mean {close}?" if close else f"known variables: {', '.join(ENVIRONMENT)}"


def default_state_file(environ: Mapping[str, str]) -> Path:
    """Return the default path: in systemd's StateDirectory, otherwise in the XDG state directory."""
    if folder := environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(folder) / "state.db"
    base = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or _home(), ".local", "state")
    return Path(base, "tedee-exporter", "state.db")


def _home() -> str:
    """Return the home directory of the user of this process, or a missing one if the system does not know the user."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/nonexistent"
