"""The file of a refresh token, with storage that is reserved before the token is used.

Tedee replaces a refresh token at each use: the token that was sent is invalid before its successor has arrived. Whether
the successor can be stored has to be certain before the request is sent. `reserve` makes it certain in one of two ways:

- A copy of the token's file, extended to ROOM bytes by line feeds, is written next to it and synced. The successor
  overwrites these bytes, and the copy is renamed to the token's file. A reader sees the old file or the new one.
- If that is impossible (a read-only folder, or a file that is mounted on its own, to which a rename fails with EBUSY),
  the file itself is extended and synced, and the successor overwrites all of it in one write. Owner and mode stay as
  they are.

`read_secret` strips line feeds, so an extended file is as good as another. It is truncated after the successor is safe.

What an interruption by kill -9 or a power loss costs:

- Before the request is sent: nothing. A copy may remain, which a later exchange removes, or the line feeds.
- From the request until the response has arrived: the sign-in, if Tedee has received the request. The successor is at
  Tedee or on the wire, and nothing on this side can prevent that.
- From the response until the write and the rename, which follow at once: the sign-in. The successor is in memory only.
- After that, kill -9 costs nothing. A power loss may cost the sign-in until the file is synced, a moment later: the
  file has the old token or the new one, or in place, if a token is larger than a sector of the disk, a part of each.

A copy-on-write file system (btrfs, ZFS) that fills up during the exchange may refuse to overwrite bytes that it has
reserved. The successor is then in memory only, as after any failure of the disk.
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

from .credentials import MAX_SECRET_BYTES

ROOM = MAX_SECRET_BYTES
"""Bytes that are reserved: no token is longer."""
SUFFIX = ".successor"
"""End of the copies' names."""
LEFTOVER_AGE = 3600.0
"""Seconds after which a copy is one of a process that was killed. An exchange takes five minutes at most."""

ADVICE = (
    "let the exporter's user write the folder of the file, or the file itself if it is mounted on its own, and leave "
    "some space; a Kubernetes or Docker secret is read-only: copy its token to a volume and name that file"
)
"""What to do if a token cannot be stored."""


class CannotStore(Exception):
    """A refresh token cannot be stored. The text names the file and never the token."""


class Reservation(Protocol):
    """Storage for one refresh token."""

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Keep other exporters from writing the file in place."""
        ...

    def write(self, token: Secret) -> None:
        """Write the token into its file.

        Raises:
            OSError: It is not certain that the file has the token.
        """
        ...

    def release(self) -> None:
        """Free what has been reserved and not been used."""
        ...


def reserve(path: Path) -> Reservation:
    """Reserve storage for the successor of the token in a file.

    Raises:
        CannotStore: A successor could not be stored.
    """
    return _reserve(path, probe=False)


def problem_with(path: Path) -> str | None:
    """Return why a successor could not be stored, None if it could be or if the file is missing.

    The file itself is not changed.
    """
    if not os.path.exists(path):  # noqa: PTH110 - `Path.exists` raises PermissionError
        return None
    try:
        _reserve(path, probe=True).release()
    except CannotStore as error:
        return f"{error}: {ADVICE}"
    return None


def _reserve(path: Path, *, probe: bool) -> Reservation:
    target = Path(os.path.realpath(path))
    try:
        return _Replacement(target, probe=probe)
    except OSError as error:
        replacing = error
    try:
        return _InPlace(target, probe=probe)
    except OSError as in_place:
        raise CannotStore(
            f"refresh token file {safe_path(path)} can neither be replaced ({replacing.strerror}) "
            f"nor be written in place ({in_place.strerror})"
        ) from None


class _Replacement:
    """A copy of the token's file, to be renamed to it. It is readable for the process's user alone."""

    def __init__(self, target: Path, *, probe: bool) -> None:
        _check_rename(target)
        prefix = f".{target.name}."
        self._target = target
        self._written: bytes | None = None
        self._descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=SUFFIX, dir=target.parent)
        self._path = Path(name)
        try:
            content = b"" if probe else _content(target)
            _write_all(self._descriptor, content.ljust(ROOM, b"\n"))
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
        _write_all(self._descriptor, content.ljust(ROOM, b"\n"))
        try:
            # Before the sync, which may take seconds: a process that is killed from here on leaves the new token.
            self._path.replace(self._target)
        except OSError as error:
            self._write_in_place(token, error)
            return
        self._written = content
        os.fsync(self._descriptor)
        # Some file systems cannot sync folders; the file is replaced all the same.
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
            _shrink(self._descriptor, self._written)
        os.close(self._descriptor)

    def _write_in_place(self, token: Secret, error: OSError) -> None:
        """Write the token in place after a rename that failed unforeseen."""
        try:
            # On a full disk, the file has to grow into these bytes.
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
        """Remove the copies that processes have left that were killed during an exchange."""
        oldest = os.fstat(self._descriptor).st_mtime - LEFTOVER_AGE
        with contextlib.suppress(OSError):
            for path in self._target.parent.iterdir():
                if path.name.startswith(prefix) and path.name.endswith(SUFFIX) and path.stat().st_mtime < oldest:
                    path.unlink()


class _InPlace:
    """The token's file itself, extended for as long as a successor is awaited."""

    def __init__(self, target: Path, *, probe: bool) -> None:
        self._target = target
        self._written: bytes | None = None
        self._descriptor = os.open(target, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        try:
            if not probe:
                self._extend()
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
        _write_all(self._descriptor, content.ljust(ROOM, b"\n"))
        self._written = content
        os.fsync(self._descriptor)

    def release(self) -> None:
        if self._written is not None:
            with self.exclusive():
                _shrink(self._descriptor, self._written)
        os.close(self._descriptor)

    def _extend(self) -> None:
        with self.exclusive():
            # The file as it is to be after the exchange, if no successor is written.
            self._written = os.pread(self._descriptor, ROOM, 0)
            # Appended, whatever a person writes meanwhile: O_APPEND makes Linux ignore the offset.
            _write_all(self._descriptor, b"\n" * (ROOM - len(self._written)))
        os.fsync(self._descriptor)
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_APPEND)


def _line(token: Secret) -> bytes:
    return f"{token.get_secret_value()}\n".encode("ascii")[:ROOM]


def _content(path: Path) -> bytes:
    """Return the content of a token's file, nothing if it is missing."""
    with contextlib.suppress(FileNotFoundError):
        return read_regular_file(path, ROOM) or b""
    return b""


def _write_all(descriptor: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)


def _shrink(descriptor: int, content: bytes) -> None:
    """Remove the line feeds that follow a file's content, unless something else has been written into it."""
    with contextlib.suppress(OSError):
        now = os.pread(descriptor, ROOM, 0)
        if len(now) > len(content) and now.rstrip(b"\n") == content.rstrip(b"\n"):
            os.ftruncate(descriptor, len(content))


def _check_rename(target: Path) -> None:
    """Check what a rename to a file requires in addition to the permission to create files in its folder.

    Raises:
        OSError: The rename would fail.
    """
    try:
        file, folder = target.stat(), target.parent.stat()
    except FileNotFoundError:
        return
    if folder.st_mode & stat.S_ISVTX and os.geteuid() not in {file.st_uid, folder.st_uid}:
        raise OSError(errno.EPERM, "the file is another user's, in a sticky folder")
    if _is_mount_point(target):
        raise OSError(errno.EBUSY, "the file is a mount point")


def _is_mount_point(path: Path) -> bool:
    """Return whether something is mounted at a path; `os.path.ismount` does not see a bind mount of a file."""
    escaped = os.fsencode(path)
    for char in (b"\\", b" ", b"\t", b"\n"):
        escaped = escaped.replace(char, b"\\%03o" % ord(char))
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes().split(b"\n")
    except OSError:
        return False
    # proc(5): the fifth field is the mount point.
    return any(mount.split(b" ")[4:5] == [escaped] for mount in mounts)
