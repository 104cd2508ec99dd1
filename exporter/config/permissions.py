"""Checks that files with secrets are not accessible to other users."""

import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

from .environment import default_state_file
from .model import has_password
from .settings import AccessToken, OAuth, PersonalKey, Settings

FORBIDDEN_MODE = stat.S_IRWXO | stat.S_IWGRP
"""Permissions that a private file must not have. The group may read: Kubernetes passes files that way (`fsGroup`)."""


def private_files(settings: Settings, config_file: Path | None, environ: Mapping[str, str]) -> list[Path]:
    """Return the files that contain a secret of these settings, or names and states of locks, without duplicates."""
    files: list[Path | None] = []
    for account in settings.accounts:
        match account.credential:
            case OAuth(client_secret_file=client_secret_file, refresh_token_file=refresh_token_file):
                files += [client_secret_file, refresh_token_file]
            case PersonalKey(source) | AccessToken(source):
                # An inline key is in the configuration file, or in the environment.
                files.append(source if isinstance(source, Path) else config_file)
    if settings.state_url_file:
        files.append(settings.state_url_file)
    elif settings.state_url:
        files += [config_file] if has_password(settings.state_url) else []
    else:
        state_file = settings.state_file or default_state_file(environ)
        files += [Path(f"{state_file}{part}") for part in ("", "-journal")]
    return list(dict.fromkeys(filter(None, files)))


def permission_warning(path: Path) -> str | None:
    """Return a warning with a remedy if other users can access a private file, otherwise None.

    Symbolic links are followed. A file that cannot be inspected is ignored here: reading it reports the error.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if not stat.S_ISREG(mode) or not mode & FORBIDDEN_MODE:
        return None
    problem = "is accessible to all users" if mode & stat.S_IRWXO else "is writable by its group"
    remedy = f"run: chmod g-w,o= {shlex.quote(str(path))}"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        # Secrets of containers are such files.
        remedy = "its mount is read-only, so change the mode of its source"
    return f"{path} {problem} (mode {stat.S_IMODE(mode):04o}); {remedy}"
