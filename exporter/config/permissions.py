"""Files that are nobody else's business: whether others may read or write them after all, and what to do about that."""

import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

from .environment import default_state_file
from .settings import OAuth, Settings

OPEN = stat.S_IRWXO | stat.S_IWGRP
"""What only the owner may do. A group may read: that is how Kubernetes hands a file to a process (`fsGroup`)."""


def private_files(settings: Settings, config_file: Path | None, environ: Mapping[str, str]) -> list[Path]:
    """Every file that holds a secret of these settings, or the locks' names and states; each once."""
    files: list[Path | None] = []
    for account in settings.accounts:
        _, secret = account.credential
        if isinstance(secret, OAuth):
            files += [secret.client_secret_file, secret.refresh_token_file]
        else:
            # A key itself stands in the configuration file, or else in the environment.
            files.append(secret if isinstance(secret, Path) else config_file)
    state_file = settings.state_file or default_state_file(environ)
    files += [Path(f"{state_file}{part}") for part in ("", "-journal")]
    return list(dict.fromkeys(filter(None, files)))


def too_open(path: Path) -> str | None:
    """What is wrong with the mode of a file that is not for others, and what to do; None where it is fine.

    A link is followed, its own mode means nothing. A file that cannot be looked at is told by whoever reads it.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if not stat.S_ISREG(mode) or not mode & OPEN:
        return None
    how = "is open to all users" if mode & stat.S_IRWXO else "can be written by its group"
    return f"{path} {how} (mode {stat.S_IMODE(mode):04o}); run: chmod g-w,o= {shlex.quote(str(path))}"
