"""The file of a refresh token, with storage that is preallocated before the token is used.

Tedee replaces a refresh token at each use: the token that was sent is invalid before the new one is received. It must
therefore be certain before the request that the new token can be stored. `preallocate` ensures this in one of two ways:

- It writes a copy of the token's file next to it, padded with line feeds to PREALLOCATED_BYTES, and syncs it. The new
  token overwrites these bytes, and the copy is renamed to the token's file. A reader sees the old file or the new one.
- If that is impossible (a read-only folder, or a file that is a mount point, where a rename fails with EBUSY), it pads
  and syncs the file itself, and the new token overwrites all of it in one write. Owner and mode do not change.

`read_secret` strips line feeds, so a padded file is valid. It is truncated after the new token has been stored.

Consequences of an interruption by kill -9 or a power loss:

- Before the request is sent: none. A copy, which a later exchange removes, or the padding may remain.
- From the request until the response is received: the user must sign in again if Tedee has received the request. The
  exporter cannot prevent this.
- From the response until the write and the rename, which follow immediately: the user must sign in again. The new token
  is in memory only.
- After that: none for kill -9. A power loss may require a sign-in until the file is synced, a moment later: the file
  has the old token or the new one or, in place and with tokens larger than a disk sector, a part of each.

A copy-on-write file system (btrfs, ZFS) that fills up during the exchange may refuse to overwrite preallocated bytes.
The new token is then in memory only, as after any disk failure.
"""

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from exporter.secrets import Secret, read_regular_file, safe_path
from exporter.tedee.secret_source import MAX_SECRET_BYTES

PREALLOCATED_BYTES = MAX_SECRET_BYTES
"""Size of the preallocated storage, which is the maximum size of a token."""
SUFFIX = ".successor"
"""Suffix of the names of copies."""
LEFTOVER_AGE = 3600.0
"""Seconds after which a copy must be that of a killed process. An exchange takes at most five minutes."""

ADVICE = (
    "make the folder of the file writable for the exporter's user, or the file itself if it is mounted on its own, and "
    "free some disk space; a Kubernetes or Docker secret is read-only: copy its token to a volume and use that file"
)
"""Advice for errors if a token cannot be stored."""


class CannotStore(Exception):
    """A refresh token cannot be stored. The text names the file and never contains the token."""


class Preallocation(Protocol):
    """Preallocated storage for one refresh token."""

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Prevent other exporters from writing the file in place until the context ends."""
        ...

    def write(self, token: Secret) -> None:
        """Write the token into its file.

        Raises:
            OSError: The file may not contain the token.
        """
        ...

    def release(self) -> None:
        """Free storage that was not used."""
        ...


def preallocate(path: Path) -> Preallocation:
    """Preallocate storage for the token that will replace the one in a file.

    Raises:
        CannotStore: A new token could not be stored.
    """
    return _preallocate(path, probe=False)


def storage_problem(path: Path) -> str | None:
    """Return an error message if a new token could not be stored; None if it could, or if the file is missing.

    The file is not changed.
    """
    if not os.path.exists(path):  # noqa: PTH110 - `Path.exists` raises PermissionError
        return None
    try:
        _preallocate(path, probe=True).release()
    except CannotStore as error:
        return f"{error}: {ADVICE}"
    return None


def _preallocate(path: Path, *, probe: bool) -> Preallocation:
    target = Path(os.path.realpath(path))
    try:
        return _Replacement(target, probe=probe)
    except OSError as error:
        replace_error = error
    try:
        return _InPlace(target, probe=probe)
    except OSError as in_place_error:
        raise CannotStore(
            f"refresh token file {safe_path(path)} can neither be replaced ({replace_error.strerror}) "
            f"nor be written in place ({in_place_error.strerror})"
        ) from None


class _Replacement:
    """A copy of the token's file, to be renamed to it. Only the process's user can read it."""

    def __init__(self, target: Path, *, probe: bool) -> None:
        _check_rename(target)
        prefix = f".{target.name}."
        self._target = target
        self._written: bytes | None = None
        self._descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=SUFFIX, dir=target.parent)
        self._path = Path(name)
        try:
            content = b"" if probe else _content(target)
            _write_all(self._descriptor, content.ljust(PREALLOCATED_BYTES, b"\n"))
            if not probe:
                os.fsync(self._descriptor)
                self._remove_leftovers(prefix)
        except BaseException:
            self.release()
            raise

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def write(self, token: Secret) -> None:
        content = _line(token)
        _write_all(self._descriptor, content.ljust(PREALLOCATED_BYTES, b"\n"))
        try:
            # Before the sync, which may take seconds: the new token survives if the process is killed after this.
            self._path.replace(self._target)
        except OSError as error:
            self._write_in_place(token, error)
            return
        self._written = content
        os.fsync(self._descriptor)
        # Some file systems cannot sync folders. The file has been replaced anyway.
        with contextlib.suppress(OSError):
            folder = os.open(self._target.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def release(self) -> None:
        if self._written is None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        else:
            _truncate_padding(self._descriptor, self._written)
        os.close(self._descriptor)

    def _write_in_place(self, token: Secret, error: OSError) -> None:
        """Write the token in place after a rename has failed unexpectedly."""
        try:
            # On a full disk, the file needs these bytes to grow.
            os.ftruncate(self._descriptor, 0)
            file = _InPlace(self._target, probe=False)
        except OSError:
            raise error from None
        try:
            with file.exclusive():
                file.write(token)
        finally:
            file.release()

    def _remove_leftovers(self, prefix: str) -> None:
        """Remove the copies of processes that were killed during an exchange."""
        oldest = os.fstat(self._descriptor).st_mtime - LEFTOVER_AGE
        with contextlib.suppress(OSError):
            for path in self._target.parent.iterdir():
                if path.name.startswith(prefix) and path.name.endswith(SUFFIX) and path.stat().st_mtime < oldest:
                    path.unlink()


class _InPlace:
    """The token's file itself, padded during an exchange."""

    def __init__(self, target: Path, *, probe: bool) -> None:
        self._target = target
        self._written: bytes | None = None
        self._descriptor = os.open(target, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        try:
            if not probe:
                self._pad()
        except BaseException:
            self.release()
            raise

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        # Some file systems cannot lock.
        with contextlib.suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def write(self, token: Secret) -> None:
        if not os.path.samestat(os.fstat(self._descriptor), self._target.stat()):
            raise OSError(errno.ESTALE, "the file was replaced")
        content = _line(token)
        _write_all(self._descriptor, content.ljust(PREALLOCATED_BYTES, b"\n"))
        self._written = content
        os.fsync(self._descriptor)

    def release(self) -> None:
        if self._written is not None:
            with self.exclusive():
                _truncate_padding(self._descriptor, self._written)
        os.close(self._descriptor)

    def _pad(self) -> None:
        with self.exclusive():
            # The content to restore after the exchange if no new token is written.
            self._written = os.pread(self._descriptor, PREALLOCATED_BYTES, 0)
            # O_APPEND makes Linux ignore the offset, so nothing that the user writes meanwhile is overwritten.
            _write_all(self._descriptor, b"\n" * (PREALLOCATED_BYTES - len(self._written)))
        os.fsync(self._descriptor)
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_APPEND)


def _line(token: Secret) -> bytes:
    return f"{token.get_secret_value()}\n".encode("ascii")[:PREALLOCATED_BYTES]


def _content(path: Path) -> bytes:
    """Return the content of a token's file; empty if it is missing."""
    with contextlib.suppress(FileNotFoundError):
        return read_regular_file(path, PREALLOCATED_BYTES) or b""
    return b""


def _write_all(descriptor: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)


def _truncate_padding(descriptor: int, content: bytes) -> None:
    """Remove the padding after the content of a file, unless the file has been changed."""
    with contextlib.suppress(OSError):
        now = os.pread(descriptor, PREALLOCATED_BYTES, 0)
        if len(now) > len(content) and now.rstrip(b"\n") == content.rstrip(b"\n"):
            os.ftruncate(descriptor, len(content))


def _check_rename(target: Path) -> None:
    """Check the requirements of a rename to a file other than the permission to create files in its folder.

    Raises:
        OSError: The rename would fail.
    """
    try:
        file, folder = target.stat(), target.parent.stat()
    except FileNotFoundError:
        return
    if folder.st_mode & stat.S_ISVTX and os.geteuid() not in {file.st_uid, folder.st_uid}:
        raise OSError(errno.EPERM, "the file belongs to another user, in a sticky folder")
    if _is_mount_point(target):
        raise OSError(errno.EBUSY, "the file is a mount point")


def _is_mount_point(path: Path) -> bool:
    """Return True if a path is a mount point. `os.path.ismount` does not detect a bind mount of a file."""
    escaped = os.fsencode(path)
    for char in (b"\\", b" ", b"\t", b"\n"):
        escaped = escaped.replace(char, b"\\%03o" % ord(char))
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes().split(b"\n")
    except OSError:
        return False
    # proc(5): the fifth field is the mount point.
    return any(mount.split(b" ")[4:5] == [escaped] for mount in mounts)
